"""Words of this dialect that several of its modules know."""

from typing import Final

from aiproxy.middleware.dialects.canonical import ToolKind

DIALECT: Final = "responses"

LOGPROBS: Final = "message.output_text.logprobs"

CALLS: Final[dict[str, tuple[ToolKind, str]]] = {
    "function_call": ("function", "arguments"),
    "custom_tool_call": ("custom", "input"),
}
