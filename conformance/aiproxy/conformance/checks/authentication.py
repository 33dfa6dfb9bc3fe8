"""Bearer keys (draft §15.4). Only a run that was given a key can say much."""

from collections.abc import Iterator

from aiproxy.conformance.checks import check
from aiproxy.conformance.endpoint import CHAT
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.results import Finding, Status


@check(
    "XAI-COMPAT-010",
    level=1,
    keyword="MUST",
    title="Authorization: Bearer works as usual; without a right key there is 401",
    clause="draft §15.4",
    depends_on=("AIP-API-001",),
)
def bearer_keys_work(probe: Probe) -> Iterator[Finding]:
    me, endpoint, key = "XAI-COMPAT-010", probe.endpoint, probe.endpoint.api_key
    if key is None:
        yield say(me, Status.UNSUPPORTED, "an open target: it answers without a key")
        return
    body = probe.body()
    wrong = endpoint.post(CHAT, body, authorization=f"Bearer wrong-{probe.word()}")
    missing = endpoint.post(CHAT, body, authorization=None)
    if wrong.status == 200 and missing.status == 200:
        yield say(me, Status.UNSUPPORTED, "an open target: it does not look at the key", missing)
        return
    for what, reply in (("a wrong key", wrong), ("no key", missing)):
        yield tell(me, what, reply.status == 401, reply, expected="status 401")
        if reply.status == 401:
            yield tell(
                me, f"{what}: the body", bool(reply.error), reply, expected="an error object"
            )
            challenge = reply.header("www-authenticate")
            yield tell(
                me, f"{what}: WWW-Authenticate", bool(challenge), reply, expected="a challenge",
                found="none", otherwise=Status.WARN,
            )  # fmt: skip
        leaked = key.encode() in reply.body
        yield tell(me, f"{what}: secrecy", not leaked, reply, expected="no key", found="the key")
    small = endpoint.post(CHAT, body, authorization=f"bearer {key}")
    yield tell(me, "the scheme in small letters", small.status == 200, small, expected="200")
