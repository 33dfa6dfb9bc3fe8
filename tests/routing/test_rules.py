import random
import re
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.routing.rule_closures import FIELDS
from aiproxy.middleware.routing.rule_grammar import MOST_CHARACTERS
from aiproxy.middleware.routing.rules import (
    CandidateFacts,
    Compiled,
    RequestFacts,
    RuleInvalid,
    Ruling,
    check_policies,
    compile_policies,
    policy_findings,
)
from aiproxy.spec import HEADERS, schema

Row = dict[str, Any]

PROVIDERS = ("local", "cloudflare", "openai", "eu-west_1")
MINIMIZE_COST: Row = {
    "name": "minimize_cost",
    "type": "cost_optimized",
    "rules": [
        {"if": "request.tokens < 1000", "then": "provider.priority ASC"},
        {"if": "request.tokens >= 1000", "then": "provider.cost_per_1k_tokens ASC"},
    ],
}
MINIMIZE_LATENCY: Row = {
    "name": "minimize_latency",
    "type": "latency_optimized",
    "rules": [
        {"if": "provider.type == 'local'", "then": "priority = 1"},
        {"if": "provider.type == 'cloudflare'", "then": "priority = 2"},
        {"else": "priority = 3"},
    ],
}
ROUTE_BY_MODEL: Row = {
    "name": "route_by_model",
    "type": "model_specific",
    "rules": [
        {
            "if": "request.model matches 'llama-*'",
            "then": "prefer provider.local > provider.cloudflare",
        },
        {"if": "request.model == 'gpt-4*'", "then": "require provider.openai"},
    ],
}
STANDARD = [MINIMIZE_COST, MINIMIZE_LATENCY, ROUTE_BY_MODEL]
BARE: list[Row] = [
    {"if": "provider.type == 'local'", "then": "priority = 1"},
    {"else": "priority = 999"},
]


def compiled(rows: list[Row], **more: Any) -> Compiled:
    return compile_policies(rows, provider_ids=PROVIDERS, **more)


def always(*rules: Row, name: str = "p") -> Row:
    return {"name": name, "type": "model_specific", "rules": list(rules)}


def only(condition: str, action: str) -> list[Row]:
    return [always({"if": condition, "then": action})]


def request(model: str = "m", tokens: int = 100, **more: Any) -> RequestFacts:
    return RequestFacts(model=model, tokens=tokens, **more)


def candidate(provider: str, priority: float = 5, cost: float | None = None, **more: Any) -> Any:
    more = {"type": provider, **more}
    return CandidateFacts(id=provider, priority=priority, cost_per_1k_tokens=cost, **more)


#: Priorities and prices at odds: openai first by priority, local cheapest, the last has no price.
THREE = [
    candidate("openai", 1, 0.005),
    candidate("cloudflare", 2, 0.001),
    candidate("local", 3, 0.0),
    candidate("eu-west_1", 0, None),
]


def names(ruling: Ruling, candidates: list[CandidateFacts]) -> str:
    return " ".join(candidates[i].id for i in ruling.order)


