"""The policies' small language: a hand-written parser, and what its actions do to an order.

Inside a policy the first rule that holds for a candidate decides. Assignments take effect first,
then sorts, then preferences, then requirements.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from right_router.settings import canonical

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.settings import Model

TOKENS = re.compile(
    r"\s*(?:(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?![A-Za-z0-9_.-])"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_-]+)*)"
    r"|(?P<sign>==|!=|<=|>=|<|>|=|\(|\)))"
)
Facts = Mapping[str, Any]
Test = Callable[[Facts], Any]


class BadRule(ValueError):
    """A rule that does not parse."""


class Parser:
    """Reads one condition or action from left to right."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            match = TOKENS.match(text, place)
            if match is None:
                raise BadRule(f"column {place + 1} of {text!r}")
            self.tokens.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
            place = match.end()
        self.place = 0

    def peek(self, *wanted: str) -> bool:
        """Return whether the next token is one of these."""
        return self.place < len(self.tokens) and self.tokens[self.place][1] in wanted

    def take(self, *wanted: str) -> tuple[str, str]:
        """Return the next token, which must be one of ``wanted`` when any are given."""
        if self.place >= len(self.tokens) or (wanted and not self.peek(*wanted)):
            raise BadRule(f"expected {' or '.join(wanted) or 'more'}")
        self.place += 1
        return self.tokens[self.place - 1]

    def condition(self) -> Test:
        tests = [self.conjunction()]
        while self.peek("or"):
            self.take()
            tests.append(self.conjunction())
        return lambda facts: any(test(facts) for test in tests)

    def conjunction(self) -> Test:
        tests = [self.negation()]
        while self.peek("and"):
            self.take()
            tests.append(self.negation())
        return lambda facts: all(test(facts) for test in tests)

    def negation(self) -> Test:
        if self.peek("not"):
            self.take()
            inner = self.negation()
            return lambda facts: not inner(facts)
        if self.peek("("):
            self.take()
            inner = self.condition()
            self.take(")")
            return inner
        left, _ = self.operand()
        if not self.peek("==", "!=", "<", "<=", ">", ">=", "matches"):
            return lambda facts: bool(left(facts))
        sign = self.take()[1]
        right, literal = self.operand()
        return comparison(left, sign, right, literal)

    def operand(self) -> tuple[Test, bool]:
        """Return how to read an operand, and whether it is a quoted text."""
        kind, text = self.take()
        if kind == "number":
            number = float(text)
            return (lambda facts: number), False
        if kind == "text":
            return (lambda facts: text[1:-1]), True
        if text in ("true", "false"):
            return (lambda facts: text == "true"), False
        return (lambda facts: facts.get(text)), False


def comparison(left: Test, sign: str, right: Test, literal: bool) -> Test:
    """Return a comparison; with a missing value it is false whatever the sign."""

    def compare(facts: Facts) -> bool:
        a, b = left(facts), right(facts)
        if a is None or b is None:
            return False
        if sign == "matches" or (literal and "*" in b and sign in ("==", "!=")):
            return glob(b, str(a)) is (sign != "!=")
        results = {
            "==": a == b, "!=": a != b,
            "<": sign[0] == "<" and a < b, "<=": sign[0] == "<" and a <= b,
            ">": sign[0] == ">" and a > b, ">=": sign[0] == ">" and a >= b,
        }  # fmt: skip
        return bool(results[sign])

    return compare


