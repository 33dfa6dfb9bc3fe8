"""Checks of a configuration that need more than one value, or more than its form.

They run on the filled values and report through ``Findings``; nothing here reads the network, the
file system or the clock.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiproxy.middleware.config.ensembles import check_ensembles, check_mirrors
from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.findings import (
    Findings,
    address_fault,
    is_loopback,
    parse_url,
    split_address,
)
from aiproxy.middleware.config.nodes import Path
from aiproxy.middleware.config.providers import check_providers
from aiproxy.middleware.config.selecting import check_selecting
from aiproxy.middleware.config.shape import config_shape, literal_secrets
from aiproxy.middleware.config.unenforced import has_limits
from aiproxy.spec.catalog import presets

_SHORTEST_KEY: Final = 16  # characters (AIP-CFG-104)
_MESH: Final = "mesh_peer"
_STATE: Final = ("redis", "rediss", "valkey", "valkeys")
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def check(values: Mapping[str, Any], findings: Findings) -> None:
    """Add everything that is wrong with the filled configuration ``values``."""
    for path in literal_secrets(config_shape(), findings.root):
        findings.warn(path, "found a literal secret; ${NAME} keeps it out of the file")
    check_providers(values, findings)
    _node(values, findings)
    _addresses(values, findings)
    _routing(values, findings)
    check_selecting(values, findings)
    check_ensembles(values, findings)
    check_mirrors(values, findings)
    _policies(values["routing"]["policies"], findings)
    _budget(values, findings)
    _observability(values, findings)
    _auth(values["security"], findings)
    _security(values["security"], findings)
    _state(values["state"], findings)
    _conversations(values, findings)
    exposed = insecure_public_bind(values)
    if exposed is not None and not values["server"]["allow_insecure_public_bind"]:
        findings.warn(("server", "listen_addr"), exposed)


def insecure_public_bind(values: Mapping[str, Any]) -> str | None:
    """Return why serving ``values`` would be an open relay, or nothing.

    The start is refused for it unless ``server.allow_insecure_public_bind`` says otherwise
    (AIP-SECURITY-020); loading is not.
    """
    address = values["server"]["listen_addr"]
    if values["security"]["auth"]["enabled"] or is_loopback(split_address(address)[0]):
        return None
    paid = [name for name, entry in values["providers"].items() if _may_cost(entry)]
    if not paid:
        return None
    return (
        f"found a public address with providers that may cost money ({', '.join(paid)}) and no "
        "authentication, expected security.auth, a loopback address, or "
        "server.allow_insecure_public_bind: true"
    )


def _may_cost(provider: Mapping[str, Any]) -> bool:
    preset = presets().get(provider["type"] or "")
    if not provider["enabled"] or (preset is not None and preset.free):
        return False
    prices = [
        (model["cost_per_1k_tokens"], model["cost_per_generation"], *model["price"].values())
        for model in provider["models"]
    ]
    return not prices or any(
        all(price is None for price in row) or any(price for price in row) for row in prices
    )


def _node(values: Mapping[str, Any], findings: Findings) -> None:
    node, mesh = values["node"], values["node"]["mesh"]
    path = ("node", "mesh")
    if mesh["enabled"]:
        if node["type"] == "standalone" and findings.given(("node", "type")):
            findings.refuse(
                ("node", "type"),
                'found "standalone" with mesh.enabled true, expected another type or no mesh',
            )
        if not findings.given(("node", "id")):
            findings.refuse(("node", "id"), "found nothing, expected an id unique in the mesh")
    elif node["type"] == "mesh":
        findings.warn(("node", "type"), "a mesh node without mesh.enabled: true serves alone")
    elif mesh["peers"] and not findings.given((*path, "enabled")):
        findings.warn((*path, "peers"), "peers without mesh.enabled: true are not used")
    if mesh["enabled"]:
        _peers(node, findings)


def _peers(node: Mapping[str, Any], findings: Findings) -> None:
    mesh, path = node["mesh"], ("node", "mesh")
    findings.unique(
        (*path, "peers"),
        ((index, peer["id"]) for index, peer in enumerate(mesh["peers"])),
        "id",
        "the id of a peer",
    )
    findings.unique(
        (*path, "peers"),
        ((index, peer["addr"]) for index, peer in enumerate(mesh["peers"])),
        "addr",
        "the address of a peer",
    )
    for index, peer in enumerate(mesh["peers"]):
        if peer["id"] == node["id"]:
            findings.refuse((*path, "peers", index, "id"), "found this node's own id")
        fault = _peer_fault(peer)
        if fault:
            findings.refuse((*path, "peers", index, "addr"), fault)


def _peer_fault(peer: Mapping[str, Any]) -> str | None:
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}", peer["addr"]):
        return "found another form, expected host:port"
    return address_fault(peer["addr"])


def _addresses(values: Mapping[str, Any], findings: Findings) -> None:
    """Check the listeners' addresses and that no two of them want the same port."""
    server, mesh = values["server"], values["node"]["mesh"]
    metrics = values["observability"]["metrics"]
    taken: list[tuple[str, int]] = []
    listeners: list[tuple[Path, str]] = [(("server", "listen_addr"), server["listen_addr"])]
    if mesh["enabled"]:
        listeners.append((("node", "mesh", "listen_addr"), mesh["listen_addr"]))
    for path, address in listeners:
        fault = address_fault(address)
        if fault:
            findings.refuse(path, fault)
            continue
        _claim(path, *split_address(address), taken, findings)
    if metrics["enabled"]:
        port_path: Path = ("observability", "metrics", "prometheus_port")
        _claim(port_path, metrics["listen_host"], metrics["prometheus_port"], taken, findings)
    listed = server["endpoints"] or []
    findings.unique(
        ("server", "endpoints"),
        ((index, entry["path"].rstrip("/")) for index, entry in enumerate(listed)),
        "path",
        "a path",
    )


