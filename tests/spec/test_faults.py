import tracemalloc

import pytest

from aiproxy.spec import Fault, Invalid, checker, schema, validate
from aiproxy.spec.faults import dotted

SECRET = "sk-very-secret-value"


def faults(instance, name):
    with pytest.raises(Invalid) as caught:
        validate(instance, name)
    return caught.value.errors


def error_object(**changes):
    detail = {
        "message": "m",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
        **changes,
    }
    return {"error": detail}


def record(**changes):
    return {**schema("decision")["examples"][0], **changes}


@pytest.mark.parametrize(
    ("instance", "name", "path", "keyword", "message"),
    [
        ({}, "error", "error", "required", "required, but missing"),
        ([], "error", "", "type", "expected an object, found an array"),
        (
            error_object(message=5),
            "error",
            "error.message",
            "type",
            "expected a string, found an integer",
        ),
        (
            error_object(more=1),
            "error-emitted",
            "error.more",
            "additionalProperties",
            "not a known key here",
        ),
        ({"confidence": 2}, "auto-selection", "confidence", "maximum", "expected at most 1"),
        (
            record(truncated="no"),
            "decision",
            "truncated",
            "type",
            "expected a boolean, found a string",
        ),
        (
            {"rejected_providers": [{"provider": "a"}]},
            "auto-selection",
            "rejected_providers[0].reason",
            "required",
            "required, but missing",
        ),
        (
            record(cost_usd=-1),
            "decision",
            "cost_usd",
            "minimum",
            "expected at least 0",
        ),
        (
            True,
            "headers/x-ai-max-latency",
            "",
            "type",
            "expected an integer, found a boolean",
        ),
    ],
)
def test_a_fault_says_where_what_was_expected_and_what_was_found(
    instance, name, path, keyword, message
):
    first = faults(instance, name)[0]
    assert (first.path, first.keyword, first.message) == (path, keyword, message)
    assert checker(name).first_fault(instance) == first


def test_the_telling_branch_of_an_alternative_is_followed():
    [fault] = faults(record(constraints={"failover_policy": "sometimes"}), "decision")
    assert (fault.path, fault.keyword) == ("constraints.failover_policy", "enum")
    assert fault.message.startswith('expected "none"')
    assert fault.message.endswith("or null; found a string")


def test_alternatives_of_other_kinds_are_named_together():
    [fault] = faults(record(strategy=[1]), "decision")
    assert (fault.keyword, fault.message) == (
        "type",
        "expected a string or null; found an array",
    )


def test_a_deeper_fault_of_the_branch_that_was_meant_is_named():
    example = schema("decision")["examples"][0]
    [fault] = faults({**example, "selected": {**example["selected"], "confidence": 3}}, "decision")
    assert (fault.path, fault.message) == ("selected.confidence", "expected at most 1")


def test_every_missing_key_is_named():
    paths = {fault.path for fault in faults({"error": {}}, "error")}
    assert paths == {"error.message", "error.type", "error.param", "error.code"}


def test_messages_never_quote_the_instance():
    broken = [
        (record(task_basis=SECRET), "decision"),
        (error_object(type=SECRET), "error-emitted"),
        (record(id=SECRET + " " + SECRET), "decision"),
        (record(cost_usd=SECRET), "decision"),
        ([SECRET], "error"),
    ]
    for instance, name in broken:
        with pytest.raises(Invalid) as caught:
            validate(instance, name)
        assert SECRET not in str(caught.value)
        assert all(SECRET not in fault.message for fault in caught.value.errors)


def test_a_long_or_odd_key_is_shortened_and_quoted():
    assert dotted(["a", 0, "b c", "d"]) == 'a[0]["b c"].d'
    assert len(dotted(["x" * 5000])) < 80


def test_an_endless_list_of_faults_is_cut():
    instance = {"rejected_providers": [1] * 10_000}
    assert len(faults(instance, "auto-selection")) == 64


def test_a_hostile_body_costs_no_more_than_it_can_teach():
    sound = {"category": "a", "provider_tool": "b"}
    mapping = {"requested": "auto", "selected_tools": [*[sound] * 100_000, *[0] * 100_000]}
    tracemalloc.start()
    try:
        found = checker("tool-mapping").first_fault(mapping)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.path == "selected_tools[100000]"
    assert peak < 10_000_000


def test_bottomless_nesting_is_a_fault_and_not_a_crash():
    instance = {"type": 5}
    for _ in range(1000):
        instance = {"type": "object", "properties": {"a": instance}}
    assert checker("requests/output-schema").first_fault(instance).message == "nested too deeply"


def test_faults_behind_a_reference_to_a_whole_schema_point_at_the_key():
    mapping = {"requested": "auto", "selected_tools": [{"category": "a"}]}
    found = checker("auto-decisions").first_fault({"tool_mapping": mapping})
    assert found.path == "tool_mapping.selected_tools[0].provider_tool"


def test_a_key_of_the_wrong_form_is_not_mistaken_for_the_value():
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}]}
    found = checker("requests/chat").first_fault({**body, "metadata": {"k" * 65: "v"}})
    assert (found.path, found.message) == (
        "metadata",
        "a key is not allowed: expected at most 64 characters, found 65",
    )


def test_lone_surrogates_are_a_fault_and_not_a_crash():
    found = checker("ids").first_fault("\ud800")
    assert isinstance(found, Fault)


def test_a_final_line_feed_does_not_pass_a_pattern():
    for instance in ("conv-1\n", "conv\n1"):
        assert not checker("ids").ok(instance)
        assert faults(instance, "ids")


def test_the_summary_counts_the_other_faults():
    with pytest.raises(Invalid, match=r"error: error\.message: required, but missing \(and 3 more"):
        validate({"error": {}}, "error")
