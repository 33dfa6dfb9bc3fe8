"""No call ever goes to a provider that may not see the data, whatever feature is on.

Random registries, configurations and requests are played through the real exchange, mirrors
included. What each provider may see is worked out here, from the configuration's own words and the
marked texts that a call's body holds; nothing of the router's own reckoning is used for it.
"""

import json
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiproxy.middleware.config import load_config
from aiproxy.middleware.effects import (
    Answer,
    Call,
    Close,
    Consult,
    Failure,
    Fork,
    Read,
    Send,
    Start,
    Told,
    Wait,
)
from aiproxy.middleware.exchange import Exchange
from aiproxy.middleware.gateway import Gateway, Inbound, Runtime

req = pytest.mark.requirement
LABELS, REGIONS, LEVELS = ("hipaa", "pii"), ("eu", "us"), (None, "low", "medium", "high")
CLASSES = {
    "public": {},
    "health": {"labels": ["hipaa"]},
    "personal": {"labels": ["pii"], "regions": ["eu"]},
    "american": {"regions": ["us"]},
    "inner": {"local_only": True, "min_level": "medium"},
    "core": {"labels": ["hipaa", "pii"], "min_level": "high"},
}
#: The wrapped application: in the process, attested for nothing.
APP = {"local": True, "security": {"labels": [], "regions": [], "level": None}}
RANK = {None: 0, "low": 1, "medium": 2, "high": 3}
CLIENT_KEY = "client-key-0123456789abcdef"
JSON = (("content-type", "application/json"),)
SSE = (("content-type", "text/event-stream"),)


# --- what may be seen by whom, in the configuration's own words -----------------------------------


def may_see(provider: dict[str, Any], classes: set[str], labels: set[str], strictest: bool) -> bool:
    """Whether a provider's attestations meet all the classes and labels."""
    names = set(CLASSES) if strictest and not classes <= set(CLASSES) else classes & set(CLASSES)
    held = provider["security"]
    for name in names:
        rule = CLASSES[name]
        regions = set(rule.get("regions", ()))
        if not set(rule.get("labels", ())) <= set(held["labels"]):
            return False
        if regions and not (held["regions"] and set(held["regions"]) <= regions):
            return False
        if rule.get("local_only") and not provider["local"]:
            return False
        if RANK[held["level"]] < RANK[rule.get("min_level")]:
            return False
    return labels <= set(held["labels"])


# --- configurations and requests ------------------------------------------------------------------


def provider(name: str, security: Any, local: bool, dialects: Any, models: Any) -> dict[str, Any]:
    return {
        "type": "openai_compatible",
        "endpoint": f"http://127.0.0.1:9/{name}",
        "local": local,
        "headers": {"x-own-key": f"key-of-{name}"},
        "dialects": dialects,
        "security": security,
        "models": [
            {
                "name": model,
                "quality": quality,
                "cost_per_1k_tokens": price,
                "capabilities": ["text-generation", "embeddings"],
                "response_formats": formats,
                "continues": continues,
            }
            for model, quality, price, formats, continues in models
        ],
    }


@st.composite
def providers(draw: Any) -> dict[str, Any]:
    found = {}
    for name in "abcde"[: draw(st.integers(2, 5))]:
        security = {
            "labels": draw(st.sampled_from([[], ["hipaa"], ["pii"], [*LABELS], [*LABELS]])),
            "regions": draw(st.sampled_from([[], ["eu"], ["eu"], ["us"], [*REGIONS]])),
            "level": draw(st.sampled_from(LEVELS)),
        }
        names = draw(st.sampled_from([["m"], ["n"], ["m", "n"], ["m", "n"]]))
        if not found:
            names = ["m", "n"]  # somebody serves each
        models = [
            (
                model,
                draw(st.sampled_from([0.2, 0.5, 0.9])),
                draw(st.sampled_from([0, 0.001, 0.01])),
                draw(st.sampled_from([None, ["text"]])),
                draw(st.booleans()),
            )
            for model in names
        ]
        dialects = draw(st.sampled_from([["chat", "responses"], ["chat"], ["anthropic"]]))
        local = draw(st.booleans())
        found[name] = provider(name, security, local, [*dialects, "embeddings"], models)
    return found


