"""Syntax trees to checked closures: what the names of a rule mean and which types go together.

Nothing is evaluated as code: trees become compositions of the functions in ``rule_closures``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from aiproxy.middleware.routing.globs import compile_glob
from aiproxy.middleware.routing.rule_closures import (
    FIELDS,
    TESTS,
    Assigned,
    Field,
    Kind,
    Preferred,
    Reader,
    Required,
    Sorted,
    Step,
    Test,
    against,
    all_of,
    any_of,
    between,
    matching,
    none_of,
    sort_key,
)
from aiproxy.middleware.routing.rule_grammar import (
    Action,
    Assignment,
    Chain,
    Comparison,
    Condition,
    Constant,
    Name,
    Negation,
    Operand,
    Prefer,
    RuleFault,
    Sort,
    parse_action,
    parse_condition,
)
from aiproxy.spec.loading import suggest

DEEPEST: Final = 32

_PROVIDER: Final = "provider."
_PROVIDER_NAMES: Final = frozenset({"provider.id", "provider.name"})
_MODEL_NAMES: Final = frozenset({"request.model", "provider.model"})


@dataclass(frozen=True, slots=True)
class Known:
    """What rules may name. ``models`` is ``None`` when any model name may come up."""

    providers: Collection[str]
    models: Collection[str] | None = None
    strict: bool = False
    lenient: bool = False


class Compiler:
    """Compiles one rule text; ``warnings`` and ``reads`` say what it met on the way.

    ``reads`` are the names used; each warning has its column.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self.warnings: list[tuple[int, str]] = []
        self.reads: set[str] = set()

    def condition(self, text: str) -> Test:
        """Return the test an ``if`` stands for.

        Raises:
            RuleFault: not in the language, unknown name, or types that do not go together.
        """
        return self._test(parse_condition(text), 0, providers=False)

    def action(self, text: str) -> Step:
        """Return what a ``then`` or ``else`` does.

        Raises:
            RuleFault: as above, or a provider nobody configured.
        """
        tree: Action = parse_action(text)
        if isinstance(tree, Assignment):
            return Assigned(tree.priority)
        if isinstance(tree, Sort):
            return self._sort(tree)
        if isinstance(tree, Prefer):
            return self._prefer(tree)
        holds = self._test(tree.condition, 0, providers=True)
        if not self.asks_provider:
            raise RuleFault(
                tree.condition.column,
                "found a requirement on the request alone, expected one on provider.*; "
                "move it to the rule's condition",
            )
        return Required(holds)

    @property
    def asks_provider(self) -> bool:
        return any(name.startswith(_PROVIDER) for name in self.reads)

    # --- conditions ------------------------------------------------------------------------------

    def _test(self, tree: Condition, depth: int, *, providers: bool) -> Test:
        """``providers``: a lone ``provider.<id>`` asks whether the candidate is at that provider."""
        if depth > DEEPEST:
            raise RuleFault(
                tree.column, f"found nesting deeper than {DEEPEST} levels; split the rule"
            )
        if isinstance(tree, Chain):
            tests = [self._test(part, depth + 1, providers=providers) for part in tree.parts]
            return all_of(tests) if tree.joined_by == "and" else any_of(tests)
        if isinstance(tree, Negation):
            return none_of(self._test(tree.inner, depth + 1, providers=providers))
        if isinstance(tree, Comparison):
            return self._comparison(tree)
        if providers and isinstance(tree, Name) and tree.text.startswith(_PROVIDER):
            wanted = self._provider(tree)
            self.reads.add("provider.id")
            return lambda request, candidate, priority: candidate.id == wanted
        return self._flag(tree)

    def _flag(self, operand: Operand) -> Test:
        kind, read = self._operand(operand)
        if kind != "flag":
            raise RuleFault(
                operand.column,
                f"found {_described(operand, kind)} on its own, "
                "expected a comparison such as request.tokens < 1000",
            )
        return lambda request, candidate, priority: read(request, candidate, priority) is True

    def _comparison(self, tree: Comparison) -> Test:
        left_kind, left = self._operand(tree.left)
        right_kind, right = self._operand(tree.right)
        sign = tree.operator
        if sign == "matches":
            if left_kind != "text":
                raise RuleFault(
                    tree.left.column,
                    f"found {_described(tree.left, left_kind)} before matches, expected text",
                )
        elif left_kind != right_kind:
            raise RuleFault(
                tree.right.column,
                f"found {_described(tree.left, left_kind)} compared with "
                f"{_described(tree.right, right_kind)}, expected two of one kind",
            )
        elif sign not in ("==", "!=") and left_kind != "number":
            raise RuleFault(
                tree.column,
                f"found {sign} between {left_kind}s, expected numbers; compare with == or !=",
            )
        self._doubt_names(tree.left, tree.right, sign)
        self._doubt_names(tree.right, tree.left, sign)
        glob = self._glob(tree)
        if glob is not None:
            return glob
        if isinstance(tree.right, Constant):
            return against(left, TESTS[sign], tree.right.value)
        return between(left, TESTS[sign], right)

    def _glob(self, tree: Comparison) -> Test | None:
        """A pattern test, where one is written or a literal with ``*`` stands for one."""
        for pattern, subject in ((tree.right, tree.left), (tree.left, tree.right)):
            if not isinstance(pattern, Constant) or not isinstance(pattern.value, str):
                continue
            if tree.operator != "matches":
                if "*" not in pattern.value or isinstance(subject, Constant):
                    continue
                advice = f"write {'' if tree.operator == '==' else 'not (...) with '}matches"
                if self._known.strict:
                    raise RuleFault(
                        pattern.column,
                        f"found a pattern under {tree.operator}, expected plain text; {advice}",
                    )
                self.warnings.append(
                    (
                        pattern.column,
                        f"found a pattern under {tree.operator}, read as matches; {advice}",
                    )
                )
            holds = compile_glob(pattern.value)
            read = self._operand(subject)[1]
            return matching(read, holds, wanted=tree.operator != "!=")
        return None

    def _operand(self, operand: Operand) -> tuple[Kind, Reader]:
        if isinstance(operand, Name):
            field = self._field(operand)
            return field.kind, field.read
        value = operand.value
        kind: Kind = (
            "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        )
        return kind, lambda request, candidate, priority: value

    def _field(self, name: Name) -> Field:
        field = FIELDS.get(name.text)
        if field is None:
            near = suggest(name.text, tuple(FIELDS)) or (
                "; rules.ebnf of the specification lists them"
            )
            raise RuleFault(
                name.column,
                f"found {name.text!r}, expected a documented request or provider name{near}",
            )
        self.reads.add(name.text)
        return field

    def _doubt_names(self, name: Operand, literal: Operand, sign: str) -> None:
        """Warn of a literal that no configured provider or model can equal."""
        if not isinstance(name, Name) or not isinstance(literal, Constant):
            return
        if name.text in _PROVIDER_NAMES:
            what, known = "provider", self._known.providers
        elif name.text in _MODEL_NAMES and self._known.models is not None:
            what, known = "model", self._known.models
        else:
            return
        text = str(literal.value)
        patterned = sign == "matches" or "*" in text
        if any(map(compile_glob(text), known)) if patterned else text in known:
            return
        self.warnings.append((literal.column, f"found no configured {what} that this text fits"))

    # --- actions ---------------------------------------------------------------------------------

    def _sort(self, tree: Sort) -> Sorted:
        field = self._field(tree.by)
        if not tree.by.text.startswith(_PROVIDER) or field.kind != "number":
            raise RuleFault(
                tree.by.column,
                f"found {tree.by.text} to sort by, expected a number of the provider such as "
                "provider.priority",
            )
        direction = "DESC" if tree.descending else "ASC"
        return Sorted(sort_key(field.read, tree.descending), f"{tree.by.text} {direction}")

    def _prefer(self, tree: Prefer) -> Preferred:
        rank: dict[str, int] = {}
        for name in tree.providers:
            provider = self._provider(name)
            if provider in rank:
                raise RuleFault(name.column, f"found {name.text} a second time, expected it once")
            rank[provider] = len(rank)
        self.reads.add("provider.id")
        return Preferred(rank, "prefer " + " > ".join(name.text for name in tree.providers))

    def _provider(self, name: Name) -> str:
        """Return the provider id that ``provider.<id>`` names."""
        provider = name.text.removeprefix(_PROVIDER)
        if provider == name.text:
            raise RuleFault(name.column, f"found {name.text!r}, expected provider.<id>")
        if provider not in self._known.providers:
            near = suggest(provider, tuple(self._known.providers)) or (
                "; its id is its key below providers"
            )
            message = f"found {name.text}, expected a configured provider{near}"
            if not self._known.lenient:
                raise RuleFault(name.column, message)
            self.warnings.append((name.column, message))
        return provider


def _described(operand: Operand, kind: Kind) -> str:
    return f"{operand.text} (a {kind})" if isinstance(operand, Name) else f"a literal {kind}"
