"""The control port, the command that opens it, and the fixture."""

import json
import os
import signal
import subprocess
import sys

import httpx
import pytest
import yaml
from rig_client import Stage, new_nonce

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.command import TOKEN_VARIABLE, main, read_fleet
from aiproxy.conformance.rig.control import Control
from aiproxy.conformance.rig.fleet import Fake, Fleet, cast
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.remote import RemoteUpstreams
from aiproxy.conformance.rig.upstreams import Upstreams

CHAT = "/v1/chat/completions"


@pytest.fixture
def control():
    with Upstreams() as upstreams, Control(upstreams) as control:
        yield control


@pytest.fixture
def far(control):
    """A stage whose fakes are behind the control port."""
    with RemoteUpstreams(control.url, control.token) as remote:
        chosen = cast(Fleet({"a": Fake(), "b": Fake(dialect="mistral")}), "far", 3)
        yield Stage(remote, chosen, remote.open(chosen.actors.values()))


def test_the_same_interface_from_afar(far, nonce):
    far.script(nonce, "a", Act(status=503, headers=(("retry-after", "1"),)), always=Act(text="x"))
    first = far.post("a", CHAT, far.chat("a", nonce))
    assert (first.status, first.header("retry-after")) == (503, "1")
    assert far.post("a", CHAT, far.chat("a", nonce)).json["choices"][0]["message"]["content"] == "x"
    text = far.post("b", CHAT, far.chat("b", nonce)).body.decode()
    ids = [actor.id for actor in far.actors.values()]
    assert far.upstreams.origin(text, nonce, ids) == far["b"].id
    assert far.upstreams.proof(nonce, far["b"].id) in text
    assert far.upstreams.wait_idle(nonce, 1)
    attempts = far.upstreams.attempts(nonce)
    assert [(a.role, a.status) for a in attempts] == [("a", 503), ("a", 200), ("b", 200)]
    assert attempts[0].json["messages"]
    assert attempts == far.upstreams.everything()
    assert far.upstreams.actors == far.actors


def test_vectors_from_afar(far, nonce):
    body = {"model": far["a"].upstream_model, "input": nonce}
    vector = far.post("a", "/v1/embeddings", body).json["data"][0]["embedding"]
    assert far.upstreams.origin_of_vector(vector, nonce, [far["a"].id]) == far["a"].id


def test_habits_and_reach_from_afar(far):
    far.upstreams.habit(far["a"].id, Act(status=500))
    assert far.get("a", "/v1/models").status == 500
    far.upstreams.habit(far["a"].id, None)
    far.upstreams.script("", far["a"].id, [Act(status=429)])
    assert far.get("a", "/v1/models").status == 429
    assert [one.status for one in far.upstreams.attempts("")] == [500, 429]
    far.upstreams.shut(far["a"].id)
    with pytest.raises(ConnectionRefusedError):
        far.get("a", "/v1/models")
    far.upstreams.reopen(far["a"].id)
    assert far.get("a", "/v1/models").status == 200


def test_a_client_that_comes_again_opens_the_same(control, far):
    ports = {far["a"].id: int(far["a"].endpoint.split(":")[2][:-3])}
    with RemoteUpstreams(control.url, control.token) as again:
        opened = again.open([far.cast["a"]], ports)
        assert opened[far["a"].id].endpoint == far["a"].endpoint
    assert far["a"].id not in far.upstreams.actors
    assert far["b"].id in far.upstreams.actors


def test_a_port_that_is_taken(control, far):
    port = int(far["b"].endpoint.split(":")[2][:-3])
    with pytest.raises(HarnessFault, match="in use"):
        far.upstreams.open([far.cast["a"]], {far["a"].id: port})
    far.upstreams.open([far.cast["a"]])


def test_waiting_from_afar_ends(far, nonce):
    far.script(nonce, "a", Act(fault="silence"))
    with far.begin("a", far.chat("a", nonce)) as plug:
        plug.settimeout(0.1)
        with pytest.raises(TimeoutError):
            plug.recv(1)
        assert not far.upstreams.wait_idle(nonce, 0.05)
    assert far.upstreams.wait_idle(nonce, 2)
    assert far.upstreams.attempts(nonce)[0].gone


def ask(control, method, path, token=None, **options):
    headers = {"Authorization": f"Bearer {control.token if token is None else token}"}
    return httpx.request(method, control.url + path, headers=headers, trust_env=False, **options)


def test_what_the_port_refuses(control):
    assert httpx.get(control.url + "/health", trust_env=False).json() == {"status": "ok"}
    assert ask(control, "GET", "/fleet", token="wrong").status_code == 401
    assert ask(control, "GET", "/nowhere").status_code == 404
    assert ask(control, "DELETE", "/health").status_code == 404
    assert ask(control, "PUT", "/script/x", content=b"{").status_code == 400
    bad = ask(control, "PUT", "/script/x", json={"p": {"acts": [{"fault": "tea"}]}})
    assert (bad.status_code, bad.json()["error"]["message"]) == (400, "ValueError: no fault 'tea'")
    assert ask(control, "PUT", "/script/x", json={"p": {"acts": [{"x": 1}]}}).status_code == 400
    assert ask(control, "PUT", "/actors", json={"actors": [{"id": "x"}]}).status_code == 400
    assert ask(control, "POST", "/reopen/nobody").status_code == 400