@st.composite
def routing(draw: Any, entries: dict[str, Any]) -> dict[str, Any]:
    """Every feature that asks somebody beside the first choice, each on or off."""
    names = list(entries)
    with_m = [n for n in names if any(row["name"] == "m" for row in entries[n]["models"])]
    someone = st.sampled_from([*names, None])
    model = st.sampled_from(["m", "n", None])
    members = [
        {"model": "m"},
        {"model": "n"},
        {"model": "m", "provider": draw(st.sampled_from(with_m))},
    ]
    target = st.tuples(someone, model)
    rows: dict[str, Any] = {
        "strategy": draw(
            st.sampled_from(["cost", "quality", "latency", "round_robin", "balanced"])
        ),
        "timeout": "30s",
        "default_provider": draw(someone),
        "auto_without_headers": draw(st.sampled_from(["select", "default"])),
        "failover": {
            "max_retries": draw(st.integers(0, 4)),
            "mid_stream": draw(st.sampled_from(["error", "resume"])),
            "model_fallbacks": draw(st.sampled_from([{}, {"m": ["n"]}, {"m": ["n"], "n": ["m"]}])),
            "fallback_chain": draw(st.lists(st.sampled_from(names), unique=True)),
        },
        "hedging": {"enabled": draw(st.booleans()), "after": "1ms", "max_percent": 100},
        "ensembles": {
            "e": {
                "method": draw(
                    st.sampled_from(["consensus", "voting", "weighted", "cascade", "best_of"])
                ),
                "members": members,
                "judge": draw(st.sampled_from(["m", "n"])),
                "quorum": 1,
            }
        },
    }
    if rows["default_provider"] is None:
        del rows["default_provider"]
    for kind, more in (("mirrors", {}), ("canaries", {"sticky": "request"})):
        whom, what = draw(target)
        if what not in [None, *(row["name"] for row in entries.get(whom, {}).get("models", ()))]:
            whom = None
        if whom or what:
            rows[kind] = [{"name": "x", "percent": 100, "provider": whom, "to": what, **more}]
    return rows


ENDPOINTS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/{model}:{action}",
    "predict": "/aiproxy/predict",
}


@dataclass
class Asking:
    """One request. ``marks`` are its texts, each with the class it is tagged with (or ``None``)."""

    endpoint: str
    model: str
    headers: dict[str, str]
    marks: list[tuple[str, str | None]]
    in_parts: bool
    stream: bool
    counting: bool
    key: bool

    @property
    def labels(self) -> set[str]:
        return set(self.headers.get("x-ai-security-requirements", "").split(",")) - {""}

    @property
    def classes(self) -> set[str]:
        found = {self.headers.get("x-ai-data-classification", "public")}
        return found | ({"personal"} if self.key else set())

    def inbound(self) -> Inbound:
        body = self.body()
        path, model = ENDPOINTS[self.endpoint], None
        if self.endpoint == "gemini":
            action = "streamGenerateContent" if self.stream else "generateContent"
            path, model = path.format(model=self.model, action=action), self.model
        headers = {**self.headers, "authorization": f"Bearer {CLIENT_KEY}"}
        found = Inbound(path, self.endpoint, tuple(headers.items()), json.dumps(body).encode())
        if model is not None:
            found.model, found.stream, found.query = model, self.stream, "alt=sse"
        found.counting = self.counting and self.endpoint in ("anthropic", "gemini")
        return found

    def body(self) -> dict[str, Any]:
        plain = " ".join(text for text, _ in self.marks)
        named: dict[str, Any] = {} if self.endpoint == "gemini" else {"model": self.model}
        if self.stream and self.endpoint not in ("gemini", "predict", "embeddings"):
            named["stream"] = True
        if self.endpoint in ("embeddings", "predict"):
            return {**named, "input": plain}
        if self.endpoint == "completions":
            return {**named, "prompt": plain}
        if self.endpoint == "anthropic":
            named["max_tokens"] = 50
        kind = {"responses": "input_text"}.get(self.endpoint, "text")
        typed = {} if self.endpoint == "gemini" else {"type": kind}
        rows = [(text, {} if c is None else {"data_classification": c}) for text, c in self.marks]
        if self.endpoint == "gemini":
            if self.in_parts:
                turns = [{"role": "user", "parts": [{"text": t, **tag} for t, tag in rows]}]
            else:
                turns = [{"role": "user", "parts": [{"text": t}], **tag} for t, tag in rows]
            return {"contents": turns}
        if self.in_parts:
            turns = [{"role": "user", "content": [{**typed, "text": t, **tag} for t, tag in rows]}]
        else:
            turns = [{"role": "user", "content": t, **tag} for t, tag in rows]
        return {**named, "input" if self.endpoint == "responses" else "messages": turns}


