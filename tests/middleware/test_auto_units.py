"""The parts of the auto parameters that need no server: schemas, fences, names, choices."""

import json
import time
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.auto import hosted_tools
from aiproxy.middleware.auto.answer_check import unfenced
from aiproxy.middleware.auto.answer_schema import compiled
from aiproxy.middleware.auto.categories import meant
from aiproxy.middleware.auto.limits import token_limit
from aiproxy.middleware.auto.listing import chosen_name, listed_tools
from aiproxy.middleware.auto.patches import _renamed
from aiproxy.middleware.auto.telling import Renamer, Teller
from aiproxy.middleware.auto.unfencing import Unfencer
from aiproxy.middleware.dialects import canonical
from aiproxy.middleware.money.prices import Price

# --- schemas of clients --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "answer", "why"),
    [
        ({"type": "object", "required": ["a"]}, {}, "at the top: required is not satisfied"),
        (
            {"properties": {"a": {"items": {"type": "integer"}}}},
            {"a": [1, "SECRET"]},
            "at /a/1: type is not satisfied",
        ),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, 1, None),
        ({"type": "array", "items": {"$ref": "#"}}, [[[]]], None),
        ({"pattern": "^a+$"}, "aaa\n", "at the top: pattern is not satisfied"),
    ],
)
def test_an_answer_is_held_to_its_schema(schema, answer, why):
    found = compiled(schema)
    assert found is not None
    assert found.fault(answer) == why


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "other.json"}}},
        {"$dynamicRef": "#x"},
        {"$ref": "#/nowhere"},
        {"$ref": "#anchor"},
        {"pattern": "(?=a)b"},
        {"type": "strang"},
    ],
)
def test_a_schema_beyond_checking_is_not_used(schema):
    assert compiled(schema) is None


def test_a_schema_that_multiplies_is_not_used():
    definitions = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]}
        for i in range(40)
    }
    bomb = {"$defs": {**definitions, "d40": {}}, "$ref": "#/$defs/d0"}
    began = time.monotonic()
    assert compiled(bomb) is None
    assert time.monotonic() - began < 1


def test_a_schema_that_branches_into_itself_is_checked_to_a_depth():
    one = {"properties": {"x": {"$ref": "#"}}, "required": ["x"]}
    two = {"properties": {"x": {"$ref": "#"}}, "required": ["y"]}
    found = compiled({"anyOf": [one, two, {"type": "integer"}]})
    assert found is not None
    assert found.fault({"x": {"x": 1}}) is None
    deep = 1
    for _ in range(60):
        deep = {"x": deep}
    began = time.monotonic()
    assert found.fault(deep) == "it nests deeper than can be checked"
    assert time.monotonic() - began < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "$ref", "items", "properties", "anyOf", "pattern", "$defs", "if", "enum"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.dictionaries(st.sampled_from(["type", "$ref", "items", "allOf", "$defs"]), JSON), JSON)
def test_no_schema_raises(schema, answer):
    found = compiled(schema)
    if found is not None:
        found.fault(answer)


# --- code fences ---------------------------------------------------------------------------------


def shown(text, cuts):
    fence, found, start = Unfencer(), [], 0
    for cut in [*sorted(cuts), len(text)]:
        found.append(fence.feed(text[start:cut]))
        start = cut
    return "".join([*found, fence.finish()])


@given(
    st.one_of(
        st.text(alphabet='`\n j{}"a', max_size=40),
        st.text(alphabet='`\n {}"a', max_size=30).map(lambda inner: f"```json\n{inner}\n```"),
    ),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_any_cut_shows_the_same(text, cuts):
    whole = shown(text, [])
    assert shown(text, [min(cut, len(text)) for cut in cuts]) == whole
    if not text.lstrip().startswith("`"):
        assert whole == text


@pytest.mark.parametrize("text", [" " * 300_000, "```\n" + "` " * 150_000, "`" * 300_000])
def test_blanks_without_end_take_linear_time(text):
    began = time.monotonic()
    assert len(shown(text, range(0, len(text), 3))) <= len(text)
    assert unfenced(text + "x") == text + "x"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("inside", ['{"a": "```"}', '{"a": 1}', "[1,\n 2]", '"`"'])
def test_a_stream_loses_its_fence_as_a_whole_text_does(inside):
    text = f"```json\n{inside}\n```\n"
    assert json.loads(shown(text, range(len(text)))) == json.loads(inside)
    assert json.loads(unfenced(text)) == json.loads(inside)


# --- names ---------------------------------------------------------------------------------------


def test_names_in_arguments_stay():
    rename = Renamer((("find", "web_search"),), "anthropic")
    use = {"type": "tool_use", "name": "find", "input": {"name": "find"}}
    told = orjson.loads(rename(orjson.dumps({"content": [use, {"type": "text", "text": "x"}]})))
    assert told["content"][0] == {**use, "name": "web_search"}
    server = {"type": "server_tool_use", "name": "find", "input": {}}
    raw = orjson.dumps({"content_block": server})
    assert rename(raw) == raw
    rename = Renamer((("find", "web_search"),), "gemini")
    part = {"functionCall": {"name": "find", "args": {"name": "find"}}}
    frame = {"candidates": [{"content": {"parts": [part]}}]}
    told = orjson.loads(rename(orjson.dumps(frame)))
    call = told["candidates"][0]["content"]["parts"][0]["functionCall"]
    assert call == {"name": "web_search", "args": {"name": "find"}}
    for odd in (b"[]", b'{"name":"find"', b'{"content":[null],"name":"find"}', b'"name":"find"'):
        assert rename(odd) == odd


def test_names_with_odd_signs():
    rename = Renamer((('a"\\b', "x\\1"),), "chat")
    raw = orjson.dumps({"name": 'a"\\b'})
    assert orjson.loads(rename(raw)) == {"name": "x\\1"}


def test_a_teller_leaves_other_events_alone():
    teller = Teller((("find", "web_search"),))
    start = canonical.ToolCallStart(0, "c", "find")
    assert teller.event(start)[0].name == "web_search"
    delta = canonical.TextDelta("```json\n")
    assert teller.event(delta) == (delta,)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)
       | st.dictionaries(st.sampled_from(["name", "function", "content", "type", "parts"]), inner)))  # fmt: skip
