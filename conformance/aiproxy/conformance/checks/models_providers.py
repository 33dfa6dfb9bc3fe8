"""What the target says about models and providers, against what is behind it (aiproxy §5.3)."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiproxy.conformance.bills import is_number
from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.endpoint import MODELS
from aiproxy.conformance.probe import Probe, declines, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.rig.worlds import ORDERED
from aiproxy.spec import HEADERS

LISTS: Final = ("AIP-API-019",)
PROVIDERS: Final = "/v1/providers"
# Health is eventual: so long may it take to follow, either way.
_FOLLOWS_WITHIN_S: Final = 20.0
_MOST_FAILURES: Final = 16
_IDLE_S: Final = 2.5


@check(
    "AIP-API-020",
    level=2,
    keyword="MUST",
    title="a model lists its providers with name, available, cost and latency",
    clause="aiproxy §5.3",
    depends_on=LISTS,
)
@check(
    "AIP-API-021",
    level=2,
    keyword="MUST",
    title="a model of several providers is listed once, with each of them",
    clause="aiproxy §5.3",
    depends_on=LISTS,
)
@behind(
    a=Fake(priority=1, price=0.0021),
    b=Fake(priority=2, price=0.0034),
    e=Fake(alone=True, price=0.0),
)
def models_list_their_providers(probe: Probe) -> Iterator[Finding]:
    shape, once = "AIP-API-020", "AIP-API-021"
    cast = probe.cast
    probe.case().chat()  # so that one of them has been measured
    reply = probe.endpoint.get(MODELS)
    listed = reply.object.get("data")
    entries = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    for model, roles in ((cast.model, "ab"), (cast["e"].model, "e")):
        found = [row for row in entries if row.get("id") == model]
        yield tell(
            once, f"the entries of {model}", len(found) == 1, reply,
            expected="one", found=str(len(found)),
        )  # fmt: skip
        rows = [row for entry in found for row in _rows(entry)]
        names, wanted = sorted(str(row.get("name")) for row in rows), {cast[r].id for r in roles}
        yield tell(
            once, f"the providers of {model}", set(names) == wanted, reply,
            expected=repr(sorted(wanted)), found=repr(names),
        )  # fmt: skip
        for role in roles:
            mine = next((row for row in rows if row.get("name") == cast[role].id), None)
            if mine is not None:
                yield from _row(shape, mine, cast[role].fake.price, reply)
        if not rows:
            yield tell(shape, f"providers of {model}", False, reply, expected="a list", found="-")


def _rows(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = entry.get("providers")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _row(me: str, row: Mapping[str, Any], price: float | None, reply: Reply) -> Iterator[Finding]:
    """A price may be hidden (null) from somebody without a key (resolution T-73)."""
    available, cost = row.get("available"), row.get("cost_per_1k_tokens")
    yield tell(
        me, "available", isinstance(available, bool), reply,
        expected="true or false", found=repr(available),
    )  # fmt: skip
    hidden = cost is None and "cost_per_1k_tokens" in row
    yield tell(
        me, "cost_per_1k_tokens", hidden or (is_number(cost) and cost == price), reply,
        expected=f"{price}, or null", found=repr(cost),
    )  # fmt: skip
    latency = row.get("avg_latency_ms")
    unknown = latency is None and "avg_latency_ms" in row
    yield tell(
        me, "avg_latency_ms", unknown or (is_number(latency) and latency >= 0), reply,
        expected="a number, or null", found=repr(latency),
    )  # fmt: skip


@check(
    "UNI-REG-001",
    level=2,
    keyword="MUST",
    title="each provider of the registry has id, name, displayName and description",
    clause="universal providerRegistry id",
)
@check(
    "UNI-REG-007",
    level=2,
    keyword="MUST",
    title="the registry lists the models of each provider",
    clause="universal capabilities.models",
)
@check(
    "UNI-API-007",
    level=2,
    keyword="SHOULD",
    title="GET /v1/providers lists providers with status and no secrets",
    clause="universal endpoints providers",
)
@behind(
    a=Fake(priority=1),
    b=Fake(priority=2, alone=True),
    off=Fake(provider={"enabled": False}, alone=True),
)
def the_registry_is_told(probe: Probe) -> Iterator[Finding]:
    """The endpoint itself is a SHOULD: a target without it is not asked what it would say."""
    entry, models, secrets = "UNI-REG-001", "UNI-REG-007", "UNI-API-007"
    cast = probe.cast
    reply = probe.endpoint.get(PROVIDERS)
    if _not_there(reply):
        for me in (entry, models, secrets):
            yield say(me, Status.UNSUPPORTED, f"declined with {reply.status}", reply)
        return
    rows = _entries(reply)
    mine = {str(row.get("id")): row for row in rows}
    unique = len(mine) == len(rows)
    yield tell(entry, "ids", unique, reply, expected="each once", found="one id twice")
    for role in "ab":
        row = mine.get(cast[role].id)
        if row is None:
            who = f"{role} ({cast[role].id})"
            yield tell(entry, who, False, reply, expected="listed", found="not listed")
            continue
        missing = [
            "/".join(names)
            for names in (("id",), ("name",), ("displayName", "display_name"), ("description",))
            if not any(isinstance(row.get(name), str) for name in names)
        ]
        yield tell(
            entry, f"the entry of {cast[role].id}", not missing, reply,
            expected="id, name, displayName and description", found=f"no {', '.join(missing)}",
        )  # fmt: skip
        named = _names_of_models(row)
        yield tell(
            models, f"the models of {cast[role].id}", named == [cast[role].model], reply,
            expected=repr([cast[role].model]), found=repr(named),
        )  # fmt: skip
    if not set(mine) & {cast["a"].id, cast["b"].id}:
        yield say(models, Status.NOT_TESTABLE, f"{entry} failed", reply)
    off = _names_of_models(mine.get(cast["off"].id, {}))
    usable = cast["off"].id in mine and mine[cast["off"].id].get("available") is not False
    yield tell(
        models, "a disabled provider's model", not (off and usable), reply,
        expected="not listed as usable", found=repr(off),
    )  # fmt: skip
    text = reply.body.decode("utf-8", "replace")
    told = [
        what
        for role in cast.actors
        for what, canary in (("key", cast[role].key), ("address", cast[role].endpoint))
        if canary and canary in text
    ]
    yield tell(
        secrets, "keys and addresses of providers", not told, reply,
        expected="not told", found=f"the {told and told[0]} of a provider",
    )  # fmt: skip


def _not_there(reply: Reply) -> bool:
    """Return whether a target has no such page; how a 404 looks is another check's matter."""
    return declines(reply) or reply.status == 404


