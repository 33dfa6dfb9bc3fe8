"""The modes on the command line and in pytest: launched, configured by hand, from a manifest."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from ports import free_base

from aiproxy.conformance import cli_main
from aiproxy.conformance.planning import home, world_of
from aiproxy.conformance.scoring import CONTROLLED, rows
from aiproxy.spec import validate

BASE = free_base()

HERE = Path(__file__).parent
SCRIPT = HERE / "pass_through.py"
LAUNCH = f"{sys.executable} {SCRIPT} {{config}} {{port}}"
CHAT, BOOLEAN = "AIP-API-001", "XAI-STREAM-018"


def pytest_run(project: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in ``project`` with the plugin and xdist alone."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "AIPROXY"))}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    words = ["-q", "-p", "pytest_aiproxy", "-p", "xdist.plugin", "-W", "error", *args]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        check=False, cwd=project, env=environment, capture_output=True, text=True, timeout=90,
    )  # fmt: skip


def test_a_launched_target_is_controlled_and_both_sides_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["--launch", LAUNCH, "--check", CHAT, "--seed", "7", "--report-dir", str(tmp_path), "-v"]
    assert cli_main(args) == 0
    told = capsys.readouterr().out
    assert "mode: controlled" in told
    assert "POST /v1/chat/completions" in told
    assert "answered 200" in told
    assert "sk-fake-" not in told
    report = json.loads((tmp_path / "report.json").read_text())
    validate(report, "report")
    assert report["mode"] == "controlled"
    for file in tmp_path.iterdir():
        assert "sk-fake-" not in file.read_text()


def test_the_command_that_repeats_a_check_is_complete(capsys: pytest.CaptureFixture[str]):
    template = str(HERE / "no such template.yaml")
    assert cli_main(["--launch", LAUNCH, "--config-for", template]) == 2
    assert "neither aiproxy" in capsys.readouterr().err
    assert cli_main(["--launch", LAUNCH, "--check", BOOLEAN, "--seed", "7"]) == 0
    ran = cli_main(["--launch", LAUNCH, "--check", "XAI-HDR-070", "--seed", "7"])
    told = capsys.readouterr().out
    assert ran == 1
    assert f"aiproxy conformance --launch '{LAUNCH}' --check XAI-HDR-070 --seed 7 -v" in told


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_pytest_launches_the_target_itself(tmp_path: Path, workers: tuple[str, ...]):
    checks = ("--check", CHAT, "--check", BOOLEAN, "--check", "XAI-COMPAT-005")
    ran = pytest_run(
        tmp_path, "--launch", LAUNCH, *checks, "--seed", "7", "-v", "-v", *workers,
        "--report-dir", "reports",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mode: controlled  seed: 7  worlds: plain, base" in ran.stdout
    assert "answered 200" in ran.stdout
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    validate(report, "report")
    assert {result["status"] for result in report["results"]} <= {"pass", "warn"}
    assert {world["name"] for world in report["worlds"]} == {"plain", "base"}


def test_pytest_says_in_one_place_when_nothing_starts(tmp_path: Path):
    ran = pytest_run(
        tmp_path, "--launch", f"{sys.executable} -c 'exit(9)' {{config}}", "--check", CHAT
    )
    assert ran.returncode == 3, ran.stdout + ran.stderr
    assert "the target ended with status 9" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


def test_pytest_reads_a_manifest(tmp_path: Path):
    manifest = {"launch": LAUNCH, "implementation": "pass-through", "version": "1"}
    (tmp_path / "aiproxy-target.yaml").write_text(yaml.safe_dump(manifest))
    ran = pytest_run(tmp_path, "--manifest", "aiproxy-target.yaml", "--check", CHAT, "-n", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mode: controlled" in ran.stdout
    (tmp_path / "aiproxy-target.yaml").write_text("levl: 2")
    ran = pytest_run(tmp_path, "--manifest", "aiproxy-target.yaml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(
        "aiproxy-target.yaml:1: levl: not a known key here; did you mean level?\n"
    )


@contextlib.contextmanager
def served(config: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(config), str(port)])
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
                break
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_target_configured_by_hand_is_found_through_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli_main(["init", "--dir", str(tmp_path), "--port-base", str(BASE), "--seed", "5"]) == 0
    told = capsys.readouterr().out.splitlines()
    manifest = tmp_path / "aiproxy-target.yaml"
    assert told[-1].startswith(f"aiproxy conformance --manifest {manifest}")
    plain, base = (tmp_path / f"aiproxy-{name}.yaml" for name in ("plain", "base"))
    for file in (plain, base):
        validate(yaml.safe_load(file.read_text()), "config")
    args = ["--manifest", str(manifest), "--check", CHAT, "--check", BOOLEAN]
    with served(plain, BASE), served(base, BASE + 1):
        assert cli_main(args) == 0
        assert "mode: controlled  seed: 5" in capsys.readouterr().out
        assert cli_main([*args, "--seed", "6"]) == 2
        assert "configured for seed 5" in capsys.readouterr().err
    with served(plain, BASE):
        assert cli_main(args) == 1
        assert f"NOT-TESTABLE  {BOOLEAN}" in capsys.readouterr().out


def test_a_check_that_no_target_was_named_for_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli_main(["init", "--dir", str(tmp_path), "--port-base", str(BASE)]) == 0
    capsys.readouterr()
    manifest = str(tmp_path / "aiproxy-target.yaml")
    elsewhere = next(
        row.id for row in rows(2, CONTROLLED)
        if world_of(home()[row.id], CONTROLLED).name not in ("plain", "base")
    )  # fmt: skip
    with (
        served(tmp_path / "aiproxy-plain.yaml", BASE),
        served(tmp_path / "aiproxy-base.yaml", 21401),
    ):
        assert cli_main(["--manifest", manifest, "--check", elsewhere]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("RESULT: nothing was looked at: ")
    assert "no target was named for world" in last


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--port-base", "65535"], 2, "--port-base"),
        (["--port-base", "x"], 2, "--port-base"),
        (["--for", "litelm"], 2, "did you mean litellm?"),
        (["--world", "nowhere"], 2, "there are plain, base"),
        (["--dir", "/proc/nowhere"], 1, "--dir /proc/nowhere"),
    ],
)
def test_what_init_cannot_do_is_one_line(
    args: list[str], status: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli_main(["init", "--dir", str(tmp_path), "--port-base", str(BASE), *args]) == status
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize("target", ["litellm", "portkey"])
def test_init_writes_for_others_too(target: str, tmp_path: Path):
    where = ["--dir", str(tmp_path), "--port-base", str(BASE)]
    assert cli_main(["init", "--for", target, *where]) == 0
    files = sorted(file.name for file in tmp_path.iterdir())
    assert len(files) == 3
    assert "aiproxy-target.yaml" in files


def test_a_template_serves_the_worlds_it_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    template = tmp_path / "gateway.yaml"
    template.write_text(
        "routing: {default_provider: {default.id}}\n"
        "providers:\n"
        "# each provider\n"
        "  {id}:\n"
        "    endpoint: {endpoint}\n"
        "    credentials: {api_key: {key}}\n"
        "    models: [{name: {model}, model: {upstream_model}}]\n"
        "# end each\n"
    )
    args = ["--launch", LAUNCH, "--config-for", str(template), "--seed", "7"]
    assert cli_main([*args, "--check", CHAT, "--check", BOOLEAN]) == 0
    assert "2 pass" in capsys.readouterr().out
