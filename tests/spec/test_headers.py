import re

import pytest

from aiproxy.spec import HEADERS, Invalid, checker, names, read_field, requirement, validate

TABLE_2 = [
    "X-AI-Multi-Provider",
    "X-AI-Provider-Pool",
    "X-AI-Routing-Strategy",
    "X-AI-Task-Hint",
    "X-AI-Tool-Categories",
    "X-AI-Reasoning-Preference",
    "X-AI-Quality-Threshold",
    "X-AI-Max-Latency",
    "X-AI-Cost-Limit",
    "X-AI-Failover-Policy",
]
TABLE_3 = [
    "X-AI-Provider-Used",
    "X-AI-Model-Mapped",
    "X-AI-Auto-Selection",
    "X-AI-Tool-Mapping",
    "X-AI-Auto-Decisions",
    "X-AI-Alternatives-Considered",
    "X-AI-Selection-Confidence",
]
FIGURES_ONLY = [
    "X-AI-Conversation-ID",
    "X-AI-Parent-Conversation",
    "X-AI-Workflow-Step",
    "X-AI-Workflow-Branch",
    "X-AI-Merge-Branches",
    "X-AI-Security-Requirements",
    "X-AI-Data-Classification",
]
ROLES = {
    "control": {"Multi-Provider", "Failover-Policy"},
    "constraint": {
        "Provider-Pool",
        "Quality-Threshold",
        "Max-Latency",
        "Cost-Limit",
        "Security-Requirements",
        "Data-Classification",
    },
    "preference": {"Routing-Strategy", "Reasoning-Preference", "Tool-Categories"},
    "hint": {"Task-Hint"},
    "workflow": {
        "Conversation-ID",
        "Parent-Conversation",
        "Workflow-Step",
        "Workflow-Branch",
        "Merge-Branches",
    },
}
ACCEPTED = [(name, raw) for name, field in HEADERS.items() for raw in field.accepted]
REFUSED = [(name, raw) for name, field in HEADERS.items() for raw in field.refused]


def having(place):
    return {name for name, field in HEADERS.items() if place in field.occurs}


def test_the_registry_is_the_union_of_the_drafts_lists():
    assert having("table2") == set(TABLE_2)
    assert having("table3") == set(TABLE_3)
    iana = {*TABLE_2, *TABLE_3, "X-AI-Failover-Occurred"} - {"X-AI-Alternatives-Considered"}
    assert having("iana") == iana
    assert len(iana) == 17
    assert set(HEADERS) == {*TABLE_2, *TABLE_3, *FIGURES_ONLY, "X-AI-Failover-Occurred"}
    assert len(HEADERS) == 25


def test_directions():
    both = {name for name, field in HEADERS.items() if len(field.directions) == 2}
    response = {name for name, field in HEADERS.items() if "response" in field.directions}
    assert both == {"X-AI-Conversation-ID", "X-AI-Workflow-Step"}
    assert response == {*TABLE_3, *both, "X-AI-Failover-Occurred"}


def test_roles():
    for role, members in ROLES.items():
        found = {
            name.removeprefix("X-AI-") for name, field in HEADERS.items() if field.role == role
        }
        assert found == members
    assert {HEADERS[name].role for name in TABLE_3} == {"transparency"}


def test_closed_sets():
    closed = {name.removeprefix("X-AI-") for name, field in HEADERS.items() if field.closed}
    assert closed == {
        "Multi-Provider",
        "Routing-Strategy",
        "Reasoning-Preference",
        "Failover-Policy",
    }


def test_look_up_ignores_letter_case_and_suggests():
    assert HEADERS["x-ai-max-latency"] is HEADERS["X-AI-MAX-LATENCY"]
    assert "x-ai-task-HINT" in HEADERS
    assert 3 not in HEADERS
    with pytest.raises(KeyError, match="did you mean X-AI-Max-Latency"):
        HEADERS["X-AI-Max-Latncy"]


@pytest.mark.parametrize("name", HEADERS)
def test_the_entry_is_complete(name):
    field = HEADERS[name]
    assert field.schema_name == f"headers/{name.lower()}"
    assert field.schema_name in names()
    assert field.accepted
    assert "" in field.refused or field.role == "hint"
    assert field.max_octets == 2048
    assert field.source.startswith("draft §")
    assert all(requirement(identifier) for identifier in field.requirements)
    re.compile(field.pattern)