def _claim(
    path: Path, host: str, port: int, taken: list[tuple[str, int]], findings: Findings
) -> None:
    for other, used in taken:
        if port == used and (host == other or host in _EVERYWHERE or other in _EVERYWHERE):
            findings.refuse(
                path, f"found port {port}, which another listener has, expected another"
            )
    taken.append((host, port))


def _routing(values: Mapping[str, Any], findings: Findings) -> None:
    routing, providers = values["routing"], values["providers"]
    default = routing["default_provider"]
    if default is not None:
        _provider_id(("routing", "default_provider"), default, providers, findings)
    for index, name in enumerate(routing["failover"]["fallback_chain"]):
        if name != _MESH:
            path: Path = ("routing", "failover", "fallback_chain", index)
            _provider_id(path, name, providers, findings)
    served = {model["name"] for entry in providers.values() for model in entry["models"]}
    fallbacks = routing["failover"]["model_fallbacks"]
    for name, others in fallbacks.items():
        for index, other in enumerate(others):
            path = ("routing", "failover", "model_fallbacks", name, index)
            if other == name:
                findings.refuse(path, "found the model itself, expected another one")
            elif served and other not in served:
                findings.warn(
                    path, f"no provider lists this model{suggestion(other, list(served))}"
                )
    if not any(routing["weights"].values()):
        findings.refuse(("routing", "weights"), "found only zeros, expected one weight above 0")
    if routing["health"]["probe_max"] < routing["health"]["probe_after"]:
        findings.refuse(
            ("routing", "health", "probe_max"),
            "found less than probe_after, expected at least that",
        )


def _provider_id(path: Path, name: str, providers: Mapping[str, Any], findings: Findings) -> None:
    if name not in providers:
        known = ", ".join(providers) or "none is configured"
        findings.doubt(
            path,
            f"found a provider that is not configured, expected one of: {known}"
            f"{suggestion(name, list(providers))}",
        )
    elif not providers[name]["enabled"]:
        findings.doubt(path, f"found the disabled provider {name}, expected an enabled one")


