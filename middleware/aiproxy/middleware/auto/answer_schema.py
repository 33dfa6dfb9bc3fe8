"""A client's JSON Schema, compiled to check an answer with.

The schema and the answer both come from outside: references are never fetched, regular expressions
run in linear time, and a schema that could make a check take long is not used at all.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

#: Subschemas a schema may have once its references are followed.
_MOST_SUBSCHEMAS: Final = 5_000
#: How deep an answer may nest under a schema that refers to itself among alternatives.
_MOST_DEPTH: Final = 12
_ALTERNATIVES: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "then", "else"})
_DYNAMIC: Final = frozenset({"$dynamicRef", "$recursiveRef"})


class AnswerSchema:
    """One compiled schema. Safe to share between threads."""

    __slots__ = ("_compiled", "_depth")

    def __init__(self, compiled: Any, depth: int | None) -> None:
        self._compiled = compiled
        self._depth = depth

    def fault(self, answer: object) -> str | None:
        """Return where and by which keyword an answer breaks the schema; ``None`` when it holds."""
        if self._depth is not None and _depth(answer, self._depth) > self._depth:
            return "it nests deeper than can be checked"
        try:
            if self._compiled.is_valid(answer):
                return None
            error = next(iter(self._compiled.iter_errors(answer)), None)
        except ValueError:
            return "it is not Unicode text"
        if error is None:
            return "it does not satisfy the schema"
        path = "".join(f"/{step}" for step in error.instance_path)[:200] or "the top"
        keyword = next((s for s in reversed(error.schema_path) if isinstance(s, str)), "schema")
        return f"at {path}: {keyword} is not satisfied"


def compiled(schema: Mapping[str, Any]) -> AnswerSchema | None:
    """Return the compiled schema, or ``None`` for one that cannot be checked here."""
    try:
        return _compiled(orjson.dumps(schema))
    except TypeError:
        return None


@lru_cache(maxsize=128)
def _compiled(raw: bytes) -> AnswerSchema | None:
    import jsonschema_rs

    schema = orjson.loads(raw)
    walk = _Walk(schema)
    try:
        walk.count(schema, frozenset(), alternative=False)
    except (RecursionError, _TooIntricateError):
        return None
    try:
        made = jsonschema_rs.Draft202012Validator(
            schema,
            retriever=_fetch_nothing,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,
        )
    except ValueError:  # an unknown reference, a pattern beyond linear time
        return None
    return AnswerSchema(made, _MOST_DEPTH if walk.branching else None)


def _fetch_nothing(uri: str) -> Any:
    raise ValueError("references to other documents are not followed")


class _TooIntricateError(Exception):
    """The schema is larger than what is checked."""


class _Walk:
    """Counts subschemas with references followed, and finds references back to an alternative."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = _MOST_SUBSCHEMAS
        self.branching = False

    def count(self, node: Any, within: frozenset[str], *, alternative: bool) -> None:
        if isinstance(node, list):
            for inner in node:
                self.count(inner, within, alternative=alternative)
            return
        if not isinstance(node, dict):
            return
        self._left -= 1
        if self._left < 0 or not _DYNAMIC.isdisjoint(node):
            raise _TooIntricateError
        for key, inner in node.items():
            if key == "$ref" and isinstance(inner, str):
                self._follow(inner, within, alternative)
            elif key not in ("$defs", "definitions", "const", "enum", "default", "examples"):
                self.count(inner, within, alternative=alternative or key in _ALTERNATIVES)

    def _follow(self, reference: str, within: frozenset[str], alternative: bool) -> None:
        if reference in within:
            self.branching = self.branching or alternative
            return
        target = self._root
        for step in _steps(reference):
            if isinstance(target, list) and step.isdigit() and int(step) < len(target):
                target = target[int(step)]
            elif isinstance(target, dict) and step in target:
                target = target[step]
            else:
                raise _TooIntricateError  # an anchor or another document
        self.count(target, within | {reference}, alternative=alternative)


def _steps(reference: str) -> Iterator[str]:
    if reference == "#":
        return
    if not reference.startswith("#/"):
        raise _TooIntricateError
    for step in reference[2:].split("/"):
        yield step.replace("~1", "/").replace("~0", "~")


def _depth(value: object, most: int) -> int:
    """How deep a value nests, counted no further than one beyond ``most``."""
    if most < 0 or not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max((_depth(item, most - 1) for item in inner), default=0)
