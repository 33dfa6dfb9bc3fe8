"""Finish reasons: every provider's words, and the five that clients are told (XAI-COMPAT-019)."""

from typing import Final

from aiproxy.middleware.dialects.canonical import FinishReason

#: Lower-case upstream word -> ours.
FINISH_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "complete": "stop",
    "completed": "stop",
    "pause_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "repetition": "length",
    "tool_calls": "tool_calls",
    "tool_call": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "function_call",
    "content_filter": "content_filter",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "blocklist": "content_filter",
    "spii": "content_filter",
    "refusal": "content_filter",
    "language": "content_filter",
    "image_safety": "content_filter",
    "image_prohibited_content": "content_filter",
    "image_recitation": "content_filter",
    "model_armor": "content_filter",
    "error_toxic": "content_filter",
}

#: Words in the place of a finish reason that report a failure instead.
FAILED: Final = frozenset(
    {
        *("error", "error_limit", "abort", "timeout", "insufficient_system_resource"),
        *("malformed_function_call", "malformed_response"),
    }
)


def is_failure(native: object) -> bool:
    """Tell whether a finish reason says that the answer broke off."""
    return isinstance(native, str) and native.lower() in FAILED


def finish_reason(native: object, called: bool, legacy: bool = False) -> FinishReason | None:
    """Return our reason for ``native``, or ``None`` when it is empty or no text.

    ``called`` makes a plain stop into ``tool_calls``: some upstreams put the call and the stop
    in separate chunks. ``legacy``: the call used the old single ``function_call`` member.
    An unknown word is a stop: the upstream did end the answer on purpose.
    """
    if not isinstance(native, str) or not native:
        return None
    reason = FINISH_REASONS.get(native) or FINISH_REASONS.get(native.lower(), "stop")
    if called and reason in ("stop", "tool_calls", "function_call"):
        return "function_call" if legacy else "tool_calls"
    return reason
