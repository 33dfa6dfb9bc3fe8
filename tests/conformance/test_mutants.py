"""The grader is graded: a right server is green, and each defect turns exactly its check red."""

import pytest
from right_server import KEY, RightServer, liar

from aiproxy.conformance import Options, Report, Status, run
from aiproxy.conformance.checks import catalogue
from aiproxy.conformance.scoring import may_fail, rows, scored

# Each defect and the one check that must notice it. Scored checks turn red, the others warn.
MUTANTS = {
    "models-no-created": "AIP-API-019",
    "models-object": "AIP-API-019",
    "models-twice": "AIP-API-019",
    "lists-a-ghost": "AIP-API-019",
    "model-entry-missing": "AIP-API-024",
    "needs-x-ai": "XAI-HDR-001",
    "chat-500": "AIP-API-001",
    "chat-html": "AIP-API-001",
    "chat-text-plain": "AIP-API-001",
    "role-bot": "AIP-API-001",
    "no-id": "AIP-API-001",
    "usage-text": "AIP-API-003",
    "decision-headers": "XAI-PRIN-006",
    "unknown-x-ai-400": "XAI-HDR-006",
    "unknown-field-500": "XAI-COMPAT-020",
    "no-response-format": "XAI-AUTO-022",
    "no-utf8": "XAI-COMPAT-021",
    "latin-1": "XAI-COMPAT-021",
    "no-turns-ok": "AIP-API-009",
    "any-role": "AIP-API-009",
    "deep-500": "AIP-API-040",
    "deep-drops": "AIP-API-040",
    "no-done": "XAI-STREAM-006",
    "chunk-object": "XAI-STREAM-006",
    "chunk-ids": "XAI-STREAM-006",
    "no-delta": "XAI-STREAM-006",
    "no-finish": "XAI-STREAM-006",
    "stream-media-type": "XAI-STREAM-006",
    "error-detail": "XAI-COMPAT-003",
    "error-no-param": "XAI-COMPAT-003",
    "error-html": "XAI-COMPAT-003",
    "bad-json-422": "XAI-COMPAT-004",
    "any-model": "XAI-COMPAT-005",
    "unknown-model-400": "XAI-COMPAT-005",
    "no-messages-ok": "XAI-COMPAT-006",
    "unnamed-field": "XAI-COMPAT-006",
    "messages-text-ok": "XAI-COMPAT-007",
    "temperature-any": "XAI-COMPAT-007",
    "any-method": "XAI-COMPAT-008",
    "media-type-500": "XAI-COMPAT-008",
    "needs-user-agent": "XAI-PRIN-008",
    "any-key": "XAI-COMPAT-010",
    "key-403": "XAI-COMPAT-010",
    "scheme-case": "XAI-COMPAT-010",
    "echo-keys": "XAI-COMPAT-010",
    "wrong-total": "XAI-COMPAT-016",
    "milliseconds": "XAI-COMPAT-017",
    "same-id": "XAI-COMPAT-018",
    "index-1": "XAI-COMPAT-019",
    "end-turn": "XAI-COMPAT-019",
    "unknown-path-500": "AIP-API-035",
    "health-500": "AIP-API-036",
    "completions-object": "UNI-API-002",
    "crash-on-head": "XAI-COMPAT-022",
    "close-each-connection": "XAI-COMPAT-022",
    "no-chunked-requests": "XAI-COMPAT-022",
    "two-lengths": "XAI-COMPAT-022",
    "no-request-id": "AIP-API-037",
    "same-request-id": "AIP-API-037",
    "stream-any": "XAI-STREAM-018",
}
# Nothing can be said about chats when the first is not answered: these block, and block only them.
BLOCKING = {"chat-500", "chat-html", "needs-x-ai"}
# A defect may be told by a warning on a scored check: the OpenAI API leaves that much freedom.
TOLERATED = {
    "no-usage": "AIP-API-003",
    "no-model-ok": "XAI-COMPAT-006",
    "no-allow": "XAI-COMPAT-008",
    "no-challenge": "XAI-COMPAT-010",
}


CANNED = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":'
    b'[{"index":0,"message":{"role":"assistant","content":"ok"},"finish_reason":"stop"}],'
    b'"data":[{"id":"m","object":"model","created":1,"owned_by":"x"}]}'
)


