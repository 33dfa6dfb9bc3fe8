"""POST /v1/embeddings (aiproxy §4.1 endpoints)."""

import base64
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeGuard

from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.probe import Probe, declines, is_count, refused, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import only_asked

EMBEDDER: Final = Fake(capabilities=("embeddings",))
EMBEDS: Final = ("AIP-API-030",)
_TEXTS: Final = 3


@check(
    "AIP-API-030",
    level=2,
    keyword="MUST",
    title="POST /v1/embeddings returns vectors in the order of the inputs, and usage",
    clause="aiproxy §4.1 endpoints",
)
@behind(e=EMBEDDER)
def embeddings_are_vectors(probe: Probe) -> Iterator[Finding]:
    """The fake's vectors differ from input to input, so a wrong order shows."""
    me = "AIP-API-030"
    case = probe.case()
    texts = [case.prompt(probe.word()) for _ in range(_TEXTS)]
    inputs: dict[str, tuple[Any, int]] = {
        "a text": (texts[0], 1),
        "a list of one": (texts[:1], 1),
        "a list of three": (texts, _TEXTS),
    }
    for what, (given, count) in inputs.items():
        reply = case.embed(input=given)
        if reply.status != 200:
            yield tell(me, what, False, reply, expected="200 with vectors", blocks=True)
            return
        yield from _list(me, what, case, reply, count)
    for what, nothing in (("an empty text", ""), ("an empty list", [])):
        yield refused(me, what, case.embed(input=nothing), 400)


def _list(me: str, what: str, case: Case, reply: Reply, count: int) -> Iterator[Finding]:
    body = reply.object
    rows = _rows(reply)
    vectors = [row.get("embedding") for row in rows]
    order = [row.get("index") for row in rows]
    yield tell(
        me, f"object for {what}", body.get("object") == "list", reply,
        expected='"list"', found=repr(body.get("object")),
    )  # fmt: skip
    yield tell(
        me, f"index for {what}", order == list(range(count)), reply,
        expected=f"0 to {count - 1} in order", found=repr(order),
    )  # fmt: skip
    ids = (case.cast["e"].id,)
    true = len(vectors) == count and all(
        _floats(vector) and case.upstreams.origin_of_vector(vector, case.nonce, ids, place)
        for place, vector in enumerate(vectors)
    )
    yield tell(
        me, f"vectors for {what}", true, reply,
        expected="those of the provider, in the order of the inputs",
        found=f"{len(vectors)} vectors, not all of them the provider's",
    )  # fmt: skip
    usage = body.get("usage")
    attempts = [attempt for attempt in case.attempts() if attempt.usage]
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    wanted = attempts[-1].usage["prompt_tokens"] if attempts and attempts[-1].usage else None
    yield tell(
        me, f"usage for {what}", is_count(told) and told == wanted, reply,
        expected=f"prompt_tokens {wanted}", found=repr(usage),
    )  # fmt: skip


@check(
    "AIP-API-031",
    level=2,
    keyword="SHOULD",
    title="embeddings go only to models with the embeddings capability",
    clause="aiproxy §4.1 endpoints",
    depends_on=EMBEDS,
)
@behind(e=EMBEDDER, talks=Fake(alone=True))
def only_embedding_models_embed(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-031"
    case = probe.case()
    reply = case.embed(model=case.cast["talks"].model)
    code = reply.error.get("code")
    yield tell(
        me, "embeddings of a chat model",
        (reply.status, code) == (400, "unsupported_capability"), reply,
        expected="400 unsupported_capability",
    )  # fmt: skip
    yield only_asked(me, "embeddings of a chat model", case, reply)


@check(
    "AIP-API-032",
    level=2,
    keyword="SHOULD",
    title="encoding_format and dimensions act as in the reference API, or are refused",
    clause="aiproxy §4.1 endpoints",
    depends_on=EMBEDS,
)
@behind(e=EMBEDDER)
def encodings_are_equal(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-032"
    case = probe.case()
    plain = case.embed()
    packed = case.embed(encoding_format="base64")
    if declines(packed):
        yield say(me, Status.UNSUPPORTED, f"base64 is declined with {packed.status}", packed)
    else:
        floats = [row.get("embedding") for row in _rows(plain)]
        same = _unpacked(packed) == floats and bool(floats)
        yield tell(me, "base64", same, packed, expected="the same numbers as without it")
    short = case.embed(dimensions=4)
    if declines(short):
        yield say(me, Status.UNSUPPORTED, f"dimensions are declined with {short.status}", short)
        return
    sizes = [len(row.get("embedding", ())) for row in _rows(short)]
    yield tell(
        me, "dimensions: 4", sizes == [4], short,
        expected="a vector of four numbers, or a refusal", found=repr(sizes),
    )  # fmt: skip


def _rows(reply: Reply) -> list[dict[str, Any]]:
    data = reply.object.get("data")
    return [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []


def _floats(vector: object) -> TypeGuard[list[float]]:
    return isinstance(vector, list) and all(isinstance(number, int | float) for number in vector)


def _unpacked(reply: Reply) -> list[Sequence[float]]:
    """Return base64 vectors as numbers; none where one cannot be read."""
    found: list[Sequence[float]] = []
    for row in _rows(reply):
        try:
            octets = base64.b64decode(str(row.get("embedding")), validate=True)
            found.append(list(struct.unpack(f"<{len(octets) // 4}f", octets)))
        except (ValueError, struct.error):
            return []
    return found


derive(
    "UNI-API-004", level=2, keyword="MUST", title="/v1/embeddings exists",
    clause="universal endpoints embeddings", of=("AIP-API-030",),
)  # fmt: skip
