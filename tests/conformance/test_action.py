"""The files for other people's CI: they parse, and the options they use exist."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiproxy.conformance import cli_main

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "conformance" / "action"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


@pytest.fixture
def options(capsys: pytest.CaptureFixture[str]) -> set[str]:
    assert cli_main(["--help"]) == 0
    return set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


def grade_step() -> dict[str, Any]:
    steps = read("action.yml")["runs"]["steps"]
    return next(step for step in steps if step["name"] == "grade")


def test_the_action_is_composite_and_uses_options_that_exist(options: set[str]):
    action = read("action.yml")
    assert action["runs"]["using"] == "composite"
    assert all(step["shell"] == "bash" for step in action["runs"]["steps"])
    used = set(re.findall(r"--[a-z-]+", grade_step()["run"]))
    assert used <= options
    assert {option.removeprefix("--") for option in used} <= set(action["inputs"])
    assert all(entry["description"] for entry in action["inputs"].values())


def test_no_input_becomes_part_of_a_script():
    action = read("action.yml")
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]
    named = {
        name
        for step in action["runs"]["steps"]
        for value in step["env"].values()
        for name in re.findall(r"inputs\.([a-z-]+)", value)
    }
    assert named == set(action["inputs"])


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"URL": "http://x"}, ["--report-dir", "r", "http://x"]),
        ({"MANIFEST": "a t.yaml"}, ["--report-dir", "r", "--manifest", "a t.yaml"]),
        (
            {"LAUNCH": "run {config} 'a b'", "LEVEL": "2", "SEED": "7", "BASELINE": "k n.txt"},
            ["--report-dir", "r", "--level", "2", "--launch", "run {config} 'a b'",
             "--baseline", "k n.txt", "--seed", "7"],
        ),
    ],
)  # fmt: skip
def test_the_script_hands_the_inputs_over(tmp_path: Path, env: dict[str, str], words: list[str]):
    command = tmp_path / "aiproxy"
    command.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    command.chmod(command.stat().st_mode | stat.S_IEXEC)
    empty = dict.fromkeys(grade_step()["env"], "")
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", grade_step()["run"]],
        env={**empty, "REPORT_DIR": "r", **env, "PATH": path},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["conformance", *words]


def test_the_script_grades_a_gateway_that_it_starts(tmp_path: Path):
    launch = f"{sys.executable} {HERE / 'pass_through.py'} {{config}} {{port}}"
    inputs = {"LAUNCH": launch, "LEVEL": "1", "SEED": "7", "REPORT_DIR": str(tmp_path / "r")}
    here = Path(sys.executable).parent
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", grade_step()["run"]],
        env={
            **dict.fromkeys(grade_step()["env"], ""), **inputs,
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
        },
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "mode: controlled  seed: 7" in ran.stdout
    assert {"report.html", "junit.xml"} <= {file.name for file in (tmp_path / "r").iterdir()}


def test_the_workflow_gives_inputs_that_the_action_has():
    job = read("workflow.yml")["jobs"]["grade"]
    step = next(step for step in job["steps"] if step.get("uses") == "./conformance/action")
    assert set(step["with"]) <= set(read("action.yml")["inputs"])


def test_the_gitlab_job_uses_options_that_exist(options: set[str]):
    job = read("gitlab-ci.yml")["conformance"]
    command = next(line for line in job["script"] if line.startswith("aiproxy conformance"))
    inside = re.sub(r"'[^']*'", "", command)  # what is quoted belongs to the gateway
    assert set(re.findall(r"--[a-z-]+", inside)) <= options
    assert job["artifacts"]["reports"]["junit"] == "reports/junit.xml"
