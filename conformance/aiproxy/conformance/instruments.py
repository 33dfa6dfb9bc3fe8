"""Means by which scenarios bring about what they look at, and the checks that prove them.

Many a scenario asks for ``model: "auto"``, keeps to a few providers with a pool, or uses the
draft's form of a body, to see something else: whether a stream is buffered, who is asked next. At
a target that has no such means its failures would all say that once more, and blame it for what
nobody saw. So a failure at a request that uses a means stands on the check of that means.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from aiproxy.conformance.endpoint import Sent
from aiproxy.conformance.results import DEPENDENCY, Finding, Status

_AUTO, _POOL, _DRAFT = "XAI-AUTO-001", "XAI-HDR-016", "XAI-COMPAT-013"
PROOFS: Final = (_AUTO, _POOL, _DRAFT)
_POOL_FIELD: Final = "x-ai-provider-pool"


def used(sent: Sent) -> tuple[str, ...]:
    """Return the checks that prove the means which a request uses."""
    return tuple(_used(sent))


def stands_on(
    finding: Finding, means: Mapping[str, tuple[str, ...]], broken: Iterable[str]
) -> Finding:
    """Return ``finding``, or that it cannot be made where it stands on one of ``broken``.

    ``means`` are those of the scenario's requests by label; a finding that names no request
    stands on all of them.
    """
    own = means.get(finding.exchange)
    proofs = own if own is not None else tuple(p for some in means.values() for p in some)
    missing = next((proof for proof in broken if proof in proofs), None)
    if finding.status is not Status.FAIL or missing is None:
        return finding
    return replace(
        finding, status=Status.NOT_TESTABLE, fact=f"{missing} is fail", expected="", found="",
        exchange="", blocks=True, cause=DEPENDENCY,
    )  # fmt: skip


def _used(sent: Sent) -> Iterator[str]:
    body = _body(sent.content)
    if body.get("model") == "auto":
        yield _AUTO
    raw = not sent.path and _POOL_FIELD.encode() in sent.content.lower()
    if raw or any(name.lower() == _POOL_FIELD for name, _ in sent.fields):
        yield _POOL
    if sent.path.endswith("/responses") and "messages" in body:
        yield _DRAFT


def _body(content: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
