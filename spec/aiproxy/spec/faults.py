"""What a validator found, in words: where, what was expected, what was there.

A message never quotes the instance: it may hold a prompt or a credential. It names kinds
("an array") and what the schema asks for ("one of "low", "high""), nothing else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# Words for JSON types, as they read after "expected" and "found".
_KINDS: Final = {
    "array": "an array",
    "boolean": "a boolean",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_$@/:-]{1,64}")
_SHOWN: Final = 12  # members of an enumeration a message lists
_LONGEST_KEY: Final = 64  # characters of an unknown key a path shows


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an instance breaks a schema.

    ``path`` is dotted (``messages[0].role``; empty for the document itself) and names the missing
    or the surplus key where that is the fault. ``keyword`` is the JSON Schema keyword; where several
    alternatives were open it is ``type`` or ``enum``, after what was wrong with the value.
    """

    path: str
    message: str
    keyword: str
    schema_path: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Invalid(ValueError):
    """An instance that breaks the schema ``name``; ``errors`` has the most telling fault first."""

    def __init__(self, name: str, errors: Sequence[Fault]) -> None:
        self.name = name
        self.errors: tuple[Fault, ...] = tuple(errors)
        first = str(self.errors[0]) if self.errors else "not valid"
        more = len(self.errors) - 1
        super().__init__(f"{name}: {first}" + (f" (and {more} more)" if more > 0 else ""))


def dotted(path: Iterable[str | int]) -> str:
    """Return ``path`` as ``a.b[0].c``; a key with odd characters becomes ``["odd key"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            shown = part if len(part) <= _LONGEST_KEY else part[:_LONGEST_KEY] + "..."
            text += f"[{json.dumps(shown)}]"
    return text


def kind(instance: object) -> str:
    """Return the JSON type of ``instance`` in words, such as ``a string``."""
    if instance is None:
        return "null"
    if isinstance(instance, bool):
        return _KINDS["boolean"]
    if isinstance(instance, str):
        return "an empty string" if not instance else _KINDS["string"]
    if isinstance(instance, int):
        return _KINDS["integer"]
    if isinstance(instance, float):
        return _KINDS["number"]
    if isinstance(instance, Mapping):
        return _KINDS["object"]
    if isinstance(instance, Sequence):
        return _KINDS["array"]
    return "something JSON does not have"


def either(words: Sequence[str]) -> str:
    """Return ``a, b or c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def types(names: str | Iterable[str]) -> str:
    """Return the JSON types ``names`` in words: ``a string or an array``."""
    listed = [names] if isinstance(names, str) else list(names)
    return either([_KINDS.get(name, name) for name in listed])


def members(values: Sequence[Any]) -> str:
    """Return an enumeration in words, shortened when it is long."""
    shown = [json.dumps(value, ensure_ascii=True) for value in values[:_SHOWN]]
    if len(values) > _SHOWN:
        return f"{', '.join(shown)} or {len(values) - _SHOWN} others"
    return either(shown)


def describe(keyword: str, wanted: Any, instance: object, rules: Mapping[str, Any]) -> str:
    """Return the message for ``keyword: wanted`` of the subschema ``rules`` broken by ``instance``."""
    match keyword:
        case "required" | "dependentRequired":
            return "required, but missing"
        case "additionalProperties" | "unevaluatedProperties":
            return "not a known key here"
        case "type":
            return f"expected {types(wanted)}, found {kind(instance)}"
        case "enum":
            return f"expected one of {members(wanted)}; found {_other(instance, wanted)}"
        case "const":
            return f"expected {members([wanted])}; found {_other(instance, [wanted])}"
        case "pattern":
            expected = rules.get("x-aiproxy-expected", "text of the form this field asks for")
            return f"expected {expected}; found text of another form"
        case "not" if "x-aiproxy-expected" in rules:
            return f"expected {rules['x-aiproxy-expected']}; found something else"
        case "not" | "dependentSchemas" | "contains" | "propertyNames" | "uniqueItems":
            return _FIXED[keyword]
    return _bound(keyword, wanted, instance)


_FIXED: Final = {
    "not": "a combination that is not allowed",
    "dependentSchemas": "a combination that is not allowed",
    "contains": "lacks an entry of the kind that is needed",
    "propertyNames": "holds a key of a form that is not allowed",
    "uniqueItems": "expected entries that differ, found the same one twice",
}
_BOUNDS: Final = {
    "minimum": "expected at least {}",
    "maximum": "expected at most {}",
    "exclusiveMinimum": "expected more than {}",
    "exclusiveMaximum": "expected less than {}",
    "multipleOf": "expected a multiple of {}",
    "minLength": "expected at least {} characters",
    "maxLength": "expected at most {} characters",
    "minItems": "expected at least {} entries",
    "maxItems": "expected at most {} entries",
    "minProperties": "expected at least {} keys",
    "maxProperties": "expected at most {} keys",
}


_SINGULAR: Final = {
    "expected at least 1 characters": "expected at least 1 character",
    "expected at most 1 characters": "expected at most 1 character",
    "expected at least 1 entries": "expected at least 1 entry",
    "expected at most 1 entries": "expected at most 1 entry",
    "expected at least 1 keys": "expected at least 1 key",
}


def _bound(keyword: str, wanted: Any, instance: object) -> str:
    form = _BOUNDS.get(keyword)
    if form is None:
        return "not what is allowed here"
    size = f", found {len(instance)}" if isinstance(instance, str | list | dict) else ""
    text = form.format(wanted)
    return (_SINGULAR.get(text) or text) + size


def _other(instance: object, allowed: Sequence[Any]) -> str:
    same_kind = any(kind(instance) == kind(value) for value in allowed)
    return f"{kind(instance)} that is not among them" if same_kind else kind(instance)