# --- the Standard's own policies ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "model", "size", "order", "rejected", "applied"),
    [
        ("cost", "m", 100, "eu-west_1 openai cloudflare local", {}, "minimize_cost[0]"),
        ("cost", "m", 999, "eu-west_1 openai cloudflare local", {}, "minimize_cost[0]"),
        ("cost", "m", 1000, "local cloudflare openai eu-west_1", {}, "minimize_cost[1]"),
        ("cost_optimized", "m", 2000, "local cloudflare openai eu-west_1", {}, "minimize_cost[1]"),
        (
            "latency",
            "m",
            100,
            "local cloudflare openai eu-west_1",
            {},
            "minimize_latency[0] minimize_latency[1] minimize_latency[2]",
        ),
        ("balanced", "m", 100, "openai cloudflare local eu-west_1", {}, ""),
        (
            "quality",
            "llama-x",
            100,
            "local cloudflare openai eu-west_1",
            {},
            "route_by_model[0]",
        ),
        ("quality", "xllama-1", 100, "openai cloudflare local eu-west_1", {}, ""),
        ("quality", "gpt-4o", 100, "openai", {1, 2, 3}, "route_by_model[1]"),
        ("quality", "gpt-4*", 100, "openai", {1, 2, 3}, "route_by_model[1]"),
        ("quality", "gpt-3.5", 100, "openai cloudflare local eu-west_1", {}, ""),
        (
            "cost",
            "llama-x",
            2000,
            "local cloudflare openai eu-west_1",
            {},
            "minimize_cost[1] route_by_model[0]",
        ),
        ("no such strategy", "m", 1, "openai cloudflare local eu-west_1", {}, ""),
    ],
)
def test_the_policies_of_the_standard(
    strategy: str, model: str, size: int, order: str, rejected: set[int], applied: str
) -> None:
    ruling = compiled(STANDARD).apply(strategy, request(model, size), THREE)
    found = (names(ruling, THREE), ruling.rejected, " ".join(ruling.matched))
    assert found == (order, dict.fromkeys(rejected, "route_by_model"), applied)


def test_configured_priority_never_leaks_into_an_order_by_assigned_priority() -> None:
    two_each = [
        candidate("openai", 1),
        candidate("local", 9),
        candidate("cloudflare", 2),
        candidate("local", 8),
    ]
    ruling = compiled(STANDARD).apply("latency", request(), two_each)
    assert (ruling.order, ruling.sorted_by) == ((1, 3, 2, 0), ("priority",))


@pytest.mark.parametrize("strategy", ["cost", "latency", "round_robin"])
def test_bare_rules_form_one_policy_that_always_acts(strategy: str) -> None:
    ruling = compiled(BARE).apply(strategy, request(), THREE)
    assert names(ruling, THREE) == "local openai cloudflare eu-west_1"
    assert ruling.applied == ("unnamed",)


def test_bare_rules_stand_where_the_first_of_them_does() -> None:
    found = compiled([MINIMIZE_COST, BARE[0], ROUTE_BY_MODEL, BARE[1]]).policies
    assert [(p.name, p.strategy, len(p.rules)) for p in found] == [
        ("minimize_cost", "cost", 2),
        ("unnamed", None, 2),
        ("route_by_model", None, 2),
    ]


def test_a_pattern_under_equality_is_read_as_matches_with_a_warning() -> None:
    (warning,) = compiled(STANDARD).warnings
    assert warning == (
        "routing.policies[2].rules[1].if, column 18: found a pattern under ==, read as matches; "
        "write matches"
    )


def test_strict_loading_refuses_a_pattern_under_equality() -> None:
    with pytest.raises(RuleInvalid, match="pattern under ==") as caught:
        compiled(STANDARD, strict=True)
    assert (caught.value.path, caught.value.column) == ("routing.policies[2].rules[1].if", 18)


# --- composition ----------------------------------------------------------------------------------

