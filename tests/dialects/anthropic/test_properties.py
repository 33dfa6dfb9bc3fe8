"""Round trips and hostile input."""

import copy
import json
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from aiproxy.middleware.dialects import (
    CanonicalRequest,
    Envelope,
    MalformedReply,
    MalformedRequest,
    StreamCut,
    Untranslatable,
    anthropic,
    chat,
    responses,
)
from aiproxy.middleware.dialects.canonical import (
    File,
    Image,
    Opaque,
    Reasoning,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from aiproxy.middleware.dialects.estimate import prompt_tokens
from aiproxy.middleware.dialects.features import needs
from aiproxy.middleware.dialects.sse import SSEParser

HERE = Path(__file__).parent
MANY = settings(deadline=None, max_examples=200)

# --- what the dialect can say --------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda s: s.strip() == s
)
NAMES = st.text("abcXYZ_-09", min_size=1, max_size=8)
JSON_OBJECTS = st.dictionaries(
    WORDS, st.none() | st.booleans() | st.integers(-9, 9) | WORDS, max_size=3
)
MARKS = st.sampled_from([{}, {"cache_control": {"type": "ephemeral"}}])
TEXTS = st.builds(Text, WORDS, extra=MARKS)
DATA = st.sampled_from(["AA==", "JVBERi0="])
IMAGES = st.one_of(
    st.builds(Image, url=st.just("https://e.org/a.png"), extra=MARKS),
    st.builds(Image, data=DATA, media_type=st.sampled_from(["image/png", "image/webp"])),
    st.builds(Image, file_id=NAMES),
)
FILES = st.one_of(
    st.builds(File, url=st.just("https://e.org/a.pdf"), name=st.none() | WORDS),
    st.builds(
        File,
        data=DATA.map("data:application/pdf;base64,".__add__),
        media_type=st.just("application/pdf"),
        extra=MARKS,
    ),
    st.builds(File, data=st.just("data:text/plain;base64,w6Q="), media_type=st.just("text/plain")),
    st.builds(File, file_id=NAMES),
)
HOSTED = st.just(
    Opaque("anthropic", "container_upload", {"type": "container_upload", "file_id": "f"})
)
SHOWN = st.one_of(TEXTS, IMAGES, FILES)
CALLS = st.builds(ToolCall, NAMES, NAMES, JSON_OBJECTS.map(lambda v: orjson.dumps(v).decode()))
THOUGHTS = st.one_of(
    st.builds(Reasoning, WORDS, signature=NAMES), st.builds(Reasoning, encrypted=NAMES)
)
RESULTS = st.one_of(
    st.builds(ToolResult, NAMES, st.tuples(st.builds(Text, WORDS)), is_error=st.booleans()),
    st.builds(
        ToolResult, NAMES, st.lists(st.one_of(TEXTS, IMAGES), max_size=2).map(tuple), st.just(False)
    ),
)


def _user(parts: list[Any]) -> Turn:
    return Turn("user", tuple(parts))


USERS = st.one_of(
    WORDS.map(lambda s: Turn("user", (Text(s),), form="string")),
    st.lists(st.one_of(SHOWN, HOSTED), min_size=1, max_size=3).map(_user),
)
SAID = st.one_of(
    WORDS.map(lambda s: Turn("assistant", (Text(s),), form="string")),
    st.tuples(
        st.lists(THOUGHTS, max_size=2), st.lists(TEXTS, max_size=1), st.lists(CALLS, max_size=2)
    )
    .filter(any)
    .map(lambda t: Turn("assistant", (*t[0], *t[1], *t[2]))),
)
ROUNDS = st.tuples(
    SAID,
    st.lists(
        RESULTS.map(lambda r: Turn("tool", (r,), form="string" if r.plain else "parts")), max_size=2
    ),
    USERS.filter(lambda turn: turn.form == "parts"),
).map(lambda t: (t[0], *t[1], t[2]))
SYSTEMS = st.one_of(
    st.just(()),
    WORDS.map(lambda s: (Turn("system", (Text(s),), form="string"),)),
    st.lists(TEXTS, min_size=1, max_size=2).map(lambda p: (Turn("system", tuple(p)),)),
)
TOOLS = st.lists(
    st.one_of(
        st.builds(
            Tool,
            NAMES,
            description=st.none() | WORDS,
            parameters=st.just({"type": "object", "properties": {}}),
            strict=st.none() | st.booleans(),
            extra=MARKS,
        ),
        st.just(Tool("memory", "hosted", definition={"type": "memory_20250818", "name": "memory"})),
    ),
    max_size=3,
    unique_by=lambda tool: tool.name,
)


