"""Security labels and data classes bind always (XAI-SEC; draft Figs 16 and 17)."""

import pytest
from mounts import HELLO, RESPONSES, model
from upstreams import Script

req = pytest.mark.requirement
LABELS = "X-AI-Security-Requirements"
CLASS = "X-AI-Data-Classification"


def attested(*labels, regions=(), **more):
    rows = [{"label": label, "evidence": "contract 7", "date": "2026-01-05"} for label in labels]
    return {"security": {"labels": rows, "regions": list(regions)}, **more}


def refused(got, code, param):
    assert (got.status, got.error["code"], got.error["param"]) == (422, code, param), got
    assert got.header("x-should-retry") == "false"


@req("XAI-SEC-003", "XAI-SEC-004", "XAI-SEC-005", "XAI-SEC-006", "XAI-SEC-007", "XAI-SEC-008")
@pytest.mark.parametrize("label", ["hipaa", "pii", "pci-dss", "sovereignty", "soc2_type2"])
def test_a_label_keeps_the_unattested_out(pair, fakes, label):
    served = pair({"cost_per_1k_tokens": 0}, provider_b=attested(label))
    got = served.chat({LABELS: label})
    assert got.provider == "b"
    assert got.rejected["a"] == "lacks_security_label"
    assert got.selection["security_compliance"] == {label: "attested"}
    assert served.record(got)["security"]["attested"] == {label: True}
    refused(pair().chat({LABELS: label}), "unsupported_security_requirement", LABELS)
    assert fakes.called() == {"b": 1}


@req("XAI-SEC-003", "XAI-SEC-027")
@pytest.mark.parametrize("policy", ["automatic", "cascading", "manual", "none"])
def test_all_labels_bind_on_failover_too(pair, fakes, policy):
    fakes.b.script = Script(status=503)
    served = pair(
        {"cost_per_1k_tokens": 0}, provider_a=attested("hipaa"), provider_b=attested("pii", "hipaa")
    )
    got = served.chat({LABELS: "hipaa,pii", "X-AI-Failover-Policy": policy})
    assert got.status >= 500
    assert set(fakes.called()) == {"b"}
    assert served.host == []


@req("XAI-SEC-009")
@pytest.mark.parametrize("labels", ["hipaa,frobnicate", "frobnicate", "HIPAA2"])
def test_an_unknown_label_is_refused(pair, fakes, labels):
    served = pair(provider_a=attested("hipaa"))
    refused(served.chat({LABELS: labels}), "unsupported_security_requirement", LABELS)
    assert fakes.called() == {}


@req("XAI-SEC-010")
@pytest.mark.parametrize("members", [{}, {"model": "hosted-by-the-app"}])
def test_a_mount_without_any_attestation_refuses(mount, members):
    served = mount({})
    refused(served.chat({LABELS: "hipaa"}, **members), "unsupported_security_requirement", LABELS)
    refused(served.chat({CLASS: "secret"}, **members), "unknown_data_classification", CLASS)
    assert served.host == []


CLASSES = {
    "classes": {
        "sensitive-medical": {"labels": ["hipaa"], "regions": ["us"]},
        "financial-mixed": {"labels": ["pci-dss", "sovereignty"]},
        "in-house": {"local_only": True},
    }
}


@req("XAI-SEC-011", "XAI-FIG-016")
def test_a_class_asks_for_its_labels_and_regions(mount, fakes):
    served = mount(
        fakes.config(
            {
                "a": attested("hipaa", regions=["eu"], models=[model("m-a", cost_per_1k_tokens=0)]),
                "b": attested("hipaa", regions=["us"], models=[model("m-b")]),
                "c": {"security": {"regions": ["us"]}, "models": [model("m-c")]},
                "d": attested("hipaa", regions=["us", "eu"], models=[model("m-d")]),
            },
            security=CLASSES,
        )
    )
    got = served.chat({CLASS: "sensitive-medical"})
    assert got.provider == "b"
    assert got.rejected["a"] == "wrong_region"
    assert got.rejected["c"] == "lacks_security_label"
    assert got.rejected["d"] == "wrong_region"
    assert served.record(got)["constraints"]["data_class"] == "sensitive-medical"
    assert served.record(got)["security"]["regions"] == ["us"]


