"""The official SDKs as judges: their types take what we send, and OpenAI's what we tell of it.

Every request of ``features`` is said in each dialect that has words for it and carried to each
provider; every answer of ``answers`` and every recorded one is told to chat and Responses clients.
Each SDK judges in one process of its own (``scripts/sdk_venvs.py``).
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from egress import VENVS, judge
from fidelity.features import REQUESTS
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import BY_NAME, check_reply, parsed, wire_of
from fidelity.request_grid import FEATURES, ingresses, said_in, sent_bodies

from aiproxy.middleware.dialects.canonical import Envelope, StreamCut, StreamError
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec

pytestmark = [pytest.mark.sdk, pytest.mark.slow]  # an interpreter for each SDK
HERE: Final = Path(__file__).parent
DIALECTS: Final = HERE.parent
OPENAI: Final = max(
    (path.name for path in VENVS.glob("openai-*") if (path / "complete").exists()),
    key=lambda name: int(name.rpartition("-")[2]),
    default="openai-3",
)
#: Whose types judge what a dialect sends, how they are asked, and the least that they have to take.
LEAST: Final = 40
JUDGED: Final = ("anthropic", "gemini", "cohere", "mistral", "chat", "responses")
CLIENTS: Final = ("chat", "responses")
#: What an API takes though the SDK's types do not: a refusal of an earlier answer has no other
#: words than a part of a message, and the types know such messages with an id of the API's only.
UNTYPED: Final = {"responses": {"refusal in an earlier turn"}}
#: Members that are no mistake though the SDK has no name for them: what other chat servers and
#: clients speak of, what the Open Responses description asks for, and what the API itself tells.
EXTENSIONS: Final = {
    "chat": {
        "annotations",  # of a delta
        "extra_content",
        "native_finish_reason",
        "reasoning_content",
        "reasoning_details",
    },
    "responses": {
        "bytes",  # of a token in an event
        "frequency_penalty",
        "name",  # in response.function_call_arguments.done
        "presence_penalty",
        "status",  # of a custom call
        "store",
    },
}
#: Streamed answers that the SDK cannot read whoever tells them: it knows no custom calls in chunks.
UNREADABLE: Final = {"chat/custom call", "responses/custom call"}

#: Recorded streams that end in no answer: they were cut, or tell of a failure.
BROKEN: Final = {
    "anthropic/recorded cut",
    "anthropic/recorded overloaded",
    "stream.cut_no_finish",
    "stream.done_no_finish",
    "stream.empty_finish",
    "stream.error_after_200",
    "stream.error_event",
    "stream.error_with_empty_choices",
    "stream.responses_cut",
    "stream.responses_failed",
    "stream.responses_flat_error",
}


@cache
def sent(dialect: str) -> dict[str, dict[str, Any]]:
    """Every different body that a provider is sent, by feature, client's dialect and stream."""
    found: dict[bytes, tuple[str, dict[str, Any]]] = {}
    for ingress in ingresses():
        for stream in (False, True):
            for egress, name, body in sent_bodies(ingress, stream):
                if egress == dialect:
                    where = f"{name}|{ingress}|{'stream' if stream else 'whole'}"
                    raw = orjson.dumps(body)
                    found.setdefault(raw, (where, orjson.loads(raw)))
    return dict(found.values())


def is_own_word(dialect: str, where: str) -> bool:
    """Tell whether the client said what was sent, in the same dialect: then we made nothing of it,
    and it may well speak to another server than the SDK's."""
    name, ingress, how = where.split("|")
    if ingress != dialect and (ingress, dialect) != ("draft", "chat"):
        return False
    said = orjson.loads(said_in(ingress, name, how == "stream") or b"null")
    asked = {"stream_options": {"include_usage": True}}  # we want the usage of every stream
    return sent(dialect)[where] in (said, {**said, **asked})


