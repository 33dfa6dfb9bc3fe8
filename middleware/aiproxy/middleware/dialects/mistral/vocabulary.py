"""What this dialect calls itself, and which members of a chat body it does not know."""

from typing import Final

from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "mistral"
API: Final = "Mistral"

#: Chat members that OpenAI knows and Mistral refuses; any other unknown one is passed on.
REFUSED: Final = words(
    "store safety_identifier prompt_cache_retention prompt_cache_options moderation modalities "
    "audio logit_bias web_search_options function_call functions reasoning verbosity user "
    "max_completion_tokens stream_options include background truncation max_tool_calls "
    "context_management previous_response_id conversation prompt"
)

#: Members of a message that Mistral knows besides those we write.
OF_MESSAGES: Final = words("prefix")
