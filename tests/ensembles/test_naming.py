"""Who may ask for an ensemble, how it is listed, and what is wrong with one (UNI-ENS-006)."""

from typing import Any

import pytest
from mounts import HELLO

from aiproxy.middleware.config import ConfigInvalid, load_config

req = pytest.mark.requirement

ASK = {"model": "ensemble/e"}
KEY, OTHER = "k" * 20, "o" * 20


def signed(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def keyed(*models: str) -> dict[str, Any]:
    rows = [
        {"name": "free", "key": KEY, "scopes": ["inference", "read"]},
        {"name": "bound", "key": OTHER, "scopes": ["inference", "read"], "models": list(models)},
    ]
    return {"security": {"auth": {"enabled": True, "type": "api_key", "api_keys": rows}}}


@req("UNI-ENS-006")
def test_nothing_is_an_ensemble_unless_it_is_named(panel: Any, fakes: Any) -> None:
    """UNI-ENS-006: opt-in; a member's own name is one model, auto is one of them."""
    served = panel()
    for model in ("m-a", "auto"):
        fakes.reset()
        got = served.chat({"X-AI-Routing-Strategy": "cost"}, model=model)
        assert got.status == 200
        assert sum(fakes.called().values()) == 1
        assert "ensemble" not in served.record(got)


@pytest.mark.parametrize("name", ["ensemble/nobody", "ensemble/", "ensemble/E"])
def test_an_unknown_ensemble_is_404(panel: Any, fakes: Any, name: str) -> None:
    got = panel().chat(model=name)
    assert (got.status, got.error["code"], got.error["param"]) == (404, "model_not_found", "model")
    assert fakes.called() == {}


def test_a_provider_that_takes_any_name_does_not_get_an_ensembles(panel: Any, fakes: Any) -> None:
    """The wrapped application takes any name that nobody else lists."""
    served = panel()
    assert served.chat(model="ensemble/nobody").status == 404
    assert served.host == []
    assert served.chat(model="whatever").status == 200
    assert len(served.host) == 1


def test_a_key_limited_to_some_models_needs_the_ensembles_name(panel: Any, fakes: Any) -> None:
    """Its members' names are not enough, and it does not give those."""
    served = panel(sections=keyed("m-a", "m-b", "m-c"))
    assert served.chat(signed(KEY), **ASK).status == 200
    got = served.chat(signed(OTHER), **ASK)
    assert (got.status, got.error["code"]) == (403, "model_not_permitted")
    served = panel(sections=keyed("ensemble/e"))
    assert served.chat(signed(OTHER), **ASK).status == 200
    assert served.chat(signed(OTHER), model="m-a").status == 403


def test_ensembles_are_listed_with_their_members_for_callers_with_a_key(
    panel: Any, fakes: Any
) -> None:
    served = panel(method="voting", sections=keyed("m-a"))
    got = served.get("/v1/models", signed(KEY))
    (row,) = [one for one in got.json["data"] if one["id"] == "ensemble/e"]
    assert row["ensemble"]["method"] == "voting"
    assert [m["model"] for m in row["ensemble"]["members"]] == ["m-a", "m-b", "m-c"]
    assert served.get("/v1/models/ensemble/e", signed(KEY)).json == row
    assert served.get("/v1/models").status == 401
    open_to_all = panel(method="voting").get("/v1/models/ensemble/e").json
    assert open_to_all["ensemble"] == {"method": "voting", "quorum": 2}


@pytest.mark.parametrize(
    ("path", "header", "names"),
    [
        (
            "/v1/models",
            {"anthropic-version": "2023-06-01"},
            lambda d: [row["id"] for row in d["data"]],
        ),
        ("/v1beta/models", {}, lambda d: [row["name"] for row in d["models"]]),
    ],
)
def test_other_apis_list_them_too(
    panel: Any, fakes: Any, path: str, header: dict[str, str], names: Any
) -> None:
    served = panel()
    found = names(served.get(path, header).json)
    assert any(name.endswith("ensemble/e") for name in found)
    one = served.get(f"{path}/ensemble/e", header)
    assert one.status == 200, one.body


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "param"),
    [
        ("/v1/embeddings", {**ASK, "input": "x"}, {}, 400, "model"),
        ("/v1/chat/completions", {**ASK, "messages": HELLO, "n": 2}, {}, 400, "n"),
        (
            "/v1/chat/completions",
            {**ASK, "messages": HELLO},
            {"X-AI-Multi-Provider": "disabled"},
            400,
            "X-AI-Multi-Provider",
        ),
    ],
)
def test_what_an_ensemble_cannot_give_is_refused(
    panel: Any,
    fakes: Any,
    path: str,
    body: dict[str, Any],
    headers: dict[str, str],
    status: int,
    param: str,
) -> None:
    got = panel().post(path, body, headers)
    assert (got.status, got.error["param"]) == (status, param)
    assert fakes.called() == {}


def test_tokens_of_a_request_to_an_ensemble_are_counted(panel: Any, fakes: Any) -> None:
    got = panel().post("/v1/messages/count_tokens", {**ASK, "messages": HELLO})
    assert got.status == 200
    assert got.json["input_tokens"] > 0


# --- the configuration ---------------------------------------------------------------------------

PROVIDERS = {
    "a": {
        "type": "openai_compatible",
        "endpoint": "http://127.0.0.1:1/v1",
        "models": [{"name": "m"}],
    }
}


def load(ensemble: dict[str, Any], providers: dict[str, Any] = PROVIDERS) -> Any:
    return load_config({"providers": providers, "routing": {"ensembles": {"e": ensemble}}})


@req("UNI-API-013", "UNI-ENS-003")
@pytest.mark.parametrize(
    ("ensemble", "where"),
    [
        ({"members": []}, "members"),
        ({"members": [{"model": "m"}], "method": "dictator"}, "method"),
        ({"members": [{"model": "m", "weight": -1}]}, "weight"),
        ({"members": [{"model": "m", "weight": 0}]}, "weight"),
        ({"members": [{"model": "m"}], "quorum": 2}, "quorum"),
        ({"members": [{"model": "m"}], "method": "best_of"}, "judge"),
        ({"members": [{"model": "m", "provider": "b"}]}, "provider"),
        ({"members": [{"model": "m"}], "agreement": 1.5}, "agreement"),
        ({"members": [{"model": "m"}], "timeout": "5"}, "timeout"),
    ],
)
def test_an_ensemble_that_could_never_answer_is_refused_at_load(
    ensemble: dict[str, Any], where: str
) -> None:
    """UNI-API-013, UNI-ENS-003: an unknown method, a negative weight and the like."""
    with pytest.raises(ConfigInvalid) as refused:
        load(ensemble)
    assert where in str(refused.value)
    assert "expected" in str(refused.value)


def test_a_model_may_not_be_named_like_an_ensemble() -> None:
    providers = {"a": {**PROVIDERS["a"], "models": [{"name": "ensemble/x"}]}}
    with pytest.raises(ConfigInvalid):
        load({"members": [{"model": "m"}]}, providers)


def test_a_member_nobody_lists_is_a_warning() -> None:
    found = load({"members": [{"model": "n"}]})
    assert any("members" in str(warning) for warning in found.warnings)
