"""Every row of the register is accounted for: looked at, repeating others, or excluded with why."""

import json
import re
from pathlib import Path

import pytest

from aiproxy.conformance import exclusions as excluding
from aiproxy.conformance.checks import catalogue, derived_rows
from aiproxy.conformance.exclusions import exclusions
from aiproxy.conformance.trace import gaps, trace, trace_page
from aiproxy.spec import freeze, requirement, requirements, validate

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "conformance" / "reports" / "aiproxy" / "report.json"
OBSERVABLE = {"black-box", "needs-controlled-upstream"}


def checked() -> set[str]:
    return {row.id for scenario in catalogue() for row in scenario.checks}


def test_every_row_is_looked_at_or_repeats_others_or_is_excluded():
    found = gaps()
    assert not found, "\n".join(("", *found))


def test_every_frozen_must_has_a_check_or_an_exclusion():
    told = checked() | {row.id for row in derived_rows()} | set(exclusions())
    frozen = {name for ids in freeze().levels.values() for name in ids}
    assert sorted(frozen - told) == []


def test_files_that_an_exclusion_names_exist():
    named = {
        path
        for reason in exclusions().values()
        for path in re.findall(r"\b(?:tests|middleware|scripts|docs)/[\w./]*\w", reason)
    }
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_what_is_about_the_implementation_says_so():
    """A row a target could show is not put away as a matter of configuration or code."""
    for name, reason in exclusions().items():
        kind = reason.partition(":")[0]
        if kind in ("configuration", "static", "operational"):
            assert requirement(name).observable not in OBSERVABLE, name


def test_an_exclusion_without_a_reason_or_in_two_files_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(excluding, "FOLDER", tmp_path)
    (tmp_path / "one.yaml").write_text("XAI-HDR-001: ''\nXAI-HDR-002: why\n")
    (tmp_path / "two.yaml").write_text("XAI-HDR-002: why\n")
    (tmp_path / "three.yaml").write_text("# an empty file is fine\n")
    assert list(excluding.faults()) == [
        "XAI-HDR-001: excluded in one.yaml without a reason",
        "XAI-HDR-002: excluded in one.yaml and in two.yaml",
    ]


def test_a_gap_is_told(monkeypatch: pytest.MonkeyPatch):
    known = dict(exclusions())
    name = next(name for name in known if requirement(name).adopt == "MUST")
    seen = next(iter(checked()))
    del known[name]
    changed = {**known, "XAI-NOPE-001": "no such row", seen: "looked at"}
    monkeypatch.setattr("aiproxy.conformance.trace.exclusions", lambda: changed)
    found = gaps()
    assert "XAI-NOPE-001: no such row" in found
    assert f"{seen}: excluded, and a check looks at it" in found
    assert any(line.startswith(f"{name}: level") for line in found)


def test_a_check_counts_when_a_run_reported_it():
    name, other = sorted(checked())[:2]
    rows = {
        traced.row.id: (traced.how, traced.told)
        for traced in trace(
            [
                {"check": name, "status": "fail", "reason": "x"},
                {"check": other, "status": "not-testable", "reason": "no model"},
            ]
        )
    }
    assert len(rows) == len(requirements()) == 925
    assert rows[name] == ("tested", "fail")
    assert rows[other] == ("silent", "not-testable: no model")
    third = sorted(checked())[2]
    assert rows[third] == ("silent", "not part of the run")
    repeated = derived_rows()[0]
    assert rows[repeated.id] == ("repeats", ", ".join(repeated.of))
    excluded = next(iter(exclusions()))
    assert rows[excluded] == ("excluded", exclusions()[excluded])


def test_the_page_has_a_line_for_every_row():
    report = {
        "results": [], "mode": "controlled", "seed": 1, "suite": {"version": "0.1.0"},
        "target": {"url": "http://x", "implementation": "example", "version": "1"},
        "started": "2026-11-21T00:00:00+00:00",
    }  # fmt: skip
    text = trace_page(report)
    assert text == trace_page(report)
    assert len(re.findall(r"^\| `[A-Z]+-[A-Z]+-\d{3}` \|", text, re.MULTILINE)) == 925


def test_the_recorded_run_reported_every_check():
    if not RECORDED.is_file():
        pytest.skip("no run is recorded yet: scripts/build_trace --run")
    report = json.loads(RECORDED.read_bytes())
    validate(report, "report")
    silent = [t.row.id for t in trace(report["results"]) if t.told == "not part of the run"]
    assert silent == [], "record the run again: scripts/build_trace --run"
