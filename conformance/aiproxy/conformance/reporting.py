"""A report for machines: report.json, junit.xml, badge.json; and the folder all files go to."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import yaml

from aiproxy.conformance.features import feature_of, seen_features
from aiproxy.conformance.grading import NOT_MEASURED, PROVEN, Step
from aiproxy.conformance.implementation import implementation_report
from aiproxy.conformance.page import page
from aiproxy.conformance.report import Report, WorldRun, suite_version
from aiproxy.conformance.results import Finding, Result, Status
from aiproxy.conformance.scoring import OBSERVE, levels_digest
from aiproxy.spec import freeze

_COLOURS: Final = ("red", "yellowgreen", "green", "green", "brightgreen", "brightgreen")
# Of what the fakes saw, a result that is not a pass shows this much; the page shows the rest.
_MOST_SIGHTINGS: Final = 6
_LONGEST_SIGHTING: Final = 1500


def as_json(report: Report) -> dict[str, Any]:
    """Return ``report`` in the shape of the schema ``report``."""
    about = report.about
    supported, unsupported = seen_features(report.results, feature_of(), about.lacks)
    return {
        "suite": {
            "name": "aiproxy", "version": suite_version(), "levels_digest": levels_digest(),
        },
        "level": report.grade.level or None,
        "asked": report.asked,
        "claimed": about.level,
        "partial": report.partial,
        "seed": report.seed,
        "mode": report.mode,
        "target": {
            "url": report.target,
            "implementation": about.implementation or None,
            "version": about.version or None,
            "contact": about.contact or None,
        },
        "started": report.started,
        "duration_s": report.seconds,
        "command": report.command,
        "requests": len(report.exchanges),
        "budget": report.budget,
        "features": {"supported": list(supported), "unsupported": list(unsupported)},
        "worlds": [_world(world) for world in report.worlds],
        "levels": [_level(report, step) for step in report.grade.steps],
        "profiles": [
            {
                "name": profile.name, "title": profile.title, "state": profile.state,
                "held": profile.held, "scored": profile.scored, "blocking": list(profile.blocking),
            }
            for profile in report.profiles
        ],
        "baseline": _baseline(report),
        "counts": {status.value: 0 for status in Status}
        | Counter(result.status.value for result in report.results),
        "results": _results(report),
    }  # fmt: skip


def _world(world: WorldRun) -> dict[str, Any]:
    return {
        "name": world.name, "scenarios": world.scenarios, "repeated": world.repeated,
        "requests": world.requests, "duration_s": world.seconds, "fault": world.fault or None,
    }  # fmt: skip


def _level(report: Report, step: Step) -> dict[str, Any]:
    warned = sum(r.status is Status.WARN and r.level == step.level for r in report.results)
    return {
        "level": step.level,
        "state": step.state,
        "held": step.held,
        "scored": step.scored,
        "blocking": list(step.blocking),
        "warnings": warned,
        "reason": _step_reason(report, step),
    }


def _step_reason(report: Report, step: Step) -> str | None:
    if step.state == NOT_MEASURED:
        if report.mode == OBSERVE:
            return "not measured: a URL alone proves nothing about routing"
        return "not measured" if step.level <= report.asked else "not asked for"
    if step.state != PROVEN and not step.blocking:
        return f"level {report.grade.level + 1} comes first"
    return ", ".join(step.blocking) or None


def _baseline(report: Report) -> dict[str, Any] | None:
    if report.baseline is None:
        return None
    compared = report.compared
    return {
        "file": report.baseline.file,
        "expected": list(report.baseline.expected),
        "known": list(compared.known),
        "unexpected": list(compared.unexpected),
        "stale": list(compared.stale),
    }


def _results(report: Report) -> list[dict[str, Any]]:
    upstream = {exchange.label: exchange.upstream for exchange in report.exchanges}
    features = feature_of()
    return [_result(result, upstream, features, report.mode) for result in report.results]


def _result(
    result: Result,
    upstream: Mapping[str, tuple[str, ...]],
    features: Mapping[str, str],
    mode: str,
) -> dict[str, Any]:
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
        "cause": result.cause,
        "findings": [_finding(finding) for finding in result.findings],
        "duration_s": result.seconds,
        "rig": mode,
    }
    named = [f.exchange for f in result.findings if f.status is result.status]
    seen = [text for label in dict.fromkeys(named) for text in upstream.get(label, ())]
    optional = {
        "derived_from": list(result.derived_from),
        "world": result.world,
        "feature": features.get(result.check, ""),
        "upstream": [text[:_LONGEST_SIGHTING] for text in seen[:_MOST_SIGHTINGS]],
    }
    if result.status is Status.PASS:
        del optional["upstream"]
    return data | {key: value for key, value in optional.items() if value}


def _finding(finding: Finding) -> dict[str, Any]:
    data: dict[str, Any] = {
        "what": finding.fact, "ok": finding.status is Status.PASS, "status": finding.status.value,
    }  # fmt: skip
    optional = {
        "expected": finding.expected, "found": finding.found, "exchange": finding.exchange,
    }  # fmt: skip
    return data | {key: value for key, value in optional.items() if value}


def junit(report: Report) -> bytes:
    """Return ``report`` as JUnit XML: the lossy view that every CI system reads.

    A failure that the baseline expects is skipped there, and one that is over fails.
    """
    measured = [result for result in report.results if not result.derived_from]
    told = {result.check: _junit_told(report, result) for result in measured}
    counts = Counter(kind for kind, _ in told.values())
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
    properties = ET.SubElement(suite, "properties")
    for name, value in (
        ("mode", report.mode), ("seed", report.seed), ("level", report.grade.level),
        ("levels_digest", levels_digest()),
    ):  # fmt: skip
        ET.SubElement(properties, "property", name=name, value=str(value))
    for result in measured:
        case = ET.SubElement(
            suite, "testcase",
            classname=f"level{result.level}", name=_xml_text(f"{result.check} {result.title}"),
            time=str(result.seconds),
        )  # fmt: skip
        kind, message = told[result.check]
        if kind:
            ET.SubElement(case, kind, message=_xml_text(message))
        elif result.status is Status.WARN:
            ET.SubElement(case, "system-out").text = _xml_text(f"warning: {result.reason}")
    whole = ET.Element("testsuites")
    whole.append(suite)
    text: bytes = ET.tostring(whole, encoding="utf-8", xml_declaration=True)
    return text


def _junit_told(report: Report, result: Result) -> tuple[str, str]:
    if result.check in report.compared.known:
        return "skipped", f"expected by the baseline: {result.status}: {result.reason}"
    if result.check in report.compared.stale:
        return "failure", "expected by the baseline to fail, and holds: remove it there"
    return _junit_kind(result.status), f"{result.status}: {result.reason}"


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
    reached = f"L{level}" if level else "no level"
    message = f"{reached} - {report.mode} - suite {freeze().suite}"
    if report.partial:
        message = "not graded"
    colour = "lightgrey" if report.partial else _COLOURS[level]
    return {"schemaVersion": 1, "label": "AIProxy", "message": message, "color": colour}


def write(report: Report, folder: Path) -> None:
    """Write the five files into ``folder``, which is made when missing.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = json.dumps(as_json(report), indent=2, ensure_ascii=False)
    short = yaml.safe_dump(
        implementation_report(report), sort_keys=False, allow_unicode=True, width=100
    )
    for name, text in (
        ("report.json", data + "\n"),
        ("report.yaml", short),
        ("report.html", page(report)),
        ("badge.json", json.dumps(badge(report)) + "\n"),
    ):
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    (folder / "junit.xml").write_bytes(junit(report))