def faults(dialect: str, bodies: list[dict[str, Any]]) -> list[str | None]:
    """What the provider's SDK has against each body."""
    if dialect == "anthropic":
        entries = [{"as": "request", "value": body} for body in bodies]
        told: list[str | None] = judge("anthropic", DIALECTS / "anthropic" / "judge.py", entries)
        return told
    if dialect in CLIENTS:
        kind = f"{dialect}_request"
        told = judge(OPENAI, HERE / "openai_judge.py", {kind: bodies})[kind]
        return told
    sdk = {"gemini": "google-genai", "cohere": "cohere", "mistral": "mistralai"}[dialect]
    given: dict[str, list[Any]] = {"requests": bodies}
    for name in {"cohere": ("embeds", "replies", "embedded", "events"),
                 "mistral": ("replies", "chunks")}.get(dialect, ()):  # fmt: skip
        given[name] = []
    read = judge(sdk, DIALECTS / dialect / "sdk_judge.py", given)["requests"]
    return [_unread(dialect, *pair) for pair in zip(bodies, read, strict=True)]


def _unread(dialect: str, body: dict[str, Any], read: dict[str, Any]) -> str | None:
    if "fault" in read:
        return str(read["fault"])
    if dialect == "gemini":  # written again, the rest goes where the SDK puts it
        for ours, theirs in zip(body["contents"], read["contents"], strict=True):
            if [set(part) for part in ours["parts"]] != [set(part) for part in theirs["parts"]]:
                return f"read as {theirs}"
        return None
    return None if read == body else f"read as {read}"


def test_the_table_is_wide_enough() -> None:
    assert len(REQUESTS) >= LEAST


@pytest.mark.parametrize("dialect", JUDGED)
def test_the_sdk_takes_what_its_provider_is_sent(dialect: str) -> None:
    bodies = sent(dialect)
    told = faults(dialect, list(bodies.values()))
    refused = {where: why for where, why in zip(bodies, told, strict=True) if why}
    wrong = {
        where: (why, bodies[where])
        for where, why in refused.items()
        if not is_own_word(dialect, where)
        and where.partition("|")[0] not in UNTYPED.get(dialect, ())
    }
    assert wrong == {}
    taken = [where for where in bodies if where not in refused]
    assert len({where.partition("|")[0] for where in taken}) >= LEAST
    foreign = {where.partition("|")[0] for where in taken if where.split("|")[1] != dialect}
    assert len(foreign) >= LEAST


# --- answers --------------------------------------------------------------------------------------


def _recorded() -> Iterator[tuple[str, str, Path]]:
    for path in sorted(DIALECTS.glob("*/**/*.*")):
        if path.parent.name in ("golden", "streams"):
            yield path.relative_to(DIALECTS).parts[0], path.suffix, path


def whole_answers() -> Iterator[tuple[str, str, Any]]:
    """Yield where it is from, its dialect and the body of every whole answer."""
    for dialect, source in PROVIDERS.items():
        for name, answer in BY_NAME.items():
            if source.says(answer, False):
                yield f"{dialect}/{name}", dialect, source.whole(answer)
    for dialect, suffix, path in _recorded():
        if suffix == ".json":
            yield f"{dialect}/recorded {path.stem}", dialect, orjson.loads(path.read_bytes())
    for path in sorted((DIALECTS / "vectors").glob("reply.*.json")):
        vector = orjson.loads(path.read_bytes())
        yield path.stem, vector["source"], vector["body"]


def streamed_answers() -> Iterator[tuple[str, str, bytes]]:
    """Yield where it is from, its dialect and the bytes of every streamed answer."""
    for dialect, source in PROVIDERS.items():
        for name, answer in BY_NAME.items():
            if source.says(answer, True):
                yield f"{dialect}/{name}", dialect, wire_of(source.stream(answer))
    for dialect, suffix, path in _recorded():
        if suffix == ".sse":
            yield f"{dialect}/recorded {path.stem}", dialect, path.read_bytes()
    for path in sorted((DIALECTS / "vectors").glob("stream.*.json")):
        vector = orjson.loads(path.read_bytes())
        yield path.stem, vector["dialect"], vector["wire"].encode()