def graded(*defects: str, level: int = 2, seed: int = 7) -> Report:
    with RightServer(*defects, key=KEY) as server:
        return run(server.url, Options(api_key=KEY, level=level, seed=seed))


def with_status(report: Report, *statuses: Status) -> set[str]:
    return {r.check for r in report.results if r.status in statuses and not r.derived_from}


def test_a_right_server_proves_level_1_without_a_warning():
    report = graded(level=1)
    assert (report.grade.level, report.grade.warnings, report.exit_code) == (1, 0, 0)
    assert {s.state for s in report.grade.steps[1:]} == {"not-measured"}


def test_an_open_server_proves_level_1_and_is_recorded_as_open():
    with RightServer() as server:
        report = run(server.url, Options(seed=7))
    assert report.grade.level == 1
    assert with_status(report, Status.UNSUPPORTED) == {"XAI-COMPAT-010"}


def test_an_honest_refusal_of_optional_routes_is_unsupported():
    report = graded("no-completions", "no-health", level=1)
    assert with_status(report, Status.UNSUPPORTED) == {"UNI-API-002", "AIP-API-036"}
    assert report.exit_code == 0


@pytest.mark.parametrize("defect", MUTANTS)
def test_a_defect_turns_exactly_its_check_red(defect: str):
    report = graded(defect)
    expected = MUTANTS[defect]
    rows = {row.id: row for scenario in catalogue() for row in scenario.checks}
    status = Status.FAIL if may_fail(rows[expected]) else Status.WARN
    others = {Status.FAIL, Status.WARN, Status.HARNESS_ERROR, Status.UNREACHABLE}
    assert {expected: status} == {
        r.check: r.status for r in report.results if r.status in others and not r.derived_from
    }
    assert bool(with_status(report, Status.NOT_TESTABLE)) == (defect in BLOCKING)
    assert report.grade.level == (0 if expected in scored()[1] else 1)


@pytest.mark.parametrize("defect", TOLERATED)
def test_what_the_openai_api_leaves_open_is_a_warning(defect: str):
    report = graded(defect, level=1)
    assert with_status(report, Status.WARN) == {TOLERATED[defect]}
    assert report.grade.level == 1


def test_every_check_has_a_mutant_that_kills_it():
    """Those that need upstreams of the suite are killed in ``test_router_mutants``."""
    assert {row.id for row in rows(5)} == set(MUTANTS.values())
    assert set(scored()[1]) <= set(MUTANTS.values())


@pytest.mark.parametrize(
    ("status", "content", "media"),
    [
        (
            200,
            CANNED,
            "application/json",
        ),
        (200, b"{}", "application/json"),
        (200, b"<html><h1>Welcome</h1></html>", "text/html"),
        (404, b"<html><h1>Not Found</h1></html>", "text/html"),
        (500, b"<html><h1>Error</h1></html>", "text/html"),
        (
            401,
            b'{"error":{"message":"no","type":"x","param":null,"code":null}}',
            "application/json",
        ),
        (200, b"\xff\xfe", "application/json"),
    ],
)
def test_a_server_with_one_answer_for_everything_reaches_no_level(
    status: int, content: bytes, media: str
):
    with RightServer(handler=liar(status, content, media)) as server:
        report = run(server.url, Options(seed=7))
    assert (report.grade.level, report.exit_code) == (0, 1)
    assert not with_status(report, Status.HARNESS_ERROR, Status.UNREACHABLE)


def test_ten_seeds_give_one_grade():
    for seed in range(10):
        report = graded(seed=seed, level=1)
        assert (report.grade.level, report.grade.warnings) == (1, 0), report.red


def test_a_seed_repeats_the_same_requests():
    sent = []
    for _ in range(2):
        with RightServer() as server:
            run(server.url, Options(seed=11))
            sent.append(server.log)
    assert sent[0] == sent[1]


def test_one_check_alone_sends_what_it_sends_in_the_whole_run():
    logs = []
    for checks in ((), ("XAI-COMPAT-020",)):
        with RightServer() as server:
            report = run(server.url, Options(seed=11, checks=checks))
            logs.append(server.log)
    assert [r.check for r in report.results] == ["XAI-COMPAT-020"]
    assert len(logs[1]) < len(logs[0])
    assert set(logs[1]) <= set(logs[0])
