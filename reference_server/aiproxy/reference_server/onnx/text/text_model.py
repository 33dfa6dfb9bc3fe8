"""What a text model is apart from its weights: tokenizer, chat template, sizes, usual sampling.

A ``TextModel`` is immutable and may be shared by threads. What computes is behind ``runner.Runner``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiproxy.reference_server.onnx.errors import (
    ContextOverflow,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.text.chat_template import (
    CHARACTERS_A_TOKEN,
    USUAL_CHARACTERS_A_TOKEN,
    Conversation,
    DeclaredTemplate,
    Template,
    read_template,
)
from aiproxy.reference_server.onnx.text.generation import Sampling
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer, read_tokenizer
from aiproxy.reference_server.onnx.text.tool_calls import ToolFormat, tool_format_of

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.folders import TextFolder

NAMES_TOOLS: Final = re.compile(r"\btools\b")


@dataclass(frozen=True, slots=True)
class TextModel:
    """``context`` is tokens, prompt and answer together; ``sampling`` what counts when a request
    says nothing; ``template`` None: a base model, which takes raw prompts only; ``tool_format``
    None: it cannot call tools."""

    name: str
    context: int
    fingerprint: str
    sampling: Sampling
    tokenizer: TextTokenizer
    template: Template | None = None
    tool_format: ToolFormat | None = None

    @property
    def declared(self) -> bool:
        """Whether its prompts are all made by a declarative template, raw ones too."""
        return isinstance(self.template, DeclaredTemplate)

    def chat_prompt(self, conversation: Conversation) -> tuple[int, ...]:
        """Return the prompt of a conversation.

        Raises:
            ContextOverflow: it does not fit.
            RequestRefused: there is no template, or it does not take these messages.
        """
        if self.template is None:
            raise RequestRefused(
                "unsupported_capability",
                f"the local model {self.name} has no chat template; ask /v1/completions",
                "model",
            )
        return self._fitting(self.template.encode(conversation, self.context), "messages")

    def raw_prompt(self, text: str) -> tuple[int, ...]:
        """Return a prompt as it is, markers in it read, with the tokenizer's begin token.

        Raises:
            ContextOverflow: it does not fit.
        """
        if len(text) > self.context * CHARACTERS_A_TOKEN:
            raise overflow(self.context, len(text) // USUAL_CHARACTERS_A_TOKEN, "prompt")
        return self._fitting(self.tokenizer.encode(text, begin=True), "prompt")

    def decode(self, ids: Sequence[int], show_special: bool = False) -> str:
        return self.tokenizer.decode(ids, show_special)

    def _fitting(self, ids: Sequence[int], param: str) -> tuple[int, ...]:
        if len(ids) >= self.context:
            raise overflow(self.context, len(ids), param)
        if not ids:
            raise RequestRefused("invalid_value", f"{param} gives no token to go on from", param)
        return tuple(ids)


def overflow(limit: int, asked: int, param: str) -> ContextOverflow:
    error = ContextOverflow(limit, asked)
    error.param = param
    return error


def read_text_model(
    folder: "TextFolder", *, name: str | None = None, tool_format: str = "auto"
) -> TextModel:
    """Return the text model of a folder. ``tool_format`` is auto, hermes, llama3, mistral or none.

    Raises:
        ModelUnavailable: tokenizer or template are damaged, or need a package that is missing.
    """
    source = folder.template
    chats = folder.chat is not None or source is not None
    tokenizer = read_tokenizer(folder.tokenizer, source, guarded=chats)
    template: Template | None = None
    tools: ToolFormat | None = None
    if folder.chat is not None:
        template = read_template(folder.chat, tokenizer)
    elif source is not None:
        if NAMES_TOOLS.search(source):  # else the model would never hear of them
            tools = tool_format_of(source, tool_format, tokenizer)
        try:
            from aiproxy.reference_server.onnx.text.templates_jinja import JinjaTemplate
        except ImportError as missing:
            raise ModelUnavailable("jinja2 is missing; pip install 'aiproxy[onnx]'") from missing
        short_ids = tools is not None and tools.short_ids
        template = JinjaTemplate(source, tokenizer, folder.special, short_ids=short_ids)
    return TextModel(
        name=name or folder.name,
        context=folder.context,
        fingerprint=folder.fingerprint,
        sampling=folder.sampling,
        tokenizer=tokenizer,
        template=template,
        tool_format=tools,
    )
