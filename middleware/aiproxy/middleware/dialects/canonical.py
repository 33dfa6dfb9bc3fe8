"""The one form every dialect is translated to and from.

A wire dialect is a module that turns its bodies into these values and back; no dialect knows
another one. Values are frozen. ``extra`` mappings hold members a dialect did not recognise, so
that a request which stays in its dialect loses nothing.

Reading order: parts, turns, request, reply, stream events, failures, envelope.
"""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal, TypeAlias

from aiproxy.middleware.dialects.values import dataclass

Json: TypeAlias = Mapping[str, Any]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]
Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ToolKind: TypeAlias = Literal["function", "custom", "legacy_function"]


# --- parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text. ``annotations`` are flat (``{"type": "url_citation", "url": ...}``);
    ``logprobs`` are per-token objects ``{token, logprob, bytes, top_logprobs}``.
    ``signature`` is opaque, see ``Reasoning``."""

    text: str
    annotations: tuple[Json, ...] = ()
    logprobs: tuple[Json, ...] | None = None
    extra: Json = field(default_factory=dict)
    signature: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """An image by ``url``, by base64 ``data`` with its ``media_type``, or by ``file_id``."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    file_id: str | None = None
    detail: str | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class File:
    """A document by ``url``, by ``data`` (as received: base64 or a data URL) or by ``file_id``.

    ``media_type`` is known where the dialect says it beside the data."""

    url: str | None = None
    data: str | None = None
    file_id: str | None = None
    name: str | None = None
    extra: Json = field(default_factory=dict)
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound as base64 ``data`` in ``format``, or a reference to an earlier answer by ``id``."""

    data: str | None = None
    format: str | None = None
    id: str | None = None
    transcript: str | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The model declined; ``text`` says so in its words."""

    text: str
    logprobs: tuple[Json, ...] | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What a model thought. ``signature`` and ``encrypted`` are opaque and bound to the provider
    (and often the account) that made them: they never travel to another one. ``origin`` is the
    dialect they are of; ``None`` says that of the request or reply itself."""

    text: str = ""
    summary: tuple[str, ...] = ()
    signature: str | None = None
    encrypted: str | None = None
    id: str | None = None
    extra: Json = field(default_factory=dict)
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model wants made. ``arguments`` is always a string (JSON for functions, free
    text for custom tools). An empty ``id`` means the upstream gave none. ``signature`` is opaque,
    see ``Reasoning``."""

    id: str
    name: str
    arguments: str
    kind: ToolKind = "function"
    extra: Json = field(default_factory=dict)
    signature: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave. ``plain`` says that the content was one string, not a list of parts."""

    call_id: str
    parts: tuple["Part", ...]
    plain: bool = True
    is_error: bool = False
    kind: ToolKind = "function"
    name: str | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part or item only ``dialect`` understands, carried untouched."""

    dialect: str
    kind: str
    value: Json


Part: TypeAlias = Text | Image | File | Audio | Refusal | Reasoning | ToolCall | ToolResult | Opaque


# --- request -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """One message. ``form`` keeps how the content was written: a ``string``, a list of ``parts``,
    ``null``, ``absent``, or ``bare`` (a whole conversation given as one string)."""

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    form: Literal["string", "parts", "null", "absent", "bare"] = "parts"
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool on offer. ``hosted`` ones run at the provider; ``definition`` is their own object,
    and for custom tools the ``format`` object in its flat form."""

    name: str
    kind: Literal["function", "custom", "legacy_function", "hosted"] = "function"
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None
    definition: Json | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``auto``, ``none``, ``required``; one ``tool`` by name; a ``hosted`` tool (``definition``);
    or one of the ``allowed`` names under ``mode_within`` (auto or required)."""

    mode: Literal["auto", "none", "required", "tool", "hosted", "allowed"]
    name: str | None = None
    kind: ToolKind = "function"
    allowed: tuple[Json, ...] = ()
    mode_within: str = "auto"
    definition: Json | None = None


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The shape of the answer. ``auto`` leaves it to the router and is not sent upstream."""

    kind: Literal["text", "json_object", "json_schema", "auto", "other"]
    name: str | None = None
    schema: Json | None = None
    strict: bool | None = None
    description: str | None = None
    definition: Json | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. ``max_tokens`` counts output tokens; ``None`` means not asked for.

    ``legacy_max_tokens``: the limit was given under the name ``max_tokens``.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    legacy_max_tokens: bool = False
    stop: tuple[str, ...] = ()
    stop_plain: bool = False
    seed: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class CanonicalRequest:
    """One request for a generated answer.

    ``auto`` names the parameters that held the word ``auto``; they read as not given here.
    ``source`` is the dialect it came from; ``extra`` holds that dialect's other members.
    """

    model: str
    turns: tuple[Turn, ...]
    source: str
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    verbosity: str | None = None
    user: str | None = None
    metadata: Json | None = None
    service_tier: str | None = None
    stream: bool = False
    include_usage: bool = False
    auto: frozenset[str] = frozenset()
    extra: Json = field(default_factory=dict)