GOLDEN: list[tuple[str, list[Row], str, str]] = [
    (
        "the first rule that holds decides",
        [
            always(
                {"if": "true", "then": "provider.priority DESC"}, {"else": "provider.priority ASC"}
            )
        ],
        "local cloudflare openai eu-west_1",
        "",
    ),
    (
        "swapped, the other one decides",
        [
            always(
                {"if": "true", "then": "provider.priority ASC"}, {"else": "provider.priority DESC"}
            )
        ],
        "eu-west_1 openai cloudflare local",
        "",
    ),
    (
        "later policies act on what earlier ones left",
        [
            always({"else": "provider.priority ASC"}, name="a"),
            always({"else": "prefer provider.local"}, name="b"),
        ],
        "local eu-west_1 openai cloudflare",
        "",
    ),
    (
        "a requirement is never widened again",
        [
            always({"else": "require provider.openai or provider.local"}, name="a"),
            always({"else": "prefer provider.cloudflare > provider.local"}, name="b"),
            always({"else": "require provider.cloudflare or provider.local"}, name="c"),
        ],
        "local",
        "cloudflare:a eu-west_1:a openai:c",
    ),
    (
        "requirements may leave nobody",
        [
            always({"else": "require provider.openai"}, name="a"),
            always({"else": "require provider.local"}, name="b"),
        ],
        "",
        "cloudflare:a eu-west_1:a local:a openai:b",
    ),
    (
        "a requirement may ask a type, and may be negated",
        [always({"else": "require not (provider.type == 'local' or provider.priority < 1)"})],
        "openai cloudflare",
        "eu-west_1:p local:p",
    ),
    (
        "a requirement under a provider condition touches only those providers",
        [always({"if": "provider.priority >= 2", "then": "require provider.local"})],
        "openai local eu-west_1",
        "cloudflare:p",
    ),
    (
        "missing values sort last ascending",
        [always({"else": "provider.cost_per_1k_tokens ASC"})],
        "local cloudflare openai eu-west_1",
        "",
    ),
    (
        "missing values sort last descending",
        [always({"else": "provider.cost_per_1k_tokens DESC"})],
        "openai cloudflare local eu-west_1",
        "",
    ),
    (
        "sorts by a value nobody has change nothing",
        [always({"else": "provider.latency_ms desc"})],
        "openai cloudflare local eu-west_1",
        "",
    ),
    (
        "a comparison with a missing value is false, != included",
        [always({"if": "provider.cost_per_1k_tokens != 7", "then": "priority = -1"})],
        "openai cloudflare local eu-west_1",
        "",
    ),
    (
        "not turns it round",
        [always({"if": "not provider.cost_per_1k_tokens < 7", "then": "priority = 0.5"})],
        "eu-west_1 openai cloudflare local",
        "",
    ),
    (
        "without an assignment a candidate keeps its own priority",
        [always({"if": "provider.id == 'local'", "then": "priority = 1.5"})],
        "eu-west_1 openai local cloudflare",
        "",
    ),
    (
        "an assigned priority is the priority later policies see",
        [
            always({"if": "provider.id == 'local'", "then": "priority = -1"}, name="a"),
            always({"if": "provider.priority < 0", "then": "require provider.openai"}, name="b"),
            always({"else": "provider.priority DESC"}, name="c"),
        ],
        "cloudflare openai eu-west_1",
        "local:b",
    ),
    (
        "a sort of some rearranges them among their places",
        [
            always(
                {"if": "provider.id == 'cloudflare'", "then": "priority = 2"},
                {"else": "provider.cost_per_1k_tokens ASC"},
            )
        ],
        "local openai cloudflare eu-west_1",
        "",
    ),
    (
        "a pattern under != is the opposite of matches",
        [always({"if": "provider.id != '*l*'", "then": "require provider.openai"})],
        "openai cloudflare local",
        "eu-west_1:p",
    ),
    (
        "names are ids",
        [always({"if": "'local' == provider.name", "then": "prefer provider.local"})],
        "local openai cloudflare eu-west_1",
        "",
    ),
]


@pytest.mark.parametrize(
    ("rows", "order", "rejected"), [g[1:] for g in GOLDEN], ids=[g[0] for g in GOLDEN]
)
def test_composition(rows: list[Row], order: str, rejected: str) -> None:
    ruling = compiled(rows).apply("balanced", request(), THREE)
    turned_away = sorted(f"{THREE[i].id}:{name}" for i, name in ruling.rejected.items())
    assert (names(ruling, THREE), " ".join(turned_away)) == (order, rejected)


def test_sorts_are_stable() -> None:
    equal = [candidate("local", 5, 1.0), candidate("openai", 5, 1.0), candidate("local", 5, 1.0)]
    for action in ("provider.priority ASC", "provider.priority DESC", "priority = 4"):
        assert compiled(only("true", action)).apply("cost", request(), equal).order == (0, 1, 2)


def test_not_a_number_sorts_like_a_missing_value() -> None:
    odd = [candidate("local", 1, float("nan")), candidate("openai", 1, 2.0)]
    ruling = compiled(only("true", "provider.cost_per_1k_tokens DESC")).apply(
        "cost", request(), odd
    )
    assert ruling.order == (1, 0)


