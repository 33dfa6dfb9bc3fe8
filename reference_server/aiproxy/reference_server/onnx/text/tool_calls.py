"""Tool calls as models write them: three formats, read from answers and forced by grammars.

    hermes   <tool_call>\\n{"name": "f", "arguments": {}}\\n</tool_call>   one block a call
    llama3   {"name": "f", "parameters": {}}                            the answer itself, or after
                                                                        <|python_tag|>; more after ;
    mistral  [TOOL_CALLS] [{"name": "f", "arguments": {}}]              or [TOOL_CALLS]f[ARGS]{}

What looks like a call and is none (broken JSON, a function nobody offered) stays text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NoReturn, TypeAlias

from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.text.detokenising import overlap
from aiproxy.reference_server.onnx.text.runner import LAYOUT, Grammar
from aiproxy.reference_server.onnx.text.tokenizing import TextTokenizer

FormatName: TypeAlias = Literal["hermes", "llama3", "mistral"]

FORMATS: Final[Mapping[str, FormatName]] = {
    "hermes": "hermes",
    "llama3": "llama3",
    "mistral": "mistral",
}
HERMES: Final = "<tool_call>"
HERMES_END: Final = "</tool_call>"
LLAMA: Final = "<|python_tag|>"
MISTRAL: Final = "[TOOL_CALLS]"
MISTRAL_ARGUMENTS: Final = "[ARGS]"
#: Formats that merely share the first marker of hermes write this inside it.
NOT_HERMES: Final = ("<function=", "<arg_key>")
NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: How a Lark grammar can name a special token by its text.
LARK_TOKEN: Final = re.compile(r"<[^<>\s\[\]]+>")
SOMETHING: Final = re.compile(r"\S")
BRACKETS: Final = re.compile(r'["{}\[\]]')
IN_STRING: Final = re.compile(r'["\\]')


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How one model writes calls. ``special`` are the ids of those markers that are special tokens;
    the others are ordinary text to the tokenizer. ``by_name``: mistral's newer form."""

    name: FormatName
    special: tuple[tuple[str, int], ...] = ()
    by_name: bool = False

    @property
    def opening(self) -> str:
        return {"hermes": HERMES, "llama3": LLAMA, "mistral": MISTRAL}[self.name]

    @property
    def short_ids(self) -> bool:
        """Whether its templates insist on call ids of nine letters and digits."""
        return self.name == "mistral"

    @property
    def opens_specially(self) -> bool:
        return any(text == self.opening for text, _ in self.special)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function a client offers. ``schema`` None: any object. ``characters`` is the size of its
    description as JSON."""

    name: str
    schema: Mapping[str, Any] | None = None
    strict: bool = False
    characters: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """What calls an answer may hold: of ``tools``, at most ``most`` (None: any number)."""

    format: ToolFormat
    tools: tuple[Tool, ...]
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Called:
    """A whole call; ``arguments`` is JSON."""

    name: str
    arguments: str


def tool_format_of(template: str, wanted: str, tokenizer: TextTokenizer) -> ToolFormat | None:
    """Return the format ``wanted``, or with ``auto`` the one the template's text shows.

    Raises:
        ModelUnavailable: ``wanted`` is no format.
    """
    if wanted not in ("auto", "none", *FORMATS):
        raise ModelUnavailable(f"tool_format {wanted} is not one of {', '.join(FORMATS)}")
    name = detected(template) if wanted == "auto" else FORMATS.get(wanted)
    if name is None:
        return None
    marks = (HERMES, HERMES_END, LLAMA, MISTRAL, MISTRAL_ARGUMENTS)
    ids = ((mark, tokenizer.token_id(mark)) for mark in marks if tokenizer.is_special(mark))
    special = tuple((mark, token) for mark, token in ids if token is not None)
    return ToolFormat(name, special, by_name=MISTRAL_ARGUMENTS in template)


def detected(template: str) -> FormatName | None:
    """Return the format a template writes earlier calls in, if it is one of the three."""
    if MISTRAL in template:
        return "mistral"
    if HERMES in template:
        return None if any(sign in template for sign in NOT_HERMES) else "hermes"
    if LLAMA in template or ("ipython" in template and '"parameters"' in template):
        return "llama3"
    return None


class CallReader:
    """Reads an answer as it comes: text goes on at once, calls come whole at their end.

    Cutting the answer elsewhere changes nothing of the joined text and the calls. White space
    around calls is dropped.
    """

    def __init__(self, use: ToolUse) -> None:
        self._format = use.format
        self._names = frozenset(tool.name for tool in use.tools)
        self._left = use.most
        self._held = ""
        self._opened: int | None = None  # where in _held the inside of a call begins
        self._json: _JsonEnd | None = None
        self._may_start = use.format.name == "llama3"  # a bare { here begins a call
        self.calls = 0

    def push(self, text: str) -> list[str | Called]:
        """Return the text and calls that ``text`` makes certain."""
        self._held += text
        return self._read(final=False)

    def finish(self) -> list[str | Called]:
        """Return what was held back: the answer ended."""
        out = self._read(final=True)
        rest, self._held = self._held, ""
        if rest and not (self.calls and rest.isspace()):
            out.append(rest)
        return out

    def _read(self, *, final: bool) -> list[str | Called]:
        out: list[str | Called] = []
        while self._held:
            if self._opened is None and not self._open(out, final):
                break
            found = self._inside(final)
            if found is None:
                break
            self._close(found, out)
        return out

    def _open(self, out: list[str | Called], final: bool) -> bool:
        """Look for the next call; give out the text before it. False: more is needed."""
        marker, held = self._format.opening, self._held
        if self._may_start:
            start = after_space(held, 0)
            if start == len(held):
                return False
            separated = self.calls and held[start] == ";"
            if held[start] == "{" or separated:
                self._opened = start + 1 if separated else start
                return True
            if not held.startswith(marker, start):
                if marker.startswith(held[start:]) and not final:
                    return False
                self._may_start = False
        at = held.find(marker)
        if at >= 0:
            before = held[:at].rstrip()
            if before:
                out.append(before)
            self._held = held[len(before) :]
            self._opened = at - len(before) + len(marker)
            return True
        if not final:
            keep = overlap(held, marker)
            certain = held[: len(held) - keep].rstrip()
            if certain:
                out.append(certain)
                self._held = held[len(certain) :]
        return False

    def _close(self, found: "_Found", out: list[str | Called]) -> None:
        self._opened = self._json = None
        if found.calls is None:
            # It looked like a call: its beginning is text, and what follows is read anew.
            out.append(self._held[: found.end])
            self._may_start = False
        else:
            self._may_start = self._format.name == "llama3"
            for call in found.calls:
                if self._left is None or self.calls < self._left:
                    self.calls += 1
                    out.append(call)
        self._held = self._held[found.end :]

    def _inside(self, final: bool) -> "_Found | None":
        """Return the calls that begin at ``_opened``, or None while they are not all there."""
        at = after_space(self._held, self._opened or 0)
        if at == len(self._held):
            return _Found(None, at) if final else None
        if self._format.name == "mistral":
            return self._inside_mistral(at, final)
        if self._held[at] != "{":
            return _Found(None, at)
        end = self._json_end(at)
        if end is None:
            return _Found(None, len(self._held)) if final else None
        call = self._call(self._held[at:end])
        if call is None:
            return _Found(None, end)
        if self._format.name == "llama3":
            return _Found((call,), end)
        return self._after_hermes(call, end, final)

    def _after_hermes(self, call: Called, end: int, final: bool) -> "_Found | None":
        rest = self._held[end:].lstrip()
        if rest.startswith(HERMES_END):
            return _Found((call,), len(self._held) - len(rest) + len(HERMES_END))
        if HERMES_END.startswith(rest):
            return _Found((call,), len(self._held)) if final else None
        return _Found((call,), end)

    def _inside_mistral(self, at: int, final: bool) -> "_Found | None":
        held = self._held
        name, start = None, at
        if held[at] != "[":
            found = NAME.match(held, at)
            if found is None:
                return _Found(None, at)
            name, start = found[0], found.end()
            if MISTRAL_ARGUMENTS.startswith(held[start:]) and len(held) - start < 6:
                return _Found(None, len(held)) if final else None
            if held.startswith(MISTRAL_ARGUMENTS, start):
                start += len(MISTRAL_ARGUMENTS)
            start = after_space(held, start)
            if start == len(held):
                return _Found(None, start) if final else None
            if held[start] != "{":
                return _Found(None, start)
        end = self._json_end(start)
        if end is None:
            return _Found(None, len(held)) if final else None
        read = _loaded(held[start:end])
        if name is not None:
            rows: list[Any] = [{"name": name, "arguments": read}]
        else:
            rows = read if isinstance(read, list) else []
        calls = [self._called(row) for row in rows]
        whole = tuple(call for call in calls if call is not None)
        return _Found(whole if whole and len(whole) == len(calls) else None, end)

    def _json_end(self, at: int) -> int | None:
        if self._json is None:
            self._json = _JsonEnd(at)
        return self._json.find(self._held)

    def _call(self, text: str) -> Called | None:
        return self._called(_loaded(text))

    def _called(self, read: Any) -> Called | None:
        name = read.get("name") if isinstance(read, dict) else None
        if not isinstance(name, str) or name not in self._names:
            return None
        given = read.get("arguments", read.get("parameters", {}))
        if isinstance(given, str):
            given = _loaded(given)
        if not isinstance(given, dict):
            return None
        try:
            arguments = json.dumps(given, ensure_ascii=False, allow_nan=False)
            arguments.encode()  # an escape may spell half of a character
        except (ValueError, RecursionError):
            return None
        return Called(name, arguments)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was inside: its calls (None: it is text after all) and where it ends."""

    calls: tuple[Called, ...] | None
    end: int