@st.composite
def requests(draw: st.DrawFn) -> CanonicalRequest:
    tools = tuple(draw(TOOLS))
    choices = [None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("none")]
    if tools:
        choices.append(ToolChoice("tool", tools[0].name))
    choice = draw(st.sampled_from(choices)) if tools else None
    rounds = draw(st.lists(ROUNDS, max_size=3))
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    shape = ResponseFormat("json_schema", schema=schema, strict=True)
    effort = draw(st.sampled_from([None, "none"]))
    stream = draw(st.booleans())
    return CanonicalRequest(
        "m",
        (*draw(SYSTEMS), draw(USERS), *(turn for each in rounds for turn in each)),
        "anthropic",
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=draw(st.sampled_from([None, False]))
        if choice is not None and choice.mode != "none"
        else None,
        response_format=draw(st.sampled_from([None, shape])),
        sampling=Sampling(
            max_tokens=draw(st.integers(1, 9999)),
            stop=tuple(draw(st.lists(WORDS.filter(str.strip), max_size=2))),
        ),
        reasoning_effort=effort,
        user=draw(st.none() | NAMES),
        service_tier=draw(st.sampled_from([None, "auto", "default"])),
        stream=stream,
        include_usage=stream,
        extra=draw(st.sampled_from([{}, {"container": "c"}])),
    )


@MANY
@given(request=requests())
def test_what_the_dialect_can_say_comes_back_as_it_was(request: CanonicalRequest) -> None:
    body, losses = anthropic.encode_request(request, "claude-sonnet-5")
    assert losses == []
    found = anthropic.decode_request({**body, "model": "m"})
    assert found == request
    assert anthropic.encode_request(found, "claude-sonnet-5") == (body, [])


# --- hostile input -------------------------------------------------------------------------------

ODD = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [3], [[]], [{}], {"type": "x"}, {"x": 3},
     {"type": "text"}, {"type": "tool_use"}, "tool_result", "assistant", 1e300]
)  # fmt: skip
CASES = json.loads((HERE / "requests.json").read_text())
NATIVE = next(c["body"] for c in CASES if c["name"] == "native_everything")
FOREIGN = [(c["from"], {"model": "m", **c["body"]}) for c in CASES if c["from"] != "anthropic"]
ANSWERS = [json.loads(p.read_text()) for p in sorted((HERE / "streams").glob("*.json"))]
EVENTS = [
    [event.event, orjson.loads(event.data or b"")]
    for path in sorted((HERE / "streams").glob("*.sse"))
    for event in SSEParser().feed(path.read_bytes())
    if event.data
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def broken(sample: Any) -> st.SearchStrategy[Any]:
    """The sample with one or two of its values replaced by something odd."""

    def put(edits: list[tuple[tuple[Any, ...], Any]]) -> Any:
        result = copy.deepcopy(sample)
        for path, value in edits:
            holder: Any = result
            try:
                for key in path[:-1]:
                    holder = holder[key]
                holder[path[-1]] = copy.deepcopy(value)
            except (KeyError, IndexError, TypeError):
                continue
        return result

    edit = st.tuples(st.sampled_from(places(sample)), ODD)
    return st.lists(edit, min_size=1, max_size=2).map(put)


@MANY
@given(body=broken({"model": "m", **NATIVE}), model=st.sampled_from(["claude-opus-5-5", "x"]))
def test_hostile_requests(body: dict[str, Any], model: str) -> None:
    prompt_tokens("anthropic", body)
    needs("anthropic", body)
    try:
        request = anthropic.decode_request(body)
    except MalformedRequest:
        return
    for module in (anthropic, chat, responses):
        try:
            module.encode_request(request, model)
        except Untranslatable:
            continue


@MANY
@given(
    given=st.sampled_from(FOREIGN).flatmap(lambda c: st.tuples(st.just(c[0]), broken(c[1]))),
    model=st.sampled_from(["claude-opus-5-5", "claude-sonnet-4-5", "x"]),
)
def test_hostile_requests_from_elsewhere(given: tuple[str, Any], model: str) -> None:
    module: Any = chat if given[0] == "chat" else responses
    try:
        anthropic.encode_request(module.decode_request(given[1]), model)
    except (MalformedRequest, Untranslatable):
        return


@MANY
@given(body=st.sampled_from(ANSWERS).flatmap(broken))
def test_hostile_answers(body: dict[str, Any]) -> None:
    envelope = Envelope("resp_1", 1, "m")
    anthropic.check_reply(body)
    anthropic.read_usage(body)
    try:
        reply = anthropic.decode_reply(body)
        anthropic.encode_reply(reply, envelope, [])
        chat.encode_reply(reply, envelope, [])
    except MalformedReply:
        return


@MANY
@given(events=st.lists(st.sampled_from(EVENTS).flatmap(broken), min_size=1, max_size=8))
def test_hostile_streams(events: list[Any]) -> None:
    decoder, watch = anthropic.StreamDecoder({"f": "custom"}), anthropic.Observer()
    encoder = anthropic.StreamEncoder(Envelope("resp_1", 1, "m"))
    for pair in events:
        if not (isinstance(pair, list) and isinstance(pair[1], dict)):
            continue
        name = pair[0] if isinstance(pair[0], str) else None
        watch.feed(pair[1], name)
        for event in decoder.feed(pair[1], name):
            encoder.encode(event)
    assert watch.usage is None or watch.usage.total >= 0
    try:
        for event in decoder.finish():
            encoder.encode(event)
        encoder.finish()
    except StreamCut:
        return
