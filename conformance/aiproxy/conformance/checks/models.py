"""GET /v1/models, and finding out which model to talk to (aiproxy §5.3)."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from aiproxy.conformance.checks import check
from aiproxy.conformance.endpoint import CHAT, MODELS, Reply
from aiproxy.conformance.probe import Probe, is_count, say, tell
from aiproxy.conformance.results import Finding, Status

# Models that a list may offer beside chat models; trying them would only cost money.
_NO_CHAT: Final = (
    "embed", "whisper", "tts", "dall-e", "moderation", "rerank", "image", "audio", "realtime",
    "transcribe", "davinci-002", "babbage",
)  # fmt: skip
_TRIALS: Final = 3


@check(
    "AIP-API-019",
    level=1,
    keyword="MUST",
    title="GET /v1/models lists models with id, object, created and owned_by",
    clause="aiproxy §5.3",
)
def models_are_listed(probe: Probe) -> Iterator[Finding]:
    """Also picks the model that the rest of the run talks to."""
    me = "AIP-API-019"
    reply = probe.endpoint.get(MODELS)
    listed = reply.object.get("data")
    entries: list[Any] = listed if isinstance(listed, list) else []
    ids = [entry["id"] for entry in entries if isinstance(entry, dict) and _named(entry)]
    probe.facts.listed = tuple(ids)
    if reply.status in (401, 403):
        wanted = "refuses the key" if probe.endpoint.api_key else "asks for one: use --api-key"
        yield say(me, Status.NOT_TESTABLE, f"the target {wanted}", reply)
        return
    if reply.status != 200 or not isinstance(listed, list):
        yield tell(me, "the list", False, reply, expected='200 with {"object":"list","data":[…]}')
        return
    yield tell(
        me, "object", reply.object.get("object") == "list", reply,
        expected='"list"', found=repr(reply.object.get("object")),
    )  # fmt: skip
    yield tell(me, "at least one model", bool(entries), reply, expected="an entry", found="none")
    wrong = next(filter(None, map(_wrong_with, entries)), "")
    yield tell(me, "each entry", not wrong, reply, expected="the four keys", found=wrong)
    twice = len(ids) != len(set(ids))
    yield tell(me, "ids", not twice, reply, expected="each once", found="one id twice")
    yield from _try_models(probe)


def _try_models(probe: Probe) -> Iterator[Finding]:
    """Talk to listed models until one answers; a listed model nobody knows is a fault."""
    fit = [
        name for name in probe.facts.listed if not any(word in name.lower() for word in _NO_CHAT)
    ]
    fit.sort(key=lambda name: name == "auto")  # an automatic choice is the last resort
    for name in fit[:_TRIALS] if probe.asked_model is None else ():
        reply = talk_to(probe, name)
        unknown = reply.status == 404 and reply.error.get("code") == "model_not_found"
        yield tell(
            "AIP-API-019", "a listed model can be used", not unknown, reply,
            expected=f"an answer of {name!r}",
        )  # fmt: skip
        if reply.status == 200:
            return


def talk_to(probe: Probe, model: str) -> Reply:
    """Send ``model`` a first chat; remember it when it answers, or when nobody has yet."""
    reply = probe.endpoint.post(CHAT, probe.request(model, "max_tokens"))
    field = "max_tokens"
    if reply.status == 400 and "max_completion_tokens" in reply.body.decode("utf-8", "replace"):
        field = "max_completion_tokens"
        reply = probe.endpoint.post(CHAT, probe.request(model, field))
    known = probe.facts.answer
    if known is None or known.status != 200:
        probe.facts.answer, probe.facts.limit_field = reply, field
        probe.facts.model = model
    return reply


def _named(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("id"), str) and bool(entry["id"])


def _wrong_with(entry: object) -> str:
    if not isinstance(entry, dict):
        return "an entry that is not an object"
    if not _named(entry):
        return "an entry without id"
    name = entry["id"]
    if entry.get("object") != "model":
        return f"{name}: object is {entry.get('object')!r}"
    if not is_count(entry.get("created")):
        return f"{name}: created is {entry.get('created')!r}"
    if not isinstance(entry.get("owned_by"), str):
        return f"{name}: owned_by is {entry.get('owned_by')!r}"
    return ""


@check(
    "AIP-API-024",
    level=1,
    keyword="SHOULD",
    title="GET /v1/models/{id} returns the entry, and 404 for an unknown id",
    clause="aiproxy §5.3",
    depends_on=("AIP-API-019",),
)
def one_model_is_described(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-024"
    if not probe.facts.listed:
        yield say(me, Status.NOT_TESTABLE, "no model is listed")
        return
    listed = probe.facts.listed
    name = probe.facts.model if probe.facts.model in listed else listed[0]
    known = probe.endpoint.get(f"{MODELS}/{quote(name, safe='')}")
    same = known.status == 200 and known.object.get("id") == name
    yield tell(me, "a listed model", same, known, expected=f"200 with id {name!r}")
    unknown = probe.endpoint.get(f"{MODELS}/no-such-{probe.word()}")
    yield tell(me, "an unknown model", unknown.status == 404, unknown, expected="status 404")
