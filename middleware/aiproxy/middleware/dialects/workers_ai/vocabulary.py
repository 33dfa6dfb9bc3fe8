"""What this dialect calls itself, and what is known of the models behind it."""

from typing import Final

from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "workers_ai"
API: Final = "Workers AI"

#: Members of a Workers AI body that no OpenAI dialect has: a chat client that writes one means it.
OWN: Final = words("lora repetition_penalty chat_template_kwargs")

#: Models that take images as data URLs inside messages, by a part of their name. The older ones
#: take one picture as a list of bytes beside the messages, which has no place in a conversation.
SEEING: Final = (
    "llama-4-scout",
    "gemma-3-12b-it",
    "gemma-4-",
    "mistral-small-3.1",
    "kimi-k2.5",
    "kimi-k2.6",
    "kimi-k2.7",
)

#: Sent when the client sets no limit: without one Workers AI stops after 256 tokens.
DEFAULT_MAX_TOKENS: Final = 2048


def sees(model: str) -> bool:
    """Tell whether a model takes images in messages."""
    return any(mark in model for mark in SEEING)
