"""Checks of how a configuration selects: the strategy's name and the canaries."""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.findings import Findings
from aiproxy.middleware.config.nodes import Path
from aiproxy.middleware.routing import plugins
from aiproxy.spec import HEADERS

_HEADER: Final = HEADERS["X-AI-Routing-Strategy"]
_AUTO: Final = "auto"


def check_selecting(values: Mapping[str, Any], findings: Findings) -> None:
    """Add what is wrong with ``routing.strategy`` and ``routing.canaries``."""
    routing = values["routing"]
    _strategy(routing["strategy"], findings)
    models = _served(values["providers"])
    for index, canary in enumerate(routing["canaries"]):
        _canary(("routing", "canaries", index), canary, values["providers"], models, findings)
    names = ((index, canary["name"]) for index, canary in enumerate(routing["canaries"]))
    findings.unique(("routing", "canaries"), names, "name", "the name of a canary")


def _strategy(name: str, findings: Findings) -> None:
    built_in = (*_HEADER.values, *_HEADER.aliases)
    # looking for plug-ins reads what is installed: only a name that is not ours is worth it
    if name.lower() in {word.lower() for word in built_in} or plugins.canonical(name) is not None:
        return
    known = (*built_in, *plugins.names())
    listed = ", ".join((*_HEADER.values, *plugins.names()))
    findings.refuse(
        ("routing", "strategy"),
        f"found an unknown strategy, expected one of {listed}{suggestion(name, list(known))}",
    )


def _served(providers: Mapping[str, Any]) -> frozenset[str] | None:
    """The public names of all models; ``None`` where a provider serves whatever it is asked for."""
    names: set[str] = set()
    for entry in providers.values():
        if entry["enabled"]:
            names.update(model["name"] for model in entry["models"])
            if not entry["models"]:
                return None
    return frozenset(names) if names else None


def _canary(
    path: Path,
    canary: Mapping[str, Any],
    providers: Mapping[str, Any],
    models: frozenset[str] | None,
    findings: Findings,
) -> None:
    provider, to, asked = canary["provider"], canary["to"], canary["model"]
    if provider is None and to is None:
        findings.refuse(path, "found neither provider nor to, expected who gets the share")
    if provider is not None and provider not in providers:
        findings.refuse(
            (*path, "provider"),
            f"found a provider that is not configured, expected one of: "
            f"{', '.join(providers) or 'none is configured'}"
            f"{suggestion(provider, list(providers))}",
        )
        return
    if provider is not None and not providers[provider]["enabled"]:
        findings.warn((*path, "provider"), f"the provider {provider} is disabled: nobody gets it")
    if to is not None:
        theirs = models if provider is None else _served({provider: providers[provider]})
        if theirs is not None and to not in theirs:
            whose = "no provider lists" if provider is None else f"{provider} does not list"
            findings.refuse(
                (*path, "to"),
                f"found a model that {whose}, expected a public model name"
                f"{suggestion(to, sorted(theirs))}",
            )
    named = asked != _AUTO and not any(char in asked for char in "*?")
    if models is not None and named and asked not in models:
        findings.refuse(
            (*path, "model"),
            "found a model that no provider lists, expected a public model name, auto or a "
            f"pattern{suggestion(asked, sorted(models))}",
        )