@pytest.mark.parametrize(("name", "raw"), ACCEPTED)
def test_accepted_examples_are_read(name, raw):
    value = read_field(name, f" {raw}\t")
    assert checker(HEADERS[name].schema_name).ok(value)


@pytest.mark.parametrize(("name", "raw"), REFUSED)
def test_refused_examples_are_refused_and_the_header_is_named(name, raw):
    with pytest.raises(Invalid) as caught:
        read_field(name, raw)
    assert [fault.path for fault in caught.value.errors] == [name]


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("junk", ["\x00", "a\x7fb", "\xff", "a\r\nSet-Cookie: x", "a\n", "\ud83d"])
def test_control_characters_and_other_alphabets_are_never_read(name, junk):
    with pytest.raises((Invalid, UnicodeEncodeError)):
        read_field(name, junk)


@pytest.mark.parametrize("name", HEADERS)
def test_a_field_longer_than_the_bound_is_refused(name):
    with pytest.raises(Invalid, match=r"2048 octets|another form"):
        read_field(name, "a" * 2049)


@pytest.mark.parametrize(
    "name", ["X-AI-Routing-Strategy", "X-AI-Task-Hint", "X-AI-Tool-Categories"]
)
def test_aliases_lead_to_known_members(name):
    field = HEADERS[name]
    assert field.aliases
    for alias, member in field.aliases.items():
        assert member in field.values
        assert alias not in field.values
        value = read_field(name, alias.upper())
        assert value == ([member] if field.wire == "csv" else member)


def test_the_strategies_are_the_seven_and_the_configurations_names_lead_to_them():
    strategy = HEADERS["X-AI-Routing-Strategy"]
    assert strategy.values == (
        "cost",
        "latency",
        "quality",
        "capability-first",
        "balanced",
        "availability",
        "round_robin",
    )
    for alias, member in {"cost_optimized": "cost", "performanceOptimized": "latency"}.items():
        assert strategy.aliases[alias] == member


def test_lists_lose_blanks_and_repeats_and_keep_their_order():
    assert read_field("X-AI-Provider-Pool", "b , a,,b,") == ["b", "a"]


def test_unknown_hints_survive_as_they_are():
    assert read_field("X-AI-Task-Hint", "Origami") == "Origami"


PROVIDERS = [
    "anthropic",
    "anthropic-enhanced",
    "openai",
    "openai-reasoning",
    "cohere",
    "local",
    "local-models",
    "cloud",
    "provider-anthropic",
    "provider-a",
    "provider-b",
    "provider-fast",
    "edge-provider-fast",
    "premium-balanced",
    "healthcare-secure",
    "multi-tier-financial",
    "analytics-provider",
    "report-generator",
    "intl",
]
MODELS = [
    "o1-preview",
    "claude-3-5-sonnet",
    "gpt-4-turbo",
    "command-r-plus",
    "gpt-4o",
    "fast-response-model",
    "legal-analysis-model",
    "code-assistant-model",
    "advanced-coder-model",
    "medical-analysis-hipaa",
    "financial-segregation",
    "efficient-writer-model",
    "executive-summary-model",
    "gpt-4o-mini",
    "haiku",
    "@cf/meta/llama-3.1-8b-instruct",
    "@cf/baai/bge-base-en-v1.5",
    "meta-llama/Llama-3.1-8B",
    "ft:gpt-4o-mini:org::abc",
    "llama3.1:8b",
    "llama-3-8b",
]


def test_the_provider_grammar_takes_the_figures_ids():  # XAI-RESP-038
    for provider in PROVIDERS:
        assert read_field("X-AI-Provider-Used", provider) == provider
    for bad in ("a,b", "a b", "", "a/b", "a" * 129):
        with pytest.raises(Invalid):
            read_field("X-AI-Provider-Used", bad)


def test_the_model_grammar_takes_the_documents_ids():  # XAI-RESP-039
    for model in MODELS:
        assert read_field("X-AI-Model-Mapped", model) == model
    for bad in ("a,b", "a\x01b", "a b", "", "auto", "a" * 257):
        with pytest.raises(Invalid):
            read_field("X-AI-Model-Mapped", bad)


def test_a_long_list_of_separators_is_read_in_linear_time():
    for raw in ("," * 2040, " " * 2000 + "!", "a" + " ," * 1000 + "!"):
        with pytest.raises(Invalid):
            read_field("X-AI-Provider-Pool", raw)


def test_a_decimal_value_must_be_a_number():
    with pytest.raises(Invalid):
        validate("0.5", "headers/x-ai-quality-threshold")
