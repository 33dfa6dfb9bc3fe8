"""What the model families accept: the same request is fine for one and a 400 for the next.

A model is recognised by what its id says after ``claude-``, so that ids of resellers
(``us.anthropic.claude-...``, dots for dashes, dates behind) are understood too. An unknown Claude
is taken for one of the newest; an unknown name altogether for a server that speaks this dialect
with a model of its own, which takes the classic parameters and no Claude extras.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Family:
    """``thinking``: how thinking is asked for. ``off``: how it is declined: by saying nothing, by
    a ``thinking.type``, or not at all (``never``). ``efforts``: words of ``output_config.effort``.
    ``sampling``: temperature, top_p and top_k are taken; ``both``: the first two together.
    ``forced``: when a tool call can be demanded. ``system_turns``: system messages may come later.
    ``prefill``: the last turn may be the assistant's, to be continued. ``schema``:
    ``output_config.format`` and strict tools."""

    thinking: Literal["adaptive", "budget", "none"] = "adaptive"
    off: Literal["silent", "disabled", "between_tools", "never"] = "never"
    efforts: tuple[str, ...] = ("low", "medium", "high", "xhigh", "max")
    sampling: bool = False
    both: bool = False
    forced: Literal["always", "unthinking", "never"] = "never"
    system_turns: bool = True
    prefill: bool = False
    schema: bool = True


_NEWEST: Final = Family()
_FIVE: Final = Family(off="disabled", forced="always")
_OPUS_4_7: Final = Family(off="silent", forced="unthinking", system_turns=False)
_FOUR_6: Final = replace(_OPUS_4_7, efforts=("low", "medium", "high", "max"), sampling=True)
_FOUR_5: Final = Family(
    "budget", "silent", (), True, False, "unthinking", system_turns=False, prefill=True
)
_FOUR: Final = replace(_FOUR_5, schema=False)
_SEVEN: Final = replace(_FOUR, both=True)
_OLD: Final = replace(_SEVEN, thinking="none", forced="always")
_OTHER: Final = _SEVEN

#: The first pattern found in the id decides.
_FAMILIES: Final[tuple[tuple[str, Family], ...]] = (
    ("sonnet-5-5", replace(_NEWEST, off="between_tools")),
    ("haiku-5-5", _FIVE),
    ("opus-5-5|(?:fable|mythos)-5-[1-9]", _NEWEST),
    ("(?:fable|mythos)-5", replace(_NEWEST, forced="always")),
    ("mythos-preview", replace(_NEWEST, system_turns=False)),
    ("opus-5", _FIVE),
    ("sonnet-5", replace(_FIVE, system_turns=False)),
    ("opus-4-8", replace(_OPUS_4_7, forced="always", system_turns=True)),
    ("opus-4-7", _OPUS_4_7),
    ("(?:opus|sonnet)-4-6", _FOUR_6),
    ("opus-4-5", replace(_FOUR_5, efforts=("low", "medium", "high"))),
    ("(?:sonnet|haiku)-4-5|opus-4-1", _FOUR_5),
    ("(?:opus|sonnet|haiku)-4(?:-0|-20|@|$)", _FOUR),
    ("3-7-sonnet", _SEVEN),
    ("3-|2|1|instant|v2|v1", _OLD),
)
_PATTERNS: Final = tuple((re.compile(f"claude-(?:{text})"), family) for text, family in _FAMILIES)


@lru_cache(maxsize=512)
def family(model: str) -> Family:
    """Return what ``model`` accepts."""
    name = model[:256].lower().replace(".", "-")
    if "claude" not in name:
        return _OTHER
    for pattern, found in _PATTERNS:
        if pattern.search(name):
            return found
    return _NEWEST
