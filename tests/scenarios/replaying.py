"""Sends the steps of a scenario to a server and holds what comes back to what is expected."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mounts import Client, Got, check_answer, hold
from upstreams import Script, Upstream

from aiproxy.spec.vectors import vector

PATH = "/v1/responses"
#: Header -> the name by which a step expects its document.
DOCUMENTS = {
    "selection": "x-ai-auto-selection",
    "decisions": "x-ai-auto-decisions",
    "mapping": "x-ai-tool-mapping",
}


@dataclass
class Stage:
    """A server, the upstreams of its providers by id, and how to read a decision record."""

    client: Client
    upstreams: Mapping[str, Upstream]
    record: Callable[[Got], dict[str, Any]]
    kept: dict[str, str] = field(default_factory=dict)

    def filled(self, value: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda m: self.kept[m.group(1)], value)


def replay(stage: Stage, figure: int, steps: list[dict[str, Any]]) -> None:
    """Send all steps; every difference is an ``AssertionError`` that says which one."""
    for number, step in enumerate(steps):
        for provider, wanted in step.get("given", {}).items():
            stage.upstreams[provider].script = script(wanted)
        for upstream in stage.upstreams.values():
            upstream.seen.clear()
        request, printed = _request(figure, step)
        headers = {**request["headers"], **step.get("with", {})}
        got = stage.client.post(
            request["path"],
            request["body"],
            {name: stage.filled(value) for name, value in headers.items()},
        )
        try:
            _check(stage, step, got, request, printed)
        except AssertionError as fault:
            raise AssertionError(f"step {number} of figure {figure}: {fault}\n{got}") from fault
        for name, header in step.get("keep", {}).items():
            kept = got.header(header)
            assert kept, f"no {header} came"
            stage.kept[name] = kept


def script(wanted: Mapping[str, Any]) -> Script:
    """What an upstream does; ``calls`` names the tools its answer calls."""
    given = dict(wanted)
    names = given.pop("calls", ())
    if names:
        calls = [
            {"id": f"call_{n}", "type": "function",
             "function": {"name": name, "arguments": '{"x": 1}'}}
            for n, name in enumerate(names)
        ]  # fmt: skip
        given["message"] = {"role": "assistant", "content": "Working on it.", "tool_calls": calls}
    return Script(**given)


def _request(figure: int, step: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """The request to send, and the response the figure prints for it (or nothing)."""
    if "send" in step:
        exchange = vector(f"figures/fig-{figure:02}")["exchanges"][step["send"]]
        return exchange["request"], exchange.get("response") or {}
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": text} for text in step["request"]],
    }
    headers = {"Content-Type": "application/json", "X-AI-Multi-Provider": "enabled"}
    return {"path": PATH, "headers": headers, "body": body}, {}


def _check(
    stage: Stage,
    step: Mapping[str, Any],
    got: Got,
    request: Mapping[str, Any],
    printed: Mapping[str, Any],
) -> None:
    expect: dict[str, Any] = dict(step.get("expect", {}))
    told = {name.lower(): value for name, value in (printed.get("headers") or {}).items()}
    documented = {
        "provider": told.get("x-ai-provider-used"),
        "mapped": told.get("x-ai-model-mapped"),
        "failover": told.get("x-ai-failover-occurred") == "true" if told else None,
        **step.get("instead", {}),
    }
    expect = {**{k: v for k, v in documented.items() if v is not None}, **expect}
    check_answer(got)
    assert_like(got.status, expect.pop("status", 200), "status")
    if got.status == 200:
        for name in told:
            if name.startswith("x-ai-"):
                assert got.header(name), f"{name} is printed and did not come"
        _check_form(got, request["body"])
    else:
        expect.pop("failover", None)
    simple = {
        "provider": lambda: got.provider,
        "mapped": lambda: got.header("x-ai-model-mapped"),
        "failover": lambda: got.header("x-ai-failover-occurred") == "true",
        "error": lambda: got.error["code"],
        "reply": lambda: got.json,
        "rejected": lambda: _rejected(stage.record(got)),
        "record": lambda: stage.record(got),
        "attempts": lambda: stage.record(got)["attempts"],
        "stream": lambda: got.events[-1] == "[DONE]",
        **{name: _document(got, header) for name, header in DOCUMENTS.items()},
    }
    for what in [name for name in simple if name in expect]:
        assert_like(simple[what](), expect.pop(what), what)
    _check_upstreams(stage, expect, request["body"])
    for name, value in expect.pop("headers", {}).items():
        assert got.header(name) == stage.filled(value), name
    for prefix in expect.pop("absent", ()):
        came = [name for name, _ in got.headers if name.startswith(prefix.lower())]
        assert not came, f"{came} came"
    if "tool_calls" in expect:
        _check_tool_calls(got, expect.pop("tool_calls")["generic_of"])
    assert not expect, f"nobody checks {sorted(expect)}"


def _document(got: Got, header: str) -> Callable[[], Any]:
    return lambda: json.loads(got.header(header) or "null")


def _rejected(record: Mapping[str, Any]) -> dict[str, str]:
    return {row["provider"]: row["reason"] for row in record["candidates"] if not row["eligible"]}


def _check_form(got: Got, asked: Mapping[str, Any]) -> None:
    """The form all figures share: a response object with choices, and a usage that adds up."""
    if asked.get("stream"):
        assert got.header(
            "content-type",
        ).startswith("text/event-stream")  # type: ignore[union-attr]
        for frame in got.events[:-1]:
            hold(frame, "events/union-frame")
        return
    hold(got.json, "responses/union")
    assert got.json["object"] == "response"
    [choice] = got.json["choices"]
    assert choice["message"]["role"] == "assistant"
    usage = got.json["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def _check_upstreams(stage: Stage, expect: dict[str, Any], asked: Mapping[str, Any]) -> None:
    seen = {name: upstream.seen for name, upstream in stage.upstreams.items() if upstream.seen}
    for name, calls in seen.items():
        for call in calls:
            assert "sk-" not in call.headers.get("authorization", ""), f"{name} got our key (T-44)"
    if "called" in expect:
        assert {name: len(calls) for name, calls in seen.items()} == expect.pop("called")
    for name in expect.pop("not_called", ()):
        assert name not in seen, f"{name} was asked"
    for name, members in expect.pop("sent", {}).items():
        assert_like(seen[name][-1].body, members, f"sent to {name}")
    for name, members in expect.pop("unsent", {}).items():
        assert not set(members) & set(seen[name][-1].body), f"sent to {name}"
    for name, member in expect.pop("sent_as_printed", {}).items():
        assert seen[name][-1].body[member] == asked[member], f"{member} sent to {name}"
    for name, members in expect.pop("numbers", {}).items():
        for member in members:
            assert type(seen[name][-1].body[member]) is int, f"{member} sent to {name}"
    for name, texts in expect.pop("heard", {}).items():
        for text in texts:
            assert text in json.dumps(seen[name][-1].body), f"{name} was not told {text!r}"
    for name, texts in expect.pop("unheard", {}).items():
        for text in texts:
            assert text not in json.dumps(seen[name][-1].body), f"{name} was told {text!r}"


def _check_tool_calls(got: Got, categories: str | list[str]) -> None:
    """The calls of the answer have the generic names of the mapping, in this order."""
    wanted = [categories] if isinstance(categories, str) else categories
    mapping = json.loads(got.header("x-ai-tool-mapping") or "{}")
    generic = {row["category"]: row["generic_name"] for row in mapping["selected_tools"]}
    provider = {row["provider_tool"] for row in mapping["selected_tools"]}
    calls = got.json["choices"][0]["message"]["tool_calls"]
    names = [call["function"]["name"] for call in calls]
    assert names == [generic[category] for category in wanted]
    assert not provider & set(names)


def assert_like(found: Any, expected: Any, what: str) -> None:
    """Members of mappings, and each element of lists; ``[[a, b]]`` is one of a and b."""
    if isinstance(expected, list) and len(expected) == 1 and isinstance(expected[0], list):
        assert found in expected[0], f"{what}: {found!r} is none of {expected[0]!r}"
    elif isinstance(expected, Mapping):
        assert isinstance(found, Mapping), f"{what}: {found!r}"
        for name, value in expected.items():
            assert name in found, f"{what}.{name}: not in {sorted(found)}"
            assert_like(found[name], value, f"{what}.{name}")
    elif isinstance(expected, list):
        assert isinstance(found, list), f"{what}: {found!r}"
        assert len(found) == len(expected), f"{what}: {found!r}"
        for place, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_like(one, other, f"{what}[{place}]")
    else:
        assert found == expected, f"{what}: {found!r} is not {expected!r}"
