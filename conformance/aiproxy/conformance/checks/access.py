"""Who may ask, how often, and from which page: keys, rate limits, CORS, hardening (aiproxy §4.1).

A world of its own asks for keys, and the suite is one of its clients. Limits are small, so that
few requests are enough; each limited key belongs to one scenario.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS
from aiproxy.conformance.endpoint import CHAT, MODELS
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.sightings import POOL, only_asked, served
from aiproxy.conformance.transport import Unanswered
from aiproxy.spec import HEADERS

if TYPE_CHECKING:
    from aiproxy.conformance.reply import Reply

_OWN: Final = "key-of-the-suite-0123456789"
_SMALL: Final = "key-with-small-limit-0123456"
_CROWD: Final = "key-with-crowd-limit-0123456"
_OTHER: Final = "key-of-somebody-else-0123456"
_THIRD: Final = "key-of-a-third-one-012345678"
_FEW, _TEN = 3, 10
_PLENTY: Final = 100_000
_PAGE: Final = "https://app.example.com"
_STRANGERS: Final = ("https://evil.example.com", "null", "https://app.example.com.evil.example.com")
_DOOR: Final = World(
    "door",
    {
        "routing": {"strategy": "availability"},
        "security": {
            "auth": {
                "enabled": True,
                "type": "api_key",
                "api_keys": [
                    {"key": _OWN, "name": "suite", "rate_limit": _PLENTY},
                    {"key": _SMALL, "name": "small", "rate_limit": _FEW},
                    {"key": _CROWD, "name": "crowd", "rate_limit": _TEN},
                    {"key": _OTHER, "name": "other", "rate_limit": _PLENTY},
                    {"key": _THIRD, "name": "third", "rate_limit": _PLENTY},
                ],
            },
            "rate_limiting": {
                "enabled": True, "default_limit": _PLENTY, "by_ip": False, "by_api_key": True,
            },
            "cors": {"enabled": True, "allowed_origins": [_PAGE]},
        },
    },
    api_key=_OWN,
)  # fmt: skip
_BY_ADDRESS_LIMIT: Final = 20
_BY_ADDRESS: Final = World(
    "by-address",
    {
        "routing": {"strategy": "availability"},
        "security": {
            "rate_limiting": {
                "enabled": True, "default_limit": _BY_ADDRESS_LIMIT, "by_ip": True,
                "by_api_key": False,
            },
        },
    },
)  # fmt: skip
_INFERENCE: Final = (CHAT, "/v1/responses", "/v1/embeddings", "/v1/completions", "/aiproxy/predict")
_READABLE: Final = (MODELS, "/aiproxy/mesh/status", "/v1/providers", "/v1/routing")


@check(
    "AIP-SECURITY-001", level=5, keyword="MUST", clause="aiproxy §4.1 auth", depends_on=CHATS,
    title="with auth on, every protected endpoint refuses requests without a valid key",
)  # fmt: skip
@check(
    "AIP-API-029", level=5, keyword="MUST", clause="aiproxy §5 (implied)", depends_on=CHATS,
    title="all endpoints ask for a key, models and mesh status included; health does not",
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def keys_are_asked_for(probe: Probe) -> Iterator[Finding]:
    door, every = "AIP-SECURITY-001", "AIP-API-029"
    case = probe.case()
    yield served(door, "a valid key", case, case.chat(), "a")
    wrong = (
        ("no key", None),
        ("a wrong key", f"Bearer {probe.word()}{probe.word()}"),
        ("an empty key", "Bearer"),
        ("another scheme", f"Basic {_OWN}"),
    )
    for what, value in wrong:
        for path in _INFERENCE:
            case = probe.case()
            body = {**case.body(), "input": case.prompt(), "prompt": case.prompt()}
            reply = probe.endpoint.post(path, body, authorization=value, patient=False)
            if reply.status in (404, 405, 501) and path != CHAT:
                continue  # it is not there for anybody
            yield _denied(door, f"{path} with {what}", reply)
            yield only_asked(door, f"who was asked: {path} with {what}", case, reply)
    for path in _READABLE:
        there = probe.endpoint.get(path)
        if there.status in (404, 501):
            continue
        yield _denied(every, path, probe.endpoint.get(path, authorization=None))
    for path in ("/healthz", "/readyz"):
        reply = probe.endpoint.get(path, authorization=None)
        open_ = reply.status in (200, 404, 503)
        yield tell(every, path, open_, reply, expected="an answer without a key")


def _denied(me: str, fact: str, reply: "Reply") -> Finding:
    right = reply.status == 401 and reply.error.get("code") == "invalid_api_key"
    return tell(me, fact, right, reply, expected="401 invalid_api_key")


@check(
    "AIP-SECURITY-003", level=5, keyword="MUST", clause="aiproxy §4.1 auth (implied)",
    title="keys are not accepted in query strings", depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def no_keys_in_urls(probe: Probe) -> Iterator[Finding]:
    me = "AIP-SECURITY-003"
    for name in ("api_key", "key", "access_token"):
        case = probe.case()
        path = f"{CHAT}?{name}={_OWN}"
        reply = probe.endpoint.post(path, case.body(), authorization=None, patient=False)
        yield refused(me, f"?{name}=", reply, 401)
        yield only_asked(me, f"who was asked with ?{name}=", case, reply)


@check(
    "XAI-COMPAT-012", level=5, keyword="MUST", clause="draft §15.5", depends_on=CHATS,
    title="exceeding a limit gives 429 with the error object and Retry-After",
)  # fmt: skip
@check(
    "AIP-SECURITY-005", level=5, keyword="MUST", clause="aiproxy §4.1 rate_limit",
    title="limits are counted for each key by itself", depends_on=CHATS,
)  # fmt: skip
@check(
    "AIP-SECURITY-007", level=5, keyword="MUST", clause="aiproxy §4.1 rate_limiting (implied)",
    title="refused requests are not forwarded", depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def limits_are_kept(probe: Probe) -> Iterator[Finding]:
    form, keys, forwarded = "XAI-COMPAT-012", "AIP-SECURITY-005", "AIP-SECURITY-007"
    for number in range(_FEW):
        case = probe.case()
        reply = case.chat(key=_SMALL)
        yield served(keys, f"request {number + 1} of {_FEW}", case, reply, "a")
    case = probe.case()
    over = case.chat(key=_SMALL)
    right = over.status == 429 and over.error.get("code") == "rate_limit_exceeded"
    yield tell(form, "one more", right, over, expected="429 rate_limit_exceeded")
    yield tell(keys, "one more", over.status == 429, over, expected="429")
    wait = over.header("retry-after") or ""
    soon = wait.isdecimal() and 0 < int(wait) <= _HOUR_S
    yield tell(form, "Retry-After", soon, over, expected="1 to 3600 seconds", found=wait or "none")
    yield only_asked(forwarded, "who was asked for one more", case, over)
    case = probe.case()
    yield served(keys, "another key", case, case.chat(key=_OTHER), "a")


_HOUR_S: Final = 3600


@check(
    "AIP-SECURITY-006", level=5, keyword="MUST", clause="aiproxy §4.1 rate_limiting",
    title="limits hold under concurrency", depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def a_crowd_meets_the_limit(probe: Probe) -> Iterator[Finding]:
    def one(_: int) -> int:
        return probe.case().chat(key=_CROWD).status

    statuses = probe.together(40, one)
    yield tell(
        "AIP-SECURITY-006", f"40 requests at once, limit {_TEN}", statuses.count(200) == _TEN,
        expected=f"exactly {_TEN} served", found=str(statuses.count(200)),
    )  # fmt: skip


@check(
    "AIP-SECURITY-008", level=5, keyword="MUST", clause="aiproxy §4.1 rate_limiting by_ip",
    title="forwarding headers count only from a trusted proxy", depends_on=CHATS,
)  # fmt: skip
@behind(world=_BY_ADDRESS, a=Fake())
def addresses_cannot_be_invented(probe: Probe) -> Iterator[Finding]:
    """No proxy is trusted here, so a new address in each request must not open a new counter."""
    statuses = []
    for number in range(_BY_ADDRESS_LIMIT + 4):
        address = f"203.0.113.{number + 1}"
        headers = {"X-Forwarded-For": address, "Forwarded": f"for={address}", "X-Real-IP": address}
        statuses.append(probe.case().chat(headers).status)
    yield tell(
        "AIP-SECURITY-008", f"{len(statuses)} requests with as many addresses", 429 in statuses,
        expected=f"429 after {_BY_ADDRESS_LIMIT}", found=f"{statuses.count(200)} served",
    )  # fmt: skip


@check(
    "AIP-SECURITY-009", level=5, keyword="MUST", clause="aiproxy §4.1 cors", depends_on=CHATS,
    title="preflights of an allowed origin permit POST with the headers of requests",
)  # fmt: skip
@check(
    "AIP-SECURITY-011", level=5, keyword="MUST", clause="aiproxy §4.1 cors (implied)",
    title="preflights need no key", depends_on=CHATS,
)  # fmt: skip
@check(
    "AIP-SECURITY-010", level=5, keyword="MUST", clause="aiproxy §4.1 cors", depends_on=CHATS,
    title="answers, errors included, carry the CORS fields for allowed origins only",
)  # fmt: skip
@check(
    "XAI-RESP-021", level=5, keyword="MUST", clause="draft §6 + aiproxy §4.1 cors",
    title="pages can read the X-AI response headers", depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def pages_may_ask(probe: Probe) -> Iterator[Finding]:
    asks, free, answers, reads = (
        "AIP-SECURITY-009", "AIP-SECURITY-011", "AIP-SECURITY-010", "XAI-RESP-021",
    )  # fmt: skip
    wanted = ["authorization", "content-type"]
    wanted += [h.name.lower() for h in HEADERS.values() if "request" in h.directions]
    reply = _preflight(probe, _PAGE, ", ".join(wanted))
    yield tell(free, "without a key", reply.status in (200, 204), reply, expected="200 or 204")
    yield tell(
        asks, "the origin", reply.header("access-control-allow-origin") == _PAGE, reply,
        expected=_PAGE, found=str(reply.header("access-control-allow-origin")),
    )  # fmt: skip
    methods = (reply.header("access-control-allow-methods") or "").upper()
    yield tell(asks, "the methods", "POST" in methods, reply, expected="POST", found=methods)
    allowed = (reply.header("access-control-allow-headers") or "").lower()
    missing = [name for name in wanted if name not in allowed]
    yield tell(
        asks, "the headers", not missing, reply,
        expected="Authorization, Content-Type and the X-AI request headers",
        found=f"missing {', '.join(missing[:4])}",
    )  # fmt: skip
    for stranger in _STRANGERS:
        reply = _preflight(probe, stranger, "content-type")
        told = reply.header("access-control-allow-origin")
        yield tell(
            asks, f"a preflight from {stranger}", told in (None, _PAGE), reply,
            expected="no permission", found=str(told),
        )  # fmt: skip
    case = probe.case()
    headers = {"Origin": _PAGE, POOL: case.pool()}
    reply = case.chat(headers, model="auto")
    exposed = (reply.header("access-control-expose-headers") or "").lower()
    emitted = [name for name, _ in reply.headers if name.startswith("x-ai-")]
    hidden = [name for name in emitted if name not in exposed and exposed != "*"]
    if not emitted:
        yield say(reads, Status.INCONCLUSIVE, "no X-AI header came back", reply)
    else:
        yield tell(
            reads, "Access-Control-Expose-Headers", not hidden, reply,
            expected=", ".join(emitted), found=exposed or "none",
        )  # fmt: skip
    refusal = probe.endpoint.post(
        CHAT, case.body(), headers={"Origin": _PAGE}, authorization=None, patient=False
    )
    for what, answer in (("an answer", reply), ("a refusal", refusal)):
        told = answer.header("access-control-allow-origin")
        yield tell(answers, what, told == _PAGE, answer, expected=_PAGE, found=str(told))
    for stranger in _STRANGERS:
        reply = probe.case().chat({"Origin": stranger})
        told = reply.header("access-control-allow-origin")
        yield tell(
            answers, f"an answer to {stranger}", told in (None, _PAGE), reply,
            expected="no permission", found=str(told),
        )  # fmt: skip


def _preflight(probe: Probe, origin: str, headers: str) -> "Reply":
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }
    return probe.endpoint.send("OPTIONS", CHAT, headers=asked, authorization=None)


@check(
    "ASC-CACHE-003", level=5, keyword="MUST", clause="asc Semantic Caching tenant scope",
    title="nothing is shared between the callers of two keys", depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def callers_share_nothing(probe: Probe) -> Iterator[Finding]:
    """The very same request by two callers; the fake must have seen both."""
    me, case = "ASC-CACHE-003", probe.case()
    first, second = case.chat(key=_OWN), case.chat(key=_THIRD)
    if first.status != 200 or second.status != 200:
        yield say(me, Status.NOT_TESTABLE, f"{first.outcome}; {second.outcome}", second)
        return
    asked = len(case.tried())
    yield tell(me, "the same request by two callers", asked == 2, second,
               expected="two calls of the provider", found=str(asked))  # fmt: skip


@check(
    "AIP-SECURITY-012", level=5, keyword="MUST", clause="aiproxy §8 Phase 5 Security hardening",
    title="answers carry safe defaults: nosniff, no-store, no versions, no traces",
    depends_on=CHATS,
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def answers_are_hardened(probe: Probe) -> Iterator[Finding]:
    me = "AIP-SECURITY-012"
    replies = {
        "an answer": probe.case().chat(),
        "a refusal": probe.endpoint.post(CHAT, b"{", patient=False),
        "an unknown path": probe.endpoint.get(f"/v1/{probe.word()}"),
        "the models": probe.endpoint.get(MODELS),
    }
    for what, reply in replies.items():
        sniff = (reply.header("x-content-type-options") or "").lower()
        yield tell(
            me, f"{what}: X-Content-Type-Options", sniff == "nosniff", reply,
            expected="nosniff", found=sniff or "none",
        )  # fmt: skip
        server = f"{reply.header('server') or ''} {reply.header('x-powered-by') or ''}"
        bare = not any(letter.isdigit() for letter in server)
        yield tell(me, f"{what}: Server", bare, reply, expected="no version", found=server.strip())
        trace = b"Traceback (most recent call last)" in reply.body
        yield tell(me, f"{what}: the body", not trace, reply, expected="no trace", found="a trace")
    for what in ("an answer", "a refusal"):
        stored = (replies[what].header("cache-control") or "").lower()
        yield tell(
            me, f"{what}: Cache-Control", "no-store" in stored, replies[what],
            expected="no-store", found=stored or "none",
        )  # fmt: skip


@check(
    "AIP-SECURITY-013", level=5, keyword="MUST", clause="aiproxy §8 (implied)", depends_on=CHATS,
    title="oversize headers and bodies are bounded, and the server stays responsive",
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def sizes_are_bounded(probe: Probe) -> Iterator[Finding]:
    me, endpoint = "AIP-SECURITY-013", probe.endpoint
    many = {f"X-Filler-{number}": "x" * 40 for number in range(600)}
    for what, headers in (("one header of 256 KiB", {"X-Filler": "x" * 262144}), ("600", many)):
        case = probe.case()
        try:
            reply = endpoint.post(CHAT, case.body(), headers=headers, patient=False)
        except Unanswered:
            yield tell(me, what, True)  # closing the connection is a bound as well
            continue
        bounded = 400 <= reply.status < 500 or (reply.status == 200 and len(headers) > 1)
        yield tell(me, what, bounded, reply, expected="a status 4xx, or the connection closed")
    case = probe.case()
    big = json.dumps({**case.body(), "filler": "x" * (24 << 20)}).encode()
    try:
        reply = endpoint.post(CHAT, big, patient=False)
        yield tell(me, "a body of 24 MiB", 400 <= reply.status < 500, reply, expected="413")
    except Unanswered:
        yield tell(me, "a body of 24 MiB", True)
    yield only_asked(me, "who got 24 MiB", case, probe.case().chat())
    case = probe.case()
    yield served(me, "an ordinary request afterwards", case, case.chat(), "a")


@check(
    "AIP-SECURITY-014", level=5, keyword="MUST", clause="aiproxy §8 (implied)", depends_on=CHATS,
    title="request smuggling is refused",
)  # fmt: skip
@behind(world=_DOOR, a=Fake())
def nothing_is_smuggled(probe: Probe) -> Iterator[Finding]:
    """Each time a second request hides behind the first; its nonce must never reach a fake."""
    me, endpoint = "AIP-SECURITY-014", probe.endpoint
    for what in _SMUGGLES:
        outer, hidden = probe.case(), probe.case()
        content = json.dumps(outer.body()).encode()
        inner = json.dumps(hidden.body()).encode()
        second = (
            endpoint.raw_head(
                "POST", CHAT, "Content-Type: application/json", f"Content-Length: {len(inner)}"
            )
            + inner
        )
        payload = _smuggled(endpoint, what, content, second)
        try:
            reply = endpoint.raw(payload)[0]
        except Unanswered:
            reply = None
        if reply is not None:
            refused_ = 400 <= reply.status < 500
            yield tell(me, what, refused_, reply, expected="400, or the connection closed")
        asked = hidden.order()
        yield tell(me, f"{what}: the request behind it", not asked, reply,
                   expected="never executed", found=f"reached {', '.join(asked)}")  # fmt: skip
    case = probe.case()
    yield served(me, "an ordinary request afterwards", case, case.chat(), "a")


_SMUGGLES: Final = (
    "Content-Length and Transfer-Encoding", "two Content-Lengths", "a folded header",
    "a space before the colon",
)  # fmt: skip


def _smuggled(endpoint: Any, what: str, content: bytes, second: bytes) -> bytes:
    """Return the bytes of a request that another parser may end elsewhere."""
    media, size = "Content-Type: application/json", f"Content-Length: {len(content)}"
    whole = f"Content-Length: {len(content) + len(second)}"
    fields: tuple[str, ...]
    if what == _SMUGGLES[0]:
        chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        fields = (
            media,
            f"Content-Length: {len(chunk) + len(second)}",
            "Transfer-Encoding: chunked",
        )
        return bytes(endpoint.raw_head("POST", CHAT, *fields)) + chunk + second
    if what == _SMUGGLES[1]:
        fields = (media, size, whole)
    elif what == _SMUGGLES[2]:
        fields = (media, size, "X-Folded: one\r\n two")
    else:
        fields = (media, size, f"Content-Length : {len(content) + len(second)}")
    return bytes(endpoint.raw_head("POST", CHAT, *fields)) + content + second


derive(
    "AIP-CHK-022", level=5, keyword="MUST", title="checklist: rate limiting exists",
    clause="aiproxy §8 Phase 5",
    of=("AIP-SECURITY-005", "AIP-SECURITY-006", "AIP-SECURITY-007", "AIP-SECURITY-008"),
)  # fmt: skip
