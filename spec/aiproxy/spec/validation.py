"""Two validators over the same schemas: one that explains, one that is fast.

``validate`` uses jsonschema, the reference, and reports every fault. ``checker`` compiles a schema
with jsonschema-rs for the request path; only a refusal goes through the reference validator, for
the words. The regular expressions of our schemas stay in the subset both engines read alike, and
the fast one runs them in linear time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from aiproxy.spec.faults import Fault, Invalid, describe, dotted, either, kind, members, types
from aiproxy.spec.loading import URN, by_uri, schema

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_MOST_FAULTS: Final = 64  # a hostile body may be wrong a million times; nobody reads further
_MANY: Final = 32  # members of a container from which skipping the sound ones pays


class _Compiled(Protocol):
    def is_valid(self, instance: Any) -> bool: ...


class _Reference(Protocol):
    def iter_errors(self, instance: Any) -> "Iterator[ValidationError]": ...


def validate(instance: object, name: str) -> None:
    """Return when ``instance`` satisfies the schema ``name``.

    Raises:
        Invalid: it does not; ``errors`` holds the faults (at most 64), the most telling first.
        KeyError: no such schema.
    """
    faults = _faults(instance, name)
    if faults:
        raise Invalid(name, faults)


class Checker:
    """One schema, compiled. Safe to share between threads."""

    __slots__ = ("_compiled", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._compiled = _compiled(schema(name))

    def ok(self, instance: object) -> bool:
        """Return whether ``instance`` satisfies the schema.

        Text that is not Unicode (a lone surrogate) and numbers JSON lacks are never valid.
        """
        try:
            return self._compiled.is_valid(instance)
        except ValueError:  # UnicodeEncodeError among them
            return False

    def first_fault(self, instance: object) -> Fault | None:
        """Return the most telling fault of ``instance``, or nothing when it is valid."""
        if self.ok(instance):
            return None
        faults = _faults(instance, self.name)
        return faults[0] if faults else Fault("", "not valid JSON text", "type")

    def __repr__(self) -> str:
        return f"Checker({self.name!r})"


@cache
def checker(name: str) -> Checker:
    """Return the compiled schema ``name``; compiled once.

    Raises:
        KeyError: no such schema.
    """
    return Checker(name)


class _Same:
    """A subschema as a key: equal to itself only. Schemas stay in memory, so identity is stable."""

    __slots__ = ("subschema",)

    def __init__(self, subschema: dict[str, Any]) -> None:
        self.subschema = subschema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.subschema is self.subschema

    def __hash__(self) -> int:
        return id(self.subschema)


@cache
def _part(same: _Same) -> _Compiled:
    """Return a subschema of an ``_absolute`` document, compiled on its own."""
    return _compiled(same.subschema)


@cache
def _absolute(name: str) -> dict[str, Any]:
    """Return the schema ``name`` with every reference as a full URN, so that parts stand alone.

    ``$schema`` goes: met behind a reference, it would bring back jsonschema's own keywords.
    """
    document: dict[str, Any] = _with_references(schema(name), f"{URN}{name}")
    return {key: value for key, value in document.items() if key != "$schema"}


def _with_references(node: Any, base: str) -> Any:
    if isinstance(node, list):
        return [_with_references(value, base) for value in node]
    if not isinstance(node, dict):
        return node
    copied = {key: _with_references(value, base) for key, value in node.items()}
    reference = copied.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        copied["$ref"] = base + reference
    return copied


def matches(pattern: str, text: str) -> bool:
    """Return whether ``text`` satisfies a schema's or a header's ``pattern``."""
    return _ecma(pattern).search(text) is not None


def _compiled(document: dict[str, Any]) -> _Compiled:
    import jsonschema_rs

    compiled: _Compiled = jsonschema_rs.Draft202012Validator(
        document,
        retriever=by_uri,
        pattern_options=jsonschema_rs.RegexOptions(),
        validate_formats=False,
    )
    return compiled


@cache
def _reference(name: str) -> _Reference:
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    def retrieve(uri: str) -> Any:
        bare = uri.partition("#")[0]
        return DRAFT202012.create_resource(_absolute(bare.removeprefix(URN)))

    validator: _Reference = _reference_class()(
        _absolute(name),
        registry=Registry(retrieve=retrieve),  # type: ignore[call-arg]  # attrs alias
    )
    return validator


@cache
def _reference_class() -> Any:
    """Return Draft 2020-12 with faults that point at keys, and ECMA 262 regular expressions."""
    from jsonschema import Draft202012Validator, validators

    extend = cast("Any", validators.extend)  # the stubs leave it untyped
    return extend(
        Draft202012Validator,
        {
            "items": _items,
            "required": _required,
            "additionalProperties": _additional,
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "propertyNames": _property_names,
        },
    )


def _required(
    validator: Any, wanted: Sequence[str], instance: Any, rules: Any
) -> Iterator["ValidationError"]:
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "object"):
        for key in wanted:
            if key not in instance:
                yield ValidationError("missing", path=(key,))


def _items(
    validator: Any, wanted: Any, instance: Any, rules: Mapping[str, Any]
) -> Iterator["ValidationError"]:
    """Yield the faults of the entries, a bounded number: an alternative collects all it is given."""
    if validator.is_type(instance, "array"):
        first = len(rules.get("prefixItems", ()))
        entries = ((index, instance[index]) for index in range(first, len(instance)))
        yield from _members(validator, wanted, entries, len(instance))


def _members(
    validator: Any, wanted: Any, entries: Iterable[tuple[Any, Any]], count: int
) -> Iterator["ValidationError"]:
    """Yield up to 64 faults of ``entries`` (key, value) against the subschema ``wanted``.

    The reference validator takes most of a millisecond a member. Among many the compiled one finds
    the members at fault first, so that a body of a million sound entries is still answered at once.
    """
    if count > _MANY and isinstance(wanted, dict):
        sound = _part(_Same(wanted)).is_valid
        entries = ((key, value) for key, value in entries if not sound(value))
    faults = (fault for key, value in entries for fault in validator.descend(value, wanted, key))
    yield from islice(faults, _MOST_FAULTS)


def _additional(
    validator: Any, wanted: Any, instance: Any, rules: Mapping[str, Any]
) -> Iterator["ValidationError"]:
    from jsonschema.exceptions import ValidationError

    if not validator.is_type(instance, "object"):
        return
    named = rules.get("properties", {})
    forms = [_ecma(form) for form in rules.get("patternProperties", {})]
    others = (
        key for key in instance if key not in named and not any(form.search(key) for form in forms)
    )
    if wanted is False:
        for key in islice(others, _MOST_FAULTS):
            yield ValidationError("surplus", path=(key,))
        return
    if wanted is not True:
        entries = ((key, instance[key]) for key in others)
        yield from _members(validator, wanted, entries, len(instance))


def _pattern(validator: Any, wanted: str, instance: Any, rules: Any) -> Iterator["ValidationError"]:
    from jsonschema.exceptions import ValidationError

    if validator.is_type(instance, "string") and not _ecma(wanted).search(instance):
        yield ValidationError("form")


def _pattern_properties(
    validator: Any, wanted: Mapping[str, Any], instance: Any, rules: Any
) -> Iterator["ValidationError"]:
    if not validator.is_type(instance, "object"):
        return
    for form, subschema in wanted.items():
        entries = ((key, value) for key, value in instance.items() if _ecma(form).search(key))
        yield from _members(validator, subschema, entries, len(instance))


def _property_names(
    validator: Any, wanted: Any, instance: Any, rules: Any
) -> Iterator["ValidationError"]:
    if validator.is_type(instance, "object"):
        names = ((None, key) for key in instance)
        yield from _members(validator, wanted, names, len(instance))


@cache
def _ecma(pattern: str) -> re.Pattern[str]:
    """Return ``pattern`` with the meaning JSON Schema gives it: ``$`` is the very end, ``\\d`` ASCII.

    Python's ``$`` also matches before a final line feed, which would let ``"id\\n"`` through.
    """
    return re.compile(re.sub(r"(\\.)|(\[(?:\\.|[^\]\\])*\])|(\$)", _very_end, pattern), re.ASCII)


def _very_end(found: re.Match[str]) -> str:
    return r"\Z" if found.group(3) else found.group(0)


def _faults(instance: object, name: str) -> list[Fault]:
    try:
        errors = list(islice(_reference(name).iter_errors(instance), _MOST_FAULTS))
    except RecursionError:
        return [Fault("", "nested too deeply", "depth")]
    except BaseException as fault:
        # the same, met inside a map of the library's, whose panic is no Exception
        if type(fault).__name__ != "PanicException":
            raise
        return [Fault("", "nested too deeply", "depth")]
    errors.sort(key=_depth)  # stable: schema order among equals
    return [_fault(error, name) for error in errors]


def _depth(error: "ValidationError") -> int:
    return len(error.absolute_path)


def _fault(error: "ValidationError", name: str) -> Fault:
    """Return ``error`` in our words, after following ``anyOf`` and ``oneOf`` to the telling branch."""
    keyword = message = ""
    while error.validator in ("anyOf", "oneOf") and error.context and not message:
        found = _telling(error)
        if isinstance(found, _Choice):
            keyword = found.keyword
            message = f"expected {either(found.phrases)}; found {kind(error.instance)}"
        else:
            error = found
    return Fault(
        path=dotted(error.absolute_path),
        message=_about_key(error) + (message or _message(error)),
        keyword=keyword or str(error.validator or "false"),
        schema_path=_schema_path(error, name),
    )


def _about_key(error: "ValidationError") -> str:
    return "a key is not allowed: " if "propertyNames" in error.absolute_schema_path else ""


def _message(error: "ValidationError") -> str:
    if error.validator in ("anyOf", "oneOf"):
        return "matches more than one of forms that exclude each other"
    if error.validator is None:  # the subschema `false`
        return "not allowed here"
    rules = error.schema if isinstance(error.schema, Mapping) else {}
    return describe(str(error.validator), error.validator_value, error.instance, rules)


def _schema_path(error: "ValidationError", name: str) -> str:
    return f"{URN}{name}#/" + "/".join(str(part) for part in error.absolute_schema_path)


class _Choice(NamedTuple):
    """What the value itself may be, when no branch of an alternative was meant."""

    keyword: str
    phrases: list[str]


def _telling(error: "ValidationError") -> "ValidationError | _Choice":
    """Return the inner error that tells most, or phrases for what all branches would accept.

    A branch that wants another JSON type was not meant; nor was one whose discriminating constant
    (a ``const`` or ``enum`` on a direct member) differs, as long as another branch remains.
    """
    branches: dict[int, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(int(inner.relative_schema_path[0]), []).append(inner)
    meant = [found for found in branches.values() if not any(map(_other_type, found))]
    named = [found for found in meant if not any(map(_other_constant, found))]
    if named:
        shortest = min(named, key=len)
        return min(shortest, key=_depth)
    constants = [inner for found in meant for inner in found if _other_constant(inner)]
    if constants and len(constants[0].relative_path) > 0:
        return _merged(constants)
    phrases = dict.fromkeys(_phrases(branches.values()))
    return _Choice("enum" if constants else "type", list(phrases))


def _phrases(branches: "Iterable[list[ValidationError]]") -> "Iterator[str]":
    """Yield what the branches want of the value itself: a type, or else constants, in words."""
    for found in branches:
        kinds = [error for error in found if _other_type(error)]
        for error in kinds or filter(_other_constant, found):
            wanted: Any = error.validator_value
            if kinds:
                yield from map(types, [wanted] if isinstance(wanted, str) else wanted)
            elif len(error.relative_path) == 0:
                yield members(wanted if error.validator == "enum" else [wanted])


def _merged(constants: "list[ValidationError]") -> "ValidationError":
    """Return one ``enum`` error for what several branches wanted of the same member."""
    first = constants[0]
    same = [error for error in constants if error.absolute_path == first.absolute_path]
    allowed: list[Any] = []
    for error in same:
        wanted: Any = error.validator_value
        allowed.extend(wanted if error.validator == "enum" else [wanted])
    if len(same) > 1:
        first.validator = "enum"
        first.validator_value = [
            value for index, value in enumerate(allowed) if value not in allowed[:index]
        ]
    return first


def _other_type(error: "ValidationError") -> bool:
    return error.validator == "type" and len(error.relative_path) == 0


def _other_constant(error: "ValidationError") -> bool:
    return error.validator in ("const", "enum") and len(error.relative_path) <= 1
