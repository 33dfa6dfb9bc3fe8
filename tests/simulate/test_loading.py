"""A bad scenario is refused with its place, what was found and what was expected."""

from pathlib import Path
from typing import Any

import pytest
from scenes import scene, traffic

from aiproxy.reference_server.simulate import ConfigInvalid, load

GOOD = """\
name: small
config:
  providers:
    a: {type: openai_compatible, endpoint: "https://a.example/v1", models: [{name: m}]}
providers:
  a:
    latency: {lognormal: {p50: 100ms, p95: 300ms}}
traffic:
  phases:
    - {for: 10s, rate: 5}
  requests:
    - name: chat
      body: {model: m, messages: [{role: user, content: Hi}]}
expect:
  errors: "< 1%"
"""

#: what is replaced, by what, and what is said of it
BAD = [
    ("rate: 5", "rate: -5", ":10: traffic.phases[0].rate: found -5 (a number), expected a number"),
    ("rate: 5", "rate: 0", ":9: traffic.phases: found no request at all"),
    ("rate: 5", "clients: 0", ":10: traffic.phases[0].clients: found 0"),
    ("rate: 5", "rate: 5, clients: 2", ":10: traffic.phases[0]: found rate and clients, expected"),
    (", rate: 5", "", ":10: traffic.phases[0]: found neither rate nor clients, expected one"),
    ("rate: 5", "rate: 99999999", ":10: traffic.phases[0].rate: found 99999999"),
    ("for: 10s, rate: 5", "for: 999h, rate: 900000", ":9: traffic.phases: found about 3236"),
    ("for: 10s", "for: 0s", ":10: traffic.phases[0].for: found"),
    ("for: 10s", "for: 10", ":10: traffic.phases[0].for: found 10"),
    ("for: 10s", "for: 99999h", ":9: traffic.phases: found more than a year of traffic"),
    ("p95: 300ms", "p95: 30ms", ":7: providers.a.latency.lognormal: found p95 below p50"),
    ("lognormal", "normal", ":7: providers.a.latency.normal: found an unknown key"),
    ("{lognormal: {p50: 100ms, p95: 300ms}}", "{uniform: [2s, 1s]}", "found the larger end first"),
    ("{lognormal: {p50: 100ms, p95: 300ms}}", "{samples: none.txt}", "found no readable file"),
    ("{lognormal: {p50: 100ms, p95: 300ms}}", "-1s", ":7: providers.a.latency: found"),
    ("  a:\n    latency", "  b:\n    latency", ":6: providers.b: found a provider the config"),
    ("models: [{name: m}]", "model: m", ":4: config.providers.a.model: found an unknown key"),
    (
        "type: openai_compatible, ",
        "enabled: false, type: openai_compatible, ",
        ":2: config: found no",
    ),
    (
        "      body:",
        "      bodies: 1\n      body:",
        ":13: traffic.requests[0].bodies: found an unknown",
    ),
    ("body: {model: m, messages: [{role: user, content: Hi}]}", "body: none.json", ":13: traffic"),
    (
        "      body:",
        "      path: nowhere\n      body:",
        ':13: traffic.requests[0].path: found "nowhere',
    ),
    ("      body:", "      path: /nowhere\n      body:", ":13: traffic.requests[0].path: found a"),
    ("      body:", "      key: nobody\n      body:", ":13: traffic.requests[0].key: found a key"),
    (
        "      body:",
        "      weight: 0\n      body:",
        ":11: traffic.requests: found no weight above 0",
    ),
    ('"< 1%"', '"little"', ':15: expect.errors: found "little", expected a condition such as'),
    ('errors: "< 1%"', "share: {b: 1}", ":15: expect.share.b: found an unknown provider"),
    ('errors: "< 1%"', "breaker_opened: [a/x]", "expected one of a, a/m"),
    ('errors: "< 1%"', "requests_by_name: {talk: {errors: 0}}", "found an unknown kind of request"),
    ('errors: "< 1%"', "windows: [{from: 5s, to: 5s}]", "found an end that is not after from"),
    ('errors: "< 1%"', "statuses: {many: 0}", "found no HTTP status"),
    ("name: small", "seed: 1.5", ":1: seed: found 1.5"),
    ("name: small", "sed: 1", ":1: sed: found an unknown key, expected one of"),
    ("name: small", "start: yesterday", ":1: start: found"),
    ("name: small", "start: 2026-13-40T00:00:00Z", ":1: start: found a time that does not exist"),
    ("name: small", "max_requests: 0", ":1: max_requests: found 0"),
    ("name: small", "name: small\nname: other", ":2: "),
]


