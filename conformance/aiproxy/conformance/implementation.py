"""The outcome in short, in the style of the implementation reports that projects publish."""

from collections import Counter
from typing import Any

from aiproxy.conformance.features import feature_of, seen_features
from aiproxy.conformance.profiles import Part, ProfileGrade
from aiproxy.conformance.report import Report, suite_version
from aiproxy.conformance.results import Status
from aiproxy.conformance.scoring import levels_digest
from aiproxy.spec import freeze


def implementation_report(report: Report) -> dict[str, Any]:
    """Return ``report`` in the shape of the schema ``report-summary``.

    It is labelled self-reported: whoever runs the suite publishes it.
    """
    about = report.about
    supported, unsupported = seen_features(report.results, feature_of(), about.lacks)
    counts = Counter(r.status for r in report.results if not r.derived_from)
    return {
        "kind": "AIProxyConformanceReport",
        "label": "self-reported",
        "date": report.started,
        "implementation": {
            "name": about.implementation or None,
            "version": about.version or None,
            "url": about.url or None,
            "contact": about.contact or None,
        },
        "suite": {
            "version": suite_version(),
            "freeze": freeze().suite,
            "levels_digest": levels_digest(),
        },
        "mode": report.mode,
        "level": report.grade.level or None,
        "claimed": about.level,
        "levels": {str(step.level): step.state for step in report.grade.steps},
        "profiles": [_profile(profile) for profile in report.profiles],
        "features": {"supported": list(supported), "unsupported": list(unsupported)},
        "statistics": {status.value: counts[status] for status in Status if counts[status]},
        "worlds": [world.name for world in report.worlds],
        "seed": report.seed,
        "command": report.command,
        "baseline": report.baseline.file if report.baseline else None,
    }


def _profile(profile: ProfileGrade) -> dict[str, Any]:
    return {
        "name": profile.name,
        "state": profile.state,
        "core": _part(profile.core),
        "extended": _part(profile.extended),
    }


def _part(part: Part) -> dict[str, Any]:
    """One part of a profile: ``partial`` is nothing failed, and not everything seen to hold."""
    if not any((part.passed, part.failed, part.unsupported)):
        result = "not-measured"
    elif part.failed:
        result = "failure"
    else:
        result = "partial" if part.skipped or part.unsupported else "success"
    told: dict[str, Any] = {
        "result": result,
        "statistics": {
            "passed": len(part.passed),
            "failed": len(part.failed),
            "unsupported": len(part.unsupported),
            "skipped": len(part.skipped),
        },
    }
    return told | ({"failed": list(part.failed)} if part.failed else {})