def _entries(reply: Reply) -> list[Mapping[str, Any]]:
    """Return the entries of a list document, or of an object by id."""
    for name in ("data", "providers"):
        found = reply.object.get(name)
        if isinstance(found, list):
            return [row for row in found if isinstance(row, dict)]
        if isinstance(found, dict):
            return [{"id": key, **row} for key, row in found.items() if isinstance(row, dict)]
    return []


def _names_of_models(row: Mapping[str, Any]) -> list[str]:
    """Return the names of a provider's models, given as text or as objects."""
    capabilities = row.get("capabilities")
    found = row.get("models")
    if found is None and isinstance(capabilities, dict):
        found = capabilities.get("models")
    listed = found if isinstance(found, list) else []
    return [str(m.get("name", m.get("id")) if isinstance(m, dict) else m) for m in listed]


@check(
    "UNI-API-005",
    level=2,
    keyword="SHOULD",
    title="GET /v1/extensions lists the protocol extensions that are supported",
    clause="universal endpoints extensions",
)
@check(
    "UNI-API-006",
    level=2,
    keyword="SHOULD",
    title="GET /v1/capabilities lists what the target can do",
    clause="universal endpoints capabilities",
)
@behind(a=Fake())
def the_target_describes_itself(probe: Probe) -> Iterator[Finding]:
    extensions, capabilities = "UNI-API-005", "UNI-API-006"
    reply = probe.endpoint.get("/v1/extensions")
    if _not_there(reply):
        yield say(extensions, Status.UNSUPPORTED, f"declined with {reply.status}", reply)
    else:
        text = reply.body.decode("utf-8", "replace").lower()
        missing = [name for name in HEADERS if name.lower() not in text]
        yield tell(
            extensions, "the header set", reply.status == 200 and not missing, reply,
            expected="every X-AI header", found=f"no {missing and missing[0]}",
        )  # fmt: skip
        posted = probe.endpoint.post("/v1/extensions", {})
        yield tell(extensions, "a POST", posted.status == 405, posted, expected="status 405")
    reply = probe.endpoint.get("/v1/capabilities")
    if _not_there(reply):
        yield say(capabilities, Status.UNSUPPORTED, f"declined with {reply.status}", reply)
        return
    listed = probe.cast.model in reply.body.decode("utf-8", "replace") or bool(reply.object)
    yield tell(
        capabilities, "the document", reply.status == 200 and listed, reply, expected="an object"
    )


