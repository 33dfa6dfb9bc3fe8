"""Other routes: unknown ones, health, the older completions (aiproxy §5, §8)."""

from collections.abc import Iterator

from aiproxy.conformance.checks import check
from aiproxy.conformance.endpoint import MODELS
from aiproxy.conformance.probe import Probe, declines, say, tell
from aiproxy.conformance.results import Finding, Status


@check(
    "AIP-API-035",
    level=1,
    keyword="SHOULD",
    title="unknown paths get a 404 error object",
    clause="aiproxy §5",
)
def unknown_paths_are_not_found(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-035"
    reply = probe.endpoint.get(f"/v1/no-such-{probe.word()}")
    yield tell(me, "an unknown path", reply.status == 404, reply, expected="status 404")
    if reply.status == 404:
        yield tell(me, "its body", bool(reply.error), reply, expected="an error object")
    slash = probe.endpoint.get(f"{MODELS}/")
    yield tell(me, "a trailing slash", slash.status < 500, slash, expected="no server error")


@check(
    "AIP-API-036",
    level=1,
    keyword="SHOULD",
    title="/healthz and /readyz answer without a key",
    clause="aiproxy §8 Phase 1",
)
def health_is_told(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-036"
    for path in ("/healthz", "/readyz"):
        reply = probe.endpoint.get(path, authorization=None)
        if reply.status == 404:
            yield say(me, Status.UNSUPPORTED, f"{path} is not there", reply)
        else:
            yield tell(me, path, reply.status in (200, 204), reply, expected="status 200")


@check(
    "UNI-API-002",
    level=1,
    keyword="SHOULD",
    title="/v1/completions answers or is clearly refused",
    clause="universal endpoints completions",
    depends_on=("AIP-API-001",),
)
def completions_answer_or_decline(probe: Probe) -> Iterator[Finding]:
    me = "UNI-API-002"
    body = {"model": probe.body()["model"], "prompt": f"{probe.word()} is", "max_tokens": 4}
    reply = probe.endpoint.post("/v1/completions", body)
    if declines(reply):
        yield say(me, Status.UNSUPPORTED, f"declined with {reply.status}", reply)
        return
    right = reply.status == 200 and reply.object.get("object") == "text_completion"
    yield tell(me, "the answer", right, reply, expected="a text_completion or an error object")
