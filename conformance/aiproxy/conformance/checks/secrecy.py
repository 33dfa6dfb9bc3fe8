"""Whose secrets go where: read from the logs of the fakes and from every byte the client got."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.decision_headers import x_ai
from aiproxy.conformance.endpoint import Reply
from aiproxy.conformance.failing import among, seen
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.conformance.sightings import USED

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case

_CHATS: Final = ("AIP-API-001",)


@check(
    "XAI-RESP-017",
    level=2,
    keyword="MUST",
    title="X-AI headers of a provider are dropped",
    clause="draft §6",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), down=Fake(priority=1), b=Fake(priority=90))
def providers_cannot_forge_decisions(probe: Probe) -> Iterator[Finding]:
    me, evil = "XAI-RESP-017", f"evil-{probe.word()}"
    forged = (
        ("X-AI-Provider-Used", evil),
        ("X-AI-Failover-Occurred", "true"),
        ("X-AI-Auto-Selection", f'{{"reason":"{evil}"}}'),
        ("X-AI-Anything", evil),
    )
    asked: list[tuple[str, Case, Reply]] = []
    for stream in (False, True):
        case = probe.case()
        case.script("a", always=Act(headers=forged))
        send = case.stream if stream else case.chat
        what = "a stream" if stream else "an answer"
        asked.append((what, case, send(among(case, "a", "b"))))
    case = probe.case()
    case.script("down", always=Act(status=503, headers=forged))
    asked.append(("an answer after a failure", case, case.chat(among(case, "down", "b"))))
    for what, case, reply in asked:
        shown = [f"{name}: {value}" for name, value in x_ai(reply) if evil in value]
        yield tell(
            me, f"forged headers with {what}", not shown, reply, expected="dropped",
            found="; ".join(shown),
        )  # fmt: skip
        role = case.served(reply)
        used = [value for name, value in reply.headers if name == USED]
        if role and not shown:
            wanted = [case.actor(role).id]
            yield tell(
                me, f"X-AI-Provider-Used with {what}", used == wanted, reply,
                expected=f"{wanted[0]}, once", found=", ".join(used),
            )  # fmt: skip


@check(
    "XAI-RESP-018",
    level=2,
    keyword="MUST",
    title="X-AI headers show no credential, prompt, internal address or path",
    clause="draft §16",
    depends_on=_CHATS,
)
@check(
    "XAI-SEC-018",
    level=5,
    keyword="MUST",
    title="the client's credential is never sent to a provider",
    clause="draft §16",
    depends_on=_CHATS,
)
@check(
    "XAI-SEC-019",
    level=5,
    keyword="MUST",
    title="a provider's credential is never sent to another provider",
    clause="draft §16",
    depends_on=_CHATS,
)
@behind(a=Fake(priority=1), turned=Fake(priority=1), gone=Fake(priority=1), b=Fake(priority=90))
def secrets_stay_where_they_belong(probe: Probe) -> Iterator[Finding]:
    """One healthy request, one failover, one redirect, one stream, one error; canaries in each."""
    client, word = f"sk-client-{probe.word()}{probe.word()}", probe.word()
    acts = {
        "a": None,
        "turned": Act(fault="redirect"),
        "gone": Act(status=503, message=f"host {word} down"),
    }
    requests: list[tuple[str, Case, Reply]] = []
    for role, act in acts.items():
        case = probe.case()
        if act is not None:
            case.script(role, always=act)
        reply = case.chat(
            among(case, role, "b"), prompt=f"My secret is {word}.", key=_key(probe, client), user=f"user-{word}",
        )  # fmt: skip
        requests.append((f"a request to {role}", case, reply))
    case = probe.case()
    reply = case.stream(
        among(case, "a", "b"), prompt=f"My secret is {word}.", key=_key(probe, client)
    )
    requests.append(("a stream", case, reply))
    case = probe.case()
    case.script("a", always=Act(status=400, message=f"no, {word}"))
    reply = case.chat(among(case, "a"), prompt=word, key=_key(probe, client))
    requests.append(("a refusal", case, reply))
    own = probe.endpoint.api_key or client
    yield from _shown(probe, requests, own, word)
    yield from _sent(probe, requests, own)


def _key(probe: Probe, canary: str) -> str:
    """Return what to send as the client's key: the world's own, else a canary nobody asks for."""
    return probe.endpoint.api_key or canary


def _shown(
    probe: Probe, requests: "list[tuple[str, Case, Reply]]", client: str, word: str
) -> Iterator[Finding]:
    me = "XAI-RESP-018"
    secrets = {"the client's key": client, "the prompt": word}
    for role, actor in probe.cast.actors.items():
        parts = urlsplit(actor.endpoint)
        secrets[f"the key of {role}"] = actor.key
        secrets[f"the address of {role}"] = parts.netloc
        if len(parts.path) > 3:
            secrets[f"the path of {role}"] = parts.path
    for what, _, reply in requests:
        found = [
            f"{secret} in {name}"
            for name, value in x_ai(reply)
            for secret, text in secrets.items()
            if text and text in value
        ]
        yield tell(
            me, f"the X-AI headers of {what}", not found, reply, expected="no secret",
            found="; ".join(found),
        )  # fmt: skip


def _sent(
    probe: Probe, requests: "list[tuple[str, Case, Reply]]", client: str
) -> Iterator[Finding]:
    keys = {role: actor.key for role, actor in probe.cast.actors.items()}
    told = [(what, *pair, reply) for what, case, reply in requests for pair in seen(case)]
    if not told:
        for me in ("XAI-SEC-018", "XAI-SEC-019"):
            yield say(me, Status.INCONCLUSIVE, "no provider was asked")
        return
    for what, role, attempt, reply in told:
        text = f"{attempt.path} {dict(attempt.headers)}".encode() + attempt.body
        yield tell(
            "XAI-SEC-018", f"what {role} got for {what}", client.encode() not in text,
            reply, expected="not the client's key", found="the client's key",
        )  # fmt: skip
        foreign = [r for r, key in keys.items() if r != role and key.encode() in text]
        yield tell(
            "XAI-SEC-019", f"what {role} got for {what}", not foreign, reply,
            expected="its own key only", found=f"the key of {', '.join(foreign)}",
        )  # fmt: skip
        # The redirect leads to the same fake under another name: only the path tells them apart.
        astray = "/redirected" in attempt.path and keys.get(role, "") in str(text)
        yield tell(
            "XAI-SEC-019", f"where {what} went", not astray, reply, found=attempt.path,
            expected="its key to no other host than the configured one",
        )  # fmt: skip