def _policies(policies: Iterable[Mapping[str, Any]], findings: Findings) -> None:
    listed = list(policies)
    base = ("routing", "policies")
    for index, policy in enumerate(listed):
        for key in ("name", "type", "rules"):
            if key not in policy:
                findings.refuse((*base, index, key), f"found nothing, expected the policy's {key}")
        for key in ("if", "then", "else"):
            if key in policy:
                findings.refuse(
                    (*base, index, key), "found a rule in a policy, expected it in rules"
                )
        _rules((*base, index, "rules"), policy.get("rules", ()), findings)
    names = ((index, entry["name"]) for index, entry in enumerate(listed) if "name" in entry)
    findings.unique(base, names, "name", "the name of a policy")


def _rules(path: Path, rules: Iterable[Mapping[str, Any]], findings: Findings) -> None:
    listed = list(rules)
    for index, rule in enumerate(listed):
        here = (*path, index)
        if "else" in rule:
            if "if" in rule or "then" in rule:
                findings.refuse((*here, "else"), "found else beside if or then, expected it alone")
            elif index != len(listed) - 1:
                findings.refuse((*here, "else"), "found else before other rules, expected it last")
        elif not ("if" in rule and "then" in rule):
            missing = "then" if "if" in rule else "if"
            findings.refuse((*here, missing), f"found nothing, expected {missing}: a rule has both")


def _budget(values: Mapping[str, Any], findings: Findings) -> None:
    budget = values["budget"]
    daily, monthly = budget["daily_limit"], budget["monthly_limit"]
    if daily is not None and monthly is not None and monthly < daily:
        findings.warn(("budget", "monthly_limit"), "less than daily_limit, which then never binds")
    if has_limits(values) and not budget["track_costs"]:
        findings.refuse(
            ("budget", "track_costs"), "found false with limits, expected true: limits need costs"
        )
    if budget["cost_db"] is not None and not _database(budget["cost_db"]):
        findings.refuse(
            ("budget", "cost_db"),
            "found another form, expected sqlite:///relative, sqlite:////absolute or postgresql://",
        )


def _database(url: str) -> bool:
    if url.startswith("sqlite://"):
        return url.startswith("sqlite:///") and len(url) > len("sqlite:///")
    return parse_url(url, ("postgresql", "postgresql+psycopg")) is not None


def _observability(values: Mapping[str, Any], findings: Findings) -> None:
    tracing = values["observability"]["tracing"]
    path = ("observability", "tracing", "endpoint")
    if tracing["enabled"]:
        if tracing["endpoint"] is None:
            findings.refuse(path, "found nothing, expected the collector's URL")
        _web(path, tracing["endpoint"], findings)
    metrics = values["observability"]["metrics"]
    if metrics["enabled"] and not is_loopback(metrics["listen_host"]):
        findings.warn(
            ("observability", "metrics", "listen_host"),
            "metrics are readable by anyone who reaches it",
        )


def _web(path: Path, url: str | None, findings: Findings) -> None:
    if url is not None and parse_url(url, ("http", "https")) is None:
        findings.refuse(path, "found text that is not a URL, expected an http:// or https:// URL")


def _auth(security: Mapping[str, Any], findings: Findings) -> None:
    auth, path = security["auth"], ("security", "auth")
    keys = auth["api_keys"]
    if not auth["enabled"]:
        if keys:
            findings.warn((*path, "enabled"), "false: the api_keys below are not asked for")
        return
    for index, entry in enumerate(keys):
        _api_key((*path, "api_keys", index), entry, security["classes"], findings)
    for key, what in (("key", "a key"), ("name", "the name of a key")):
        words = ((index, entry[key]) for index, entry in enumerate(keys))
        findings.unique((*path, "api_keys"), words, key, what)
    needed = "api_keys" if auth["type"] == "api_key" else str(auth["type"])
    if not auth[needed]:
        findings.refuse((*path, needed), f"found nothing, expected it for auth.type {auth['type']}")
    _tokens(auth, findings)


