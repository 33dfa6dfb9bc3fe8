"""Mode attached: the fake providers are in another process, behind their control port."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pass_through import PassThrough
from ports import free_base

from aiproxy.conformance import Options, Status, cli_main, run
from aiproxy.conformance.launching import free_port

BASE = free_base()

TOKEN = "a-token-of-the-control-port"
CHAT, BOOLEAN = "AIP-API-001", "XAI-STREAM-018"


@pytest.fixture
def control() -> Iterator[str]:
    """Run ``aiproxy conformance upstream`` and give the URL of its control port."""
    code = "import sys; from aiproxy.conformance import cli_main; sys.exit(cli_main(sys.argv[1:]))"
    words = ["upstream", "--count", "0", "--control-port", str(free_port())]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], text=True, stdout=subprocess.PIPE,
        env={**os.environ, "AIPROXY_UPSTREAM_TOKEN": TOKEN},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "url:" in line)
        yield line.partition("url:")[2].strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def launch(config: Path, port: int) -> Iterator[str]:
    with PassThrough(yaml.safe_load(config.read_text()), port) as server:
        yield server.url


def test_a_run_with_providers_elsewhere_shows_both_sides(control: str):
    options = Options(
        seed=7, launcher=launch, control=control, control_token=TOKEN, checks=(CHAT, BOOLEAN)
    )
    for _ in range(2):  # a second run with the same seed meets the same process
        report = run("", options)
        assert (report.mode, report.exit_code) == ("attached", 0)
        chats = [e for e in report.exchanges if "chat/completions" in e.request]
        assert len(chats[0].upstream) == 1
        assert "answered 200" in chats[0].upstream[0]
    text = "".join(text for e in report.exchanges for text in (e.request, *e.upstream))
    assert TOKEN not in text
    assert "sk-fake-" not in text


def test_a_control_port_that_refuses_or_is_not_there_ends_the_run(control: str):
    wrong = Options(launcher=launch, control=control, control_token="wrong", checks=(CHAT,))
    report = run("", wrong)
    assert "control port" in report.unreachable
    assert report.exit_code == 3
    gone = Options(launcher=launch, control=f"http://127.0.0.1:{free_port()}", checks=(CHAT,))
    report = run("", gone)
    assert "control port" in report.unreachable
    assert Status.HARNESS_ERROR not in {result.status for result in report.results}


def test_a_target_wired_by_hand_is_attached_through_its_manifest(
    control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    assert cli_main(["init", "--dir", str(tmp_path), "--port-base", str(BASE), "--seed", "5"]) == 0
    manifest = tmp_path / "aiproxy-target.yaml"
    data = yaml.safe_load(manifest.read_text())
    data["upstreams"] |= {"control": control, "token_env": "THE_TOKEN"}
    manifest.write_text(yaml.safe_dump(data))
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    plain = yaml.safe_load((tmp_path / "aiproxy-plain.yaml").read_text())
    with PassThrough(plain, BASE):
        assert cli_main(["--manifest", str(manifest), "--check", CHAT]) == 0
    assert "mode: attached  seed: 5" in capsys.readouterr().out
