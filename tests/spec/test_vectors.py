import copy
import json

import pytest

from aiproxy.spec import (
    HEADERS,
    Invalid,
    checker,
    read_field,
    schema,
    validate,
    vector,
    vectors,
)

FIGURES = [name for name in vectors("figures/") if vector(name)["kind"] == "figure"]
EXCHANGES = [
    (name, index)
    for name in (*FIGURES, *vectors("golden/"))
    for index in range(len(vector(name)["exchanges"]))
]


def figure(number):
    return vector(f"figures/fig-{number:02d}")


def header(number, name, exchange=0):
    """Return the parsed value of a figure's response header; a copy the caller may change."""
    raw = figure(number)["exchanges"][exchange]["response"]["headers"][name]
    return copy.deepcopy(read_field(name, raw))


@pytest.mark.parametrize("name", vectors())
def test_every_vector_satisfies_its_schema(name):
    validate(vector(name), "vectors")
    assert checker("vectors").ok(vector(name))


def test_all_figures_but_the_arrangement_are_there():
    assert vectors("figures/") == tuple(f"figures/fig-{number:02d}" for number in range(1, 22))
    diagrams = [name for name in vectors("figures/") if vector(name)["kind"] == "diagram"]
    assert [int(name[-2:]) for name in diagrams] == [13, 15, 18, 20]
    assert len(figure(14)["exchanges"]) == 2
    assert len(figure(21)["exchanges"]) == 4


@pytest.mark.parametrize(("name", "index"), EXCHANGES)
def test_every_x_ai_header_of_every_exchange_is_read(name, index):
    exchange = vector(name)["exchanges"][index]
    refused = exchange.get("response", {}).get("status") == 400
    sides = [("response", exchange.get("response", {}))]
    sides += [] if refused else [("request", exchange["request"])]
    for side, message in sides:
        for field, raw in message.get("headers", {}).items():
            if field.startswith("X-AI-"):
                assert side in HEADERS[field].directions
                read_field(field, raw)
                assert len(raw) <= 2048
                assert raw.isascii()


@pytest.mark.parametrize("name", vectors("golden/"))
def test_golden_answers_satisfy_the_strict_profiles(name):
    for exchange in vector(name)["exchanges"]:
        response = exchange["response"]
        for field, raw in response["headers"].items():
            if field in ("X-AI-Auto-Selection", "X-AI-Auto-Decisions"):
                validate(json.loads(raw), f"{field.removeprefix('X-AI-').lower()}-emitted")
        body = response.get("body", {})
        if "error" in body:
            validate(body, "error-emitted")
        if "x-aiproxy" in body:
            validate(body["x-aiproxy"], "x-aiproxy")


def test_the_largest_figure_header_has_the_size_the_draft_gives_it():
    raw = figure(19)["exchanges"][0]["response"]["headers"]["X-AI-Auto-Selection"]
    assert len(raw) == 518


@pytest.mark.parametrize("name", vectors("broken/"))
def test_broken_originals_are_refused(name):
    broken = vector(name)
    if broken["field"] in HEADERS:
        with pytest.raises(Invalid):
            read_field(broken["field"], broken["text"])
    if broken["fault"] == "folded":
        assert "\n" in broken["text"]
    else:
        with pytest.raises(ValueError, match=r"Expecting|Extra data"):
            json.loads(broken["text"])


def test_every_figure_with_a_defect_has_its_broken_original():
    bodies = {name for name in vectors("broken/") if name.endswith("response-body")}
    assert [int(name.split("-")[1]) for name in sorted(bodies)] == [1, 2, 6, 7, 10]


def test_finish_reason_is_on_the_choice_only():
    for name in FIGURES:
        for exchange in vector(name)["exchanges"]:
            for choice in exchange.get("response", {}).get("body", {}).get("choices", []):
                assert "finish_reason" not in choice["message"]


def at(*path):
    """Return a function that finds the container of the last part of ``path``."""

    def find(value):
        for part in path[:-1]:
            value = value[part]
        return value

    return find


def put(path, replacement):
    def mutate(value):
        at(*path)(value)[path[-1]] = replacement

    return mutate


def drop(*path):
    def mutate(value):
        del at(*path)(value)[path[-1]]

    return mutate


