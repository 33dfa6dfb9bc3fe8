"""Request bodies against their schemas, with faults named the OpenAI way."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.errors import ProxyError
from aiproxy.spec import checker

_CODES: Final = {
    "required": "missing_required_parameter",
    "type": "invalid_type",
    "minItems": "invalid_value",
}
#: Inside an output schema the client's own keywords follow: the parameter is named, not the depth.
_OUTPUT_SCHEMAS: Final = (
    ("response_format.json_schema.schema", "response_format"),
    ("text.format.schema", "text.format"),
)


def check_body(endpoint: str, body: Mapping[str, Any]) -> None:
    """Refuse a body that its schema ``requests/<endpoint>`` refuses.

    Raises:
        ProxyError: 400, ``param`` is the path at fault (``messages[0].role``).
    """
    check = checker(f"requests/{endpoint}")
    if check.ok(body):
        return
    fault = check.first_fault(body)
    if fault is None:
        return
    code = _CODES.get(fault.keyword, "invalid_value")
    path = fault.path or "body"
    param = path
    for inside, name in _OUTPUT_SCHEMAS:
        if path.startswith((inside + ".", inside + "[")):
            code, param = "invalid_value", name
    raise ProxyError(code, f"{path}: {fault.message}.", param=param)
