"""The grade as a function of results, and the register behind the checks."""

from graphlib import TopologicalSorter

import pytest

from aiproxy.conformance.checks import catalogue, derived_rows
from aiproxy.conformance.grading import Grade, grade
from aiproxy.conformance.profiles import core_of, profile_grades, profile_rows
from aiproxy.conformance.results import (
    DEPENDENCY,
    SETUP,
    Finding,
    Result,
    Status,
    result_from_json,
    settle,
    worst,
)
from aiproxy.conformance.scoring import (
    CONTROLLED,
    MODES,
    OBSERVE,
    levels_digest,
    may_fail,
    may_refuse,
    not_observed,
    rows,
    scored,
)
from aiproxy.conformance.scoring import graded as graded_by_mode
from aiproxy.spec import freeze, profiles, requirement

SCORED = {1: ("A-1", "A-2"), 2: ("B-1",)}
OPTIONAL = frozenset({"A-2"})


def results(**statuses: str) -> list[Result]:
    return [
        Result(name.replace("_", "-"), 1, "MUST", "", "", Status(status))
        for name, status in statuses.items()
    ]


def graded(claimed: int = 0, **statuses: str) -> Grade:
    return grade(results(**statuses), SCORED, OPTIONAL, claimed)


@pytest.mark.parametrize(
    ("given", "level", "states"),
    [
        ({"A_1": "pass", "A_2": "pass"}, 1, ["proven", "not-measured"]),
        ({"A_1": "pass", "A_2": "warn"}, 1, ["proven", "not-measured"]),
        ({"A_1": "pass", "A_2": "unsupported"}, 1, ["proven", "not-measured"]),
        ({"A_1": "unsupported", "A_2": "pass"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "unsupported", "A_2": "unsupported"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "fail"}, 0, ["failed", "not-measured"]),
        ({"A_1": "pass", "A_2": "inconclusive"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "not-testable"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "not-run"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "harness-error"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "unreachable"}, 0, ["unproven", "not-measured"]),
        ({"A_1": "pass", "A_2": "pass", "B_1": "pass"}, 2, ["proven", "proven"]),
        ({"A_1": "pass", "A_2": "pass", "B_1": "fail"}, 1, ["proven", "failed"]),
        ({"A_1": "fail", "A_2": "pass", "B_1": "pass"}, 0, ["failed", "unproven"]),
        ({"A_1": "not-run", "A_2": "not-run", "B_1": "pass"}, 0, ["not-measured", "unproven"]),
        ({}, 0, ["not-measured", "not-measured"]),
    ],
)
def test_a_level_needs_every_scored_check_of_it_and_below(
    given: dict[str, str], level: int, states: list[str]
):
    found = graded(**given)
    assert (found.level, [step.state for step in found.steps[:2]]) == (level, states)
    assert {step.state for step in found.steps[2:]} == {"not-measured"}


def test_a_refusal_of_everything_proves_nothing():
    found = grade(results(A_2="unsupported"), {1: ("A-2",)}, OPTIONAL)
    assert (found.level, found.steps[0].state, found.blocking) == (0, "unproven", ("A-2",))


def test_what_blocks_is_named_and_what_failed_comes_first():
    assert graded(A_1="pass", A_2="fail").blocking == ("A-2",)
    assert graded(A_1="inconclusive", A_2="fail").blocking == ("A-2", "A-1")
    assert graded(A_1="pass", A_2="pass", B_1="fail").blocking == ("B-1",)
    assert graded(A_1="pass", A_2="pass", B_1="pass").blocking == ()


def test_a_missing_prerequisite_fails_a_level_that_is_claimed():
    given = {"A_1": "pass", "A_2": "not-testable"}
    assert graded(0, **given).steps[0].state == "unproven"
    assert graded(1, **given).steps[0].state == "failed"


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
    finding = Finding("A-1", Status.FAIL, "fact", "x", "y", "gw0-1", True, SETUP)
    result = Result(
        "A-1", 1, "MUST", "t", "c", Status.FAIL, True, "r", (finding,), ("B-1",), 3, 0.5, "base"
    )
    assert result_from_json(result.as_json()) == result


@pytest.mark.parametrize(
    ("status", "findings", "cause"),
    [
        (Status.FAIL, [(Status.FAIL, "")], ""),
        (Status.NOT_TESTABLE, [(Status.NOT_TESTABLE, DEPENDENCY)], "dependency"),
        (Status.NOT_TESTABLE, [(Status.PASS, ""), (Status.NOT_TESTABLE, SETUP)], "setup"),
        (Status.FAIL, [(Status.FAIL, ""), (Status.NOT_TESTABLE, SETUP)], ""),
        (Status.HARNESS_ERROR, [], "harness"),
    ],
)
def test_setup_dependency_and_own_fault_are_kept_apart(
    status: Status, findings: list[tuple[Status, str]], cause: str
):
    found = tuple(Finding("A-1", s, "fact", cause=c) for s, c in findings)
    assert Result("A-1", 1, "MUST", "", "", status, findings=found).cause == cause


def test_every_check_agrees_with_its_row_in_the_register():
    every = [row for scenario in catalogue() for row in scenario.checks]
    assert len(every) >= 32
    for row in (*every, *derived_rows()):
        register = requirement(row.id)
        assert (row.level, row.keyword) == (register.level, register.adopt), row.id


