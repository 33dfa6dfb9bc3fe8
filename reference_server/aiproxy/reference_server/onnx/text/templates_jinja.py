"""Chat templates in Jinja, as published models bring them, rendered the way transformers does.

A template is somebody else's program: it runs in Jinja's immutable sandbox, sees plain JSON values
only, and its work is bounded (size of the template, of what it writes, of what its operators and
namespaces build; Jinja itself bounds ``range``). What clients write stays text even where it spells
a marker. Importing this module needs jinja2.
"""

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from aiproxy.reference_server.onnx.errors import (
    ContextOverflow,
    ModelUnavailable,
    RequestRefused,
)
from aiproxy.reference_server.onnx.text.chat_template import (
    CHARACTERS_A_TOKEN,
    USUAL_CHARACTERS_A_TOKEN,
    Conversation,
    Message,
)
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer

log = logging.getLogger(__name__)

#: Characters; the longest published templates have about 20 000.
LARGEST_TEMPLATE: Final = 256_000
#: Characters or items that one operator or one namespace value of a template may have.
LARGEST_VALUE: Final = 4_000_000
#: Digits of a number a template may compute with.
LARGEST_BITS: Final = 4096
#: Characters of a template's own complaint that reach the client.
LONGEST_COMPLAINT: Final = 500
#: Where a format asks for short tool call ids, this is one.
SHORT_ID: Final = re.compile(r"[A-Za-z0-9]{9}")
#: ``%9999999d`` writes as many characters as it says.
WIDE_FORMAT: Final = re.compile(r"%[^a-zA-Z%]*(\*|\d{5})")