def glob(pattern: str, text: str) -> bool:
    """Return whether the whole text matches; ``*`` is any characters, ``?`` exactly one."""
    parts = [{"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in pattern]
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def apply(ask: "Ask", order: list["Model"]) -> tuple[list["Model"], list["Model"], tuple[str, ...]]:
    """Return the order under the active policies, who was turned away, and which policies acted."""
    away: list[Model] = []
    acted: list[str] = []
    policies = policies_of(ask.settings.routing.get("policies") or ())
    if ask.has("policies-ignored"):
        policies = []
    if ask.has("policies-reversed"):
        policies.reverse()
    for policy in policies:
        if not active(ask, policy.get("type")):
            continue
        before = list(order)
        order, turned_away, decided = act(ask, policy["rules"], order)
        away += turned_away
        if decided and (order != before or turned_away):
            acted.append(policy.get("name") or "policy")
    return order, away, tuple(acted)


def policies_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the policies, the bare rules as one unnamed policy at the first one's place."""
    found: list[dict[str, Any]] = []
    bare: dict[str, Any] | None = None
    for row in rows:
        if "rules" in row:
            found.append(dict(row))
        elif bare is None:
            bare = {"rules": [row]}
            found.append(bare)
        else:
            bare["rules"].append(row)
    return found


def active(ask: "Ask", kind: str | None) -> bool:
    """Return whether a policy of this type acts under the request's strategy."""
    if kind is None or kind == "model_specific" or ask.has("policies-always"):
        return True
    return canonical(kind) == ask.strategy


def act(
    ask: "Ask", rows: Sequence[Mapping[str, Any]], order: list["Model"]
) -> tuple[list["Model"], list["Model"], bool]:
    """Return the order after one policy, who was turned away, and whether any rule held."""
    facts = {m: facts_of(ask, m) for m in order}
    undecided = list(order)
    actions: list[tuple[str, list[Model]]] = []
    listed = list(reversed(rows)) if ask.has("last-rule-wins") else rows
    if ask.has("assignments-ignored"):
        listed = [
            row for row in listed if kind_of(str(row.get("then") or row.get("else"))) != "assign"
        ]
    for row in listed:
        if ask.has("equals-is-literal") and re.search(r"==\s*'[^']*\*", row.get("if", "")):
            continue
        test = Parser(row["if"]).condition() if "if" in row else (lambda facts: True)
        held = [m for m in undecided if test(facts[m])]
        if held and (action := row.get("then" if "if" in row else "else")):
            actions.append((action, held))
        missed = [m for m in undecided if m not in held]
        if missed and "if" in row and "else" in row:
            actions.append((row["else"], missed))
            missed = []
        if not (ask.has("all-rules-apply")):
            undecided = missed
    away: list[Model] = []
    for kind in ("assign", "sort", "prefer", "require"):
        for action, touched in actions:
            if kind_of(action) == kind:
                order, away = perform(ask, action, touched, order, facts, away)
    return order, away, bool(actions)


def kind_of(action: str) -> str:
    """Return which kind of action a text is."""
    word = action.split(maxsplit=1)[0]
    if word in ("prefer", "require"):
        return word
    return "assign" if re.match(r"priority\s*=", action) else "sort"


def perform(
    ask: "Ask",
    action: str,
    touched: list["Model"],
    order: list["Model"],
    facts: dict["Model", dict[str, Any]],
    away: list["Model"],
) -> tuple[list["Model"], list["Model"]]:
    """Return the order after one action, and everybody turned away so far."""
    kind = kind_of(action)
    if kind == "assign":
        for m in touched:
            facts[m]["provider.priority"] = float(action.partition("=")[2])
        by_priority = {m: facts[m]["provider.priority"] for m in order}
        return sorted(order, key=by_priority.__getitem__), away
    if kind == "sort":
        name, _, direction = action.partition(" ")
        down = direction.strip().upper() == "DESC"
        return rearranged(order, touched, lambda m: missing_last(facts[m].get(name), down)), away
    if kind == "prefer":
        wanted = [name.strip().partition(".")[2] for name in action[6:].split(">")]
        place = {name: i for i, name in enumerate(wanted)}
        if ask.has("only-first-preferred"):
            place = {name: i for name, i in place.items() if i == 0}
        first = sorted(
            (m for m in touched if m.provider.id in place), key=lambda m: place[m.provider.id]
        )
        return first + [m for m in order if m not in first], away
    gone = [m for m in touched if not required(action[7:], facts[m])]
    if ask.has("unmet-requirement-dropped") and len(gone) == len(order):
        gone = []
    if ask.has("require-prefers"):
        return [m for m in order if m not in gone] + gone, away
    return [m for m in order if m not in gone], away + gone


def required(text: str, facts: Facts) -> bool:
    """Return whether a candidate is what ``require`` asks for; a bare provider.<id> is that one."""
    ids = {f"provider.{facts['provider.id']}": True}
    return bool(Parser(text).condition()({**ids, **facts}))


def missing_last(number: Any, down: bool) -> tuple[bool, float]:
    return (number is None, 0.0 if number is None else (-number if down else number))


def rearranged(order: list["Model"], touched: list["Model"], key: Any) -> list["Model"]:
    """Return the order with ``touched`` sorted among the places they hold."""
    ordered = iter(sorted((m for m in order if m in touched), key=key))
    return [next(ordered) if m in touched else m for m in order]


def facts_of(ask: "Ask", model: "Model") -> dict[str, Any]:
    """Return what rules may ask about a request and a candidate."""
    from right_router.candidates import latency

    provider, track = model.provider, ask.router.health.track(model)
    price = model.listed_price
    return {
        "request.model": ask.model,
        "request.tokens": 1e6
        if ask.has("every-prompt-long")
        else 0.0
        if ask.has("every-prompt-short")
        else float(ask.prompt_tokens),
        "request.task": ask.task,
        "request.stream": ask.stream,
        "request.endpoint": ask.endpoint,
        "request.max_cost": None if ask.cost_limit is None else float(ask.cost_limit),
        "provider.id": provider.id,
        "provider.name": provider.id,
        "provider.type": provider.type,
        "provider.model": model.name,
        "provider.region": provider.raw.get("region"),
        "provider.priority": float(provider.priority),
        "provider.weight": float(provider.weight),
        "provider.cost_per_1k_tokens": None if price is None else float(price),
        "provider.latency_ms": latency(ask, model),
        "provider.error_rate": track.error_rate(),
        "provider.quality": model.quality_for(ask.task),
        "provider.load": float(track.in_flight),
    }
