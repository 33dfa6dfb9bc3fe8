"""Stop reasons, both ways."""

from typing import Final

from aiproxy.middleware.dialects.canonical import FinishReason
from aiproxy.middleware.dialects.finish import finish_reason

_WRITTEN: Final[dict[FinishReason, str]] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_KNOWN: Final = frozenset(
    {"end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal",
     "model_context_window_exceeded"}
)  # fmt: skip
#: What a client reads where the model refused and the API says no more.
DECLINED: Final = "The model declined to answer."


def read_reason(native: object, called: bool) -> FinishReason:
    """Return our reason. A ``tool_use`` without a call is the answer tool's: a plain stop."""
    if native == "tool_use" and not called:
        return "stop"
    return finish_reason(native, called) or ("tool_calls" if called else "stop")


def write_reason(
    reason: FinishReason, native: str | None, sequence: str | None, refused: bool = False
) -> str:
    """Return the ``stop_reason``: the upstream's own word where it is one of this API."""
    if refused:
        return "refusal"
    if reason == "stop" and sequence is not None:
        return "stop_sequence"
    if native in _KNOWN and finish_reason(native, False) == reason and native != "stop_sequence":
        return native
    return _WRITTEN[reason]