class _JsonEnd:
    """Finds where a JSON object or list ends, looking at every character once."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._depth = 0
        self._in_string = False
        self._end: int | None = None

    def find(self, text: str) -> int | None:
        """Return the place after it, or None while it goes on; ``text`` only grows."""
        while self._end is None and self._at < len(text):
            found = (IN_STRING if self._in_string else BRACKETS).search(text, self._at)
            if found is None:
                self._at = len(text)
                return None
            sign = found[0]
            if sign == "\\":
                if found.end() == len(text):
                    self._at = found.start()  # what it escapes is not there yet
                    return None
                self._at = found.end() + 1
                continue
            self._at = found.end()
            if sign == '"':
                self._in_string = not self._in_string
                continue
            self._depth += 1 if sign in "{[" else -1
            if self._depth == 0:
                self._end = self._at
        return self._end


def after_space(text: str, at: int) -> int:
    """Return the place of the first character from ``at`` on that is no white space."""
    found = SOMETHING.search(text, at)
    return found.start() if found else len(text)


def _loaded(text: str) -> Any:
    """Return parsed JSON, or None: what is not JSON is no call."""

    def constant(name: str) -> NoReturn:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError):
        return None


def forced_calls(use: ToolUse, tools: Sequence[Tool]) -> Grammar:
    """Return the grammar of an answer that is one or more calls of ``tools`` and nothing else."""
    return Grammar("lark", "start: calls\n" + _rules(use, tools), ("tools",))


def calls_or_json(use: ToolUse, schema: Mapping[str, Any]) -> Grammar:
    """Return the grammar of an answer that is either calls or JSON that follows ``schema``."""
    rules = f"start: calls | answer\nanswer: %json {_schema(schema)}\n"
    return Grammar("lark", rules + _rules(use, use.tools), ("response_format", "tools"))


def checked_calls(use: ToolUse) -> Grammar | None:
    """Return the grammar of free text in which calls follow their tools' schemas, where that can
    be said: some tool is strict, and calls open with a token that text cannot spell."""
    if not use.format.opens_specially or not any(tool.strict for tool in use.tools):
        return None
    text = "start: TEXT calls?\nTEXT: /(.|\\n)*/\n"
    return Grammar("lark", text + _rules(use, use.tools), ("tools",))


def _rules(use: ToolUse, tools: Iterable[Tool]) -> str:
    """Return Lark rules for ``calls``: every call is one alternative of ``call``."""
    written = use.format
    key = "parameters" if written.name == "llama3" else "arguments"
    many = use.most != 1
    lines: list[str] = []
    names: list[str] = []
    for at, tool in enumerate(tools):
        names.append(f"call_{at}")
        if written.name == "mistral" and written.by_name:
            arguments = _marker(written, MISTRAL_ARGUMENTS)
            before, after = f"{json.dumps(tool.name)} {arguments}", ""
        else:
            head = f'{{"name": {json.dumps(tool.name)}, "{key}": '
            before, after = json.dumps(head), ' "}"'
        lines.append(f"call_{at}: {before} %json {_tool_schema(tool)}{after}")
    lines.append("call: " + " | ".join(names))
    opening = _marker(written, written.opening)
    match written.name:
        case "hermes":
            block = f'block: {opening} "\\n" call "\\n" {_marker(written, HERMES_END)}'
            lines += [block, 'calls: block ("\\n" block)*' if many else "calls: block"]
        case "llama3":
            lines.append('calls: call ("; " call)*' if many else "calls: call")
        case "mistral" if written.by_name:
            lines.append(f"calls: ({opening} call)+" if many else f"calls: {opening} call")
        case "mistral":
            inside = 'call (", " call)*' if many else "call"
            lines.append(f'calls: {opening} " [" {inside} "]"')
    return "\n".join(lines) + "\n"


def _marker(written: ToolFormat, text: str) -> str:
    token = dict(written.special).get(text)
    if token is None:
        return json.dumps(text)
    return text if LARK_TOKEN.fullmatch(text) else f"<[{token}]>"


def _tool_schema(tool: Tool) -> str:
    schema: Mapping[str, Any] = tool.schema or {"type": "object"}
    return _schema(schema if tool.strict else {**schema, "x-guidance": {"lenient": True}})


def _schema(schema: Mapping[str, Any]) -> str:
    given = schema.get("x-guidance")
    options = given if isinstance(given, dict) else {}
    return json.dumps({**schema, "x-guidance": {**options, **LAYOUT}})