def test_no_candidates_are_no_candidates() -> None:
    assert compiled(STANDARD).apply("cost", request("gpt-4o"), []) == Ruling(())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("request.tokens == 100", True),
        ("request.tokens != 100", False),
        ("request.tokens < 1e2", False),
        ("request.tokens <= 100.0", True),
        ("request.tokens > 99 and request.tokens >= 100", True),
        ("-1 < request.tokens", True),
        ("request.stream", True),
        ("not request.stream or request.tokens == 100", True),
        ("not (request.stream or request.tokens == 100)", False),
        ("true or true and false", True),
        ("(true or true) and false", False),
        ("not true or true", True),
        ("not not true", True),
        ("request.stream == false", False),
        ("request.stream != false", True),
        ('request.model == "it\'s"', True),
        ("request.model matches '*?s'", True),
        ("request.model matches 'it'", False),
        ("request.task == 'coding'", False),
        ("request.task != 'coding'", False),
        ("request.task matches '*'", False),
        ("request.max_cost == request.tokens", False),
        ("request.endpoint == 'chat'", True),
        ("request.endpoint == request.model", False),
        ("\t request.tokens\n<\r\n1000 ", True),
        ("1<2and 2<3", None),
        ("(1<2)and(2<3)", True),
    ],
)
def test_conditions(condition: str, expected: bool | None) -> None:
    rows = only(condition, "require provider.openai")
    if expected is None:
        with pytest.raises(RuleInvalid):
            compiled(rows)
        return
    ruling = compiled(rows).apply("cost", request("it's", stream=True), THREE)
    assert bool(ruling.rejected) is expected


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "column", "message"),
    [
        ("", 1, "found the end of the rule, expected"),
        ("request.tokens <", 17, "found the end of the rule, expected a name"),
        ("request.tokens = 5", 16, "found '=', expected a comparison"),
        ("request.tokens < 5 5", 20, "found '5', expected and, or, the end of the rule"),
        ("1 < request.tokens < 5", 20, "found '<', expected and, or, the end of the rule"),
        ("(request.stream", 16, "expected )"),
        ("request.stream)", 15, "found ')'"),
        ("request.model matches request.task", 23, "expected text in quotes"),
        ("request.model == 'a", 18, "a quotation mark without its partner"),
        ("request.model == 'a\nb'", 18, "text in quotes"),
        ("tokens < 5", 1, "found 'tokens'"),
        ("request.tokens < 5k", 18, "found '5k'"),
        ("request.stream orr true", 16, "found 'orr'"),
        ("not", 4, "found the end"),
        ("request.tokens < 1e999", 18, "out of range"),
        ("request.stream and provider.credentials == 'x'", 20, "found 'provider.credentials'"),
        ("provider.__class__ == 'x'", 1, "found 'provider.__class__'"),
        ("request.token < 5", 1, "did you mean request.tokens"),
        ("os.system == 'x'", 1, "found 'os.system'"),
        ("provider.local", 1, "found 'provider.local'"),
        ("__import__('os').system('true')", 1, "found"),
        ("request.stream; true", 15, "found ';'"),
        ("lambda: true", 1, "found 'lambda:'"),
        ("request.model[0] == 'a'", 14, "found '[0]'"),
        ("f'{request.model}' == 'a'", 1, "found"),
        ("request.model < 5", 17, "found request.model (a text) compared with a literal number"),
        ("1 < 'a'", 5, "found a literal number compared with a literal text"),
        ("request.stream == 1", 19, "found request.stream (a flag)"),
        ("request.model < 'b'", 1, "found < between texts, expected numbers"),
        ("true < false", 1, "found < between flags"),
        ("request.tokens matches '1*'", 1, "found request.tokens (a number) before matches"),
        ("request.model", 1, "found request.model (a text) on its own"),
        ("request.stream and 5", 20, "found a literal number on its own"),
        ("'' or true", 1, "found a literal text on its own"),
        ("not " * 33 + "true", 133, "nesting deeper than 32"),
        ("(" * 2000 + "true", 2005, "found the end of the rule, expected"),
        ("request.stream" + " " * MOST_CHARACTERS, MOST_CHARACTERS + 1, "at most 4096"),
        ("request.model == '\u202e' é", 22, "found 'é'"),
    ],
)
def test_conditions_refused(condition: str, column: int, message: str) -> None:
    with pytest.raises(RuleInvalid) as caught:
        compiled(only(condition, "priority = 1"))
    found = caught.value
    assert (found.path, found.column) == ("routing.policies[0].rules[0].if", column)
    assert message in found.message
    assert str(found) == f"{found.path}, column {column}: {found.message}"


