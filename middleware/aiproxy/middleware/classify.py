"""Which task an ``auto`` request is about, when no hint says so (draft section 5, criterion 1).

Deterministic and published: the words of the last user message are looked up in ``WORDS``; the
class with most distinct hits wins, ties go in the order of the table, no hit is ``general``. The
prompt never leaves the process. Only the first 4,000 characters are read.
"""

from collections.abc import Mapping, Sequence
from re import compile as compile_pattern
from typing import Any, Final

GENERAL: Final = "general"
_LONGEST: Final = 4000
_WORD: Final = compile_pattern(r"[a-z][a-z+#]*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS: Final[Mapping[str, frozenset[str]]] = {
    "coding": _words(
        """
        api bug class code coding compile compiler css debug def exception function git
        haskell html implement java javascript json kotlin linux loop method pytest
        python query recursion refactor regex rust script sort sql stack stacktrace
        swift test traceback typescript unit variable
        """
    ),
    "reasoning": _words(
        """
        calculate deduce derivative derive equation how integral infer logic logical
        math mathematics number probability proof prove puzzle riddle solve step steps
        theorem therefore triangle why
        """
    ),
    "analytical": _words(
        """
        analyse analysis analytical analyze assess behavior behaviour benchmark chart
        compare comparison compliance contract correlation data dataset evaluate
        financial findings insights legal metrics quarterly report revenue segment
        segments statistics summarise summarize summary trend trends
        """
    ),
    "creative": _words(
        """
        blog brainstorm character compose copywriting creative dialogue essay fiction
        haiku headline imagine invent joke limerick lyrics marketing metaphor novel plot
        poem poetry product rhyme rhymes screenplay slogan song sonnet story tagline
        tale verse write
        """
    ),
}
#: Words that say little alone; they count only beside another word of the same class.
_WEAK: Final = frozenset({"how", "why", "write", "product", "test", "data", "number", "class"})


def classify(body: Mapping[str, Any]) -> str:
    """Return reasoning, coding, creative, analytical or general for a request body of any shape."""
    text = last_user_text(body)
    if not text:
        return GENERAL
    if "```" in text or "Traceback (most recent call last)" in text:
        return "coding"
    words = set(_WORD.findall(text[:_LONGEST].lower()))
    best, best_score = GENERAL, 0.0
    for task, vocabulary in WORDS.items():
        hits = words & vocabulary
        score = len(hits) - 0.5 * len(hits & _WEAK)
        if score > best_score:
            best, best_score = task, score
    return best if best_score >= 1 or (best_score > 0 and len(words) <= 12) else GENERAL


def last_user_text(body: Mapping[str, Any]) -> str:
    """The text of the last user turn: ``messages``, ``input`` or ``prompt``; empty when none."""
    turns = body.get("messages")
    if turns is None:
        turns = body.get("input", body.get("prompt"))
    if isinstance(turns, str):
        return turns
    if not isinstance(turns, Sequence):
        return ""
    for turn in reversed(turns):
        if isinstance(turn, str):
            return turn
        if isinstance(turn, (dict, Mapping)) and turn.get("role", "user") == "user":
            return _text(turn.get("content"))
    return ""


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, (dict, Mapping)))
    return " ".join(text for text in parts if isinstance(text, str))
