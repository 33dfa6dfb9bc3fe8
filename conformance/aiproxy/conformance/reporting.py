"""A report for machines: report.json, junit.xml, badge.json; and the folder they go to."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

from aiproxy.conformance.page import page
from aiproxy.conformance.results import Finding, Result, Status
from aiproxy.conformance.running import Report, suite_version
from aiproxy.conformance.scoring import levels_digest

_COLOURS: Final = ("red", "yellowgreen", "green", "green", "brightgreen", "brightgreen")


def as_json(report: Report) -> dict[str, Any]:
    """Return ``report`` in the shape of the schema ``report``."""
    grade = report.grade
    return {
        "suite": {
            "name": "aiproxy", "version": suite_version(), "levels_digest": levels_digest(),
        },
        "level": grade.level or None,
        "asked": report.asked,
        "claimed": None,
        "partial": report.partial,
        "seed": report.seed,
        "mode": report.mode,
        "target": {"url": report.target},
        "started": report.started,
        "duration_s": report.seconds,
        "command": report.command,
        "requests": len(report.exchanges),
        "budget": report.budget,
        "levels": [
            {
                "level": step.level,
                # The schema knows three states: what was not measured is not proven.
                "state": "unproven" if step.state == "not-measured" else step.state,
                "warnings": sum(
                    r.status is Status.WARN and r.level == step.level for r in report.results
                ),
                "reason": _step_reason(step.state, step.blocking),
            }
            for step in grade.steps
        ],
        "counts": {status.value: 0 for status in Status}
        | Counter(result.status.value for result in report.results),
        "results": [_result(result) for result in report.results],
    }  # fmt: skip


def _step_reason(state: str, blocking: tuple[str, ...]) -> str | None:
    if state == "not-measured":
        return "not measured: a URL alone proves nothing about routing"
    return ", ".join(blocking) or None


def _result(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = {
        "check": result.check,
        "title": result.title,
        "requirements": [result.check],
        "status": result.status.value,
        "level": result.level,
        "keyword": result.keyword,
        "clause": result.clause,
        "scored": result.scored,
        "reason": result.reason or None,
        "findings": [_finding(finding) for finding in result.findings],
        "duration_s": result.seconds,
        "rig": "observe",
    }
    if result.derived_from:
        data["derived_from"] = list(result.derived_from)
    return data


def _finding(finding: Finding) -> dict[str, Any]:
    data: dict[str, Any] = {"what": finding.fact, "ok": finding.status is Status.PASS}
    optional = {
        "expected": finding.expected, "found": finding.found, "exchange": finding.exchange,
    }  # fmt: skip
    return data | {key: value for key, value in optional.items() if value}


def junit(report: Report) -> bytes:
    """Return ``report`` as JUnit XML: the lossy view that every CI system reads."""
    measured = [result for result in report.results if not result.derived_from]
    counts = Counter(_junit_kind(result.status) for result in measured)
    suite = ET.Element(
        "testsuite",
        name=f"aiproxy conformance ({report.mode})",
        tests=str(len(measured)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=str(report.seconds),
        timestamp=report.started,
    )
    for result in measured:
        case = ET.SubElement(
            suite, "testcase",
            classname=f"level{result.level}", name=f"{result.check} {result.title}",
            time=str(result.seconds),
        )  # fmt: skip
        kind = _junit_kind(result.status)
        if kind:
            ET.SubElement(case, kind, message=_xml_text(f"{result.status}: {result.reason}"))
        elif result.status is Status.WARN:
            ET.SubElement(case, "system-out").text = _xml_text(f"warning: {result.reason}")
    whole = ET.Element("testsuites")
    whole.append(suite)
    text: bytes = ET.tostring(whole, encoding="utf-8", xml_declaration=True)
    return text


def _junit_kind(status: Status) -> str:
    match status:
        case Status.FAIL | Status.NOT_TESTABLE:
            return "failure"
        case Status.HARNESS_ERROR | Status.UNREACHABLE:
            return "error"
        case Status.UNSUPPORTED | Status.NOT_RUN | Status.INCONCLUSIVE:
            return "skipped"
        case _:
            return ""


def _xml_text(text: str) -> str:
    """Return ``text`` without the characters that XML 1.0 has no way to write."""
    return "".join(
        c if c in "\t\n" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
        else "\ufffd"
        for c in text
    )  # fmt: skip


def badge(report: Report) -> dict[str, Any]:
    """Return the level as a badge in the JSON form that shields.io reads."""
    level = report.grade.level
    message = f"level {level} ({report.mode})" if level else "no level proven"
    if report.partial:
        message = "not graded"
    colour = "lightgrey" if report.partial else _COLOURS[level]
    return {"schemaVersion": 1, "label": "AIProxy", "message": message, "color": colour}


def write(report: Report, folder: Path) -> None:
    """Write the four files into ``folder``, which is made when missing.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(as_json(report), indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(data + "\n", encoding="utf-8", errors="replace")
    (folder / "junit.xml").write_bytes(junit(report))
    (folder / "report.html").write_text(page(report), encoding="utf-8", errors="replace")
    (folder / "badge.json").write_text(json.dumps(badge(report)) + "\n", encoding="utf-8")