@pytest.mark.parametrize(
    ("action", "column", "message"),
    [
        ("delete everything", 1, "found 'delete', expected a name"),
        ("priority = 'a'", 12, "found text in quotes, expected a number"),
        ("priority == 1", 11, "found '=', expected a number"),
        ("priority = 1 provider.priority ASC", 14, "expected the end of the rule"),
        ("provider.priority", 18, "expected ASC or DESC"),
        ("provider.priority Asc", 19, "found 'Asc', expected ASC or DESC"),
        ("provider.type ASC", 1, "found provider.type to sort by"),
        ("request.tokens ASC", 1, "found request.tokens to sort by"),
        ("provider.cost ASC", 1, "found 'provider.cost'"),
        ("prefer", 7, "expected a name"),
        ("prefer provider.nosuch", 8, "found provider.nosuch, expected a configured provider"),
        ("prefer provider.locl", 8, "did you mean local"),
        ("prefer provider.local > provider.local", 25, "a second time"),
        ("prefer request.model", 8, "expected provider.<id>"),
        ("prefer provider.local, provider.openai", 22, "found ','"),
        ("require provider.nosuch", 9, "found provider.nosuch, expected a configured provider"),
        ("require provider.local or provider.type", 27, "found provider.type, expected"),
        ("require request.stream", 9, "expected one on provider.*"),
        ("require true", 9, "expected one on provider.*"),
        ("require", 8, "expected"),
    ],
)
def test_actions_refused(action: str, column: int, message: str) -> None:
    with pytest.raises(RuleInvalid) as caught:
        compiled([always({"else": action})])
    found = caught.value
    assert (found.path, found.column) == ("routing.policies[0].rules[0].else", column)
    assert message in found.message


@pytest.mark.parametrize(
    ("rows", "path", "message"),
    [
        ("priority = 1", "routing.policies", "found no list"),
        (["priority = 1"], "routing.policies[0]", "found no mapping"),
        ([{"type": "cost", "rules": [BARE[0]]}], "routing.policies[0].name", "found no name"),
        ([{"name": "a", "rules": [BARE[0]]}], "routing.policies[0].type", "found no type"),
        ([{"name": "a", "type": "cost"}], "routing.policies[0].rules", "found no rules"),
        ([{"name": "a", "type": "cost", "rules": []}], "routing.policies[0].rules", "no rules"),
        (
            [{**MINIMIZE_COST, "type": "cost_optimised"}],
            "routing.policies[0].type",
            "did you mean cost_optimized",
        ),
        (
            [{**MINIMIZE_COST, **BARE[0]}],
            "routing.policies[0].if",
            "expected it in one of its rules",
        ),
        ([BARE[0], {**BARE[1], "name": "a"}], "routing.policies[1].name", "an unknown key"),
        (
            [MINIMIZE_COST, MINIMIZE_COST],
            "routing.policies[1].name",
            "found the policy name 'minimize_cost' a second time",
        ),
        ([always(BARE[0], name="unnamed"), BARE[0]], "routing.policies[1]", "a second time"),
        (BARE[::-1], "routing.policies[0].else", "found else before other rules"),
        ([BARE[1], BARE[1]], "routing.policies[0].else", "found else before other rules"),
        ([always(*BARE[::-1])], "routing.policies[0].rules[0].else", "found else before"),
        ([always({**BARE[0], **BARE[1]})], "routing.policies[0].rules[0].else", "beside if"),
        ([always({"if": "true"})], "routing.policies[0].rules[0]", "found no then"),
        ([always({"then": "priority = 1"})], "routing.policies[0].rules[0]", "found no if"),
        ([always({"else": 5})], "routing.policies[0].rules[0].else", "found no text"),
        (
            [{"name": "a", "type": "cost", "rules": [5]}],
            "routing.policies[0].rules[0]",
            "no mapping",
        ),
    ],
)
def test_policies_refused(rows: Any, path: str, message: str) -> None:
    with pytest.raises(RuleInvalid) as caught:
        compiled(rows)
    assert (caught.value.path, caught.value.column) == (path, None)
    assert message in caught.value.message


