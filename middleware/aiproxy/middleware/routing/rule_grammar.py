"""Rule text to syntax trees: the grammar of ``rules.ebnf`` and the words of its syntax errors.

Columns count characters of the rule from 1. What names mean and which types go together is
``rule_compile``'s. The parser generator is imported with the first rule, so a configuration
without policies does not pay for it.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from lark import Lark

MOST_CHARACTERS: Final = 4096
_LONGEST_SHOWN: Final = 32

_GRAMMAR: Final = r"""
condition: disjunction
?disjunction: conjunction (_OR conjunction)*
?conjunction: negation (_AND negation)*
?negation: _NOT negation -> negated
    | test
?test: operand COMPARATOR operand -> compared
    | operand _MATCHES STRING -> matched
    | operand
    | "(" disjunction ")"
?operand: NAME | STRING | NUMBER | BOOLEAN

?action: sort | assignment | prefer | require
sort: NAME DIRECTION
assignment: _PRIORITY _ASSIGN NUMBER
prefer: _PREFER NAME (_BEFORE NAME)*
require: _REQUIRE disjunction

COMPARATOR: /[=!]=|<=?|>=?/
NAME: /[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_-]+)+(?![A-Za-z0-9_.-])/
STRING: /'[^'\x00-\x1f\x7f]*'|"[^"\x00-\x1f\x7f]*"/
NUMBER: /-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])/
BOOLEAN: /(true|false)(?![A-Za-z0-9_.-])/
DIRECTION: /(ASC|DESC|asc|desc)(?![A-Za-z0-9_.-])/
_OR: /or(?![A-Za-z0-9_.-])/
_AND: /and(?![A-Za-z0-9_.-])/
_NOT: /not(?![A-Za-z0-9_.-])/
_MATCHES: /matches(?![A-Za-z0-9_.-])/
_PRIORITY: /priority(?![A-Za-z0-9_.-])/
_PREFER: /prefer(?![A-Za-z0-9_.-])/
_REQUIRE: /require(?![A-Za-z0-9_.-])/
_ASSIGN: "="
_BEFORE: ">"
SPACE: /[ \t\r\n]+/
%ignore SPACE
"""

_WORDS: Final = {
    "NAME": "a name such as request.model",
    "STRING": "text in quotes",
    "NUMBER": "a number",
    "BOOLEAN": "true or false",
    "COMPARATOR": "a comparison (== != < <= > >=)",
    "DIRECTION": "ASC or DESC",
    "LPAR": "(",
    "RPAR": ")",
    "_ASSIGN": "=",
    "_BEFORE": ">",
    "$END": "the end of the rule",
}


class RuleFault(ValueError):
    """A fault at ``column`` (from 1) of a rule's text."""

    def __init__(self, column: int, message: str) -> None:
        super().__init__(message)
        self.column = column
        self.message = message


@dataclass(frozen=True, slots=True)
class Name:
    """``request.<field>``, ``provider.<field>`` or ``provider.<id>``, as written."""

    text: str
    column: int


@dataclass(frozen=True, slots=True)
class Constant:
    value: str | float | bool
    column: int


Operand: TypeAlias = Name | Constant


@dataclass(frozen=True, slots=True)
class Comparison:
    """``operator`` is one of == != < <= > >= and matches; ``column`` is the left operand's."""

    operator: str
    left: Operand
    right: Operand
    column: int


@dataclass(frozen=True, slots=True)
class Negation:
    inner: "Condition"
    column: int


@dataclass(frozen=True, slots=True)
class Chain:
    """Two or more conditions joined by the same word."""

    joined_by: Literal["and", "or"]
    parts: tuple["Condition", ...]
    column: int


Condition: TypeAlias = Name | Constant | Comparison | Negation | Chain


@dataclass(frozen=True, slots=True)
class Assignment:
    priority: float


@dataclass(frozen=True, slots=True)
class Sort:
    by: Name
    descending: bool


@dataclass(frozen=True, slots=True)
class Prefer:
    providers: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Require:
    condition: Condition


Action: TypeAlias = Assignment | Sort | Prefer | Require


def parse_condition(text: str) -> Condition:
    """Return the tree of a rule's ``if``.

    Raises:
        RuleFault: not in the language.
    """
    tree: Condition = _parse(text, "condition")
    return tree


def parse_action(text: str) -> Action:
    """Return the tree of a rule's ``then`` or ``else``.

    Raises:
        RuleFault: not in the language.
    """
    tree: Action = _parse(text, "action")
    return tree


def _parse(text: str, start: str) -> Any:
    if len(text) > MOST_CHARACTERS:
        raise RuleFault(
            MOST_CHARACTERS + 1,
            f"found {len(text)} characters, expected at most {MOST_CHARACTERS}; split the rule",
        )
    from lark import UnexpectedInput

    try:
        return _parser().parse(text, start=start)
    except UnexpectedInput as unexpected:
        raise _syntax_fault(text, unexpected) from None


@cache
def _parser() -> "Lark":
    from lark import Lark, Transformer

    class Build(Transformer[Any, Any]):
        """Reduces straight to our own trees; no parse tree is kept."""

        condition = staticmethod(lambda parts: parts[0])
        disjunction = staticmethod(lambda parts: Chain("or", tuple(parts), parts[0].column))
        conjunction = staticmethod(lambda parts: Chain("and", tuple(parts), parts[0].column))
        negated = staticmethod(lambda parts: Negation(parts[0], parts[0].column))
        compared = staticmethod(
            lambda parts: Comparison(str(parts[1]), parts[0], parts[2], parts[0].column)
        )
        matched = staticmethod(
            lambda parts: Comparison("matches", parts[0], parts[1], parts[0].column)
        )
        sort = staticmethod(lambda parts: Sort(parts[0], parts[1].upper() == "DESC"))
        assignment = staticmethod(lambda parts: Assignment(parts[0].value))
        prefer = staticmethod(lambda parts: Prefer(tuple(parts)))
        require = staticmethod(lambda parts: Require(parts[0]))
        NAME = staticmethod(lambda token: Name(str(token), token.start_pos + 1))
        STRING = staticmethod(lambda token: Constant(token[1:-1], token.start_pos + 1))
        BOOLEAN = staticmethod(lambda token: Constant(token == "true", token.start_pos + 1))  # noqa: S105
        NUMBER = staticmethod(lambda token: Constant(_number(token), token.start_pos + 1))

    return Lark(_GRAMMAR, parser="lalr", start=["condition", "action"], transformer=Build())


def _number(token: Any) -> float:
    value = float(token)
    if not math.isfinite(value):
        raise RuleFault(token.start_pos + 1, "found a number out of range, expected a finite one")
    return value


def _syntax_fault(text: str, unexpected: Any) -> RuleFault:
    at = unexpected.pos_in_stream
    token = getattr(unexpected, "token", None)
    if at is None or (token is not None and token.type == "$END"):
        at = len(text)
    due = sorted({_words(terminal) for terminal in unexpected.interactive_parser.accepts()})
    return RuleFault(at + 1, f"found {_shown(text, at)}, expected {', '.join(due)}")


def _words(terminal: str) -> str:
    return _WORDS.get(terminal) or terminal.strip("_").lower()


def _shown(text: str, at: int) -> str:
    """What stands at ``at``, up to white space; quoted text may be anyone's and is not repeated."""
    rest = text[at:]
    if not rest.strip():
        return "the end of the rule"
    if rest[0] in "'\"":
        closed = rest.find(rest[0], 1) > 0
        return "text in quotes" if closed else "a quotation mark without its partner"
    return repr(rest.split(None, 1)[0][:_LONGEST_SHOWN])
