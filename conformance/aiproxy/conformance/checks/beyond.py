"""Checks above level 1 that a URL alone can falsify; none of them proves a level."""

from collections.abc import Iterator

from aiproxy.conformance.checks import check
from aiproxy.conformance.probe import Probe, declines, is_count, refused, say, tell
from aiproxy.conformance.results import Finding, Status


@check(
    "XAI-STREAM-018",
    level=2,
    keyword="MUST",
    title="stream must be a boolean",
    clause="draft §8",
    depends_on=("AIP-API-001",),
)
def stream_is_a_boolean(probe: Probe) -> Iterator[Finding]:
    yield refused("XAI-STREAM-018", 'stream: "yes"', probe.chat(stream="yes"), 400)


@check(
    "AIP-API-030",
    level=2,
    keyword="MUST",
    title="POST /v1/embeddings returns vectors and usage, where a model offers them",
    clause="aiproxy §4.1",
    depends_on=("AIP-API-019",),
)
def embeddings_are_vectors(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-030"
    named = [model for model in probe.facts.listed if "embed" in model.lower()]
    if not named:
        yield say(me, Status.UNSUPPORTED, "no listed model is named for embeddings")
        return
    body = {"model": named[0], "input": [probe.word(), probe.word()], "encoding_format": "float"}
    reply = probe.endpoint.post("/v1/embeddings", body)
    if declines(reply):
        yield say(me, Status.UNSUPPORTED, f"declined with {reply.status}", reply)
        return
    data = reply.object.get("data")
    rows = data if isinstance(data, list) else []
    vectors = [row.get("embedding") for row in rows if isinstance(row, dict)]
    lengths = {len(vector) for vector in vectors if isinstance(vector, list)}
    right = reply.status == 200 and len(vectors) == 2 and len(lengths) == 1 and 0 not in lengths
    yield tell(me, "two inputs", right, reply, expected="two vectors of one length")
    usage = reply.object.get("usage")
    counted = isinstance(usage, dict) and is_count(usage.get("prompt_tokens"))
    yield tell(me, "usage", counted, reply, expected="prompt_tokens", found=repr(usage))