TAGGED = ("chat", "responses", "anthropic", "gemini")


@st.composite
def askings(draw: Any, number: int, names: list[str]) -> Asking:
    endpoint = draw(st.sampled_from([*ENDPOINTS, "chat", "chat", "chat"]))
    headers: dict[str, str] = {}

    def maybe(name: str, values: Any) -> None:
        if draw(st.sampled_from([False, False, True])):
            headers[name] = draw(values)

    maybe("x-ai-multi-provider", st.sampled_from(["enabled", "disabled"]))
    maybe("x-ai-security-requirements", st.sampled_from(["hipaa", "pii", "hipaa,pii"]))
    maybe("x-ai-data-classification", st.sampled_from(["public", *CLASSES, "unheard-of"]))
    maybe("x-ai-failover-policy", st.sampled_from(["automatic", "cascading", "manual", "none"]))
    maybe("x-ai-routing-strategy", st.sampled_from(["cost", "quality", "latency", "balanced"]))
    maybe("x-ai-provider-pool", st.sampled_from([*names, ",".join(names)]))
    if number or draw(st.booleans()):
        headers["x-ai-conversation-id"] = "the last one"
    tag = st.sampled_from([None] * 5 + [*CLASSES]) if endpoint in TAGGED else st.none()
    marks = [(f"mark-{number}-{place}-end", draw(tag)) for place in range(draw(st.integers(1, 3)))]
    return Asking(
        endpoint=endpoint,
        model=draw(st.sampled_from(["auto", "auto", "m", "n", "ensemble/e"])),
        headers=headers,
        marks=marks,
        in_parts=draw(st.booleans()),
        stream=draw(st.booleans()),
        counting=draw(st.booleans()) and draw(st.booleans()),
        key=draw(st.sampled_from([False, False, True])),
    )


@st.composite
def worlds(draw: Any) -> tuple[dict[str, Any], list[Asking], list[Any]]:
    entries = draw(providers())
    names = list(entries)
    config = {
        "wrapped": draw(st.booleans()),
        "providers": entries,
        "routing": draw(routing(entries)),
        "conversations": {"enabled": draw(st.booleans())},
        "security": {
            "classes": CLASSES,
            "unknown_class": draw(st.sampled_from(["refuse", "strictest"])),
            "segregation": {"enabled": draw(st.booleans())},
        },
    }
    asked = [draw(askings(number, names)) for number in range(draw(st.integers(1, 4)))]
    answers = draw(st.lists(st.sampled_from(ANSWERS), min_size=1, max_size=12))
    return config, asked, answers


# --- providers that answer, fail, and break off ---------------------------------------------------

WHOLE = {
    "chat": {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "fine"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    },
    "anthropic": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "up",
        "content": [{"type": "text", "text": "fine"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 2},
    },
}
SEALED = {
    "error": {"message": "Invalid signature in thinking block", "type": "invalid_request_error"}
}
ANSWERS = ("ok", "ok", "ok", "refused", "slow", "503", "429", "401", "404", "sealed", "junk", "cut")


