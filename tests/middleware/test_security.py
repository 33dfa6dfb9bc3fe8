"""Security labels and data classes bind always (XAI-SEC; draft Figs 16 and 17)."""

import re

import pytest
from mounts import HELLO, RESPONSES, model
from upstreams import Script

from aiproxy.middleware.config import ConfigInvalid, load_config

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
    assert served.record(got)["security"]["attested"] == {
        label: {"evidence": "contract 7", "date": "2026-01-05"}
    }
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


TIERS = {
    "classes": {
        "public": {},
        "pci": {"labels": ["pci-dss"]},
        "secret": {"labels": ["pci-dss"], "regions": ["eu"], "min_level": "high"},
    }
}


@req("XAI-SEC-017", "XAI-FIG-015")
def test_a_class_may_demand_a_least_level(mount, fakes):
    served = mount(
        fakes.config(
            {
                name: {"security": {"level": level}, "models": [model(f"m-{name}")]}
                for name, level in (("a", "low"), ("b", "high"), ("c", "medium"), ("d", None))
            },
            security={"classes": {"inner": {"min_level": "medium"}, "core": {"min_level": "high"}}},
        )
    )
    got = served.chat({CLASS: "inner", "X-AI-Routing-Strategy": "quality"})
    assert got.provider == "b"  # of two equals the higher level
    rows = {row["provider"]: row for row in got.selection["alternatives_rejected"]}
    assert rows["a"] == {
        "provider": "a",
        "reason": "insufficient_security_level",
        "detail": "low",
    }
    assert rows["d"]["detail"] == "unstated"
    record = served.record(got)
    assert record["security"]["min_level"] == "medium"
    assert record["security"]["level"] == "high"
    assert record["constraints"]["min_level"] == "medium"
    fakes.b.script = Script(status=503)
    got = served.chat({CLASS: "core", "X-AI-Failover-Policy": "cascading"})
    assert got.status >= 500
    assert set(fakes.called()) == {"b"}
    refused(served.chat({CLASS: "core"}, model="m-a"), "unsupported_security_requirement", CLASS)


@req("XAI-SEC-017")
def test_equals_go_by_their_level_only_where_labels_are_demanded(pair, fakes):
    low, high = attested("hipaa"), attested("hipaa")
    low["security"]["level"], high["security"]["level"] = "low", "high"
    served = pair(provider_a=low, provider_b=high)
    assert served.chat({LABELS: "hipaa", "X-AI-Routing-Strategy": "cost"}).provider == "b"
    assert served.chat({"X-AI-Routing-Strategy": "cost"}).provider == "a"
    cheaper = pair({"cost_per_1k_tokens": 0}, provider_a=low, provider_b=high)
    assert cheaper.chat({LABELS: "hipaa", "X-AI-Routing-Strategy": "cost"}).provider == "a"


@req("XAI-SEC-013")
def test_an_unknown_class_may_be_held_to_the_strictest(pair, fakes):
    own = attested("pci-dss", regions=["eu"])
    own["security"]["level"] = "high"
    served = pair(
        {"cost_per_1k_tokens": 0},
        provider_a=attested("pci-dss"),
        provider_b=own,
        security={**TIERS, "unknown_class": "strictest"},
    )
    got = served.chat({CLASS: "top-secret"})
    assert got.provider == "b"
    assert served.record(got)["security"]["classes"] == ["top-secret"]
    assert fakes.called() == {"b": 1}
    bare = pair(security={"unknown_class": "strictest"})
    refused(bare.chat({CLASS: "top-secret"}), "unknown_data_classification", CLASS)
    assert fakes.called() == {"b": 1}


@req("XAI-SEC-015", "XAI-SEC-007")
def test_a_rejection_says_which_attribute_failed(mount, fakes):
    served = mount(
        fakes.config(
            {
                "a": {"models": [model("m-a")]},
                "b": attested("pci-dss", regions=["us"], models=[model("m-b")]),
                "c": attested("pci-dss", "pii", regions=["eu"], models=[model("m-c")]),
            },
            security={"classes": {"eu-cards": {"labels": ["pci-dss"], "regions": ["eu"]}}},
        )
    )
    got = served.chat({CLASS: "eu-cards", LABELS: "pii"})
    assert got.provider == "c"
    rows = {row["provider"]: row for row in got.selection["alternatives_rejected"]}
    assert rows["a"]["detail"] == "insufficient_pci-dss,insufficient_pii"
    assert rows["b"]["detail"] == "insufficient_pii"
    got = served.chat({CLASS: "eu-cards"})
    rows = {row["provider"]: row for row in got.selection["alternatives_rejected"]}
    assert rows["b"]["detail"] == "data_residency"
    kept = {row["provider"]: row for row in served.record(got)["candidates"]}
    assert kept["b"]["reason"] == "wrong_region"
    assert kept["b"]["detail"] == "data_residency"


def tagged(name, text="card 4111", **more):
    return {"role": "user", "content": text, "data_classification": name, **more}


def parts(*rows):
    return [{"type": kind, "text": text, **more} for kind, text, more in rows]


IN_PARTS = {"data_classification": "pci"}
SHAPES = {
    "message": ("/v1/chat/completions", {"messages": [tagged("pci")]}),
    "system": (
        "/v1/chat/completions",
        {"messages": [tagged("pci", role="system"), {"role": "user", "content": "sum"}]},
    ),
    "part": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": parts(("text", "card", IN_PARTS))}]},
    ),
    "draft": (RESPONSES, {"messages": [tagged("pci")]}),
    "responses": (
        RESPONSES,
        {"input": [{"role": "user", "content": parts(("input_text", "card", IN_PARTS))}]},
    ),
    "anthropic": (
        "/v1/messages",
        {
            "max_tokens": 9,
            "system": parts(("text", "be brief", IN_PARTS)),
            "messages": [{"role": "user", "content": "card"}],
        },
    ),
    "gemini": (
        "/v1beta/models/m:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "card", **IN_PARTS}]}]},
    ),
}


