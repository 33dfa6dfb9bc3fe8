"""Checks of what asks several providers for one request: ensembles and mirrors."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.findings import Findings
from aiproxy.middleware.config.nodes import Path

#: What the public name of an ensemble begins with; no model may be named like one.
_PREFIX: Final = "ensemble/"
_JUDGED: Final = "best_of"


def check_ensembles(values: Mapping[str, Any], findings: Findings) -> None:
    """Refuse an ensemble that could never answer, and doubt a member nobody serves."""
    providers, ensembles = values["providers"], values["routing"]["ensembles"]
    for name, entry in providers.items():
        for index, model in enumerate(entry["models"]):
            if ensembles and model["name"].startswith(_PREFIX):
                findings.refuse(
                    ("providers", name, "models", index, "name"),
                    f"found a model named like an ensemble, expected no {_PREFIX} before it",
                )
    for name, row in ensembles.items():
        _ensemble(("routing", "ensembles", name), row, providers, findings)


def _ensemble(
    path: Path, row: Mapping[str, Any], providers: Mapping[str, Any], findings: Findings
) -> None:
    members, quorum = row["members"], row["quorum"]
    if quorum is not None and quorum > len(members):
        findings.refuse(
            (*path, "quorum"),
            f"found {quorum}, expected at most the number of members, {len(members)}",
        )
    if row["method"] == _JUDGED and row["judge"] is None:
        findings.refuse((*path, "judge"), f"found nothing, expected a model to judge {_JUDGED}")
    for index, member in enumerate(members):
        _served((*path, "members", index), member["model"], member["provider"], providers, findings)
    if row["judge"] is not None:
        _served(path, row["judge"], None, providers, findings, key="judge")


def check_mirrors(values: Mapping[str, Any], findings: Findings) -> None:
    """Refuse a mirror that says neither who gets the share nor which model."""
    path: Path = ("routing", "mirrors")
    mirrors = values["routing"]["mirrors"]
    names = ((index, row["name"]) for index, row in enumerate(mirrors))
    findings.unique(path, names, "name", "the name of a mirror")
    for index, row in enumerate(mirrors):
        here = (*path, index)
        if row["provider"] is None and row["to"] is None:
            findings.refuse(
                (*here, "provider"), "found neither provider nor to, expected at least one of them"
            )
        if row["to"] is not None:
            _served(here, row["to"], row["provider"], values["providers"], findings, key="to")
        elif row["provider"] is not None:
            _known(here, row["provider"], values["providers"], findings)


def _served(
    path: Path,
    model: str,
    provider: str | None,
    providers: Mapping[str, Any],
    findings: Findings,
    *,
    key: str = "model",
) -> None:
    """Doubt a model that nobody lists, or not the provider that is named for it."""
    if provider is not None and not _known(path, provider, providers, findings):
        return
    asked = providers if provider is None else {provider: providers[provider]}
    lists: AbstractSet[str] = {m["name"] for entry in asked.values() for m in entry["models"]}
    open_ended = any(not entry["models"] for entry in asked.values()) or not asked
    if model not in lists and not open_ended:
        whose = "no provider lists" if provider is None else f"{provider} does not list"
        findings.warn((*path, key), f"{whose} this model{suggestion(model, sorted(lists))}")


def _known(path: Path, name: str, providers: Mapping[str, Any], findings: Findings) -> bool:
    if name not in providers:
        known = ", ".join(providers) or "none is configured"
        findings.doubt(
            (*path, "provider"),
            f"found a provider that is not configured, expected one of: {known}"
            f"{suggestion(name, list(providers))}",
        )
        return False
    if not providers[name]["enabled"]:
        findings.doubt(
            (*path, "provider"), f"found the disabled provider {name}, expected an enabled one"
        )
    return True