# --- reply ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. ``input`` includes ``cached`` and ``cache_write``; ``output`` includes ``reasoning``.

    ``total`` is always the sum of input and output, whatever an upstream claims (XAI-COMPAT-016).
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    total: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.input + self.output)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer. ``native_finish_reason`` is the upstream's word when it differed;
    ``stop_sequence`` the one that ended it, where the upstream says so."""

    parts: tuple[Part, ...]
    finish_reason: FinishReason
    index: int = 0
    native_finish_reason: str | None = None
    extra: Json = field(default_factory=dict)
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class CanonicalReply:
    """A whole answer. ``model`` and ``id`` are the upstream's: the client is told the Envelope's."""

    choices: tuple[Choice, ...]
    source: str
    usage: Usage | None = None
    id: str | None = None
    model: str | None = None
    created: int | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something the target dialect cannot express: the upstream will not see it of a request,
    the client will not see it of an answer."""

    feature: str
    detail: str


# --- stream --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamStart:
    """The upstream began; ``id`` and ``model`` are its own."""

    id: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text. ``signature`` (opaque, see ``Reasoning``) may come with an empty text."""

    text: str
    choice: int = 0
    logprobs: tuple[Json, ...] = ()
    signature: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of a refusal."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More reasoning: ``text`` proper or a ``summary``. ``item`` counts reasoning blocks and
    ``part`` the summary paragraphs of one; opaque data may come with an empty text."""

    text: str
    choice: int = 0
    kind: Literal["text", "summary"] = "text"
    item: int = 0
    part: int = 0
    signature: str | None = None
    encrypted: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """More sound (base64) or more of its transcript."""

    data: str | None = None
    transcript: str | None = None
    id: str | None = None
    expires_at: int | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True)
class AnnotationDelta:
    """A citation (flat form) of the text so far."""

    annotation: Json
    choice: int = 0


@dataclass(frozen=True, slots=True)
class OpaqueItem:
    """A whole item or part only ``dialect`` understands (such as a hosted tool's work), as it
    ended."""

    dialect: str
    kind: str
    value: Json
    choice: int = 0


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The current text or refusal part is whole; more text would be another part."""

    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins. ``index`` counts the calls of a choice from 0 without gaps."""

    index: int
    id: str
    name: str
    kind: ToolKind = "function"
    choice: int = 0
    signature: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call's arguments."""

    index: int
    arguments: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A call's arguments are whole. Absent when the answer was cut short inside them."""

    index: int
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """Why a choice ended. Comes after all its deltas."""

    reason: FinishReason
    choice: int = 0
    native: str | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """The usage of the whole answer (never cumulative parts of it). Comes once, last."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class StreamError:
    """The upstream reported a failure inside a 200 stream. ``message`` is its raw text: it may
    hold secrets or prompts and is never relayed as is."""

    code: str | None
    message: str
    type: str | None = None
    status: int | None = None


CanonicalEvent: TypeAlias = (
    StreamStart
    | TextDelta
    | RefusalDelta
    | ReasoningDelta
    | AudioDelta
    | AnnotationDelta
    | OpaqueItem
    | PartEnd
    | ToolCallStart
    | ToolCallDelta
    | ToolCallEnd
    | Finish
    | UsageEvent
    | StreamError
)


# --- failures ------------------------------------------------------------------------------------


class MalformedRequest(ValueError):
    """A client body this dialect cannot read. ``param`` is the path at fault."""

    def __init__(self, param: str, found: str, expected: str) -> None:
        super().__init__(f"{param}: found {found}, expected {expected}")
        self.param, self.found, self.expected = param, found, expected


class Untranslatable(ValueError):
    """The target dialect cannot express something without which the request has no meaning."""

    def __init__(self, feature: str, detail: str) -> None:
        super().__init__(f"{feature}: {detail}")
        self.feature, self.detail = feature, detail


class MalformedReply(ValueError):
    """An upstream's 200 body is not an answer. ``reason`` names the fault, without body text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class StreamCut(ValueError):
    """A stream ended before a finish reason or terminal event was seen."""

    def __init__(self, reason: str = "the stream ended without a finish reason") -> None:
        super().__init__(reason)
        self.reason = reason


# --- envelope ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """What an encoder cannot know: identity, time, and the request as the client wrote it.

    ``created`` is Unix time in whole seconds. ``model`` is the public name the client is told.
    ``item_ids`` gives the varying part of item ids: a prefix (ids count up behind it) or a
    callable; when empty the ids derive from ``id``, so the same envelope gives the same bytes.
    ``completed_at`` is the time of the end, or asks for it; ``None`` repeats ``created``.
    """

    id: str
    created: int
    model: str
    request: Json = field(default_factory=dict)
    include_usage: bool = False
    item_ids: Callable[[], str] | str = ""
    completed_at: Callable[[], int] | int | None = None

    def base(self) -> str:
        """Return the id without its ``resp_`` or ``chatcmpl-`` prefix."""
        for mark in ("_", "-"):
            head, found, rest = self.id.partition(mark)
            if found and head.isalpha() and rest:
                return rest
        return self.id

    def item_id(self, kind: str, index: int) -> str:
        """Return the id of the output item at ``index``; ``kind`` is msg, fc, rs or ctc."""
        if callable(self.item_ids):
            return f"{kind}_{self.item_ids()}"
        return f"{kind}_{self.item_ids or self.base() + '_'}{index}"

    def call_id(self, index: int, choice: int = 0) -> str:
        """Return the id of a tool call whose upstream gave it none."""
        return (
            f"call_{self.base()}_{index}" if not choice else f"call_{self.base()}_{choice}_{index}"
        )

    def ended(self) -> int:
        """Return the Unix time at which the answer was complete."""
        if callable(self.completed_at):
            return self.completed_at()
        return self.created if self.completed_at is None else self.completed_at
