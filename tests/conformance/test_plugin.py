"""``pytest --target`` as a stranger meets it: in a subprocess, from a project of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from right_server import KEY, RightServer

from aiproxy.spec import validate

HOSTILE = """
import pytest

def pytest_addoption(parser):
    parser.addoption("--seed", default="theirs")
    parser.addoption("--check", default="theirs")

@pytest.fixture(autouse=True)
def hostile():
    raise RuntimeError("an autouse fixture of the project")
"""
OWN_TEST = """
import sys

def test_own(request):
    assert "aiproxy.conformance" not in sys.modules
    assert request.config.getoption("--seed") == "theirs"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_own.py").write_text(OWN_TEST)
    (tmp_path / "conftest.py").write_text(HOSTILE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ntestpaths = tests\naddopts = --strict-markers --strict-config\n"
    )
    return tmp_path


def pytest_run(
    project: Path, *args: str, plugins: tuple[str, ...] = ("pytest_aiproxy",), first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run pytest in ``project``; without ``plugins`` the entry points load as they do for users."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "AIPROXY"))}
    environment["AIPROXY_API_KEY"] = KEY
    if plugins:
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    chosen = [word for plugin in plugins for word in ("-p", plugin)]
    code = f"import sys{first}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, "-q", *chosen, *args],
        check=False, cwd=project, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_right_target_is_graded_from_a_hostile_project(project: Path):
    with RightServer(key=KEY) as server:
        ran = pytest_run(
            project, "-W", "error", "--target", server.url,
            "--junitxml", "junit.xml", "--report-dir", "reports", plugins=(),
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "RESULT: level 1 proven" in ran.stdout
    assert "levels 2-5: not measured" in ran.stdout
    assert "mode: observe" in ran.stdout
    report = json.loads((project / "reports" / "report.json").read_text())
    validate(report, "report")
    assert (report["level"], report["partial"]) == (1, False)
    cases = ET.parse(project / "junit.xml").getroot().iter("testcase")
    names = {case.get("name") for case in cases}
    assert "AIP-API-001" in names
    assert not any("own" in str(name) for name in names)


def test_workers_of_xdist_add_up_to_the_same_grade(project: Path):
    with RightServer(key=KEY) as server:
        ran = pytest_run(
            project, "-n", "2", "-W", "error", "--target", f"{server.url}/v1",
            "--report-dir", "reports", plugins=("pytest_aiproxy", "xdist.plugin"),
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((project / "reports" / "report.json").read_text())
    validate(report, "report")
    assert report["level"] == 1
    assert report["requests"] <= report["budget"]


def test_a_wrong_target_fails_by_name_and_says_how_to_look_again(project: Path):
    with RightServer("any-model", key=KEY) as server:
        ran = pytest_run(project, "-W", "error", "--target", server.url, "-k", "COMPAT and level1")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "FAIL          XAI-COMPAT-005" in ran.stdout
    assert "--check XAI-COMPAT-005 --seed" in ran.stdout
    assert "Traceback" not in ran.stdout
    assert KEY not in ran.stdout


def test_marks_select_and_one_check_shows_both_sides(project: Path):
    with RightServer(key=KEY) as server:
        ran = pytest_run(
            project, "--aiproxy-target", server.url, "-m", "level(n=1)", "-v", "-v",
            "--aiproxy-check", "XAI-COMPAT-004", "--aiproxy-seed", "5",
        )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "aiproxy::XAI-COMPAT-004 PASSED" in ran.stdout
    assert "> POST /v1/chat/completions HTTP/1.1" in ran.stdout
    assert "seed: 5" in ran.stdout
    assert KEY not in ran.stdout


def test_what_there_is_can_be_listed_without_a_grade(project: Path):
    ran = pytest_run(project, "--launch", "nobody-starts-this {config}", "--collect-only")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "aiproxy::AIP-API-001\n" in ran.stdout
    assert "RESULT" not in ran.stdout


def test_an_unreachable_target_is_one_line_and_status_3(project: Path):
    with RightServer() as server:
        url = server.url
    ran = pytest_run(project, "--target", url)
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith(f"aiproxy: {url} is unreachable: connection failed")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--target", "nonsense"), "the target must be a URL"),
        (("--target", "http://127.0.0.1:1", "--level", "6"), "--level '6'"),
        (("--target", "http://127.0.0.1:1", "--aiproxy-check", "XAI-COMPAT-5"), "did you mean"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(project: Path, args: tuple[str, ...], says: str):
    ran = pytest_run(project, *args)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_without_httpx_one_line_names_the_extra(project: Path):
    ran = pytest_run(
        project, "--target", "http://127.0.0.1:1", first="; sys.modules['httpx'] = None"
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr
        == "aiproxy: the conformance suite needs httpx: pip install 'aiproxy[conformance]'\n"
    )


def test_a_run_without_target_is_not_disturbed(project: Path):
    (project / "conftest.py").write_text(HOSTILE.partition("@pytest.fixture")[0])
    ran = pytest_run(project, "-W", "error", plugins=())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


MEASURED = """
import cProfile, json, pstats, sys
import pytest

profile = cProfile.Profile()
assert profile.runcall(pytest.main, ["-q", "-p", "no:cacheprovider", *sys.argv[1:]]) == 0
print(json.dumps({"modules": sorted(sys.modules), "calls": pstats.Stats(profile).total_calls}))
"""


def measured(project: Path, plugin: str) -> tuple[set[str], int]:
    """The modules of a pytest run with ``plugin``, and how many calls of functions it took.

    Calls in place of time: they are the same on a busy machine. A call is well below 1 µs.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "AIPROXY"))}
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, "--assert=plain", "-p", plugin],
        env={**environment, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(project)},
        check=True, cwd=project, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    told = json.loads(ran.stdout.splitlines()[-1])
    return set(told["modules"]), told["calls"]


def test_a_run_without_target_pays_next_to_nothing(tmp_path: Path):
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    (tmp_path / "an_empty_plugin.py").touch()
    without, before = measured(tmp_path, "an_empty_plugin")
    within, after = measured(tmp_path, "pytest_aiproxy")
    assert within - without == {"pytest_aiproxy"}
    assert after - before < 4000
