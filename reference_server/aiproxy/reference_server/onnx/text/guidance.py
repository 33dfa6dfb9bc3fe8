"""Grammars as masks over the vocabulary: which tokens may come next (llguidance).

Compiling runs on the thread that computes, so its cost is bounded: by the text's length, and by
llguidance's own limits on automata, items and recursion. Compiled grammars are kept, a few of them.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from numpy.typing import NDArray

from aiproxy.reference_server.onnx.text.runner import LAYOUT, Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from llguidance._lib import JsonCompileOptions

#: Characters of a schema or grammar.
LONGEST: Final = 100_000
KEPT: Final = 32
#: A quarter of llguidance's own bound: about 50 ms of compiling, and not many megabytes kept.
_SYMBOLS: Final = 125_000
_ANY_OBJECT: Final = '{"type":"object"}'


class Guide:
    """How far one answer has come in its grammar."""

    def __init__(self, matcher: "LLMatcher", vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def allowed(self) -> NDArray[np.bool_]:
        """Return which of the tokens may come next; none after a fault."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        if self._matcher.is_error():
            return np.zeros(self._vocabulary, np.bool_)
        # Scores may be wider than the tokenizer (a padded head): what has no bit is 0.
        return np.unpackbits(bits, count=self._vocabulary, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> str | None:
        """Go on with ``token``; return why that is impossible, or None."""
        if self._matcher.consume_token(token):
            return None
        return self._matcher.get_error() or "the grammar does not allow the token"

    @property
    def complete(self) -> bool:
        """Whether nothing more can follow."""
        return self._matcher.is_stopped()


class Grammars:
    """The grammars of one tokenizer. For one thread."""

    def __init__(self, tokenizer: Path, vocabulary: int, ends: tuple[int, ...]) -> None:
        """``vocabulary`` is how many scores a row has.

        Raises:
            ImportError: llguidance is missing.
            ValueError: llguidance cannot work with this tokenizer.
            OSError: the file cannot be read.
        """
        import llguidance

        self._library = llguidance
        self._vocabulary = vocabulary
        self._tokenizer = llguidance.LLTokenizer(
            exact(tokenizer.read_text(encoding="utf-8")),
            eos_token=list(ends) or None,
        )
        self._limits = llguidance.LLParserLimits(max_grammar_size=_SYMBOLS, verbose_errors=False)
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()

    def start(self, grammar: Grammar) -> Guide:
        """Return a guide at the beginning of ``grammar``.

        Raises:
            RequestRefused: it is too long, wrong, or asks for what llguidance does not know.
        """
        found = self._compiled.get(grammar)
        if found is None:
            found = self._compiled[grammar] = self._compile(grammar)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        return Guide(found.deep_copy(), self._vocabulary)

    def _compile(self, grammar: Grammar) -> "LLMatcher":
        if len(grammar.text) > LONGEST:
            raise grammar.refused(f"has {len(grammar.text)} characters; at most {LONGEST} are read")
        try:
            written = self._written(grammar)
        except ValueError as wrong:
            raise grammar.refused(f"cannot be read: {_brief(str(wrong))}") from wrong
        matcher = self._library.LLMatcher(
            self._tokenizer, written, log_level=0, limits=self._limits
        )
        if matcher.is_error():
            raise grammar.refused(f"cannot be used: {_brief(matcher.get_error())}")
        return matcher

    def _written(self, grammar: Grammar) -> str:
        write = self._library.LLMatcher
        match grammar.kind:
            case "regex":
                return write.grammar_from_regex(grammar.text)
            case "lark":
                return write.grammar_from_lark(grammar.text)
        schema = grammar.text if grammar.kind == "json_schema" else _ANY_OBJECT
        layout = cast("JsonCompileOptions", LAYOUT)
        return write.grammar_from_json_schema(schema, overrides=layout)


def exact(tokenizer: str) -> str:
    """Return tokenizer.json for text that is written, not asked: nothing cut, padded or rewritten.

    llguidance spells what a grammar forces with the tokenizer. One that folds case or drops signs
    would spell something else, and the grammar then refuses every token. Where tokens are bytes the
    normaliser is not needed; elsewhere it holds the signs for spaces.

    Raises:
        ValueError: it is no JSON object.
    """
    described = json.loads(tokenizer)
    if not isinstance(described, dict):
        raise ValueError("tokenizer.json is not an object")  # noqa: TRY004 - as all damage
    described |= {"truncation": None, "padding": None}
    if "ByteLevel" in json.dumps(described.get("decoder")):
        described["normalizer"] = None
    return json.dumps(described)


def _brief(text: str) -> str:
    return " ".join(text.split())[:300]
