"""The files and words of a report: valid, small, told apart, and without a secret."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from controlled import graded
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from aiproxy.conformance.baseline import Baseline
from aiproxy.conformance.checks import catalogue
from aiproxy.conformance.endpoint import Exchange
from aiproxy.conformance.features import seen_features
from aiproxy.conformance.manifest import Target
from aiproxy.conformance.page import page
from aiproxy.conformance.redaction import MASK, Redactor
from aiproxy.conformance.report import Report, WorldRun, cleaned
from aiproxy.conformance.reporting import badge, junit, write
from aiproxy.conformance.results import DEPENDENCY, RED, Finding, Result, Status
from aiproxy.conformance.scoring import CONTROLLED, OBSERVE, scored
from aiproxy.conformance.wording import summary, verdict
from aiproxy.spec import freeze, validate

FILES = {"report.json", "report.yaml", "report.html", "junit.xml", "badge.json"}
AGAIN = "aiproxy conformance URL --check {check} --seed 7 -v"
ROWS = {row.id: row for scenario in catalogue() for row in scenario.checks}
LEVEL_1, LEVEL_2 = scored(CONTROLLED)[1], scored(CONTROLLED)[2]


def result(name: str, status: Status = Status.PASS, *, cause: str = "", fact: str = "a fact"):
    row = ROWS[name]
    finding = Finding(name, status, fact, "b", "a" if status is not Status.PASS else "", "12")
    finding = Finding(**{**_fields(finding), "cause": cause})
    reason = "" if status is Status.PASS else f"{fact}: expected b, found a"
    return Result(
        name, row.level, row.keyword, row.title, row.clause, status, True, reason, (finding,),
        (), 1, 0.1, "base",
    )  # fmt: skip


def _fields(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def report(*results: Result, mode: str = CONTROLLED, **changes) -> Report:
    exchange = Exchange(
        "12", "POST /v1/chat/completions HTTP/1.1\nhost: x\n\n{}", "HTTP/1.1 200 OK\n\n{}", 0.1,
        ("a: POST /chat/completions HTTP/1.1\n\n{}\n-> 503",),
    )  # fmt: skip
    given = {
        "target": "http://127.0.0.1:8080", "seed": 7, "asked": 2, "results": results,
        "exchanges": (exchange,), "started": "2026-11-21T00:00:00+00:00", "seconds": 1.5,
        "budget": 1500, "command": "aiproxy conformance --launch x", "mode": mode,
    }  # fmt: skip
    return Report(**{**given, **changes})


def level(*levels: int, **odd: Status) -> list[Result]:
    """A pass for each scored check of ``levels``, but for those in ``odd``."""
    named = {name.replace("_", "-"): status for name, status in odd.items()}
    return [
        result(name, named.get(name, Status.PASS))
        for number in levels
        for name in scored(CONTROLLED)[number]
    ]


def written(given: Report, folder: Path) -> dict[str, str]:
    write(given, folder)
    return {file.name: file.read_text("utf-8") for file in folder.iterdir()}


MIXED = {LEVEL_2[0].replace("-", "_"): Status.FAIL}


@pytest.mark.parametrize(
    ("given", "says", "code"),
    [
        (report(*level(1, 2)), "level 2 proven; levels 3-5 not measured", 0),
        (report(*level(1), asked=1), "level 1 proven; levels 2-5 not measured", 0),
        (
            report(*level(1, 2, **MIXED)),
            f"level 1 proven; level 2 failed ({LEVEL_2[0]}); levels 3-5 not measured",
            1,
        ),
        (
            report(*level(1), mode=OBSERVE),
            "level 1 proven; levels 2-5 not measured; level 2 was asked for and is not",
            1,
        ),
        (
            report(*level(1, **{LEVEL_1[0].replace("-", "_"): Status.INCONCLUSIVE})),
            f"no level proven; level 1 unproven ({LEVEL_1[0]}); levels 2-5 not measured",
            1,
        ),
        (report(unreachable="nobody listens"), "unreachable: nobody listens", 3),
        (
            report(result(LEVEL_2[0], Status.FAIL), partial=True),
            "1 of 1 chosen check red; that is no grade",
            1,
        ),
        (
            report(result(LEVEL_2[0]), partial=True),
            "0 of 1 chosen check red; that is no grade",
            0,
        ),
        (
            report(result(LEVEL_2[0]), result(LEVEL_2[1], Status.NOT_RUN), partial=True),
            "0 of 2 chosen checks red, 1 not run (a fact: expected b, found a); that is no grade",
            0,
        ),
        (
            report(*(result(name, Status.NOT_RUN) for name in LEVEL_2[:2]), partial=True),
            "nothing was looked at: a fact: expected b, found a; that is no grade",
            1,
        ),
        (report(partial=True), "nothing was looked at: none was chosen; that is no grade", 1),
    ],
)
def test_the_verdict_and_the_exit_status(given: Report, says: str, code: int):
    assert (verdict(given), given.exit_code) == (says, code)


def test_every_file_is_written_and_valid(tmp_path: Path):
    given = report(
        *level(1, 2, **MIXED),
        worlds=(WorldRun("plain", 1, 20, 1.0), WorldRun("base", 3, 40, 2.0, "it did not start")),
        about=Target(implementation="example", version="1.2", contact="a@example.org", level=2),
        baseline=Baseline("known.txt", (LEVEL_2[0],)),
        profile="draft-core",
    )
    texts = written(given, tmp_path)
    assert set(texts) == FILES
    data = json.loads(texts["report.json"])
    validate(data, "report")
    assert [entry["state"] for entry in data["levels"][:3]] == ["proven", "failed", "not-measured"]
    assert data["levels"][1]["blocking"] == data["baseline"]["known"] == [LEVEL_2[0]]
    assert {profile["name"] for profile in data["profiles"]} == {
        "draft-core", "workflow", "security", "ensemble",
    }  # fmt: skip
    assert [world["fault"] for world in data["worlds"]] == [None, "it did not start"]
    failed = next(r for r in data["results"] if r["status"] == "fail")
    assert (failed["world"], failed["cause"]) == ("base", "")
    assert failed["upstream"][0].startswith("a: POST")
    short = yaml.safe_load(texts["report.yaml"])
    validate(short, "report-summary")
    assert (short["label"], short["level"], short["implementation"]["name"]) == (
        "self-reported", 1, "example",
    )  # fmt: skip
    assert "<script" not in texts["report.html"]


def test_an_unreachable_and_a_partial_run_have_valid_files_too(tmp_path: Path):
    for number, one in enumerate(
        (report(unreachable="x"), report(result(LEVEL_1[0]), partial=True), report())
    ):
        texts = written(one, tmp_path / str(number))
        validate(json.loads(texts["report.json"]), "report")
        validate(yaml.safe_load(texts["report.yaml"]), "report-summary")


def test_the_badge_names_level_mode_and_freeze():
    assert badge(report(*level(1, 2)))["message"] == f"L2 - controlled - suite {freeze().suite}"
    assert badge(report())["message"] == f"no level - controlled - suite {freeze().suite}"
    assert badge(report(result(LEVEL_1[0]), partial=True))["message"] == "not graded"


def test_junit_tells_failures_errors_and_what_the_baseline_expects():
    given = report(
        result(LEVEL_1[0], Status.FAIL),
        result(LEVEL_1[1], Status.NOT_TESTABLE, cause=DEPENDENCY),
        result(LEVEL_1[2], Status.HARNESS_ERROR),
        result(LEVEL_1[3]),
        result(LEVEL_2[0], Status.FAIL),
        baseline=Baseline("known.txt", (LEVEL_2[0], LEVEL_1[3])),
    )
    suite = ET.fromstring(junit(given))[0]
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "3", "errors": "1", "skipped": "1"}
    kinds = {
        case.get("name").split()[0]: [child.tag for child in case]
        for case in suite.iter("testcase")
    }
    assert kinds[LEVEL_1[3]] == ["failure"]
    assert kinds[LEVEL_2[0]] == ["skipped"]


@pytest.mark.parametrize(
    ("expected", "code", "tells"),
    [
        ((LEVEL_2[0],), 0, "1 failed as expected"),
        ((), 1, f"not expected: {LEVEL_2[0]}"),
        ((LEVEL_2[0], LEVEL_1[0]), 1, f"holds (remove it): {LEVEL_1[0]}"),
    ],
)
def test_a_baseline_decides_the_exit_status_and_never_the_level(
    expected: tuple[str, ...], code: int, tells: str
):
    given = report(*level(1, 2, **MIXED), baseline=Baseline("known.txt", expected))
    assert (given.grade.level, given.grade.steps[1].state) == (1, "failed")
    assert given.exit_code == code
    assert tells in "\n".join(summary(given, AGAIN))


def test_a_level_above_known_failures_may_be_asked_for():
    given = report(*level(1, 2, 3, **MIXED), asked=3, baseline=Baseline("known.txt", (LEVEL_2[0],)))
    assert (given.grade.level, given.grade.steps[2].state, given.exit_code) == (1, "unproven", 0)
    assert "level 3: unproven" in "\n".join(summary(given, AGAIN))


def test_a_baseline_does_not_excuse_what_was_not_measured():
    given = report(*level(1), asked=2, baseline=Baseline("known.txt", (LEVEL_2[0],)))
    assert given.exit_code == 1
    other = {**MIXED, LEVEL_2[1].replace("-", "_"): Status.INCONCLUSIVE}
    given = report(*level(1, 2, **other), baseline=Baseline("known.txt", (LEVEL_2[0],)))
    assert given.exit_code == 1


def test_a_baseline_does_not_make_a_url_prove_more():
    refuted = result("XAI-STREAM-018", Status.FAIL)
    known = Baseline("known.txt", (refuted.check,))
    given = report(*level(1), refuted, mode=OBSERVE, baseline=known)
    assert given.exit_code == 1
    assert report(*level(1), refuted, mode=OBSERVE, baseline=known, asked=1).exit_code == 0


def test_a_profile_that_was_asked_for_decides_the_exit_status():
    given = report(*level(1), asked=1)
    assert given.exit_code == 0
    assert report(*level(1), asked=1, profile="workflow").exit_code == 1


def test_a_profile_grades_no_level_that_was_not_asked_for(tmp_path: Path):
    row = next(name for name in scored(CONTROLLED)[3] if name.startswith("XAI-"))
    given = report(*level(1), result(row, Status.FAIL), asked=1, profile="draft-core")
    lines = list(summary(given, AGAIN))
    assert "levels 2-5: not measured; not asked for" in lines
    assert any(line.startswith(f"FAIL          {row}") for line in lines)
    assert lines[-1] == "RESULT: level 1 proven; levels 2-5 not measured"
    assert (given.exit_code, given.profiles[0].state) == (1, "failed")
    told = json.loads(written(given, tmp_path)["report.json"])["levels"][2]
    assert (told["state"], told["held"], told["reason"]) == ("not-measured", 0, "not asked for")


def test_what_a_url_refutes_is_told_apart():
    given = report(*level(1), result("XAI-STREAM-018", Status.FAIL), mode=OBSERVE)
    lines = list(summary(given, AGAIN))
    assert "level 2: refuted by XAI-STREAM-018" in lines
    assert any(line.startswith("levels 3-5: not measured; mode observe") for line in lines)
    assert (given.grade.level, given.exit_code) == (1, 1)


def test_the_summary_is_read_at_a_glance():
    given = report(
        *level(1),
        result(LEVEL_2[0], Status.FAIL),
        *(result(name, Status.NOT_TESTABLE, cause=DEPENDENCY) for name in LEVEL_2[1:4]),
        worlds=(WorldRun("plain"), WorldRun("base", fault="it ended at once")),
    )
    lines = list(summary(given, AGAIN))
    assert lines[1] == "mode: controlled  seed: 7  worlds: plain, base"
    assert any(line.startswith("SETUP") and "it ended at once" in line for line in lines)
    assert f"FAIL          {LEVEL_2[0]:<15} {ROWS[LEVEL_2[0]].title}" in lines
    assert f"NOT-TESTABLE  {', '.join(LEVEL_2[1:4])}" in lines
    assert f"again, with the bytes of both sides: {AGAIN.format(check=LEVEL_2[0])}" in lines
    assert any(line.startswith("level 2: failed") and LEVEL_2[0] in line for line in lines)
    assert sum(line.startswith("profiles: draft-core") for line in lines) == 1
    assert lines[-1].startswith("RESULT: level 1 proven; level 2 failed")
    assert len(lines) < 30


def test_a_long_list_is_cut_unless_asked_for():
    given = report(*(result(name, Status.FAIL) for name in LEVEL_1 + LEVEL_2))
    short, whole = list(summary(given, AGAIN)), list(summary(given, AGAIN, verbose=True))
    assert any("more; the report files have them all" in line for line in short)
    told = [line for line in whole if line.startswith("FAIL ")]
    assert len(told) == len(LEVEL_1 + LEVEL_2)


def test_verbose_shows_both_sides():
    text = "\n".join(summary(report(result(LEVEL_1[0])), AGAIN, verbose=True))
    assert "> POST /v1/chat/completions HTTP/1.1" in text
    assert "< HTTP/1.1 200 OK" in text
    assert "| a: POST /chat/completions HTTP/1.1" in text


def test_a_fault_of_ours_is_called_so():
    text = "\n".join(summary(report(result(LEVEL_1[0], Status.HARNESS_ERROR)), AGAIN))
    assert "a fault of the suite, not of the target" in text


def test_features_are_told_from_results():
    feature = {"A-1": "embeddings", "A-2": "embeddings", "B-1": "vision", "C-1": "audio"}
    given = [
        Result(name, 1, "MUST", "", "", Status(status))
        for name, status in (
            ("A-1", "pass"), ("A-2", "unsupported"), ("B-1", "unsupported"), ("C-1", "fail"),
            ("D-1", "pass"),
        )
    ]  # fmt: skip
    assert seen_features(given, feature) == (("embeddings",), ("vision",))
    assert seen_features([], feature, ("vision",)) == ((), ("vision",))


# --- the page ------------------------------------------------------------------------------------


def test_the_page_filters_by_status_without_a_script():
    text = page(report(result(LEVEL_1[0]), result(LEVEL_2[0], Status.FAIL)))
    assert "#f-red:checked~main .r:not(.red){display:none}" in text
    assert text.index(f"<code>{LEVEL_2[0]}</code>") < text.index(f"<code>{LEVEL_1[0]}</code>")
    assert 'class="r red l2"' in text
    assert 'class="upstream"' in text
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_the_page_stays_small_and_keeps_what_failed():
    body = "x" * 4000
    exchanges = tuple(
        Exchange(
            str(n), f"POST /{n} HTTP/1.1\n\n{body}", f"HTTP/1.1 200 OK\n\n{body}", 0.1, (body,)
        )
        for n in range(1500)
    )
    text = page(report(result(LEVEL_2[0], Status.FAIL), exchanges=exchanges))
    assert len(text.encode()) < 3_000_000
    kept = text[text.index('id="x12"') :]
    assert body in kept[: kept.index("</details>")]
    assert "POST /1499" in text
    huge = tuple(Exchange(str(n), "<" * 4000, "", 0.1) for n in range(2000))
    assert len(page(report(exchanges=huge)).encode()) < 3_000_000


# --- secrets -------------------------------------------------------------------------------------

secrets = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=12
).filter(lambda text: text.strip() == text and len(set(text)) > 5)


NOBODYS = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


def everywhere(secret: str) -> Report:
    finding = Finding(LEVEL_2[0], Status.FAIL, f"f {secret}", f"e {secret}", f"x{secret}y", "12")
    row = ROWS[LEVEL_2[0]]
    bad = Result(
        row.id, 2, "MUST", row.title, row.clause, Status.FAIL, True, secret, (finding,),
        world="base",
    )  # fmt: skip
    wrapped = json.dumps({"key": secret})
    exchange = Exchange("12", f"GET /?k={secret}", f"HTTP/1.1 200\n\n{wrapped}", 0.1, (secret,) * 3)
    return report(
        bad,
        exchanges=(exchange,),
        target=f"http://host/{secret}",
        command=f"run --api-key {secret}",
        worlds=(WorldRun("base", fault=f"said {secret}"),),
        about=Target(implementation=secret, version=secret, contact=secret),
    )


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@example(secret="sk-fake-abcdefghijklmnopqrstuvwx")
@example(secret='a"b<c>&d\\e/f g%h')
@example(secret="ключ-от-всех-дверей")
@given(secret=secrets)
def test_no_secret_survives_in_any_file(tmp_path_factory: pytest.TempPathFactory, secret: str):
    # What the suite itself says, the id of a check for one, is nobody's secret.
    plain = written(
        cleaned(everywhere(NOBODYS), Redactor((NOBODYS,))), tmp_path_factory.mktemp("plain")
    )
    assume(not any(secret in text for text in plain.values()))
    given = cleaned(everywhere(secret), Redactor((secret,)))
    texts = written(given, tmp_path_factory.mktemp("report"))
    texts["terminal"] = "\n".join(summary(given, AGAIN, verbose=True))
    texts["decoded"] = str(json.loads(texts["report.json"])) + str(
        yaml.safe_load(texts["report.yaml"])
    )
    spelled = (secret, json.dumps(secret)[1:-1], secret.replace("&", "&amp;").replace("<", "&lt;"))
    for name, text in texts.items():
        assert not any(spelling in text for spelling in spelled), name
    validate(json.loads(texts["report.json"]), "report")


def test_a_real_run_shows_both_sides_and_no_key(tmp_path: Path):
    given = graded(checks=("XAI-HDR-070",))
    assert [r.status for r in given.results] == [Status.PASS]
    texts = written(given, tmp_path)
    texts["terminal"] = "\n".join(summary(given, AGAIN, verbose=True))
    assert "behind the target, 1" in texts["terminal"]
    assert 'class="upstream"' in texts["report.html"]
    assert [name for name, text in texts.items() if "sk-fake-" in text] == []


@pytest.mark.parametrize(
    "text",
    [
        "sk-abcdefghijklmnop1234",
        "AIzaSyA1234567890abcdefghijklmnopqrstu",
        "ghp_abcdefghijklmnopqrst",
        "hf_abcdefghijklmnopqrst",
        "Bearer abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str):
    shown = Redactor().text(f"the key is {text} here")
    assert MASK in shown
    assert text.removeprefix("Bearer ") not in shown


def test_what_only_looks_a_little_like_one_is_not():
    for text in ("Bearer token required", 'Bearer realm="aiproxy"', "task-force", "sk-short"):
        assert Redactor().text(text) == text


def test_a_secret_cut_off_by_the_bound_leaves_no_beginning():
    secret = "0123456789abcdefghij"
    raw = b"s" * 150 + secret.encode()
    shown = Redactor((secret,), most=40).text(raw)
    assert "0123" not in shown
    many = (secret * 20).encode() + secret.encode()
    assert "0123" not in Redactor((secret,), most=100).text(many)


def test_red_is_what_somebody_has_to_mend():
    given = report(*(result(LEVEL_1[0], status) for status in Status))
    assert {r.status for r in given.red} == RED