def test_odd_turns_are_left_alone(turns):
    offer = SimpleNamespace(renames=((1, 2),), names={"q": "z"})
    assert _renamed(turns, lambda turn, names: turn, SimpleNamespace(offer=offer)) is turns


# --- listed tools --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "name", "dialects"),
    [
        ("browser", "browser", set()),
        ("web_search", "web_search", {"responses", "anthropic", "gemini"}),
        ({"type": "web_search_20260318", "name": "web_search"}, "web_search", {"anthropic"}),
        ({"googleSearch": {}}, "googleSearch", {"gemini"}),
        ({"type": "file_search", "vector_store_ids": ["v"]}, "file_search", {"responses"}),
        ({"type": "mcp", "server_url": "https://x"}, "mcp", {"responses"}),
        ({"type": "document_library", "library_ids": []}, "document_library", {"mistral"}),
        ({"name": "f", "parameters": {}}, "f", set()),
        ({"type": "function", "function": {"name": "f"}}, "f", set()),
        ({"type": "function", "name": "f"}, "f", set()),
    ],
)
def test_what_an_entry_is(entry, name, dialects):
    assert hosted_tools.name_of(entry) == name
    assert hosted_tools.dialects_of(entry) == dialects


def test_listed_tools_are_numbered():
    model = SimpleNamespace(tools={"web-search": ["a", {"name": "b"}], "x": "c"})
    assert [(t.generic, t.name) for t in listed_tools(model)] == [
        ("web_search", "a"),
        ("web_search_2", "b"),
        ("x", "c"),
    ]


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "function", "function": {"name": "f"}}, "f"),
        ({"type": "function", "name": "f"}, "f"),
        ({"type": "web_search"}, "web_search"),
        ({"type": "allowed_tools", "tools": []}, None),
        ({"type": 3}, None),
        ({}, None),
    ],
)
def test_what_a_choice_names(choice, name):
    assert chosen_name(choice) == name


def test_one_listed_category_needs_no_text():
    assert meant({"messages": [{"role": "user", "content": "weather"}]}, ["maps"]) == ("maps",)
    assert meant({}, ["maps", "weather"]) == ("maps", "weather")


# --- token limits --------------------------------------------------------------------------------


@given(
    st.integers(1, 5_000),
    st.integers(0, 10**6),
    st.integers(1, 3),
    st.builds(
        Price,
        st.integers(1, 100),
        st.integers(1, 100),
        per_item=st.integers(0, 1000),
        cache_write=st.none() | st.integers(1, 200),
        reasoning=st.none() | st.integers(1, 200),
        per_request=st.integers(0, 1000),
        tiers=st.just(()) | st.just(((1_000, Price(200, 300)),)),
    ),
)
def test_a_limit_that_a_cost_limit_bounds_is_paid_for(prompt, allowance, copies, price):
    """XAI-AUTO-020: also for long prompts, reasoning, several answers, and fees by the request."""
    limits = SimpleNamespace(spendable=allowance)
    intent = SimpleNamespace(
        task="general", prompt_tokens=prompt, copies=copies, constraints=limits
    )
    model = SimpleNamespace(max_output_tokens=None, context_window=None, price=price)
    limit, basis = token_limit(intent, model)
    if basis != "cost_limit" or limit > 1:  # the least is 1, whatever it costs
        assert price.worst(prompt, limit * copies, copies) <= allowance