def envelope(client: str, name: str = "") -> Envelope:
    """An envelope for a client who asked for a feature of the table."""
    said = said_in(client, name, False) if name else None
    body = {"model": "auto", "input": "hi"} if said is None else orjson.loads(said)
    return Envelope("resp_0123abcd", 1_790_000_000, "auto", body, include_usage=True)


def told_whole(client: str) -> dict[str, Any]:
    """Every whole answer as a client gets it."""
    found = {}
    for where, provider, body in whole_answers():
        if provider not in SPOKEN_FOR[client]:
            continue
        assert check_reply(provider, body) is None, where
        reply = codec(provider).decode_reply(body)
        told = codec(client).encode_reply(reply, envelope(client), [])
        found[where] = orjson.loads(orjson.dumps(told))
    return found


def told_streamed(client: str) -> tuple[dict[str, str], set[str]]:
    """Every streamed answer as a client gets it, and the names of those that broke off."""
    found, broken = {}, set()
    for where, provider, wire in streamed_answers():
        if provider not in SPOKEN_FOR[client]:
            continue
        decoder, encoder = (
            codec(provider).StreamDecoder(),
            codec(client).StreamEncoder(envelope(client)),
        )
        encoder.source = provider  # as the relay does
        try:
            events = [e for event, payload in parsed(wire) for e in decoder.feed(payload, event)]
            events += decoder.finish()
        except StreamCut:
            broken.add(where)
            continue
        if any(isinstance(event, StreamError) for event in events):
            broken.add(where)
            continue
        out = b"".join(encoder.encode(event) for event in events) + encoder.finish()
        found[where] = out.decode()
    return found, broken


def against(client: str, names: list[str], told: list[str | None]) -> dict[str, str]:
    """The faults found, without the extensions that everyone has."""
    found = {}
    for name, why in zip(names, told, strict=True):
        if why is None:
            continue
        head, _, members = why.partition("unknown: ")
        unknown = {path.rpartition(".")[2] for path in members.split()}
        if head or not unknown <= EXTENSIONS[client]:
            found[name] = why
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_answers_are_what_the_newest_openai_sdk_reads(client: str) -> None:
    whole = told_whole(client)
    streams, broken = told_streamed(client)
    assert broken == BROKEN
    for names in (whole, streams):
        assert {name.partition("/")[0] for name in names} >= {*SPOKEN_FOR[client]}
        assert len(names) >= 5 * LEAST
    body, frame = ("completion", "chunk") if client == "chat" else ("response", "event")
    frames = [
        (where, payload) for where, wire in streams.items() for _, payload in parsed(wire.encode())
    ]
    read = judge(
        OPENAI,
        HERE / "openai_judge.py",
        {
            body: list(whole.values()),
            frame: [payload for _, payload in frames],
            f"{client}_wire": list(streams.values()),
        },
    )
    unread = UNREADABLE if client == "chat" else set()
    assert against(client, list(whole), read[body]) == {}
    assert against(client, [where for where, _ in frames], read[frame]).keys() == unread
    assert against(client, list(streams), read[f"{client}_wire"]).keys() == unread


def test_a_response_repeats_every_request_in_words_the_sdk_reads() -> None:
    reply = codec("chat").decode_reply(PROVIDERS["chat"].whole(BY_NAME["text"]))
    bodies = {
        name: codec("responses").encode_reply(reply, envelope("responses", name), [])
        for name in FEATURES
        if said_in("responses", name, False) is not None
    }
    assert len(bodies) >= LEAST
    told = judge(OPENAI, HERE / "openai_judge.py", {"response": list(bodies.values())})
    assert against("responses", list(bodies), told["response"]) == {}
