"""The target manifest ``aiproxy-target.yaml``: what a target is, and how to reach or start it.

Its form is the schema ``target``. Secrets are not in it, only the names of environment variables.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from yaml.nodes import Node

FILE_NAME: Final = "aiproxy-target.yaml"
_MOST_BYTES: Final = 1 << 20
_DEEPEST: Final = 8
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_STEP: Final = re.compile(r'\["(?P<odd>[^"]*)"\]|\[(?P<place>\d+)\]|(?P<plain>[^.\[]+)')


class UnusableManifest(ValueError):
    """The manifest cannot be used; the text is ``file:line: key: what was expected``."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a manifest says about the target; all of it optional.

    ``features`` maps optional features to whether the target has them; what is not named is
    unknown. ``level`` is the level the target claims, ``url`` the project's page.
    """

    implementation: str = ""
    version: str = ""
    url: str = ""
    contact: str = ""
    level: int | None = None
    features: Mapping[str, bool] = field(default_factory=dict)

    @property
    def lacks(self) -> tuple[str, ...]:
        """The features it says it does not have."""
        return tuple(name for name, there in self.features.items() if not there)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read, environment variables looked up. See the schema ``target``.

    ``hidden`` are the values of headers that came from the environment: no report may show them.
    """

    target: Target = field(default_factory=Target)
    url: str = ""
    launch: str = ""
    config_for: str = ""
    mode: str = ""
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[str, ...] = field(default=(), repr=False)
    seed: int | None = None
    worlds: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    control: str = ""
    control_token: str = field(default="", repr=False)


def read_manifest(
    path: Path, environment: Mapping[str, str], known_features: Iterable[str] = ()
) -> Manifest:
    """Return the manifest at ``path``.

    Raises:
        UnusableManifest: no such file, not YAML, or not a manifest.
    """
    data, node = _parsed(path)
    _validated(data, path, node)
    features = _features(data.get("features"), tuple(known_features), path, node)
    upstreams = data.get("upstreams", {})
    config_for = data.get("config_for", "")
    beside = path.parent / config_for
    if config_for and Path(str(beside).replace("{world}", "plain")).is_file():
        config_for = str(beside)

    def variable(holder: Mapping[str, Any], key: str, where: str) -> str:
        name = holder.get(key)
        if name is None:
            return ""
        if not environment.get(name):
            raise _wrong(path, node, where, f"the environment variable {name} is not set")
        return environment[name]

    headers = {
        name: _VARIABLE.sub(
            lambda found: variable({"": found[1]}, "", f"headers.{name}"),  # noqa: B023
            value,
        )
        for name, value in data.get("headers", {}).items()
    }
    return Manifest(
        Target(
            data.get("implementation", ""),
            data.get("version", ""),
            data.get("website", ""),
            data.get("contact", ""),
            data.get("level"),
            features,
        ),
        data.get("url", ""),
        data.get("launch", ""),
        config_for,
        data.get("mode", ""),
        data.get("model"),
        variable(data, "api_key_env", "api_key_env") or None,
        headers,
        tuple(value for name, value in headers.items() if value != data["headers"][name]),
        data.get("seed"),
        data.get("worlds", {}),
        upstreams.get("ports", {}),
        upstreams.get("control", ""),
        variable(upstreams, "token_env", "upstreams.token_env"),
    )


def _parsed(path: Path) -> tuple[dict[str, Any], "Node"]:
    import yaml

    try:
        content = path.read_bytes()
    except OSError as fault:
        raise UnusableManifest(f"{path}: {fault.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise UnusableManifest(f"{path}: larger than {_MOST_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8")
        _plain_enough(yaml.parse(text, Loader=yaml.SafeLoader), path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except UnicodeDecodeError as fault:
        raise UnusableManifest(f"{path}: not UTF-8 at byte {fault.start}") from None
    except yaml.MarkedYAMLError as fault:
        line = fault.problem_mark.line + 1 if fault.problem_mark else 1
        raise UnusableManifest(f"{path}:{line}: not YAML: {fault.problem}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as fault:
        raise UnusableManifest(f"{path}: not YAML: {str(fault).splitlines()[0]}") from None
    if node is None or not isinstance(data, dict):
        raise UnusableManifest(f"{path}:1: expected keys and values")
    _no_key_twice(node, path)
    return data, node


def _plain_enough(events: Any, path: Path) -> None:
    """Refuse what could grow beyond its file, before anything is built of it."""
    import yaml

    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UnusableManifest(f"{path}:{line}: aliases are not supported")
        if depth > _DEEPEST:
            raise UnusableManifest(f"{path}:{line}: nested too deeply")


def _validated(data: dict[str, Any], path: Path, node: "Node") -> None:
    from aiproxy.spec import Invalid, schema, validate

    try:
        validate(data, "target")
    except Invalid as wrong:
        first = wrong.errors[0]
        hint = ""
        if first.keyword == "additionalProperties":
            known = list(schema("target")["properties"])
            close = get_close_matches(first.path, known, 2)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise _wrong(path, node, first.path, first.message + hint) from None


def _features(given: Any, known: tuple[str, ...], path: Path, node: "Node") -> Mapping[str, bool]:
    if given is None:
        return {}
    for name in given:
        if known and name not in known:
            close = get_close_matches(name, known, 3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            reason = (
                f"no optional feature {name[:60]!r}; there are {', '.join(sorted(known))}{hint}"
            )
            raise _wrong(path, node, "features", reason)
    if isinstance(given, list):
        return {name: name in given for name in (*known, *given)}
    return dict(given)


def _wrong(path: Path, node: "Node", where: str, message: str) -> UnusableManifest:
    return UnusableManifest(f"{path}:{_line(node, where)}: {where}: {message}")


def _line(node: Any, where: str) -> int:
    """Return the line of the key at the dotted path ``where``, or of what is nearest above it."""
    import yaml

    line = node.start_mark.line
    for step in _STEP.finditer(where):
        if isinstance(node, yaml.SequenceNode) and step["place"]:
            node = node.value[int(step["place"])]
            line = node.start_mark.line
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        name = step["odd"] or step["plain"]
        found = next(((key, value) for key, value in pairs if key.value == name), None)
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return int(line) + 1


def _no_key_twice(node: "Node", path: Path) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise UnusableManifest(f"{path}:{line}: {key.value}: given twice")
            seen.add(str(key.value))
            _no_key_twice(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _no_key_twice(item, path)