@check(
    "AIP-API-022",
    level=2,
    keyword="MUST",
    title="available follows the provider's health",
    clause="aiproxy §5.3",
    depends_on=("AIP-API-020",),
)
@check(
    "AIP-ROUTE-003",
    level=2,
    keyword="MUST",
    title="candidates are ordered by priority, availability and health",
    clause="aiproxy §6",
)
@check(
    "AIP-ROUTE-027",
    level=2,
    keyword="MUST",
    title="disabled and unhealthy providers are left out",
    clause="aiproxy §2",
)
@check(
    "AIP-OBS-018",
    level=2,
    keyword="MUST",
    title="looking after the health of a paid provider generates nothing",
    clause="aiproxy §8 Phase 1",
)
@behind(
    world=ORDERED,
    off=Fake(priority=1, provider={"enabled": False}),
    first=Fake(priority=20),
    second=Fake(priority=150),
    third=Fake(priority=1000),
)
def health_is_followed(probe: Probe) -> Iterator[Finding]:
    """The first falls ill, then the second; then the first is well again."""
    live, order, out, idle = "AIP-API-022", "AIP-ROUTE-003", "AIP-ROUTE-027", "AIP-OBS-018"
    yield from _asks(probe, order, out, "first", ())
    for ill, gone, best in (
        ("first", ("first",), "second"),
        ("second", ("first", "second"), "third"),
    ):
        noticed = _fails(probe, ill)
        yield tell(
            live, f"available of {ill} after failures", noticed,
            expected=f"false within {_MOST_FAILURES} failures", found="still true",
        )  # fmt: skip
        yield from _asks(probe, order, out, best, gone)
    time.sleep(_IDLE_S)
    costly = [
        attempt
        for attempt in probe.upstreams.everything()
        if not attempt.nonce
        and attempt.provider in {actor.id for actor in probe.cast.actors.values()}
        and attempt.method == "POST"
        and (attempt.json or {}).get("max_tokens") != 0
    ]
    yield tell(
        idle, f"{_IDLE_S:g} s without a request", not costly,
        expected="no generation at a provider",
        found=f"{len(costly)} requests, such as POST {costly[0].path}" if costly else "",
    )  # fmt: skip

    def well_again() -> bool:
        case = probe.case()
        case.chat({"X-AI-Provider-Pool": case.pool("first")})
        return _available(probe, "first") is True

    yield tell(
        live, "available of first once it answers", probe.poll(well_again, _FOLLOWS_WITHIN_S, 0.2),
        expected=f"true within {_FOLLOWS_WITHIN_S:g} s", found="still false",
    )  # fmt: skip
    case = probe.case()
    for role in ("first", "second", "third"):
        case.script(role, always=Act(status=503))
    reply = case.chat()
    yield tell(
        out, "a disabled provider when everybody else fails", "off" not in case.order(), reply,
        expected="not asked", found="asked",
    )  # fmt: skip


def _asks(
    probe: Probe, order: str, out: str, best: str, gone: tuple[str, ...]
) -> Iterator[Finding]:
    """Send a healthy request: who is asked first, and who must not be asked at all."""
    case = probe.case()
    reply = case.chat()
    asked = case.order()
    usable = [role for role in asked if role != "off"]
    yield tell(
        order, "the first choice" + (f" while {', '.join(gone)} fail" if gone else ""),
        usable[:1] == [best], reply,
        expected=case.who(best), found=", ".join(map(case.who, usable)) or reply.outcome,
    )  # fmt: skip
    wrong = [role for role in asked if role in ("off", *gone)]
    yield tell(
        out, "providers that are disabled or unhealthy", not wrong, reply,
        expected="not asked", found=", ".join(map(case.who, wrong)),
    )  # fmt: skip


def _fails(probe: Probe, role: str) -> bool:
    """Let ``role`` fail request after request; return whether the model list noticed."""
    case = probe.case()
    case.script(role, always=Act(status=503))
    for _ in range(_MOST_FAILURES):
        case.chat({"X-AI-Provider-Pool": case.pool(role)})
        if _available(probe, role) is False:
            return True
    return False


def _available(probe: Probe, role: str) -> object:
    actor = probe.cast[role]
    entries = _entries(probe.endpoint.get(MODELS))
    rows = (row for entry in entries if entry.get("id") == actor.model for row in _rows(entry))
    return next((row.get("available") for row in rows if row.get("name") == actor.id), None)


derive(
    "UNI-STAT-002", level=2, keyword="MUST", title="the status of providers is monitored",
    clause="universal Working Features: Health Checking", of=("AIP-API-022",),
)  # fmt: skip