def test_every_spelling_of_a_strategy_is_a_type() -> None:
    header = HEADERS["X-AI-Routing-Strategy"]
    for kind in ("model_specific", *header.values, *header.aliases):
        (policy,) = compiled([{"name": "a", "type": kind, "rules": BARE}]).policies
        assert (policy.strategy is None) is (kind == "model_specific")


def test_rules_are_as_long_as_the_schema_lets_them_be() -> None:
    for key in ("if", "then", "else"):
        rule = schema("config")["$defs"]["rule"]["properties"][key]
        assert rule["maxLength"] == MOST_CHARACTERS


# --- what the loader is told ----------------------------------------------------------------------

FAULTY: list[Row] = [
    always(
        {"if": "request.tokens <", "then": "delete everything"},
        {"if": "request.model == 'gpt-4*'", "then": "require provider.nosuch"},
    ),
    {"name": "p", "type": "cheapest", "rules": [{"else": "priority = 1"}]},
]


@pytest.mark.parametrize(("lenient", "severity"), [(False, "error"), (True, "warning")])
def test_all_faults_are_reported_at_once(lenient: bool, severity: str) -> None:
    found = check_policies(FAULTY, PROVIDERS, lenient)
    assert sorted((path, level) for path, _, level in found) == [
        ("routing.policies[0].rules[0].if", "error"),
        ("routing.policies[0].rules[0].then", "error"),
        ("routing.policies[0].rules[1].if", "warning"),
        ("routing.policies[0].rules[1].then", severity),
        ("routing.policies[1].name", "error"),
        ("routing.policies[1].type", "error"),
    ]


def test_findings_point_into_the_text_and_doubt_models_nobody_lists() -> None:
    values = {
        "providers": {"local": {"models": [{"name": "llama-3"}]}, "openai": {"models": []}},
        "routing": {"policies": only("request.model == 'gpt'", "priority = 1")},
    }
    assert policy_findings(values) == []  # openai lists none, so it may serve any
    values["providers"]["openai"] = {"models": [{"name": "gpt-4o"}]}
    (finding,) = policy_findings(values)
    assert (finding.path, finding.offset, finding.warning) == (
        ("routing", "policies", 0, "rules", 0, "if"),
        17,
        True,
    )


@pytest.mark.parametrize(
    ("condition", "warned"),
    [
        ("provider.id == 'nosuch'", True),
        ("'nosuch' == provider.name", True),
        ("provider.id matches 'loc*'", False),
        ("provider.id matches 'x*'", True),
        ("request.model == 'gpt-4o'", False),
        ("request.model matches 'gpt-5*'", True),
        ("provider.type == 'nosuch'", False),
    ],
)
def test_text_that_nothing_configured_fits_is_warned_of(condition: str, warned: bool) -> None:
    found = compiled(only(condition, "priority = 1"), model_names=["gpt-4o"]).warnings
    assert bool(found) is warned


def test_what_rules_read_is_known() -> None:
    assert compiled(STANDARD).reads == {
        "provider.cost_per_1k_tokens",
        "provider.id",
        "provider.priority",
        "provider.type",
        "request.model",
        "request.tokens",
    }


def test_quoted_text_never_shows_in_a_message() -> None:
    for condition in (
        "'sk-123' request",
        "request.tokens == 'sk-123'",
        "request.model sk 'sk-123'",
    ):
        with pytest.raises(RuleInvalid) as caught:
            compiled(only(condition, "priority = 1"))
        assert "sk-123" not in str(caught.value)


