"""Brings the shorthands of a configuration into their one canonical form.

``rewrite`` works on the tree before defaults are filled in: the top-level ``mesh`` (AIP-CFG-031),
peers and labels written as text, bare policies (AIP-CFG-072). ``resolve`` works on the filled
values: what a key's absence means when other keys decide it.
"""

from typing import Any, Final

from aiproxy.middleware.config.nodes import Node, Path
from aiproxy.spec.catalog import presets

_BARE_POLICY: Final = "unnamed"
_BARE_KEYS: Final = frozenset(("if", "then", "else"))


def rewrite(root: Node) -> list[tuple[Path, str]]:
    """Rewrite the shorthands below ``root`` in place; return those that cannot be, with reason."""
    faults = _mesh(root)
    peers = root.at(("node", "mesh", "peers"))
    if peers is not None:
        faults += _peers(peers)
    providers = root.at(("providers",))
    for provider in _children(providers):
        for label in _children(provider.at(("security", "labels"))):
            if isinstance(label.value, str):
                label.value = {"label": _copy(label)}
                label.raw = None
    policies = root.at(("routing", "policies"))
    if policies is not None and isinstance(policies.value, list):
        policies.value = _policies(policies.value)
    return faults


def resolve(values: dict[str, Any]) -> None:
    """Fill in ``values`` what follows from other keys: types, names, upstream ids, switches."""
    node, auth = values["node"], values["security"]["auth"]
    if node["name"] is None:
        node["name"] = node["id"]
    if auth["enabled"] is None:
        auth["enabled"] = bool(auth["api_keys"] or auth["jwt"] or auth["oauth2"])
    known = presets()
    for name, provider in values["providers"].items():
        if provider["type"] is None and name in known:
            provider["type"] = name
        for model in provider["models"]:
            if model["model"] is None:
                model["model"] = model.get(f"{provider['type']}_model", model["name"])
            if model["runtime"] is None and provider["type"] == "local":
                model["runtime"] = "onnx"


def _mesh(root: Node) -> list[tuple[Path, str]]:
    top = root.value
    if not isinstance(top, dict) or "mesh" not in top:
        return []
    if root.at(("node", "mesh")) is not None:
        return [(("mesh",), "found mesh here and below node, expected only node.mesh")]
    mesh = top.pop("mesh")
    place = root.keys.get("mesh", (mesh.line, mesh.column))
    node = top.setdefault("node", Node({}, *place))
    if isinstance(node.value, dict):
        node.value["mesh"] = mesh
        node.keys["mesh"] = place
    return []


def _peers(peers: Node) -> list[tuple[Path, str]]:
    """Write ``id=host:port`` out; drop bare ids whose address another entry gives."""
    faults: list[tuple[Path, str]] = []
    kept: list[Node] = []
    bare: list[tuple[int, str]] = []
    for index, peer in enumerate(_children(peers)):
        if not isinstance(peer.value, str):
            kept.append(peer)
            continue
        name, separator, address = peer.value.partition("=")
        if not separator:
            bare.append((index, name))
            continue
        place = peer.line, peer.column
        peer.value = {"id": Node(name, *place), "addr": Node(address, *place)}
        peer.raw = None
        kept.append(peer)
    ids = {str(identity.value) for peer in kept if (identity := peer.at(("id",))) is not None}
    for index, name in bare:
        if name not in ids:
            faults.append(
                (
                    ("node", "mesh", "peers", index),
                    "found a peer without an address, expected id=host:port",
                )
            )
    peers.value = kept
    return faults


def _policies(policies: list[Node]) -> list[Node]:
    """Gather bare rules into one policy, at the place of the first."""
    gathered: Node | None = None
    result: list[Node] = []
    for policy in policies:
        keys = policy.value if isinstance(policy.value, dict) else {}
        if not keys or not set(keys) <= _BARE_KEYS:
            result.append(policy)
            continue
        if gathered is None:
            place = policy.line, policy.column
            parts = {"name": Node(_BARE_POLICY, *place), "type": Node("model_specific", *place)}
            gathered = Node({**parts, "rules": Node([], *place)}, *place)
            result.append(gathered)
        rules = gathered.at(("rules",))
        if rules is not None and isinstance(rules.value, list):
            rules.value.append(policy)
    return result


def _children(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if isinstance(node.value, dict):
        return list(node.value.values())
    return node.value if isinstance(node.value, list) else []


def _copy(node: Node) -> Node:
    return Node(node.value, node.line, node.column, raw=node.raw, unset=node.unset)
