"""The answers of the grid: what a provider says, independent of any dialect."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

from fidelity.facts import Fact, arguments


@dataclass(frozen=True)
class Used:
    """Tokens, inclusive: ``input`` counts ``cached`` and ``written``, ``output`` ``reasoning``."""

    input: int = 20
    output: int = 7
    cached: int = 0
    written: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Called:
    id: str
    name: str
    arguments: str
    signature: str = ""


@dataclass(frozen=True)
class Answer:
    """What is said. Empty members are not said at all.

    ``first_text`` comes before a call; ``lazy``: the provider ends a call with a plain stop;
    ``second`` is the text of a second choice; ``names`` may stand in as losses.
    """

    name: str
    text: str = ""
    thought: str = ""
    summary: str = ""
    signature: str = ""
    sealed: str = ""
    refusal: str = ""
    calls: tuple[Called, ...] = ()
    custom: str = ""
    finish: str = "stop"
    lazy: bool = False
    stop_sequence: str = ""
    citation: str = ""
    token: str = ""
    second: str = ""
    sound: str = ""
    hosted: str = ""
    fingerprint: str = ""
    tier: str = ""
    used: Used | None = Used()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.calls:  # an API without tools loses the call as a whole
            object.__setattr__(self, "names", (*self.names, "tool_call"))

    def needs(self) -> frozenset[str]:
        """The words a provider needs to be able to say this."""
        held = {f.name for f in fields(self) if getattr(self, f.name)}
        held -= {"name", "names", "finish", "used", "text"}
        held.add(f"finish {self.finish}")
        if any(call.signature for call in self.calls):
            held.add("signed call")
        if self.used is None:
            held.add("no usage")
        else:
            held |= {f"usage {n}" for n in ("cached", "written", "reasoning")
                     if getattr(self.used, n)}  # fmt: skip
        return frozenset(held)

    def facts(self) -> Iterator[Fact]:
        """What a client has to be able to read."""
        for kind in ("text", "refusal", "signature", "sealed", "stop_sequence", "citation",
                     "token", "second", "sound", "hosted", "custom", "fingerprint", "tier"):  # fmt: skip
            if getattr(self, kind):
                yield (kind, getattr(self, kind))
        if self.thought or self.summary:
            yield ("thought", self.thought or self.summary)
        for call in self.calls:
            yield ("call", call.name, arguments(call.arguments))
            if call.signature:
                yield ("signature", call.signature)
        if not self.refusal:  # some end one with a stop, some with a filter's word
            yield ("finish", self.finish)
        if self.used is not None:
            for name in ("input", "output", "cached", "written", "reasoning"):
                if getattr(self.used, name):
                    yield ("usage", name, str(getattr(self.used, name)))


WEATHER: Final = Called("call_1", "weather", '{"city":"Bern"}')
ROME: Final = Called("call_2", "weather", '{"city":"Rome"}')
CLOCK: Final = Called("call_3", "clock", "{}")
NESTED: Final = Called("call_4", "plot", '{"at":[1,2.5,{"x":null}],"on":true}')
EXOTIC: Final = Called("call_5", "say", '{"wörd":"\\"😀\\"\\n"}')
SIGNED: Final = Called("call_6", "weather", '{"city":"Bern"}', "c2lnbmVk")
URL: Final = "https://example.org/page"
_OPAQUE: Final = ("reasoning", "signature", "tool_call")
_USAGE: Final = ("usage",)

ANSWERS: Final = (
    Answer("text", "Hello there."),
    Answer("unicode", "Grüße 😀 \u202eok\u2028 日本"),
    Answer("long text", "All work and no play. " * 40),
    Answer("white space and line ends", "  a\r\n\n\tb  \n"),
    Answer("text that is JSON", '{"city":"Bern","n":[1,2]}'),
    Answer("text with stream marks", "data: [DONE]\n\nevent: error\ndata: {}\n\n"),
    Answer("empty answer", ""),
    Answer("cut by length", "Hel", finish="length"),
    Answer("filtered", "Hel", finish="content_filter", names=("refusal",)),
    Answer("stop sequence", "Hel", stop_sequence="END", names=("stop",)),
    Answer("refusal", refusal="I cannot do that.", names=("refusal", "content_part")),
    Answer("call", calls=(WEATHER,), finish="tool_calls"),
    Answer("call without arguments", calls=(CLOCK,), finish="tool_calls"),
    Answer("call with nested arguments", calls=(NESTED,), finish="tool_calls"),
    Answer("call with unicode arguments", calls=(EXOTIC,), finish="tool_calls"),
    Answer("parallel calls", calls=(WEATHER, ROME, CLOCK), finish="tool_calls"),
    Answer("text and a call", "Let me see.", calls=(WEATHER,), finish="tool_calls"),
    Answer("call ended by a plain stop", calls=(WEATHER,), finish="tool_calls", lazy=True),
    Answer("parallel calls ended by a plain stop", calls=(WEATHER, ROME), finish="tool_calls",
           lazy=True),
    Answer("custom call", custom="ls -l", finish="tool_calls", names=("tool_call", "custom_tool")),
    Answer("reasoning", "So.", thought="Since... 😀", names=("reasoning",)),
    Answer("reasoning and a call", thought="Hm.", calls=(WEATHER,), finish="tool_calls",
           names=("reasoning",)),
    Answer("reasoning, text and calls", "See.", thought="Hm.", calls=(WEATHER, ROME),
           finish="tool_calls", names=("reasoning",)),
    Answer("reasoning summary", "So.", summary="In short.", names=("reasoning",)),
    Answer("signed reasoning", "So.", thought="Since...", signature="c2lnbmVk", names=_OPAQUE),
    Answer("sealed reasoning", "So.", sealed="c2VhbGVk", names=_OPAQUE),
    Answer("signed call", calls=(SIGNED,), finish="tool_calls", names=_OPAQUE),
    Answer("citation", "It is so.", citation=URL,
           names=("citation", "annotation", "grounding", "message", "choice")),
    Answer("logprobs", "Hi", token="Hi", names=("logprobs",)),
    Answer("two choices", "One", second="Two", names=("choices", "n")),
    Answer("sound", sound="UklGRg==", names=("audio", "content_part")),
    Answer("hosted tool", "Found.", hosted="web_search", names=("item", "content_part", "hosted")),
    Answer("usage", "Hi", used=Used(1234, 567)),
    Answer("usage of a cache read", "Hi", used=Used(1234, 5, cached=1000), names=_USAGE),
    Answer("usage of a cache write", "Hi", used=Used(1234, 5, written=1000), names=_USAGE),
    Answer("usage of reasoning", "Hi", used=Used(20, 500, reasoning=480), names=_USAGE),
    Answer("no usage", "Hi", used=None),
)  # fmt: skip
