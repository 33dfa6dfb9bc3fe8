"""Checks of the providers of a configuration that go beyond single values.

Disabled providers are not checked: they may be unfinished.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.findings import Findings, is_loopback, parse_url
from aiproxy.middleware.config.nodes import Path
from aiproxy.middleware.config.shape import config_shape
from aiproxy.spec.catalog import Preset, presets

#: Legal runtimes that nothing here has; pytorch is an extra, and loading tells when it is missing.
_UNAVAILABLE: Final = ("golearn",)


def check_providers(values: Mapping[str, Any], findings: Findings) -> None:
    """Add what is wrong with ``values["providers"]``."""
    aliases: dict[str, str] = {name: name for name in values["providers"]}
    for name, provider in values["providers"].items():
        path: Path = ("providers", name)
        for index, alias in enumerate(provider["aliases"]):
            owner = aliases.setdefault(alias, name)
            if owner != name or alias == name:
                findings.refuse(
                    (*path, "aliases", index),
                    "found an alias that names a provider already, expected a new word",
                )
        if provider["enabled"]:
            _provider(path, name, provider, findings)
    _local_names(values["providers"], findings)


def _local_names(providers: Mapping[str, Any], findings: Findings) -> None:
    """Refuse a local model named as one of another local provider: the server runs local models by
    their names alone."""
    owners: dict[str, str] = {}
    for name, provider in providers.items():
        if not provider["enabled"] or provider["type"] != "local":
            continue
        for index, model in enumerate(provider["models"]):
            owner = owners.setdefault(model["name"], name)
            if owner != name:
                findings.refuse(
                    ("providers", name, "models", index, "name"),
                    f"found the name of a model of the local provider {owner} at the local "
                    f"provider {name} too, expected a name at one of them",
                )


def _provider(path: Path, name: str, provider: Mapping[str, Any], findings: Findings) -> None:
    known = presets()
    preset = known.get(provider["type"] or "")
    if preset is None:
        word = provider["type"] or name
        found = "an unknown type" if provider["type"] else "no type, and the id is not a known one"
        findings.refuse(
            (*path, "type"),
            f"found {found}, expected one of {', '.join(known)}{suggestion(word, list(known))}",
        )
    else:
        _endpoints(path, provider, preset, findings)
        _credentials(path, provider, preset, findings)
    _headers(path, provider, preset, findings)
    models = provider["models"]
    findings.unique(
        (*path, "models"),
        ((index, model["name"]) for index, model in enumerate(models)),
        "name",
        "the name of a model of this provider",
    )
    for index, model in enumerate(models):
        _model((*path, "models", index), model, provider, findings)
    _regions(path, provider, findings)


def _regions(path: Path, provider: Mapping[str, Any], findings: Findings) -> None:
    """Refuse an endpoint outside the attested regions: endpoints answer in turn, so a request that
    may not leave those could be sent to it (XAI-SEC-007)."""
    attested = provider["security"]["regions"]
    for index, endpoint in enumerate(provider["endpoints"] or ()):
        region = endpoint["region"]
        if attested and region is not None and region not in attested:
            findings.refuse(
                (*path, "endpoints", index, "region"),
                f"found a region outside security.regions, expected one of {', '.join(attested)}, "
                "or a provider of its own for this endpoint",
            )


def _endpoints(path: Path, provider: Mapping[str, Any], preset: Preset, findings: Findings) -> None:
    single, several = provider["endpoint"], provider["endpoints"]
    if single is not None and several:
        findings.refuse((*path, "endpoints"), "found endpoint too, expected only one of the two")
    if preset.transport != "http":
        if single is not None or several:
            key = "endpoint" if single is not None else "endpoints"
            findings.refuse(
                (*path, key),
                f"found a URL, expected none: type {preset.name} is not reached over HTTP",
            )
        return
    if single is None and not several and preset.base_url is None:
        findings.refuse(
            (*path, "endpoint"),
            f"found nothing, expected the base URL: type {preset.name} has no address of its own",
        )
    plain = provider["tls"]["allow_plaintext"]
    if single is not None:
        _endpoint((*path, "endpoint"), single, plain, findings)
    for index, endpoint in enumerate(several):
        _endpoint((*path, "endpoints", index, "url"), endpoint["url"], plain, findings)
    findings.unique(
        (*path, "endpoints"),
        ((index, endpoint["url"].rstrip("/")) for index, endpoint in enumerate(several)),
        "url",
        "an endpoint",
    )


def _endpoint(path: Path, url: str, plaintext: bool, findings: Findings) -> None:
    parts = parse_url(url, ("http", "https"))
    if parts is None or parts.hostname is None:
        findings.refuse(path, "found text that is not a URL, expected an http:// or https:// URL")
        return
    if parts.username is not None or parts.password is not None:
        findings.refuse(path, "found a user or password in the URL, expected it in credentials")
    if parts.fragment:
        findings.refuse(path, "found a URL with a fragment, expected one without #")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        if plaintext:
            findings.warn(path, "found http:// to another machine: prompts travel unencrypted")
        else:
            findings.refuse(
                path,
                "found http:// to another machine, expected https:// "
                "(or tls: {allow_plaintext: true} for a network you trust)",
            )


def _credentials(
    path: Path, provider: Mapping[str, Any], preset: Preset, findings: Findings
) -> None:
    credentials = provider["credentials"]
    for key in preset.required:
        if not credentials[key]:
            variable = next(iter(preset.environment.get(key, ())), key.upper())
            findings.refuse(
                (*path, "credentials", key),
                f"found nothing, expected the credential of type {preset.name}, "
                f"such as ${{{variable}}}",
            )


def _headers(
    path: Path, provider: Mapping[str, Any], preset: Preset | None, findings: Findings
) -> None:
    reserved = {"authorization", "host", "content-length", "content-type", "transfer-encoding"}
    reserved |= {"connection", "accept-encoding", "api-key", "x-api-key"}
    if preset is not None:
        reserved.add(preset.auth_header)
    for key in provider["headers"]:
        if key.lower() in reserved or key.lower().startswith("x-ai-"):
            findings.refuse(
                (*path, "headers", key),
                "found a header that the router sets itself, expected another one",
            )


def _model(
    path: Path, model: Mapping[str, Any], provider: Mapping[str, Any], findings: Findings
) -> None:
    if model["cost_per_generation"] is not None and model["cost_per_1k_tokens"] is not None:
        findings.refuse(
            (*path, "cost_per_generation"),
            "found both cost_per_generation and cost_per_1k_tokens, expected one of them",
        )
    _upstream(path, model, provider, findings)
    _capabilities(path, model, findings)
    if provider["type"] != "local":
        return
    if model["path"] is None:
        findings.refuse(
            (*path, "path"),
            "found nothing, expected a folder, an .onnx file or builtin:demo",
        )
    if model["unload_after"] is not None and model["load"] != "on_demand":
        findings.warn(
            (*path, "unload_after"),
            "found load: start, expected load: on_demand; the model is never unloaded",
        )
    if model["runtime"] not in provider["runtimes"]:
        findings.refuse(
            (*path, "runtime"),
            f'found "{model["runtime"]}", expected one of the provider\'s runtimes: '
            f"{', '.join(provider['runtimes']) or 'none'}",
        )
    elif model["runtime"] in _UNAVAILABLE:
        findings.warn(
            (*path, "runtime"),
            f"the runtime {model['runtime']} is unavailable here; the model will not be listed",
        )


def _upstream(
    path: Path, model: Mapping[str, Any], provider: Mapping[str, Any], findings: Findings
) -> None:
    own = f"{provider['type']}_model"
    for key in model:
        if key.endswith("_model") and key != own:
            findings.warn((*path, key), f"not read by a provider of type {provider['type']}")
    if own in model and findings.given((*path, "model")) and model[own] != model["model"]:
        findings.refuse((*path, own), "found another id than in model, expected one of the two")
    if (
        provider["type"] == "cloudflare"
        and own not in model
        and not findings.given((*path, "model"))
    ):
        findings.warn(path, "no cloudflare_model: the public name is sent to Cloudflare")


def _capabilities(path: Path, model: Mapping[str, Any], findings: Findings) -> None:
    providers = config_shape().keys["providers"].extra
    models = providers.keys["models"].items if providers else None
    known = models.keys["capabilities"].rules["x-known"] if models else []
    for index, word in enumerate(model["capabilities"]):
        if word not in known:
            findings.warn(
                (*path, "capabilities", index),
                f"found a capability outside the registered list; it never matches"
                f"{suggestion(word, known)}",
            )
