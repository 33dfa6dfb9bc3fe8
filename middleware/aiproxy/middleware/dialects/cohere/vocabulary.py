"""What this dialect calls itself, and the words of it that clients of others may use."""

from typing import Final

from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "cohere"
API: Final = "Cohere"

#: Members of a Cohere body that no OpenAI dialect has: a chat client that writes one means it.
OWN: Final = words("documents citation_options safety_mode priority thinking")

#: Thinking tokens for each effort; above these the model's own limit is enough.
BUDGETS: Final[dict[str, int]] = {"minimal": 512, "low": 1024, "medium": 4096, "high": 16384}