class JinjaTemplate:
    """A compiled template and the tokenizer that reads what it writes."""

    def __init__(
        self,
        source: str,
        tokenizer: TextTokenizer,
        special: Mapping[str, str] | None = None,
        *,
        short_ids: bool = False,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """``special`` are the tokens a template may name (``bos_token``...); ``short_ids`` rewrites
        tool call ids to nine letters and digits.

        Raises:
            ModelUnavailable: the template is too long or does not compile.
        """
        if len(source) > LARGEST_TEMPLATE:
            raise ModelUnavailable(f"the chat template has more than {LARGEST_TEMPLATE} characters")
        sandbox = Sandbox(now)
        try:
            self._template = sandbox.from_string(source)
        except TemplateSyntaxError as wrong:
            raise ModelUnavailable(
                f"the chat template does not compile (line {wrong.lineno}: {wrong.message})"
            ) from wrong
        except Exception as wrong:  # folding constants runs operators, which may fail in any way
            raise ModelUnavailable("the chat template does not compile") from wrong
        self._tokenizer = tokenizer
        self._special = dict(special or {})
        self._short_ids = short_ids

    def encode(self, conversation: Conversation, limit: int) -> list[int]:
        if conversation.characters > limit * CHARACTERS_A_TOKEN:
            raise ContextOverflow(limit, conversation.characters // USUAL_CHARACTERS_A_TOKEN)
        spelled = Spelled(self._tokenizer)
        rendered = self.render(conversation, limit, spelled)
        if spelled.texts:
            return self._tokenizer.encode_rendered(rendered, spelled.pattern, spelled.texts)
        return self._tokenizer.encode(rendered)

    def render(
        self, conversation: Conversation, limit: int, spelled: "Spelled | None" = None
    ) -> str:
        """Return the prompt as text; markers that clients spelled are hidden in ``spelled``.

        Raises:
            ContextOverflow, RequestRefused: as ``encode``.
        """
        hidden = spelled or Spelled(None)
        given = {
            **self._special,
            "messages": [
                hide(hidden, self._message(message), "messages", own=message.role == "assistant")
                for message in conversation.messages
            ],
            "tools": [hide(hidden, tool, "tools") for tool in conversation.tools] or None,
            "documents": None,
            "add_generation_prompt": True,
        }
        most, size, pieces = limit * CHARACTERS_A_TOKEN, 0, []
        try:
            for piece in self._template.generate(given):
                size += len(piece)
                if size > most:
                    raise ContextOverflow(limit, size // USUAL_CHARACTERS_A_TOKEN)
                pieces.append(piece)
        except ContextOverflow:
            raise
        except Exception as failed:  # whatever a template's operators and filters raise
            raise refusal(failed) from failed
        rendered = "".join(pieces)
        try:
            rendered.encode()
        except UnicodeEncodeError:
            message = "messages or tools hold half of a character; send valid Unicode"
            raise RequestRefused("invalid_value", message, "messages") from None
        return rendered

    def _message(self, message: Message) -> dict[str, Any]:
        """Return the message as templates expect it: no empty keys, arguments as objects."""
        given: dict[str, Any] = {"role": message.role}
        if message.text or not message.calls:
            given["content"] = message.text
        if message.calls:
            given["tool_calls"] = [
                {
                    "id": self._id(call.id),
                    "type": "function",
                    "function": {"name": call.name, "arguments": as_object(call.arguments)},
                }
                for call in message.calls
            ]
        if message.call_id is not None:
            given["tool_call_id"] = self._id(message.call_id)
        if message.name is not None:
            given["name"] = message.name
        return given

    def _id(self, given: str) -> str:
        if not self._short_ids or SHORT_ID.fullmatch(given):
            return given
        return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:9]


def as_object(arguments: str) -> Any:
    """Return JSON arguments as the object templates ask for, or the text if it is none."""
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return read if isinstance(read, dict) else arguments


def hide(hidden: "Spelled", value: Any, field: str, *, own: bool = False) -> Any:
    """Return what ``Spelled.hide`` makes of a value of ``field``.

    Raises:
        RequestRefused: it is nested too deeply.
    """
    try:
        return hidden.hide(value, own=own)
    except RecursionError:
        message = f"{field} holds values nested too deeply; make them flatter"
        raise RequestRefused("invalid_value", message, field) from None


def refusal(failed: Exception) -> RequestRefused:
    if isinstance(failed, Raised):
        complaint = str(failed)[:LONGEST_COMPLAINT]
        return RequestRefused("invalid_value", complaint, "messages")
    log.info("a chat template failed: %r", failed)
    message = "the model's chat template cannot take these messages; change their roles or order"
    return RequestRefused("invalid_value", message, "messages")


class Spelled:
    """Finds markers in what clients wrote and puts a word nobody can guess in their place."""

    def __init__(self, tokenizer: TextTokenizer | None) -> None:
        self._all = tokenizer.markers if tokenizer else ()
        self._special = tokenizer.special if tokenizer else ()
        self._word = secrets.token_hex(12)
        self.texts: list[str] = []

    @property
    def pattern(self) -> "re.Pattern[str]":
        """Finds the words; group 1 is the place of what was there in ``texts``."""
        return re.compile(rf"q{self._word}q(\d+)q")

    def hide(self, value: Any, *, own: bool = False) -> Any:
        """Return ``value`` with every string in it, keys too, free of markers. ``own``: the model
        wrote it, and template and model agree on markers that are not special (``</think>``)."""
        if isinstance(value, str):
            return self._hidden(value, self._special if own else self._all)
        if isinstance(value, Mapping):
            hide = self.hide
            return {hide(key): hide(item, own=own) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item, own=own) for item in value]
        return value

    def _hidden(self, text: str, markers: Iterable[str]) -> str:
        found = [mark for mark in markers if mark in text]
        if not found:
            return text
        return re.sub("|".join(map(re.escape, found)), self._replacement, text)

    def _replacement(self, found: "re.Match[str]") -> str:
        self.texts.append(found[0])
        return f"q{self._word}q{len(self.texts) - 1}q"


class Raised(TemplateError):
    """A template's own complaint, by ``raise_exception``."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment transformers gives templates, with bounds on what operators build."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.intercepted_binops = frozenset({"+", "*", "**", "%"})
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
        )
        self.filters["tojson"] = tojson
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = lambda wanted: now().strftime(wanted)
        self.globals["namespace"] = BoundedNamespace

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        match operator:
            case "*":
                bounded(size(left) * size(right))
                if isinstance(left, int) and isinstance(right, int):
                    few_bits(left.bit_length() + right.bit_length())
            case "**":
                if isinstance(left, int) and isinstance(right, int):
                    few_bits(left.bit_length() * abs(right))
            case "%":
                if isinstance(left, str) and WIDE_FORMAT.search(left):
                    raise SecurityError("a format too wide")
            case _:
                if not isinstance(left, int | float):
                    bounded(size(left) + size(right))
        return super().call_binop(context, operator, left, right)


class GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 (the base class has it as a set of its own)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class BoundedNamespace(Namespace):
    """A template's variables; what they grow to in a loop is bounded."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError("names in a namespace do not start with an underscore")
        bounded(size(value))
        super().__setitem__(name, value)


def size(value: Any) -> int:
    """Return how many characters or items ``value`` has; a number counts as itself."""
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    return max(1, value) if isinstance(value, int) else 1


def bounded(made: int) -> None:
    if made > LARGEST_VALUE:
        raise SecurityError("a value too large")


def few_bits(bits: int) -> None:
    if bits > LARGEST_BITS:
        raise SecurityError("a number too large")


def raise_exception(message: object) -> NoReturn:
    raise Raised(str(message))


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes for HTML, which no model was trained on."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