SELECTION, DECISIONS, MAPPING = "X-AI-Auto-Selection", "X-AI-Auto-Decisions", "X-AI-Tool-Mapping"
MUTATIONS = [
    (
        "XAI-RESP-022",
        1,
        SELECTION,
        put(("provider_selection", "primary_choice", "confidence"), 1.5),
    ),
    ("XAI-RESP-022", 1, SELECTION, drop("provider_selection", "primary_choice", "provider")),
    ("XAI-RESP-022", 1, SELECTION, put(("provider_selection", "alternatives_considered"), {})),
    (
        "XAI-RESP-023",
        2,
        SELECTION,
        put(("fallback_strategy", "native_reasoning_available"), "no"),
    ),
    ("XAI-RESP-024", 6, SELECTION, put(("tool_selection", "available_tools"), "python")),
    ("XAI-RESP-025", 7, MAPPING, drop("selected_tools", 0, "category")),
    ("XAI-RESP-026", 8, DECISIONS, put(("model_selection", "alternatives", "openai", "cost"), -1)),
    ("XAI-RESP-026", 8, DECISIONS, put(("token_optimization", "calculated"), 300.5)),
    ("XAI-RESP-027", 9, SELECTION, put(("confidence",), "0.92")),
    ("XAI-RESP-028", 10, MAPPING, put(("weather",), 1)),
    ("XAI-RESP-029", 11, SELECTION, put(("latency_achieved_ms",), -180)),
    ("XAI-RESP-029", 11, SELECTION, put(("alternatives_rejected", 0, "latency_ms"), -1)),
    ("XAI-RESP-030", 12, DECISIONS, put(("quality_achieved",), 1.2)),
    ("XAI-RESP-031", 14, SELECTION, put(("failover_time_ms",), "1200")),
    ("XAI-RESP-032", 16, SELECTION, drop("rejected_providers", 0, "reason")),
    ("XAI-RESP-033", 17, SELECTION, drop("allocation", "pci", "provider")),
    (
        "XAI-RESP-034",
        19,
        SELECTION,
        put(("failover_cascade", "primary_attempt", "quality_estimate"), 2),
    ),
    ("XAI-RESP-035", 21, SELECTION, put(("branches_merged",), "marketing,product")),
]


@pytest.mark.parametrize(("row", "number", "name", "mutate"), MUTATIONS)
def test_a_mutated_figure_is_refused(row, number, name, mutate):
    value = header(number, name, exchange=len(figure(number)["exchanges"]) - 1)
    schema_name = name.removeprefix("X-AI-").lower()
    validate(value, schema_name)
    mutate(value)
    with pytest.raises(Invalid):
        validate(value, schema_name)
    assert not checker(schema_name).ok(value)


def test_unknown_keys_are_read_but_never_sent():  # XAI-RESP-036
    value = {"confidence": 0.5, "invented": 1}
    assert checker("auto-selection").ok(value)
    assert checker("auto-selection-emitted").first_fault(value).path == "invented"


def test_only_registered_reasons_are_sent():
    value = {"rejected_providers": [{"provider": "a", "reason": "because"}]}
    assert checker("auto-selection").ok(value)
    assert not checker("auto-selection-emitted").ok(value)


REASON_KEYS = {"reason", "reason_not_selected", "status", "decision", "rejected"} | {
    "failover_reason",
    "selection_rationale",
}


def reasons(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key in REASON_KEYS and isinstance(value, str):
                yield value
            yield from reasons(value)
    elif isinstance(node, list):
        for value in node:
            yield from reasons(value)


def test_the_registry_has_every_reason_status_and_decision_of_the_figures():  # XAI-RESP-040
    found = set()
    for name in FIGURES:
        for exchange in vector(name)["exchanges"]:
            for field, raw in exchange.get("response", {}).get("headers", {}).items():
                if field.startswith("X-AI-") and HEADERS[field].wire == "json":
                    found |= set(reasons(json.loads(raw)))
    assert len(found) > 15
    assert found <= set(schema("reason-codes")["enum"])


def test_reason_codes_are_described_once():
    registry = schema("reason-codes")
    assert list(registry["x-aiproxy-reasons"]) == registry["enum"]
    grouped = [code for group in registry["$defs"].values() for code in group["enum"]]
    assert sorted(grouped) == sorted(registry["enum"])