@req("XAI-SEC-012", "XAI-FIG-017")
def test_mixed_data_goes_whole_to_the_strictest_tier(pair, fakes):
    served = pair(
        {"cost_per_1k_tokens": 0},
        provider_a=attested("pci-dss"),
        provider_b=attested("pci-dss", "sovereignty"),
        security=CLASSES,
    )
    got = served.chat({CLASS: "financial-mixed", LABELS: "pci-dss"})
    assert got.provider == "b"
    assert fakes.called() == {"b": 1}


@req("XAI-SEC-013")
def test_an_unknown_class_is_refused(pair, fakes):
    served = pair(security=CLASSES)
    refused(served.chat({CLASS: "top-secret"}), "unknown_data_classification", CLASS)
    assert fakes.called() == {}


@req("XAI-SEC-011")
def test_a_class_may_ask_for_the_operators_own_machines(pair, fakes):
    served = pair(
        {"cost_per_1k_tokens": 0},
        provider_a={"local": False},
        provider_b={"local": True},
        security=CLASSES,
    )
    got = served.chat({CLASS: "in-house"})
    assert got.provider == "b"
    assert got.rejected["a"] == "not_local"
    alone = pair(provider_a={"local": False}, provider_b={"local": False}, security=CLASSES)
    got = alone.chat({CLASS: "in-house"}, model="m-a")
    refused(got, "unsupported_security_requirement", CLASS)
    assert fakes.called() == {"b": 1}


@req("XAI-SEC-014")
def test_claims_repeat_what_was_asked_and_attested_only(pair):
    served = pair(provider_a=attested("hipaa", "aes256_end_to_end"))
    got = served.chat({LABELS: "hipaa"})
    assert got.selection["security_compliance"] == {"hipaa": "attested"}
    assert "security_compliance" not in served.chat({"X-AI-Provider-Pool": "a"}).selection


@req("XAI-SYNC-004", "XAI-SEC-003")
@pytest.mark.parametrize("headers", [{LABELS: "hipaa"}, {CLASS: "sensitive-medical"}])
def test_the_switch_off_and_explicit_models_change_nothing(pair, fakes, headers):
    served = pair(provider_b=attested("hipaa", regions=["us"]), security=CLASSES)
    for switch in ({"X-AI-Multi-Provider": "disabled"}, {}, {"X-AI-Multi-Provider": "enabled"}):
        got = served.chat({**switch, **headers}, model="m-a")
        refused(got, "unsupported_security_requirement", *headers)
    got = served.chat({"X-AI-Multi-Provider": "disabled", **headers})
    refused(got, "unsupported_security_requirement", *headers)
    assert fakes.called() == {}
    own = pair(provider_a=attested("hipaa", regions=["us"]), security=CLASSES)
    assert own.chat({"X-AI-Multi-Provider": "disabled", **headers}).status == 200
    assert fakes.called() == {"a": 1}


@req("XAI-SEC-003")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"input": "x"}),
        (RESPONSES, {"messages": HELLO, "stream": True}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/completions", {"prompt": "x"}),
        ("/aiproxy/predict", {"input": "x"}),
    ],
)
def test_every_endpoint_enforces(pair, fakes, path, body):
    every = {"capabilities": ["text-generation", "embeddings"]}
    served = pair(every, every, provider_b=attested("hipaa"))
    got = served.post(path, {"model": "auto", **body}, {LABELS: "hipaa"})
    assert got.status == 200, got
    assert fakes.called() == {"b": 1}
    got = served.post(path, {"model": "auto", **body}, {LABELS: "hipaa,sovereignty"})
    refused(got, "unsupported_security_requirement", LABELS)


