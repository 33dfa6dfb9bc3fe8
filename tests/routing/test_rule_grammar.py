"""The parser and the published grammar: ``rules.ebnf`` is read here, and its sentences parsed."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.routing.rule_grammar import (
    MOST_CHARACTERS,
    RuleFault,
    parse_action,
    parse_condition,
)

DEEPEST = 10
TOKENS = ("name", "string", "number", "boolean")
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|\[[^\]]*\]|[a-z]+|[()|?*+])""")


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Class:
    pattern: str


@dataclass(frozen=True)
class Ref:
    rule: str


@dataclass(frozen=True)
class Either:
    ways: tuple["Node", ...]


@dataclass(frozen=True)
class Row:
    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Repeat:
    inner: "Node"
    sign: str


Node = Literal | Class | Ref | Either | Row | Repeat


def read() -> dict[str, Node]:
    text = files("aiproxy.spec").joinpath("rules.ebnf").read_text("utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    found = re.split(r"^([a-z]+)\s*::=", text, flags=re.MULTILINE)
    assert not found[0].strip()
    return {rule: _read(body) for rule, body in zip(found[1::2], found[2::2], strict=True)}


def _read(body: str) -> Node:
    parts = [match[1] for match in _PART.finditer(body)]
    assert not re.sub(r"\s+", "", _PART.sub("", body))
    node, rest = _either(parts)
    assert not rest
    return node


def _either(parts: list[str]) -> tuple[Node, list[str]]:
    ways = []
    while True:
        row: list[Node] = []
        while parts and parts[0] not in "|)":
            node, parts = _one(parts)
            row.append(node)
        ways.append(row[0] if len(row) == 1 else Row(tuple(row)))
        if not parts or parts[0] == ")":
            return (ways[0] if len(ways) == 1 else Either(tuple(ways))), parts
        parts = parts[1:]


def _one(parts: list[str]) -> tuple[Node, list[str]]:
    first, rest = parts[0], parts[1:]
    node: Node
    if first == "(":
        node, rest = _either(rest)
        assert rest[0] == ")"
        rest = rest[1:]
    elif first[0] == "[":
        node = Class(re.sub(r"#x([0-9A-F]+)", lambda m: rf"\x{int(m[1], 16):02x}", first))
    elif first[0] in "\"'":
        node = Literal(first[1:-1])
    else:
        node = Ref(first)
    if rest and rest[0] in "?*+":
        return Repeat(node, rest[0]), rest[1:]
    return node, rest


def tokens(rules: dict[str, Node], start: str, rng: random.Random, depth: int = 0) -> list[str]:
    """Return the tokens of a random sentence."""
    return _make(rules, rules[start], rng, depth)


def _make(rules: dict[str, Node], node: Node, rng: random.Random, depth: int) -> list[str]:
    if isinstance(node, Ref):
        made = _make(rules, rules[node.rule], rng, depth + 1)
        return ["".join(made)] if node.rule in TOKENS else made
    if isinstance(node, Literal):
        return [node.text]
    if isinstance(node, Class):
        fits = [c for c in map(chr, range(128)) if re.fullmatch(node.pattern, c)]
        return [rng.choice(fits)]
    if isinstance(node, Either):
        ways = node.ways if depth < DEEPEST else node.ways[:1]  # written first: the plain way
        return _make(rules, rng.choice(ways), rng, depth)
    if isinstance(node, Row):
        return [token for part in node.parts for token in _make(rules, part, rng, depth)]
    least = 1 if node.sign == "+" else 0
    times = rng.randint(least, 1 if node.sign == "?" or depth > DEEPEST else 2)
    return [token for _ in range(times) for token in _make(rules, node.inner, rng, depth)]


def accepts(rules: dict[str, Node], start: str, sentence: Sequence[str]) -> bool:
    """Return whether ``sentence``, a list of tokens, is in the language."""
    return len(sentence) in _ends(rules, rules[start], tuple(sentence), 0)


def _ends(rules: dict[str, Node], node: Node, sentence: tuple[str, ...], at: int) -> set[int]:
    if isinstance(node, Ref):
        if node.rule in TOKENS:
            fits = at < len(sentence) and re.fullmatch(_regex(rules[node.rule]), sentence[at])
            return {at + 1} if fits else set()
        return _ends(rules, rules[node.rule], sentence, at)
    if isinstance(node, Literal):
        return {at + 1} if at < len(sentence) and sentence[at] == node.text else set()
    if isinstance(node, Either):
        return {end for way in node.ways for end in _ends(rules, way, sentence, at)}
    if isinstance(node, Row):
        here = {at}
        for part in node.parts:
            here = {end for place in here for end in _ends(rules, part, sentence, place)}
        return here
    assert isinstance(node, Repeat)
    reached = {at}
    edge = {at}
    while edge:
        edge = {e for place in edge for e in _ends(rules, node.inner, sentence, place)} - reached
        reached |= edge
    return reached


@cache
def _regex(node: Node) -> str:
    if isinstance(node, Literal):
        return re.escape(node.text)
    if isinstance(node, Class):
        return node.pattern
    if isinstance(node, Either):
        return "(?:" + "|".join(map(_regex, node.ways)) + ")"
    if isinstance(node, Row):
        return "".join(map(_regex, node.parts))
    assert isinstance(node, Repeat)
    return f"(?:{_regex(node.inner)}){node.sign}"


EBNF = read()
LETTERS = ("and", "or", "not", "(", ")", "==", "<", "matches", "ASC", ">", "priority", "=")
WORDS = (*LETTERS, "prefer", "require", "a.b", "provider.x-1", "'t'", "-1.5e3", "true", "desc")


def parses(start: str, text: str) -> bool:
    try:
        (parse_condition if start == "condition" else parse_action)(text)
    except RuleFault as fault:
        return "out of range" in fault.message
    return True


@pytest.mark.parametrize("start", ["condition", "action"])
@given(seed=st.integers(0, 2**32), edits=st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_the_parser_takes_what_the_published_grammar_makes(
    start: str, seed: int, edits: int
) -> None:
    rng = random.Random(seed)
    sentence = tokens(EBNF, start, rng)
    for _ in range(edits):
        place = rng.randrange(len(sentence) + 1)
        sentence[place : place + rng.randint(0, 1)] = rng.sample(WORDS, rng.randint(0, 1))
    text = "".join(token + rng.choice((" ", "\n", "\t ")) for token in sentence)
    if len(text) <= MOST_CHARACTERS:
        assert parses(start, text) is accepts(EBNF, start, sentence)