def test_a_fault_of_the_fakes_crosses_the_port(far, nonce, monkeypatch):
    from aiproxy.conformance.rig.shapes import chat

    monkeypatch.setattr(chat, "whole", lambda ask, said: {})
    far.post("a", CHAT, far.chat("a", nonce))
    with pytest.raises(HarnessFault, match="upstream/chat"):
        far.upstreams.attempts(nonce)
    monkeypatch.undo()


def test_nobody_at_the_port(nonce):
    with RemoteUpstreams("http://127.0.0.1:9", "x") as remote, pytest.raises(HarnessFault):
        remote.attempts(nonce)


def started(*words, **environment):
    command = "import sys; from aiproxy.conformance.rig.command import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", command, *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def document(process, end):
    """Return what was printed up to the line that begins with ``end``."""
    lines = []
    while not lines or not lines[-1].startswith(end):
        lines.append(process.stdout.readline())
        assert lines[-1], "the command ended"
    return "".join(lines)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_runs_until_told(sign):
    process = started("--count", "2", "--format", "json", **{TOKEN_VARIABLE: "mine"})
    try:
        told = json.loads(document(process, "}"))
        assert told["control"]["token"] == "mine"
        assert [row["role"] for row in told["providers"]] == ["p1", "p2"]
        first = told["providers"][0]
        with RemoteUpstreams(told["control"]["url"], "mine") as remote:
            nonce = new_nonce()
            remote.script(nonce, first["id"], [Act(status=503)])
            body = {"model": first["model"], "messages": [{"role": "user", "content": nonce}]}
            key = {"Authorization": f"Bearer {first['key']}"}
            url = first["endpoint"] + "/chat/completions"
            answers = [httpx.post(url, json=body, headers=key, trust_env=False) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [503, 200]
            assert len(remote.attempts(nonce)) == 2
        process.send_signal(sign)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_fleet_file_seeds_and_ports(tmp_path, capsys, monkeypatch):
    import threading

    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: True)
    file = tmp_path / "fleet.yaml"
    rows = [
        {"role": "cheap", "price": 0.001, "key": "sk-mine", "id": "one", "upstream_model": "m"},
        {"dialect": "anthropic", "reach": "refused"},
    ]
    file.write_text(yaml.safe_dump({"providers": rows}))
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        port = 20000 + os.getpid() % 12000
        words = ["--fleet", str(file), "--seed", "5", "--port", str(port), "--count", "1"]
        assert main(words) == 0
        told = yaml.safe_load(capsys.readouterr().out)
        first, second, third = told["providers"]
        assert (first["id"], first["key"], first["model"]) == ("one", "sk-mine", "m")
        assert first["endpoint"] == f"http://127.0.0.1:{port}/v1"
        assert (second["dialect"], second["reach"]) == ("anthropic", "refused")
        assert third["endpoint"].endswith(f":{port + 2}/v1")
        assert main(words) == 0
        again = yaml.safe_load(capsys.readouterr().out)
        assert again["providers"] == told["providers"]
    finally:
        for name, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(name, handler)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--count", "-1"], "--count"),
        (["--count", "many"], "--count"),
        (["--port", "70000"], "--port 70000"),
        (["--port", "65535", "--count", "2"], "no room"),
        (["--fleet", "/nowhere.yaml"], "No such file"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_one_line(words, reason, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert reason in error


@pytest.mark.parametrize(
    "text", ["{", "just words", "- 1", "- {fake: 1}", "- {dialect: latin}", "- {reach: far}"]
)
def test_wrong_fleet_files(text, tmp_path, capsys):
    file = tmp_path / "fleet.yaml"
    file.write_text(text)
    assert main(["--fleet", str(file)]) == 2
    assert "--fleet" in capsys.readouterr().err


def test_a_fleet_file_may_be_json():
    assert read_fleet('[{"role": "a"}]') == [{"role": "a"}]


def test_a_port_in_use_is_told(stage, capsys):
    port = stage["a"].endpoint.split(":")[2][:-3]
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert main(["--port", port]) == 3
    finally:
        for name, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(name, handler)
    assert "cannot listen" in capsys.readouterr().err


def run_in(folder, command):
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


FOREIGN = """
import json
from urllib.request import Request, urlopen

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Fake


def ask(actor, nonce):
    body = {"model": actor.upstream_model}
    body["messages"] = [{"role": "user", "content": nonce}]
    headers = {"Authorization": f"Bearer {actor.key}", "Content-Type": "application/json"}
    url = actor.endpoint + "/chat/completions"
    return urlopen(Request(url, json.dumps(body).encode(), headers))


def test_mine(aiproxy_upstreams):
    fakes = aiproxy_upstreams(a=Fake(), b=Fake())
    case = fakes.case()
    case.script("a", Act(text="mine"))
    with ask(fakes["a"], case.nonce) as first, ask(fakes["b"], case.nonce) as second:
        assert b"mine" in first.read()
        text = second.read().decode()
    assert case.proof("b") in text
    assert case.origin(text) == "b"
    assert case.order() == ("a", "b")
"""


def test_the_fixture_in_a_foreign_project(tmp_path):
    (tmp_path / "test_mine.py").write_text(FOREIGN)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = run_in(tmp_path, command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_an_unused_fixture_loads_nothing(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import sys\n\n\ndef test_it():\n    assert 'aiproxy.conformance' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = run_in(tmp_path, command)
    assert done.returncode == 0, done.stdout + done.stderr