def refused(text: str, folder: Path) -> str:
    file = folder / "scene.yaml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid) as caught:
        load(file)
    return str(caught.value)


def test_the_good_one_loads(tmp_path: Path) -> None:
    file = tmp_path / "scene.yaml"
    file.write_text(GOOD)
    found = load(file)
    assert (found.name, found.duration_s, found.phases[0].rate) == ("small", 10.0, 5.0)
    assert load(file, seed=9).seed == 9


@pytest.mark.parametrize(("old", "new", "said"), BAD)
def test_a_bad_one_says_where_and_why(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in GOOD
    message = refused(GOOD.replace(old, new, 1), tmp_path)
    assert said in message, message
    assert "scene.yaml:" in message


@pytest.mark.parametrize("given", ["", "[1, 2]", "traffic: {phases: []}", "config: 5"])
def test_what_is_no_scenario_at_all(given: str, tmp_path: Path) -> None:
    assert "expected" in refused(given, tmp_path)


def test_no_provider_is_refused() -> None:
    document = scene(1)
    document["config"] = {"providers": {}}
    with pytest.raises(ConfigInvalid, match="at least one"):
        load(document)


def test_a_status_and_a_fault_are_one_too_many() -> None:
    for row in ({"status": 500, "fault": "reset"}, {}):
        with pytest.raises(ConfigInvalid, match=r"providers.a.errors\[0\]: found .*status"):
            load(scene(1, {"a": {"errors": [row]}}))


def test_a_configuration_file_and_bodies_are_relative_to_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "aiproxy.yaml").write_text(
        'providers: {a: {type: openai_compatible, endpoint: "https://${HOST_BASE}/v1", '
        "credentials: {api_key: '${A_KEY_NOBODY_HAS}'}, models: [{name: m}]}}\n"
    )
    (tmp_path / "sub" / "body.json").write_text('{"model": "m", "input": "Hi"}')
    (tmp_path / "sub" / "times.txt").write_text("# measured\n120\n0.3s\n\n90ms # slow disk\n")
    file = tmp_path / "sub" / "scene.yaml"
    file.write_text(
        "config: ../aiproxy.yaml\nenv: {HOST_BASE: a.example}\n"
        "providers: {a: {latency: {samples: times.txt}}}\n"
        "traffic: {phases: [{for: 1s, rate: 1}], requests: [{name: r, body: body.json}]}\n"
    )
    found = load(file)
    assert found.templates[0].path == "/v1/responses"
    assert found.scripts["a"].latency.numbers == (0.12, 0.3, 0.09)
    entry = found.config.values["providers"]["a"]
    assert entry["endpoint"] == "https://a.example/v1"
    assert "nobody" in entry["credentials"]["api_key"]


@pytest.mark.parametrize("line", ["fast", "-3", "1e12", "3 ms later"])
def test_samples_that_are_none_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text(f"100\n{line}\n")
    with pytest.raises(ConfigInvalid, match="in line 2 of it"):
        load(scene(1, {"a": {"latency": {"samples": "times.txt"}}}), folder=tmp_path)


def test_a_fault_in_a_configuration_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "aiproxy.yaml").write_text("providers:\n  a: {type: nonsense}\n")
    (tmp_path / "scene.yaml").write_text(
        "config: aiproxy.yaml\ntraffic: {phases: [{for: 1s, rate: 1}]}\n"
    )
    with pytest.raises(ConfigInvalid, match=r"aiproxy\.yaml:2: providers\.a"):
        load(tmp_path / "scene.yaml")


def test_the_same_traffic_against_another_configuration() -> None:
    other = {"providers": scene(1)["config"]["providers"]}
    found = load(scene(1, traffic=traffic(rate=1)), config=other)
    assert list(found.config.values["providers"]) == ["a"]


def test_nothing_outside_the_process_is_kept() -> None:
    shared = {"state": {"backend": "valkey", "url": "redis://127.0.0.1:1/0"}}
    found: Any = load(scene(1, config=shared))
    assert found.config.values["state"]["backend"] == "memory"