@req("XAI-SEC-012", "XAI-SEC-016")
@pytest.mark.parametrize("dialects", [["chat"], ["responses"]], ids=["as-chat", "as-responses"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_tag_raises_the_class_of_the_whole_request(mount, fakes, shape, dialects):
    """The tag reaches nobody, in the client's own dialect or another."""
    path, body = SHAPES[shape]
    served = mount(
        fakes.config(
            {
                "a": {"models": [model("m", cost_per_1k_tokens=0)], "dialects": dialects},
                "b": attested("pci-dss", models=[model("m")], dialects=dialects),
            },
            security=TIERS,
        )
    )
    named = {} if "{" in path or "beta" in path else {"model": "m"}
    got = served.post(path, {**named, **body}, {"X-AI-Failover-Policy": "automatic"})
    assert got.status == 200, got
    assert fakes.called() == {"b": 1}
    [seen] = fakes.b.seen
    sent = str(seen.body)
    assert "card" in sent
    assert "data_classification" not in sent
    assert "'pci'" not in sent


@req("XAI-SEC-012")
def test_the_strictest_of_tags_and_header_holds(mount, fakes):
    own = attested("pci-dss", regions=["eu"])
    own["security"]["level"] = "high"
    served = mount(
        fakes.config(
            {
                "a": {"models": [model("m-a", cost_per_1k_tokens=0)]},
                "b": attested("pci-dss", models=[model("m-b")]),
                "c": {**own, "models": [model("m-c")]},
            },
            security=TIERS,
        )
    )
    rows = [tagged("public"), tagged("secret"), tagged("pci"), {"role": "user", "content": "sum"}]
    got = served.chat({CLASS: "public"}, messages=rows)
    assert got.provider == "c"
    assert served.record(got)["security"]["classes"] == ["public", "secret", "pci"]
    got = served.chat({"X-AI-Multi-Provider": "disabled"}, messages=[tagged("pci")], model="m-a")
    refused(got, "unsupported_security_requirement", "messages[0].data_classification")
    assert fakes.called() == {"c": 1}


@req("XAI-SEC-013")
@pytest.mark.parametrize(
    ("tag", "status", "code"),
    [
        ("top-secret", 422, "unknown_data_classification"),
        ("", 400, "invalid_value"),
        (7, 400, "invalid_value"),
        (None, 400, "invalid_value"),
        (["pci"], 400, "invalid_value"),
    ],
)
def test_a_tag_that_names_no_class_is_refused(pair, fakes, tag, status, code):
    served = pair(security=TIERS)
    got = served.chat({"X-AI-Provider-Pool": "a"}, messages=[tagged(tag)])
    assert (got.status, got.error["code"]) == (status, code)
    assert got.error["param"] == "messages[0].data_classification"
    assert fakes.called() == {}


@req("XAI-SEC-012")
def test_a_tag_with_an_escaped_name_counts_as_well(pair, fakes):
    served = pair(provider_b=attested("pci-dss"), security=TIERS)
    raw = b'{"model": "auto", "messages": [{"role": "user", "content": "x", '
    raw += b'"data_\\u0063lassification": "pci"}]}'
    headers = {"content-type": "application/json", "X-AI-Failover-Policy": "automatic"}
    got = served.post("/v1/chat/completions", raw, headers)
    assert got.status == 200, got
    assert fakes.called() == {"b": 1}


def test_data_that_has_such_a_key_is_left_alone(pair, fakes):
    """A tool's arguments and schema are the client's data, not tags."""
    schema = {"type": "object", "properties": {"data_classification": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "tag", "parameters": schema}}
    arguments = '{"data_classification": "secret"}'
    call = {"id": "c1", "type": "function", "function": {"name": "tag", "arguments": arguments}}
    rows = [
        {"role": "user", "content": "label it"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]
    served = pair(security=TIERS)
    got = served.chat({"X-AI-Provider-Pool": "a"}, messages=rows, tools=[tool])
    assert got.status == 200
    [seen] = fakes.a.seen
    assert str(seen.body).count("data_classification") == 2


@req("XAI-SEC-017", "XAI-SEC-013", "XAI-SEC-007")
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"providers": {"a": {"security": {"level": "top"}}}}, "providers.a.security.level"),
        ({"security": {"classes": {"x": {"min_level": "top"}}}}, "security.classes.x.min_level"),
        ({"security": {"unknown_class": "ignore"}}, "security.unknown_class"),
        (
            {
                "providers": {
                    "a": {
                        "security": {"regions": ["eu"]},
                        "endpoints": [
                            {"url": "http://127.0.0.1:9/v1", "region": "eu"},
                            {"url": "http://127.0.0.1:8/v1", "region": "us"},
                        ],
                    }
                }
            },
            "providers.a.endpoints[1].region",
        ),
    ],
)
def test_a_configuration_that_promises_what_nobody_keeps_is_refused(config, said):
    for entry in config.get("providers", {}).values():
        entry.setdefault("type", "openai_compatible")
        if "endpoints" not in entry:
            entry["endpoint"] = "http://127.0.0.1:9/v1"
    with pytest.raises(ConfigInvalid, match=re.escape(said)):
        load_config(config)
