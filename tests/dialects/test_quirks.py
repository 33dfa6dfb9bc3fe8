"""Fitting chat bodies to providers: what is set, what is removed, and what is told as lost."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.dialects.quirks import adapt
from aiproxy.spec.catalog import Rules, presets
from aiproxy.spec.catalog.rules import rules

USER = {"role": "user", "content": "hi"}


def fitted(row: Rules, body: dict[str, Any], model: str = "") -> tuple[dict[str, Any], list[str]]:
    """The body as it is sent, and the features that are lost."""
    changes, removed, losses = adapt(row, body, model)
    assert not removed & set(changes)
    kept = {name: value for name, value in body.items() if name not in removed}
    return kept | changes, [loss.feature for loss in losses]


def of(type: str) -> Rules:
    return presets()[type].quirks


ROWS: list[tuple[str, dict[str, Any], dict[str, Any], list[str]]] = [
    # Another spelling of the same wish is no loss.
    ("mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}, []),
    ("mistral", {"seed": 1}, {"random_seed": 1}, []),
    ("mistral", {"tool_choice": "required"}, {"tool_choice": "any"}, []),
    ("deepseek", {"max_completion_tokens": 5, "max_tokens": 3}, {"max_tokens": 3}, []),
    # How the answer travels is the router's business.
    ("cohere", {"stream_options": {"include_usage": True}}, {}, []),
    # What asks for nothing can be left out.
    ("groq", {"logprobs": False, "n": 1, "top_logprobs": 0}, {"n": 1}, []),
    ("cerebras", {"presence_penalty": 0, "logit_bias": {}}, {}, []),
    ("anthropic", {"user": None, "metadata": {}}, {}, []),
    # What does ask for something is told.
    ("groq", {"logprobs": True, "top_logprobs": 3}, {}, ["logprobs", "logprobs"]),
    ("groq", {"n": 3}, {"n": 1}, ["n"]),
    ("cerebras", {"presence_penalty": 1}, {}, ["penalties"]),
    ("anthropic", {"temperature": 1.5, "seed": 7}, {"temperature": 1}, ["seed", "temperature"]),
    ("zai", {"tool_choice": "required"}, {}, ["tool_choice"]),
    ("zai", {"tool_choice": "auto"}, {"tool_choice": "auto"}, []),
    # A value of a wrong type is the provider's to refuse.
    ("groq", {"n": "3"}, {"n": "3"}, []),
    ("groq", {"n": True}, {"n": True}, []),
    ("mistral", {"tool_choice": {"type": "function"}}, {"tool_choice": {"type": "function"}}, []),
    # Nothing to do.
    ("openai_compatible", {"logprobs": True, "n": 3}, {"logprobs": True, "n": 3}, []),
]


@pytest.mark.parametrize(("type", "given", "sent", "lost"), ROWS)
def test_a_body_is_fitted_to_the_provider(
    type: str, given: dict[str, Any], sent: dict[str, Any], lost: list[str]
) -> None:
    """ASC-NORM, XAI-ARCH: parameters by rule, every loss declared."""
    rest = {"model": "m", "messages": [USER]}
    assert fitted(of(type), rest | given) == (rest | sent, lost)


def test_developer_messages_become_system_ones_where_they_are_unknown() -> None:
    developer = {"role": "developer", "content": "be brief", "name": "x"}
    body = {"model": "m", "messages": [developer, USER, "odd", {"role": 5}]}
    before = deepcopy(body)
    sent, lost = fitted(of("deepseek"), body)
    assert sent["messages"] == [{**developer, "role": "system"}, USER, "odd", {"role": 5}]
    assert (lost, body) == ([], before)


@pytest.mark.parametrize(
    ("model", "sent", "lost"),
    [
        ("o3-mini", {"max_completion_tokens": 9}, ["temperature"]),
        ("gpt-5-mini", {"max_completion_tokens": 9}, ["temperature"]),
        ("gpt-5.2", {"max_completion_tokens": 9, "temperature": 0.2}, []),
        ("gpt-4o", {"max_tokens": 9, "temperature": 0.2}, []),
    ],
)
def test_some_rules_are_of_some_models(model: str, sent: dict[str, Any], lost: list[str]) -> None:
    body = {"model": "public", "messages": [USER], "max_tokens": 9, "temperature": 0.2}
    rest = {"model": "public", "messages": [USER]}
    assert fitted(of("openai"), body, model) == (rest | sent, lost)


def test_a_parameter_under_both_names_goes_under_the_providers_own() -> None:
    row = rules({"rename": {"a": "b"}, "drop": ["b"]})
    assert fitted(row, {"a": 1, "b": 2})[0] == {"b": 1}
    assert fitted(rules({"rename": {"a": "b"}}), {"a": 1, "b": None})[0] == {"b": 1}


def test_rules_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="found renam in quirks"):
        rules({"renam": {}})


def test_rules_without_anything_to_do_are_false() -> None:
    assert not of("openai_compatible")
    assert of("cohere")


leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4)
values = st.recursive(leaves, lambda x: st.lists(x, max_size=2) | st.dictionaries(st.text(), x))
names = st.sampled_from(
    sorted(
        {"model", "messages", "tools"}.union(
            *[{*p.quirks.drop, *p.quirks.rename, *p.quirks.only} for p in presets().values()]
        )
    )
)


@given(type=st.sampled_from(sorted(presets())), body=st.dictionaries(names, values, max_size=8))
def test_any_body_is_fitted_once_and_for_all(type: str, body: dict[str, Any]) -> None:
    """Nothing raises, the body is left as it was, and what is fitted already fits."""
    before = deepcopy(body)
    sent, _ = fitted(of(type), body)
    assert repr(body) == repr(before)
    again, lost = fitted(of(type), sent)
    assert repr(again) == repr(sent)
    assert lost == []
