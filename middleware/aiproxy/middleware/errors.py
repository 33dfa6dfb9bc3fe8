"""Everything a caller is told when a request is refused or cannot be served.

The code table (status and type of every code) is the annotation ``x-aiproxy-errors`` of the
``error`` schema; nothing here lists a code again. ``ConfigInvalid`` lives in ``config``: it is the
operator's, and never raised while serving.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson

from aiproxy.spec import schema


@cache
def _codes() -> Mapping[str, tuple[int, str]]:
    table: Mapping[str, Mapping[str, Any]] = schema("error")["x-aiproxy-errors"]
    return {
        code: (row["statuses"][0] if row["statuses"] else 502, row["type"])
        for code, row in table.items()
    }


class ProxyError(Exception):
    """A refusal or failure with its wire form.

    ``param`` is the body path (``messages[0].role``) or the header name at fault.
    ``retry_after_s`` becomes ``Retry-After`` (whole seconds, rounded up); ``should_retry`` becomes
    ``x-should-retry``, which the official SDKs obey before anything else.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        status: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        default_status, self.type = _codes()[code]
        self.code = code
        self.message = message
        self.param = param
        self.status = default_status if status is None else status
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The OpenAI error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def encode(self) -> bytes:
        return orjson.dumps(self.body())

    def response_headers(self) -> list[tuple[str, str]]:
        """Headers that belong to this error beside content type and request id."""
        found = list(self.headers)
        if self.retry_after_s is not None:
            found.append(("retry-after", str(max(1, -int(-self.retry_after_s // 1)))))
        if self.should_retry is not None:
            found.append(("x-should-retry", "true" if self.should_retry else "false"))
        return found


def bad_header(name: str, message: str, *, code: str = "invalid_header_value") -> ProxyError:
    """A fault of one X-AI header; the value itself is never echoed."""
    return ProxyError(code, f"{name}: {message}", param=name)