@req("XAI-SEC-018", "XAI-SEC-019")
def test_credentials_stay_with_their_owner(pair, fakes):
    fakes.a.script = Script(status=401)
    served = pair(
        {"cost_per_1k_tokens": 0},
        provider_a={"credentials": {"api_key": "sk-key-of-a"}},
        provider_b={"credentials": {"api_key": "sk-key-of-b"}},
    )
    headers = {
        "X-AI-Failover-Policy": "automatic",
        "Authorization": "Bearer sk-client",
        "Cookie": "session=sk-client",
        "X-Api-Key": "sk-client",
    }
    got = served.chat(headers)
    assert got.provider == "b"
    for name in "ab":
        [seen] = fakes[name].seen
        assert seen.headers["authorization"] == f"Bearer sk-key-of-{name}"
        assert "sk-client" not in str(seen)


@req("XAI-SEC-026")
def test_no_address_of_the_client_is_ever_called(pair, fakes):
    canary = fakes.c.url
    served = pair()
    for headers, members in (
        ({"X-AI-Provider-Pool": "a"}, {"base_url": canary, "endpoint": canary}),
        ({"X-AI-Provider-Pool": "a", "Host": canary.split("/")[2]}, {}),
        ({"X-AI-Provider-Pool": "a", "X-Forwarded-Host": canary}, {"provider": {"url": canary}}),
    ):
        assert served.chat(headers, **members).status == 200
    got = served.chat({"X-AI-Provider-Pool": canary})
    assert got.status == 400
    assert set(fakes.called()) == {"a"}


@req("XAI-RESP-018")
def test_a_refused_request_has_a_record_without_secrets(pair):
    served = pair(security={"auth": {"api_keys": [{"name": "me", "key": "sk-mine-0123456789"}]}})
    for key in ("sk-mine-0123456789", "sk-wrong"):
        got = served.chat({LABELS: "hipaa", "Authorization": f"Bearer {key}"})
        assert got.status in (401, 422)
        found = [d.record() for d in served.gateway.decisions._rows.values()]
        assert found[-1]["error"]["code"] == got.error["code"]
        assert "sk-" not in str(found)
        assert "sk-" not in str(got)


KEYED = {"api_keys": [{"key": "k" * 24, "name": "clinic", "data_classification": "patients"}]}
PATIENTS = {"patients": {"labels": ["hipaa"]}}
BEARER = {"Authorization": "Bearer " + "k" * 24}


@pytest.mark.requirement("XAI-SEC-021")
def test_the_data_class_of_a_key_binds_every_request_made_with_it(pair, fakes):
    mount = pair(
        provider_b={"security": {"labels": ["hipaa"]}},
        security={"auth": KEYED, "classes": PATIENTS},
    )
    got = mount.chat({**BEARER, "X-AI-Routing-Strategy": "cost"})
    assert (got.status, got.provider) == (200, "b")
    assert fakes.a.seen == []
    got = mount.chat({**BEARER, "X-AI-Provider-Pool": "a"})
    assert (got.status, got.error["code"]) == (422, "unsupported_security_requirement")


def test_a_key_without_the_inference_scope_infers_nothing(pair, fakes):
    keys = {"api_keys": [{"key": "r" * 24, "name": "viewer", "scopes": ["read"]}]}
    mount = pair(security={"auth": keys})
    got = mount.chat({"Authorization": "Bearer " + "r" * 24, "X-AI-Task-Hint": "coding"})
    assert (got.status, got.error["code"]) == (403, "insufficient_scope")
    assert (fakes.a.seen, fakes.b.seen) == ([], [])


def test_a_region_without_attestation_satisfies_no_class(pair, fakes):
    mount = pair(
        provider_a={"region": "eu"},
        provider_b={"security": {"regions": ["eu"]}},
        security={"classes": {"european": {"regions": ["eu"]}}},
    )
    got = mount.chat({"X-AI-Data-Classification": "european"})
    assert (got.status, got.provider) == (200, "b")


@pytest.mark.requirement("XAI-HDR-008")
def test_the_bound_of_a_request_field_may_be_lowered(pair, fakes):
    mount = pair(server={"header_limits": {"request_field": "64B"}})
    got = mount.chat({"X-AI-Provider-Pool": ",".join(["a"] * 40)})
    assert (got.status, got.error["code"]) == (431, "header_too_large")