def _api_key(
    path: Path,
    entry: Mapping[str, Any],
    classes: Mapping[str, Any],
    findings: Findings,
) -> None:
    length = len(entry["key"])
    if length < _SHORTEST_KEY:
        findings.refuse(
            (*path, "key"),
            f"found a key of {length} characters, expected at least {_SHORTEST_KEY}",
        )
    label = entry["data_classification"]
    if label is not None and label not in classes:
        findings.refuse(
            (*path, "data_classification"),
            "found an unknown class, expected one of security.classes"
            f"{suggestion(label, list(classes))}",
        )


def _tokens(auth: Mapping[str, Any], findings: Findings) -> None:
    jwt, oauth2 = auth["jwt"], auth["oauth2"]
    if jwt is not None:
        path = ("security", "auth", "jwt")
        sources = [key for key in ("jwks_url", "public_key", "secret") if jwt[key] is not None]
        if len(sources) != 1:
            found = " and ".join(sources) or "none"
            findings.refuse(path, f"found {found}, expected one of jwks_url, public_key and secret")
        shared = [name for name in jwt["algorithms"] if name.startswith("HS")]
        if shared and (sources != ["secret"] or len(shared) != len(jwt["algorithms"])):
            findings.refuse(
                (*path, "algorithms"),
                "found HS algorithms, expected them only with secret and never beside others",
            )
        elif sources == ["secret"] and not shared:
            findings.refuse((*path, "algorithms"), "found no HS algorithm, expected one for secret")
        _web((*path, "jwks_url"), jwt["jwks_url"], findings)
    if oauth2 is not None:
        url = oauth2["introspection_url"]
        _web(("security", "auth", "oauth2", "introspection_url"), url, findings)


def _security(security: Mapping[str, Any], findings: Findings) -> None:
    _cors(security["cors"], findings)
    limiting = security["rate_limiting"]
    limited = any(entry["rate_limit"] is not None for entry in security["auth"]["api_keys"])
    if (
        limited
        and not limiting["enabled"]
        and not findings.given(("security", "rate_limiting", "enabled"))
    ):
        findings.warn(
            ("security", "rate_limiting"), "rate_limit of a key needs rate_limiting.enabled: true"
        )
    for index, network in enumerate(security["trusted_proxies"]):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            findings.refuse(
                ("security", "trusted_proxies", index),
                "found another form, expected an IP address or a network such as 10.0.0.0/8",
            )


def _cors(cors: Mapping[str, Any], findings: Findings) -> None:
    path = ("security", "cors", "allowed_origins")
    origins = cors["allowed_origins"]
    if not cors["enabled"]:
        if origins and not findings.given(("security", "cors", "enabled")):
            findings.warn(path, "origins without cors.enabled: true are not used")
        return
    if not origins:
        findings.warn(path, "cors.enabled without an origin lets no browser in")
    for index, origin in enumerate(origins):
        parts = parse_url(origin, ("http", "https"))
        if origin == "*":
            findings.refuse((*path, index), 'found "*", expected exact origins')
        elif parts is None or origin != f"{parts.scheme}://{parts.netloc}" or parts.username:
            findings.refuse(
                (*path, index),
                "found another form, expected scheme://host or scheme://host:port without a path",
            )


def _conversations(values: Mapping[str, Any], findings: Findings) -> None:
    section, state = values["conversations"], values["state"]
    url, store = section["url"], section["store"]
    if url is not None and not _database(url):
        findings.refuse(
            ("conversations", "url"),
            "found another form, expected a sqlite:/// or postgresql:// URL",
        )
    if not section["enabled"]:
        return
    if store == "sql" and url is None:
        findings.refuse(("conversations", "url"), "found nothing, expected the URL of the database")
    if store == "valkey" and state["url"] is None:
        findings.refuse(("state", "url"), "found nothing, expected the URL of the store")


def _state(state: Mapping[str, Any], findings: Findings) -> None:
    url = state["url"]
    if state["backend"] == "valkey" and url is None:
        findings.refuse(("state", "url"), "found nothing, expected the URL of the store")
    if url is not None and parse_url(url, _STATE) is None:
        findings.refuse(
            ("state", "url"), f"found another form, expected a URL of {', '.join(_STATE)}"
        )
