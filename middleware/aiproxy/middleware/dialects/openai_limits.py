"""What OpenAI's API refuses that clients of other APIs say every day."""

from typing import Final

from aiproxy.middleware.dialects.canonical import CanonicalRequest, Loss

#: Characters; agents of Anthropic's put an account and a session into theirs.
_LONGEST_USER: Final = 64
_OPENAI: Final = frozenset({"chat", "draft", "responses", "completions"})


def effort(request: CanonicalRequest, losses: list[Loss]) -> str | None:
    """Return the reasoning effort in OpenAI's words, noting one that it has no word for."""
    if request.reasoning_effort == "max" and request.source not in _OPENAI:
        losses.append(Loss("reasoning", "the effort is sent as high"))
        return "high"
    return request.reasoning_effort


def user(request: CanonicalRequest, losses: list[Loss]) -> str | None:
    """Return who asks, noting a name that is too long to be sent."""
    named = request.user
    if named is not None and len(named) > _LONGEST_USER and request.source not in _OPENAI:
        losses.append(Loss("user", f"OpenAI takes {_LONGEST_USER} characters"))
        return None
    return named