def test_without_policies_the_parser_generator_is_not_imported() -> None:
    script = (
        "import sys\n"
        "from aiproxy.middleware.routing.rules import compile_policies\n"
        "assert compile_policies([], provider_ids=()).policies == ()\n"
        "sys.exit('lark' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- whatever comes -------------------------------------------------------------------------------

LETTERS = ("and", "or", "not", "(", ")", "==", "<", "matches", "ASC", ">", "priority", "=")
WORDS = (*LETTERS, "prefer", "require", "a.b", "provider.x-1", "'t'", "-1.5e3", "true", "desc")


NOISE = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*WORDS, "request.tokens", "provider.local", "'*'", "5"])).map(
        " ".join
    ),
)


@given(NOISE, NOISE)
@settings(max_examples=500, deadline=None)
def test_random_text_is_a_rule_or_a_fault_in_one(condition: str, action: str) -> None:
    try:
        made = compiled(only(condition, action))
        column = 1
    except RuleInvalid as invalid:
        column = invalid.column or 0
    else:
        made.apply("cost", request(), THREE)
    assert 1 <= column <= max(len(condition), len(action)) + 1


NUMBERS = st.none() | st.floats() | st.integers(-5, 5)
CANDIDATES = st.lists(
    st.builds(
        CandidateFacts,
        id=st.sampled_from(PROVIDERS),
        type=st.sampled_from(["local", "cloudflare"]),
        model=st.sampled_from(["gpt-4o", "llama-3", None]),
        priority=NUMBERS,
        cost_per_1k_tokens=NUMBERS,
        latency_ms=NUMBERS,
        region=st.sampled_from(["eu", None]),
    ),
    max_size=12,
)
CONDITIONS = st.sampled_from(
    [
        "true",
        "request.tokens < 1000",
        "provider.type == 'local'",
        "provider.latency_ms > 0 or provider.region == 'eu'",
        "not provider.cost_per_1k_tokens <= 2",
        "provider.model matches 'l*'",
    ]
)
ACTIONS = st.sampled_from(
    [
        "priority = 0",
        "priority = 3",
        "provider.priority DESC",
        "provider.latency_ms ASC",
        "prefer provider.openai > provider.local",
        "require provider.local or provider.openai",
        "require not provider.cost_per_1k_tokens > 1",
    ]
)
RULES = st.builds(lambda c, a: {"if": c, "then": a}, CONDITIONS, ACTIONS)
POLICIES = st.lists(st.lists(RULES, min_size=1, max_size=4), max_size=4).map(
    lambda listed: [always(*rules, name=str(i)) for i, rules in enumerate(listed)]
)


@given(POLICIES, CANDIDATES, st.integers(0, 2000))
@settings(max_examples=200, deadline=None)
def test_no_candidate_is_lost_or_doubled(
    rows: list[Row], candidates: list[CandidateFacts], size: int
) -> None:
    made = compiled(rows)
    ruling = made.apply("cost", request(tokens=size), candidates)
    assert sorted([*ruling.order, *ruling.rejected]) == list(range(len(candidates)))
    assert set(ruling.rejected.values()) <= set(ruling.applied)
    assert made.apply("cost", request(tokens=size), candidates) == ruling


def test_ten_thousand_random_texts_only_ever_raise_the_fault() -> None:
    rng = random.Random(53)
    pieces = [*WORDS, *"()'\"=<>!._-*? \n\x00;é", "request.tokens", "1e9", "__import__", "lambda"]
    refused = 0
    for _ in range(10_000):
        text = rng.choice(("", " ")).join(rng.choices(pieces, k=rng.randint(0, 8)))
        try:
            compiled(only(text, "priority = 1"))
        except RuleInvalid:
            refused += 1
    assert 9_000 < refused < 10_000


def test_the_published_grammar_lists_every_name() -> None:
    listed = files("aiproxy.spec").joinpath("rules.ebnf").read_text("utf-8").split("---- Names")[1]
    named = set(re.findall(r"(?:request|provider)\.[a-z0-9_]+", listed.split("---- Policies")[0]))
    assert named == set(FIELDS)
