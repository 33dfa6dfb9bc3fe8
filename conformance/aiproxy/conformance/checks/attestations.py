"""Security requirements and data classes: who may see a request, and who never may (draft §11).

The operator attests labels, regions and what is local; nobody without them is to receive a byte,
also when everybody with them fails. The fakes without labels are always cheaper and first.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiproxy.conformance.checks import behind, check, derive
from aiproxy.conformance.choices import CHATS, SECURITY, ask
from aiproxy.conformance.probe import Probe, refused, say, tell
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake, World
from aiproxy.conformance.sightings import POOL, SWITCH, only_asked, served

if TYPE_CHECKING:
    from aiproxy.conformance.case import Case
    from aiproxy.conformance.reply import Reply

CLASS: Final = "X-AI-Data-Classification"
_FAILS: Final = Act(status=503)
_GUARDED: Final = World(
    "guarded",
    {
        "routing": {"strategy": "cost_optimized"},
        "security": {
            "classes": {
                "sensitive-medical": {"labels": ["hipaa"], "regions": ["us"]},
                "financial-mixed": {"labels": ["pci-dss", "sovereignty"]},
                "eu-only": {"regions": ["eu"]},
                "restricted": {"local_only": True},
                "public": {},
            }
        },
    },
)


def _attested(*labels: str, regions: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    security: dict[str, Any] = {"labels": [{"label": label} for label in labels]}
    if regions:
        security["regions"] = list(regions)
    return {"security": security, **more}


def _fake(priority: int, price: float, **provider: Any) -> Fake:
    return Fake(priority=priority, price=price, provider=provider)


_PLAIN: Final = _fake(1, 0.0001)


def _kept_inside(
    me: str, probe: Probe, headers: Mapping[str, str], inside: str, *outside: str
) -> Iterator[Finding]:
    """Yield that ``inside`` serves, and that nobody else is asked when it cannot."""
    what = ", ".join(f"{name}: {value}" for name, value in headers.items())
    everyone = (inside, *outside)
    case = probe.case()
    reply = ask(case, everyone, headers)
    yield served(me, what, case, reply, inside)
    yield only_asked(me, f"who was asked with {what}", case, reply, inside)
    case = probe.case()
    case.script(inside, always=_FAILS)
    reply = ask(case, everyone, headers)
    yield tell(me, f"{what}, {inside} fails", reply.status >= 400, reply, expected="an error")
    yield only_asked(me, f"who was asked with {what} while {inside} fails", case, reply, inside)


def _turned_away(
    me: str, what: str, case: "Case", reply: "Reply", *codes: str
) -> Iterator[Finding]:
    """Yield whether the request was refused with 422 and one of ``codes``, nobody being asked."""
    right = reply.status == 422 and reply.error.get("code") in codes
    yield tell(me, what, right, reply, expected=f"422 {' or '.join(codes)}")
    yield only_asked(me, f"who was asked: {what}", case, reply)


_UNMET: Final = ("unsupported_security_requirement", "no_eligible_provider")


@check(
    "XAI-SEC-003", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="only providers attested for every listed requirement are used",
)  # fmt: skip
@check(
    "XAI-SEC-027", level=5, keyword="MUST", clause="draft §11 (implied)", depends_on=CHATS,
    title="security constraints apply to failover as well",
)  # fmt: skip
@behind(
    world=_GUARDED,
    plain=_PLAIN,
    half=_fake(2, 0.001, **_attested("hipaa")),
    both=_fake(3, 0.01, **_attested("hipaa", "pii")),
)
def every_requirement_counts(probe: Probe) -> Iterator[Finding]:
    listed, failover = "XAI-SEC-003", "XAI-SEC-027"
    headers = {SECURITY: "hipaa,pii"}
    yield from _kept_inside(listed, probe, headers, "both", "plain", "half")
    case = probe.case()
    reply = ask(case, ("plain", "half", "both"), {SECURITY: "hipaa"})
    yield served(listed, "one requirement", case, reply, "half")
    case = probe.case()
    case.script("both", always=_FAILS)
    reply = case.chat(headers)  # an explicit model that all three serve
    yield only_asked(
        failover, "an explicit model, its attested provider fails", case, reply, "both"
    )
    yield tell(failover, "the answer", reply.status >= 400, reply, expected="an error")
    case = probe.case()
    cascading = {**headers, "X-AI-Failover-Policy": "cascading"}
    case.script("both", always=_FAILS)
    reply = ask(case, ("plain", "half", "both"), cascading)
    yield only_asked(failover, "cascading", case, reply, "both")


@check(
    "XAI-SEC-004", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="the requirement hipaa is recognised",
)  # fmt: skip
@check(
    "XAI-SEC-005", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="the requirement pii is recognised",
)  # fmt: skip
@check(
    "XAI-SEC-006", level=5, keyword="MUST", clause="draft Fig 17", depends_on=CHATS,
    title="the requirement pci-dss is recognised",
)  # fmt: skip
@check(
    "XAI-SEC-007", level=5, keyword="MUST", clause="draft Fig 17", depends_on=CHATS,
    title="the requirement sovereignty is recognised",
)  # fmt: skip
@behind(
    world=_GUARDED,
    plain=_PLAIN,
    hipaa=_fake(2, 0.001, **_attested("hipaa")),
    pii=_fake(3, 0.002, **_attested("pii")),
    pci=_fake(4, 0.003, **_attested("pci-dss")),
    home=_fake(5, 0.004, **_attested("sovereignty", regions=("eu",))),
)
def each_requirement_is_known(probe: Probe) -> Iterator[Finding]:
    everyone = ("plain", "hipaa", "pii", "pci", "home")
    for me, label, right in (
        ("XAI-SEC-004", "hipaa", "hipaa"),
        ("XAI-SEC-005", "pii", "pii"),
        ("XAI-SEC-006", "pci-dss", "pci"),
        ("XAI-SEC-007", "sovereignty", "home"),
    ):
        others = [role for role in everyone if role != right]
        case = probe.case()
        reply = ask(case, everyone, {SECURITY: label})
        yield served(me, f"{label} among all", case, reply, right)
        case = probe.case()
        reply = ask(case, tuple(others), {SECURITY: label})
        yield from _turned_away(me, f"{label} among the others", case, reply, *_UNMET)


@check(
    "XAI-SEC-009", level=5, keyword="MUST", clause="draft §11 (implied, safety)", depends_on=CHATS,
    title="an unknown security requirement is refused, never ignored",
)  # fmt: skip
@check(
    "XAI-SEC-013", level=5, keyword="MUST", clause="draft §11 (implied)", depends_on=CHATS,
    title="an unknown data class is refused or held to the strictest policy",
)  # fmt: skip
@behind(world=_GUARDED, plain=_PLAIN, b=_fake(2, 0.001, **_attested("hipaa")))
def unknown_words_do_not_pass(probe: Probe) -> Iterator[Finding]:
    label, name = "XAI-SEC-009", "XAI-SEC-013"
    for value in (f"hipaa,{probe.word()}", probe.word()):
        case = probe.case()
        reply = ask(case, ("plain", "b"), {SECURITY: value})
        yield from _turned_away(label, value, case, reply, "unsupported_security_requirement")
    case = probe.case()
    reply = ask(case, ("plain", "b"), {CLASS: f"top-{probe.word()}"})
    yield from _turned_away(name, "an unknown class", case, reply, "unknown_data_classification")
    case = probe.case()
    reply = ask(case, ("plain", "b"), {CLASS: "public"})
    yield served(name, "a known class without demands", case, reply, "plain")


@check(
    "XAI-SEC-011", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="sensitive-medical maps to the operator's policy for that class",
)  # fmt: skip
@check(
    "XAI-FIG-016", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="Fig 16: hipaa, pii and sensitive-medical are served by an attested provider only",
)  # fmt: skip
@check(
    "XAI-SEC-014", level=5, keyword="MUST", clause="draft Fig 16", depends_on=CHATS,
    title="security claims repeat the operator's attestations and nothing else",
)  # fmt: skip
@behind(
    world=_GUARDED,
    plain=_PLAIN,
    abroad=_fake(2, 0.001, **_attested("hipaa", regions=("eu",))),
    home=_fake(3, 0.01, **_attested("hipaa", regions=("us",))),
    both=_fake(4, 0.02, **_attested("hipaa", "pii", regions=("us",))),
)
def medical_data_stays(probe: Probe) -> Iterator[Finding]:
    policy, figure, claims = "XAI-SEC-011", "XAI-FIG-016", "XAI-SEC-014"
    medical = {CLASS: "sensitive-medical"}
    yield from _kept_inside(policy, probe, medical, "home", "plain", "abroad")
    figured = {**medical, SECURITY: "hipaa,pii", "X-AI-Task-Hint": "medical"}
    yield from _kept_inside(figure, probe, figured, "both", "plain", "abroad", "home")
    case = probe.case()
    reply = ask(case, ("plain", "abroad", "home"), figured)
    yield from _turned_away(figure, "none attested in the pool", case, reply, *_UNMET)
    case = probe.case()
    reply = ask(case, ("home", "both"), {SECURITY: "hipaa"})
    text = (reply.header("x-ai-auto-selection") or "").lower()
    invented = [word for word in _INVENTED if word in text]
    if case.served(reply) not in ("home", "both"):
        yield say(claims, Status.NOT_TESTABLE, "no attested provider served", reply)
        return
    yield tell(
        claims, "claims in X-AI-Auto-Selection", not invented, reply,
        expected="what was attested: hipaa", found=", ".join(invented),
    )  # fmt: skip
    told = _compliance(text)
    yield tell(
        claims, "security_compliance", told <= {"hipaa"}, reply,
        expected="hipaa or nothing", found=", ".join(sorted(told)),
    )  # fmt: skip


# Words of the figures that no configuration here attests.
_INVENTED: Final = ("encryption", "aes256", "certified", "end_to_end", "pci-dss", "sovereignty")


def _compliance(text: str) -> set[str]:
    try:
        found = json.loads(text or "{}").get("security_compliance")
    except (ValueError, AttributeError):
        return set()
    return set(found) if isinstance(found, dict | list) else set()


@check(
    "XAI-SEC-012", level=5, keyword="MUST", clause="draft Fig 17", depends_on=CHATS,
    title="financial-mixed is handled at the most restrictive tier",
)  # fmt: skip
@behind(
    world=_GUARDED,
    public=_PLAIN,
    secure=_fake(2, 0.001, **_attested("pci-dss")),
    strictest=_fake(3, 0.01, **_attested("pci-dss", "sovereignty")),
)
def mixed_data_is_all_strict(probe: Probe) -> Iterator[Finding]:
    headers = {CLASS: "financial-mixed"}
    yield from _kept_inside("XAI-SEC-012", probe, headers, "strictest", "public", "secure")


@check(
    "ASC-CAP-004", level=5, keyword="MUST", clause="asc Why Naive Proxying 4", depends_on=CHATS,
    title="sensitive data stays within the required geographic boundary",
)  # fmt: skip
@check(
    "AIP-SECURITY-015", level=5, keyword="MUST", clause="aiproxy §9 Control", depends_on=CHATS,
    title="sensitive workloads can be kept on local providers",
)  # fmt: skip
@behind(
    world=_GUARDED,
    cloud=_fake(1, 0.0001, **_attested(regions=("us",))),
    europe=_fake(2, 0.001, **_attested(regions=("eu",))),
    near=_fake(3, 0.01, local=True),
)
def boundaries_hold(probe: Probe) -> Iterator[Finding]:
    yield from _kept_inside("ASC-CAP-004", probe, {CLASS: "eu-only"}, "europe", "cloud", "near")
    local = {CLASS: "restricted"}
    yield from _kept_inside("AIP-SECURITY-015", probe, local, "near", "cloud", "europe")
    case = probe.case()
    reply = ask(case, ("cloud", "europe", "near"))
    yield served("AIP-SECURITY-015", "without a class", case, reply, "cloud")


@check(
    "XAI-SYNC-004", level=5, keyword="MUST", clause="draft §5 sync rule 2 (implied, safety)",
    title="with the switch disabled security headers still fail closed", depends_on=CHATS,
)  # fmt: skip
@behind(world=_GUARDED, b=_fake(2, 0.001, **_attested("hipaa")))
def the_switch_does_not_open_doors(probe: Probe) -> Iterator[Finding]:
    me = "XAI-SYNC-004"
    for headers in ({SECURITY: "hipaa"}, {CLASS: "sensitive-medical"}):
        case = probe.case()
        reply = case.chat({SWITCH: "disabled", **headers}, model="auto")
        what = f"disabled with {', '.join(headers.values())}"
        yield refused(me, what, reply, 422)
        yield only_asked(me, f"who was asked: {what}", case, reply)
    case = probe.case()
    reply = case.chat({SWITCH: "disabled"}, model="auto")
    yield served(me, "disabled without", case, reply, "default")


@check(
    "XAI-SEC-024", level=5, keyword="MUST", clause="draft §16 Provider Trust", depends_on=CHATS,
    title="certificates of providers are validated",
)  # fmt: skip
@behind(
    world=_GUARDED,
    impostor=Fake(priority=1, price=0.0001, reach="bad-tls"),
    honest=_fake(2, 0.001),
)
def certificates_are_checked(probe: Probe) -> Iterator[Finding]:
    """The impostor would answer; a request that gets there was sent without looking."""
    me = "XAI-SEC-024"
    case = probe.case()
    reply = ask(case, ("impostor", "honest"))
    yield served(me, "a self-signed provider in front", case, reply, "honest")
    yield only_asked(me, "who got the request", case, reply, "honest")
    case = probe.case()
    reply = ask(case, ("impostor",))
    yield tell(me, "only a self-signed provider", reply.status >= 500, reply, expected="an error")
    yield only_asked(me, "who got it then", case, reply)


@check(
    "XAI-SEC-026", level=5, keyword="MUST", clause="draft §16 (implied, safety)", depends_on=CHATS,
    title="clients cannot make the router call an address of theirs",
)  # fmt: skip
@behind(world=_GUARDED, a=_fake(1, 0.001), canary=Fake(price=0.002, alone=True))
def no_address_of_the_client(probe: Probe) -> Iterator[Finding]:
    me, away = "XAI-SEC-026", probe.cast["canary"].endpoint
    for field in ("base_url", "api_base", "endpoint", "endpoint_url"):
        case = probe.case()
        reply = case.chat(**{field: away})  # type: ignore[arg-type]
        yield only_asked(me, f"who was asked with {field} in the body", case, reply, "a")
    for header in ("X-Upstream-URL", "X-Forwarded-Host", "X-Base-URL"):
        case = probe.case()
        reply = case.chat({header: away})
        yield only_asked(me, f"who was asked with {header}", case, reply, "a")
    case = probe.case()
    reply = case.chat({POOL: away})
    yield only_asked(me, "who was asked with a URL as the pool", case, reply)


derive(
    "XAI-FIG-015", level=5, keyword="MUST", clause="draft Fig 15",
    title="Fig 15: a security evaluator filters the pool before routing",
    of=("XAI-SEC-003", "XAI-FIG-016"),
)  # fmt: skip
derive(
    "XAI-SEC-021", level=5, keyword="MUST", clause="draft §16 Data Privacy",
    title="operators can bar providers by data sensitivity", of=("XAI-SEC-011", "XAI-SEC-012"),
)  # fmt: skip
derive(
    "AIP-SECURITY-016", level=5, keyword="MUST", clause="aiproxy §9 Compliance",
    title="sensitive data goes only to providers with compliance attributes", of=("XAI-SEC-003",),
)  # fmt: skip
derive(
    "AIP-BEN-005", level=5, keyword="MUST", clause="aiproxy §9 Organizations Control",
    title="sensitive workloads stay on premises", of=("AIP-SECURITY-015",),
)  # fmt: skip
derive(
    "AIP-BEN-008", level=5, keyword="MUST", clause="aiproxy §9 Organizations Compliance",
    title="sensitive data goes to compliant providers", of=("XAI-SEC-003",),
)  # fmt: skip
