"""Optional features: which of them a run saw, as a pure function of the results."""

from collections.abc import Iterable, Mapping

from aiproxy.conformance.checks import catalogue
from aiproxy.conformance.results import Result, Status


def feature_of() -> dict[str, str]:
    """Return the optional feature that a check is about, for those about one."""
    rows = (row for scenario in catalogue() for row in scenario.checks)
    return {row.id: row.feature for row in rows if row.feature}


def seen_features(
    results: Iterable[Result], feature: Mapping[str, str], lacks: Iterable[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the features that were seen to work, and those declared absent or refused.

    ``feature`` names the feature of a check, ``lacks`` those the manifest says are not there. A
    feature works when something of it holds and nothing of it fails or warns; what does, or could
    not be looked at, stands in neither list.
    """
    statuses: dict[str, set[Status]] = {}
    for result in results:
        if result.check in feature:
            statuses.setdefault(feature[result.check], set()).add(result.status)
    works = {Status.PASS, Status.UNSUPPORTED}
    supported = [n for n, seen in statuses.items() if seen <= works and Status.PASS in seen]
    absent = [name for name, seen in statuses.items() if seen == {Status.UNSUPPORTED}]
    return tuple(sorted(supported)), tuple(sorted({*absent, *lacks}))
