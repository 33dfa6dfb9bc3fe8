"""What a request's data demands of whoever sees it, and what operators attest of providers.

Demands come from ``X-AI-Security-Requirements``, from data classes (``X-AI-Data-Classification``,
the caller's key, tags of message parts) and are joined: everybody who is asked meets all of them,
whatever else is relaxed (draft section 11, XAI-SEC-003 to 027). Attestations are the operator's
word; they are repeated, never proven.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from aiproxy.middleware.errors import ProxyError

if TYPE_CHECKING:
    from aiproxy.middleware.intent import Constraints
    from aiproxy.middleware.registry import Provider
    from aiproxy.middleware.settings import Settings

LABELS: Final = "X-AI-Security-Requirements"
DATA_CLASS: Final = "X-AI-Data-Classification"
#: Whom to blame for the data class of a key.
KEY: Final = "Authorization"
#: Security levels of providers, least first (draft Fig 15); 0 stands for an unstated one.
LEVELS: Final[Mapping[str, int]] = {"low": 1, "medium": 2, "high": 3}
LEVEL_NAMES: Final = (None, *LEVELS)
#: Regions no provider is in: what two data classes leave that have none in common.
NOWHERE: Final = frozenset({""})
_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Demands:
    """What a provider must meet: every label, regions all among these (empty: any), the operator's
    own machines only, and at least a level."""

    labels: frozenset[str] = _NONE
    regions: frozenset[str] = _NONE
    local_only: bool = False
    level: int = 0

    def joined(self, other: "Demands") -> "Demands":
        """Both at once."""
        regions = self.regions or other.regions
        if self.regions and other.regions:
            regions = self.regions & other.regions or NOWHERE
        return Demands(
            self.labels | other.labels,
            regions,
            self.local_only or other.local_only,
            max(self.level, other.level),
        )


NOTHING: Final = Demands()


@dataclass(frozen=True, slots=True)
class Attestation:
    """One label of one provider: what the operator's word rests on, and since when."""

    label: str
    evidence: str | None = None
    date: str | None = None


def strictest(classes: Mapping[str, Demands]) -> Demands:
    """All classes at once: what an unknown class is held to under ``unknown_class: strictest``."""
    return reduce(Demands.joined, classes.values(), NOTHING)


def demands_of(
    labels: Iterable[str],
    classes: Iterable[tuple[str, str]],
    settings: "Settings",
    attested: frozenset[str],
    blame: dict[str, str],
) -> Demands:
    """Return the demands of ``labels`` and of data ``classes``, given as (name, where it stands).

    ``attested`` are the labels of all providers. ``blame`` is told where each demand comes from.

    Raises:
        ProxyError: 422 for a label nobody is attested for, or a class that is not configured.
    """
    wanted = frozenset(labels)
    found = NOTHING
    if wanted:
        blame["labels"] = LABELS
        if not wanted <= attested:
            raise ProxyError(
                "unsupported_security_requirement",
                "No provider here is attested for a label in X-AI-Security-Requirements; "
                "the request was not sent anywhere.",
                param=LABELS,
                should_retry=False,
            )
        found = Demands(labels=wanted)
    for name, source in classes:
        rule = settings.classes.get(name) or settings.unknown_class
        if rule is None:
            raise ProxyError(
                "unknown_data_classification",
                f"{source} stands for a data class that is not configured here; "
                "the request was not sent anywhere.",
                param=source,
                should_retry=False,
            )
        found = found.joined(rule)
        for constraint in ("labels", "regions", "local_only", "level"):
            blame.setdefault(constraint, source)
    return found


def fault(limits: "Constraints", provider: "Provider") -> str | None:
    """The reason why a provider may not see the data; ``None``: it may."""
    if not limits.labels <= provider.labels:
        return "lacks_security_label"
    if limits.regions and not (provider.regions and provider.regions <= limits.regions):
        return "wrong_region"
    if limits.local_only and not provider.local:
        return "not_local"
    return "insufficient_security_level" if provider.level < limits.level else None


def detail(limits: "Constraints", provider: "Provider", reason: str) -> str | None:
    """What a reason of ``fault`` is about, in the words of draft Fig 16 where it has some:
    ``insufficient_hipaa``, ``data_residency``."""
    if reason == "lacks_security_label":
        missing = sorted(limits.labels - provider.labels)
        return ",".join(f"insufficient_{label}" for label in missing)
    if reason == "wrong_region":
        return "data_residency"
    if reason == "insufficient_security_level":
        return LEVEL_NAMES[provider.level] or "unstated"
    return None


def demanding(limits: "Constraints") -> bool:
    """Whether the data may not go to everybody."""
    return bool(limits.labels or limits.regions or limits.local_only or limits.level)


def evidence(
    limits: "Constraints", provider: "Provider | None", data_class: str | None
) -> dict[str, Any] | None:
    """The record's ``security`` line: what was demanded, and what is attested of who served.

    Only attestations of demanded labels are repeated (XAI-SEC-014); ``attested`` is empty while
    nobody served.
    """
    if not demanding(limits):
        return None
    attested: dict[str, Any] = {}
    if provider is not None:
        for row in provider.attestations:
            if row.label in limits.labels:
                attested[row.label] = {"evidence": row.evidence, "date": row.date}
    return {
        "labels": sorted(limits.labels),
        "data_class": data_class,
        "classes": list(limits.classes),
        "regions": sorted(limits.regions),
        "local_only": limits.local_only,
        "min_level": LEVEL_NAMES[limits.level],
        "level": LEVEL_NAMES[provider.level] if provider is not None else None,
        "attested": attested,
    }