def test_every_dependency_is_a_check_and_none_leads_back():
    needs = {row.id: set(s.depends_on) for s in catalogue() for row in s.checks}
    order = TopologicalSorter(needs)
    assert set(order.static_order()) == set(needs)


def test_above_level_1_a_url_scores_nothing():
    assert set(scored(OBSERVE)) == {1}
    assert set(scored(CONTROLLED)) == {1, 2, 3, 4, 5}
    assert set(scored(OBSERVE)[1]) <= set(scored(CONTROLLED)[1])


def test_a_url_refutes_a_level_and_never_proves_it():
    def states(status: Status) -> tuple[str, tuple[str, ...]]:
        step = graded_by_mode([Result("XAI-STREAM-018", 2, "MUST", "", "", status)], OBSERVE).steps
        return step[1].state, step[1].blocking

    assert states(Status.PASS) == ("not-measured", ())
    assert states(Status.FAIL) == ("failed", ("XAI-STREAM-018",))
    assert states(Status.NOT_TESTABLE) == ("not-measured", ())


def test_what_scores_is_frozen_and_may_fail_and_is_not_set_aside():
    frozen = freeze()
    checks = {row.id: row for scenario in catalogue() for row in scenario.checks}
    for mode in MODES:
        for level, ids in scored(mode).items():
            assert set(ids) <= set(frozen.levels[level]) - set(frozen.not_scored)
            assert all(may_fail(checks[name]) for name in ids)
            assert all(requirement(name).origin != "house" for name in ids)


def test_every_frozen_must_with_a_check_scores_when_the_suite_has_control():
    frozen = freeze()
    for scenario in catalogue():
        for row in scenario.checks:
            wanted = may_fail(row) and row.id in frozen.levels[row.level]
            assert (row.id in scored(CONTROLLED)[row.level]) == wanted, row.id


def test_what_a_url_cannot_show_is_not_run_with_a_reason():
    for mode in MODES:
        told = {result.check: result for result in not_observed(5, mode)}
        asked = {row.id for row in rows(5, mode)}
        assert not asked & set(told)
        assert all(result.reason and result.status is Status.NOT_RUN for result in told.values())
    hidden = {row.id for row in rows(5, CONTROLLED)} - {row.id for row in rows(5, OBSERVE)}
    told = {result.check: result.reason for result in not_observed(5, OBSERVE)}
    assert {told[name] for name in hidden} == {
        "needs upstreams that the suite controls (mode controlled)"
    }


def test_a_feature_of_a_check_is_frozen_with_its_reason():
    named = {row.feature for scenario in catalogue() for row in scenario.checks if row.feature}
    assert named == set(freeze().features)
    assert set(freeze().may_refuse) <= may_refuse()


def test_the_digest_is_of_the_lists():
    assert levels_digest().startswith("sha256:")
    assert len(levels_digest()) == 71


def of_profile(name: str, **odd: str) -> list[Result]:
    """A pass for every check of the profile but those in ``odd``."""
    return [
        Result(row.id, row.level, row.keyword, "", "", Status(odd.get(row.id, "pass")))
        for row in profile_rows(name)
    ]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("pass", "proven"),
        ("fail", "failed"),
        ("inconclusive", "unproven"),
        ("not-run", "unproven"),
        ("unsupported", "unproven"),
    ],
)
def test_a_profile_is_decided_by_its_core(status: str, state: str):
    name = core_of("draft-core")[0]
    if name in may_refuse():
        pytest.skip("a row that may be refused")
    found = profile_grades(of_profile("draft-core", **{name: status}), CONTROLLED)
    by_name = {profile.name: profile for profile in found}
    assert by_name["draft-core"].state == state
    assert by_name["draft-core"].blocking == (() if state == "proven" else (name,))
    assert by_name["workflow"].state == "not-measured"


def test_softer_rows_of_a_profile_are_counted_and_decide_nothing():
    soft = next(row.id for row in profile_rows("draft-core") if row.keyword == "SHOULD")
    found = profile_grades(of_profile("draft-core", **{soft: "warn"}), CONTROLLED)[0]
    assert (found.state, found.extended.failed) == ("proven", (soft,))
    assert soft not in found.core.passed


@pytest.mark.parametrize(
    ("status", "state"), [("pass", "proven"), ("warn", "failed"), ("not-run", "unproven")]
)
def test_a_softer_row_that_a_profile_demands_decides_it(status: str, state: str):
    given = [
        Result(name, 3, "SHOULD", "", "", Status(status if number == 0 else "pass"))
        for number, name in enumerate(reversed(core_of("ensemble")))
    ]
    found = {profile.name: profile for profile in profile_grades(given, CONTROLLED)}
    assert found["ensemble"].state == state


def test_a_url_proves_no_profile():
    assert profile_grades(of_profile("draft-core"), OBSERVE)[0].state == "unproven"
    with pytest.raises(ValueError, match="no mode"):
        profile_grades([], "guess")


def test_profiles_cover_families_of_the_register():
    assert set(profiles()) == {"draft-core", "workflow", "security", "ensemble"}
    for profile in profiles().values():
        assert {requirement(name).family for name in profile.members} == set(profile.families)
