"""The policies of ``routing.policies``: compiled at load, applied to the candidates of a request.

``rules.ebnf`` of the specification is the language with its meaning (AIP-ROUTE-009, 014 to 025).
Which policies there are and how they compose is decided here; parsing and types are
``rule_grammar``'s and ``rule_compile``'s.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from aiproxy.middleware.config.findings import Finding
from aiproxy.middleware.routing import plugins
from aiproxy.middleware.routing.facts import CandidateFacts, RequestFacts
from aiproxy.middleware.routing.rule_closures import Test
from aiproxy.middleware.routing.rule_compile import Compiler, Known
from aiproxy.middleware.routing.rule_grammar import RuleFault
from aiproxy.middleware.routing.ruling import (
    Compiled,
    Policy,
    Rule,
    Ruling,
    strategies_by_spelling,
)
from aiproxy.spec.faults import dotted
from aiproxy.spec.loading import suggest

__all__ = [
    "CandidateFacts",
    "Compiled",
    "Policy",
    "RequestFacts",
    "Rule",
    "RuleInvalid",
    "Ruling",
    "check_policies",
    "compile_policies",
    "policy_findings",
]

Path: TypeAlias = tuple[str | int, ...]
Severity: TypeAlias = Literal["error", "warning"]

#: The name of the policy that bare rules form together (§7.1).
UNNAMED: Final = "unnamed"
ALWAYS: Final = "model_specific"
_BASE: Final[Path] = ("routing", "policies")
_BARE_KEYS: Final = ("if", "then", "else")


class RuleInvalid(ValueError):
    """A policy that cannot be used. ``column`` counts from 1 in the text at ``path``, if it has one."""

    def __init__(self, path: Path, message: str, column: int | None = None) -> None:
        self.steps = path
        self.path = dotted(path)
        self.column = column
        self.message = message
        place = self.path if column is None else f"{self.path}, column {column}"
        super().__init__(f"{place}: {message}")


def compile_policies(
    rows: Sequence[Mapping[str, Any]],
    *,
    provider_ids: Collection[str],
    strict: bool = False,
    lenient: bool = False,
    model_names: Collection[str] | None = None,
) -> Compiled:
    """Return the policies of ``rows``, the value of ``routing.policies``.

    ``provider_ids`` are all configured providers, disabled ones too. ``strict`` refuses a pattern
    under ``==``, which is otherwise read as ``matches`` with a warning; ``lenient`` only warns of
    providers that do not exist. With ``model_names``, text that no model fits is warned of.

    Raises:
        RuleInvalid: the first fault.
    """
    build = _Build(Known(frozenset(provider_ids), model_names, strict, lenient))
    policies = tuple(build.policies(rows))
    if build.faults:
        raise build.faults[0]
    warnings = tuple(str(RuleInvalid(*warning)) for warning in build.warnings)
    return Compiled(policies, warnings, frozenset(build.reads))


def check_policies(
    rows: Sequence[Mapping[str, Any]], provider_ids: Collection[str], lenient: bool
) -> list[tuple[str, str, Severity]]:
    """Return every fault and warning of ``rows`` as path, message and severity."""
    return [
        (dotted(one.path), one.message, "warning" if one.warning else "error")
        for one in _findings(rows, frozenset(provider_ids), None, lenient)
    ]


def policy_findings(values: Mapping[str, Any], *, lenient: bool = False) -> list[Finding]:
    """Return what is wrong with the policies of a configuration: a validator of ``load_config``."""
    models: set[str] | None = set()
    for provider in values["providers"].values():
        listed = provider.get("models") or ()
        if models is None or not listed:  # it serves whatever it is asked for
            models = None
            continue
        models.update(model["name"] for model in listed)
    policies = values["routing"]["policies"]
    return _findings(policies, frozenset(values["providers"]), models, lenient)


def _findings(
    rows: Sequence[Mapping[str, Any]],
    providers: frozenset[str],
    models: Collection[str] | None,
    lenient: bool,
) -> list[Finding]:
    build = _Build(Known(providers, models, lenient=lenient))
    list(build.policies(rows))
    faults = [(fault.steps, fault.message, fault.column, False) for fault in build.faults]
    warnings = [(path, message, column, True) for path, message, column in build.warnings]
    return [
        Finding(
            path,
            message if column is None else f"column {column}: {message}",
            warning,
            0 if column is None else column - 1,
        )
        for path, message, column, warning in faults + warnings
    ]


class _Build:
    """Compiles all rows, collecting faults instead of stopping at the first."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._names: set[str] = set()
        self.faults: list[RuleInvalid] = []
        self.warnings: list[tuple[Path, str, int | None]] = []
        self.reads: set[str] = set()

    def policies(self, rows: object) -> Iterator[Policy]:
        """Yield the policies; the one of bare rules stands where the first of them does."""
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            self._fault(_BASE, "found no list, expected a list of policies")
            return
        bare: list[tuple[Path, Mapping[str, Any]]] = []
        for index, row in enumerate(rows):
            if isinstance(row, Mapping) and _is_bare(row):
                bare.append(((*_BASE, index), row))
        placed = False
        for index, row in enumerate(rows):
            path = (*_BASE, index)
            if not isinstance(row, Mapping):
                self._fault(path, "found no mapping, expected name, type and rules")
            elif not _is_bare(row):
                yield from self._policy(path, row)
            elif not placed:
                placed = True
                self._name(path, UNNAMED)
                yield Policy(UNNAMED, None, tuple(self._rules(bare)))

    def _policy(self, path: Path, row: Mapping[str, Any]) -> Iterator[Policy]:
        for key in row:
            if key not in ("name", "type", "rules"):
                self._fault(
                    (*path, key), f"found {key} in a policy, expected it in one of its rules"
                )
        name = row.get("name")
        if isinstance(name, str) and name:
            self._name((*path, "name"), name)
        else:
            self._fault((*path, "name"), "found no name, expected one that no other policy has")
        strategy = self._strategy((*path, "type"), row.get("type"))
        listed = row.get("rules")
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            self._fault((*path, "rules"), "found no rules, expected a list of if and then")
            listed = ()
        places = [((*path, "rules", index), rule) for index, rule in enumerate(listed)]
        yield Policy(str(name), strategy, tuple(self._rules(places)))

    def _name(self, path: Path, name: str) -> None:
        if name in self._names:
            self._fault(path, f"found the policy name {name!r} a second time, expected it once")
        self._names.add(name)

    def _strategy(self, path: Path, kind: object) -> str | None:
        if kind == ALWAYS:
            return None
        known = strategies_by_spelling()
        if isinstance(kind, str) and kind.lower() in known:
            return known[kind.lower()]
        plugin = plugins.canonical(kind) if isinstance(kind, str) else None
        if plugin is not None:
            return plugin
        found = "no type" if kind is None else "an unknown type"
        near = suggest(kind, (ALWAYS, *known)) if isinstance(kind, str) else ""
        legal = ", ".join(dict.fromkeys(known.values()))
        self._fault(path, f"found {found}, expected {ALWAYS} or a strategy ({legal}){near}")
        return None

    def _rules(self, places: Sequence[tuple[Path, object]]) -> Iterator[Rule]:
        last = len(places) - 1
        for index, (path, row) in enumerate(places):
            if not isinstance(row, Mapping):
                self._fault(path, "found no mapping, expected if and then, or else")
                continue
            unknown = [key for key in row if key not in _BARE_KEYS]
            if unknown:
                self._fault((*path, unknown[0]), "found an unknown key, expected if, then or else")
            elif "else" in row:
                if len(row) > 1:
                    self._fault((*path, "else"), "found else beside if or then, expected it alone")
                elif index != last:
                    self._fault((*path, "else"), "found else before other rules, expected it last")
                yield from self._rule(path, row, None, "else")
            elif "if" in row and "then" in row:
                yield from self._rule(path, row, "if", "then")
            else:
                missing = "then" if "if" in row else "if"
                self._fault(path, f"found no {missing}, expected if and then together, or else")

    def _rule(
        self, path: Path, row: Mapping[str, Any], condition: str | None, action: str
    ) -> Iterator[Rule]:
        holds: Test | None = None
        per_provider = False
        sound = len(self.faults)
        if condition is not None:
            with_condition = self._compiled((*path, condition), row[condition], "condition")
            if with_condition is not None:
                compiler, holds = with_condition
                per_provider = compiler.asks_provider
        done = self._compiled((*path, action), row[action], "action")
        if done is not None and len(self.faults) == sound:
            yield Rule(holds, per_provider, done[1])

    def _compiled(self, path: Path, text: object, what: str) -> tuple[Compiler, Any] | None:
        if not isinstance(text, str):
            self._fault(path, f"found no text, expected a rule's {what} in quotes")
            return None
        compiler = Compiler(self._known)
        try:
            result: Any = getattr(compiler, what)(text)
        except RuleFault as fault:
            self.faults.append(RuleInvalid(path, fault.message, fault.column))
            return None
        self.warnings += [(path, message, column) for column, message in compiler.warnings]
        self.reads |= compiler.reads
        return compiler, result

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(RuleInvalid(path, message))


def _is_bare(row: Mapping[str, Any]) -> bool:
    return "rules" not in row and any(key in row for key in _BARE_KEYS)
