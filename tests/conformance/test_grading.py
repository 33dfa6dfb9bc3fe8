"""The grade as a function of results, and the register behind the checks."""

import pytest

from aiproxy.conformance.checks import DERIVED, catalogue
from aiproxy.conformance.grading import grade
from aiproxy.conformance.results import Finding, Result, Status, result_from_json, settle, worst
from aiproxy.conformance.scoring import not_observed, scored
from aiproxy.spec import requirement, requirements

SCORED = {1: ("A-1", "A-2"), 2: ("B-1",)}


def results(**statuses: str) -> list[Result]:
    return [
        Result(name.replace("_", "-"), 1, "MUST", "", "", Status(status))
        for name, status in statuses.items()
    ]


@pytest.mark.parametrize(
    ("given", "level", "states"),
    [
        ({"A_1": "pass", "A_2": "pass"}, 1, ["proven", "not-measured"]),
        ({"A_1": "pass", "A_2": "warn"}, 1, ["proven", "not-measured"]),
        ({"A_1": "pass", "A_2": "unsupported"}, 1, ["proven", "not-measured"]),
        ({"A_1": "unsupported", "A_2": "unsupported"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "fail"}, 0, ["failed", "not-measured"]),
        ({"A_1": "pass", "A_2": "inconclusive"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "not-testable"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "not-run"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "harness-error"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "unreachable"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "pass", "B_1": "pass"}, 2, ["proven", "proven"]),
        ({"A_1": "fail", "A_2": "pass", "B_1": "pass"}, 0, ["failed", "proven"]),
        ({}, 0, ["not-measured", "not-measured"]),
    ],
)
def test_a_level_needs_every_scored_check_of_it_and_below(
    given: dict[str, str], level: int, states: list[str]
):
    found = grade(results(**given), SCORED)
    assert (found.level, [step.state for step in found.steps[:2]]) == (level, states)


def test_what_blocks_is_named():
    assert grade(results(A_1="pass", A_2="fail"), SCORED).blocking == ("A-2",)


def test_the_worst_finding_decides_and_says_why():
    findings = [
        Finding("A-1", Status.PASS, "one"),
        Finding("A-1", Status.WARN, "two", "x", "y"),
        Finding("A-1", Status.FAIL, "three", "x", "y"),
    ]
    assert settle(findings) == (Status.FAIL, "three: expected x, found y")
    assert settle([]) == (Status.HARNESS_ERROR, "the check reported nothing")
    assert worst([]) is Status.NOT_RUN


def test_a_result_survives_json():
    finding = Finding("A-1", Status.FAIL, "fact", "x", "y", "gw0-1", True)
    result = Result(
        "A-1", 1, "MUST", "t", "c", Status.FAIL, True, "r", (finding,), ("B-1",), 3, 0.5
    )
    assert result_from_json(result.as_json()) == result


def test_every_check_agrees_with_its_row_in_the_register():
    rows = [row for scenario in catalogue() for row in scenario.checks]
    assert len(rows) >= 32
    for row in (*rows, *DERIVED):
        register = requirement(row.id)
        assert (row.level, row.keyword) == (register.level, register.adopt), row.id


def test_every_dependency_is_a_check_that_runs_earlier():
    seen: set[str] = set()
    for scenario in catalogue():
        assert set(scenario.depends_on) <= seen, scenario.name
        seen |= {row.id for row in scenario.checks}


def test_every_level_1_requirement_is_checked_derived_or_excluded_with_a_reason():
    checked = {row.id for scenario in catalogue() for row in scenario.checks}
    told = checked | {row.id for row in DERIVED}
    excluded = {result.check: result.reason for result in not_observed(1)}
    assert all(excluded.values())
    wanted = {row.id for row in requirements() if row.level == 1 and not row.stretch}
    assert wanted <= told | set(excluded)
    assert not told & set(excluded)
    silent = {"XAI-SEC-002", "UNI-STAT-004", "UNI-STAT-006", "AIP-LEVEL-001"}
    black_box = {
        row.id for row in requirements() if row.id in wanted and row.observable == "black-box"
    }
    assert black_box - told == silent


def test_no_house_rule_scores():
    assert all(requirement(check).origin != "house" for check in scored()[1])