def answer(kind: str, call: Call) -> Answer | Failure:
    dialect = "anthropic" if call.target.endswith("/messages") else "chat"
    if kind == "refused":
        return Failure("connect_refused")
    if kind == "slow":
        return Failure("first_byte_timeout")
    if kind == "429":
        return Answer(429, (*JSON, ("retry-after", "1")), b'{"error": {"message": "slow down"}}')
    if kind.isdecimal():
        return Answer(int(kind), JSON, b'{"error": {"message": "no", "code": "x"}}')
    if kind == "sealed":
        return Answer(400, JSON, json.dumps(SEALED).encode())
    if kind == "junk":
        return Answer(200, JSON, b'{"choices": []}')
    if call.stream and dialect == "chat" and call.target.endswith("/chat/completions"):
        piece = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
        deltas = [{"role": "assistant", "content": "fi"}, {"content": "ne"}]
        frames = [{**piece, "choices": [{"index": 0, "delta": d}]} for d in deltas]
        frames.append({**piece, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        reads = deque(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames)
        if kind == "cut":
            return Answer(200, SSE, stream=deque([reads[0]]))
        reads.append(b"data: [DONE]\n\n")
        return Answer(200, SSE, stream=reads)
    return Answer(200, JSON, json.dumps(WHOLE[dialect]).encode())


@dataclass
class Player:
    """Performs effects; branches of a fork take turns, so that all of them get to their calls."""

    answers: Iterator[Any]
    now: float = 100.0
    calls: list[Call] = field(default_factory=list)
    steps: int = 0

    def play(self, flow: Generator[Any, Any, Any]) -> Any:
        outcome: Any = None
        while True:
            self.steps += 1
            assert self.steps < 5000, "it does not end"
            try:
                effect = flow.send(outcome)
            except StopIteration as stop:
                return stop.value
            outcome = self.perform(effect)

    def perform(self, effect: Any) -> Any:
        if isinstance(effect, Call):
            self.calls.append(effect)
            self.now += 0.01
            return answer(next(self.answers), effect)
        if isinstance(effect, Read):
            self.now += 0.001
            reads: Any = effect.stream
            return reads.popleft() if reads else Failure("reset")
        if isinstance(effect, Wait):
            self.now += effect.seconds
        elif isinstance(effect, Consult):
            try:
                return Told(effect.ask())
            except OSError as fault:
                return Failure("store_unavailable", type(fault).__name__)
        elif isinstance(effect, Fork):
            return self.fork(effect)
        else:
            assert isinstance(effect, (Close, Start, Send)), effect
        return None

    def fork(self, fork: Fork) -> Any:
        running = [
            [branch, ending, None]
            for branch, ending in zip(fork.branches, fork.endings, strict=True)
        ]
        while running:
            for row in list(running):
                branch, ending, outcome = row
                self.steps += 1
                assert self.steps < 5000, "it does not end"
                try:
                    row[2] = self.perform(branch.send(outcome))
                    continue
                except StopIteration as stop:
                    ending.state, ending.value = "done", stop.value
                except Exception as fault:  # noqa: BLE001 - a branch may raise anything
                    ending.state, ending.fault = "raised", fault
                running.remove(row)
                if fork.enough(fork.endings):
                    for other, left, _ in running:
                        other.close()
                        left.state = "stopped"
                    return fork.endings
        return fork.endings


def endless(kinds: list[Any]) -> Iterator[Any]:
    while True:
        yield from kinds


# --- the property ---------------------------------------------------------------------------------


def check(config: dict[str, Any], asked: list[Asking], kinds: list[Any]) -> int:
    """Play the requests; return how many calls were made."""
    entries = config["providers"]
    strictest = config["security"]["unknown_class"] == "strictest"
    segregated = config["security"]["segregation"]["enabled"]
    wrapped = config.pop("wrapped")
    if wrapped:
        entries = {**entries, "app": APP}
    loaded = {}
    player = Player(endless(kinds))
    numbers = iter(range(1_000_000))
    runtime = Runtime(
        now=lambda: player.now,
        wall=lambda: 1_800_000_000 + player.now,
        new_id=lambda: f"{next(numbers):024x}",
        jitter=lambda: 0.5,
    )
    for keyed in {one.key for one in asked}:
        key = {"name": "me", "key": CLIENT_KEY}
        if keyed:
            key["data_classification"] = "personal"
        security = {**config["security"], "auth": {"api_keys": [key]}}
        made = load_config({**config, "security": security})
        loaded[keyed] = Gateway(
            made, wrapped_app=wrapped, scope="all", runtime=runtime, allow_unenforced=True
        )
    texts = {text: (one, name) for one in asked for text, name in one.marks}
    conversations: dict[bool, str] = {}
    for one in asked:
        player.calls.clear()
        if one.headers.pop("x-ai-conversation-id", None) and one.key in conversations:
            one.headers["x-ai-conversation-id"] = conversations[one.key]
        exchange = Exchange(loaded[one.key], one.inbound())
        player.play(exchange.run())
        for mirrored in exchange.mirrored:
            player.play(mirrored)
        if exchange.decision.served is not None and exchange.decision.conversation is not None:
            conversations[one.key] = exchange.decision.conversation
        assert (exchange.decision.error or {}).get("code") != "internal_error"
        for call in player.calls:
            whose = entries[call.provider]
            sent = call.body.decode() + str(call.headers) + call.target
            assert not one.counting or one.endpoint not in ("anthropic", "gemini")
            if call.provider == "app":  # the service the client called: its key is for that
                assert "key-of-" not in sent
            else:
                assert CLIENT_KEY not in sent
                assert sent.count("key-of-") == 1
                assert f"key-of-{call.provider}" in sent
            assert "data_classification" not in sent
            classes, labels = set(one.classes), set(one.labels)
            if not strictest:
                assert classes <= set(CLASSES), "an unknown class was served"
            held = [row for text, row in texts.items() if text in sent]
            for source, name in held:  # of earlier turns of a conversation, too
                classes |= source.classes | ({name} if name else set())
                labels |= source.labels
            if not segregated:
                classes |= {name for _, name in one.marks if name}
            assert may_see(whose, classes, labels, strictest), (call.provider, classes, labels)
            pool = one.headers.get("x-ai-provider-pool")
            if pool is not None and one.headers.get("x-ai-multi-provider") != "disabled":
                assert call.provider in pool.split(",")
    return len(player.calls)


@req("XAI-SEC-027", "XAI-SEC-003", "XAI-SEC-011", "XAI-SEC-012", "XAI-SEC-018", "XAI-SEC-019")
@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(worlds())
def test_no_call_goes_to_whoever_may_not_see_the_data(world: Any) -> None:
    check(*world)


@st.composite
def split_worlds(draw: Any) -> tuple[dict[str, Any], list[Asking], list[Any]]:
    """Requests of parts of several classes, where one provider at least may see all of them."""
    config, _, answers = draw(worlds())
    entries = config["providers"]
    everything = {"labels": [*LABELS], "regions": ["eu"], "level": "high"}
    entries["a"] |= {"local": True, "security": everything}
    config["security"]["segregation"] = {"enabled": True}
    tags = ["public", "health", "personal", "inner", "core"]
    tagged = draw(st.lists(st.sampled_from(tags), min_size=1, max_size=4))
    marks: list[tuple[str, str | None]] = [("mark-plain-end", None)]
    marks += [(f"mark-{place}-end", name) for place, name in enumerate(tagged)]
    one = Asking(
        endpoint=draw(st.sampled_from(TAGGED)),
        model=draw(st.sampled_from(["auto", "m"])),
        headers=draw(st.sampled_from([{}, {"x-ai-multi-provider": "enabled"}])),
        marks=draw(st.permutations(marks)),
        in_parts=draw(st.booleans()),
        stream=draw(st.booleans()),
        counting=False,
        key=False,
    )
    return config, [one], answers


@req("XAI-SEC-016", "XAI-SEC-027")
@settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])
@given(split_worlds())
def test_no_part_of_a_split_request_crosses_to_another_tier(world: Any) -> None:
    check(*world)


@pytest.mark.exhaustive
@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_it_holds_for_many_more(world: Any) -> None:
    check(*world)
