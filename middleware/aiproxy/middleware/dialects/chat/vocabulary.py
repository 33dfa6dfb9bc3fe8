"""What this dialect calls itself, and the members it shares with its neighbours."""

from typing import Final

from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "chat"

#: Members that mean the same here as in other OpenAI dialects, so they cross over untouched.
SHARED: Final = words(
    "store safety_identifier prompt_cache_key prompt_cache_retention "
    "prompt_cache_options moderation"
)


def is_native(source: str) -> bool:
    """Tell whether messages were written in this dialect; the draft's are."""
    return source in (DIALECT, "draft")
