"""Reads scenarios. Every fault is told as ``file:line: key: found, expected``.

The shape and every default are the schema ``urn:aiproxy:schema:scenario``; this module fills them
in and checks what needs more than one value.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path as FilePath
from typing import Any, Final

from aiproxy.middleware.config import Config, ConfigInvalid, load_config
from aiproxy.middleware.config.faults import breaches, suggestion
from aiproxy.middleware.config.loading import read_tree
from aiproxy.middleware.config.nodes import Located, Path
from aiproxy.middleware.config.shape import Shape, fill, shape_of
from aiproxy.middleware.intake.ingress import Routes
from aiproxy.middleware.settings import build_settings
from aiproxy.reference_server.configuration import BASE
from aiproxy.reference_server.simulate.conditions import faults_of
from aiproxy.reference_server.simulate.provider_scripts import read_scripts
from aiproxy.reference_server.simulate.reading import Reader
from aiproxy.reference_server.simulate.scenario import HELLO, Phase, Scenario, Template
from aiproxy.reference_server.simulate.spreads import fixed

_LARGEST_BODY: Final = 16 * 1024 * 1024
_LONGEST_S: Final = 366 * 86400.0
#: What a run would make at most; a scenario above it is a slip of a digit or two.
_MOST_ARRIVALS: Final = 50_000_000
#: What a variable that is not set stands for, by the end of its name.
_PLACEHOLDERS: Final = (
    (("URL", "ENDPOINT", "BASE", "URI"), "https://simulated.invalid/v1"),
    (("PORT",), "8080"),
    (("ADDR", "ADDRESS"), "127.0.0.1:8080"),
)
_PLACEHOLDER: Final = "simulated-not-a-credential"


def load(
    source: "str | os.PathLike[str] | Mapping[str, Any]",
    *,
    config: "str | os.PathLike[str] | Mapping[str, Any] | None" = None,
    seed: int | None = None,
    folder: "str | os.PathLike[str] | None" = None,
) -> Scenario:
    """Return the scenario of a file or a mapping.

    ``config`` stands in the place of the scenario's own: the same traffic against another
    configuration. ``folder`` is what the paths of a mapping are relative to (default: here).

    Raises:
        ConfigInvalid: with every problem found.
    """
    name, root = read_tree(source)
    at = FilePath(name).parent if folder is None and not isinstance(source, Mapping) else folder
    reader = _Reader(name, root, FilePath(at or "."))
    scenario = reader.scenario(config)
    return scenario if seed is None else replace(scenario, seed=seed)


@cache
def _shape() -> Shape:
    return shape_of("scenario")


class _Environment(Mapping[str, str]):
    """Variables of a simulated configuration: the scenario's, the process's, else a placeholder."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def __getitem__(self, name: str) -> str:
        value = self._given.get(name) or os.environ.get(name)
        if value:
            return value
        last = name.rpartition("_")[2].upper()
        for ends, placeholder in _PLACEHOLDERS:
            if last in ends:
                return placeholder
        return f"{_PLACEHOLDER}-{name.lower()}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


class _Reader(Reader):
    """A scenario on its way from a tree to values."""

    def scenario(self, config: Any) -> Scenario:
        for broken in breaches(self.root, _shape(), "scenario"):
            self.refuse(broken.path, broken.message)
        self.end()
        values: dict[str, Any] = fill(_shape(), self.root)
        loaded = self._config(values, config)
        scripts = read_scripts(self, values["providers"], loaded)
        phases = self._phases(values)
        templates = self._templates(values["traffic"]["requests"], loaded)
        self._expectations(values["expect"], loaded, templates)
        duration = self._duration(values, phases)
        start = self._start(values["start"])
        self.end()
        return Scenario(
            name=values["name"] or FilePath(self.file).stem.strip("<>"),
            description=values["description"],
            config=loaded,
            phases=phases,
            templates=templates,
            scripts=scripts,
            expect=values["expect"],
            seed=values["seed"],
            start=start,
            clock_jumps=sorted((row["at"], float(row["by_s"])) for row in values["clock_jumps"]),
            duration_s=duration,
            drain_s=values["drain"],
            max_requests=values["max_requests"],
        )

    # --- the configuration -----------------------------------------------------------------------

    def _config(self, values: Mapping[str, Any], instead: Any) -> Config:
        environment = _Environment(values["env"])
        node = self.root.at(("config",))
        assert node is not None
        if instead is not None:
            source: Any = instead
        elif isinstance(node.value, str):
            source = self.folder / node.value
        else:
            source = Located(self.file, node)
        try:
            config = load_config(source, env=environment, base=BASE)
        except ConfigInvalid as fault:
            if not isinstance(source, Located):
                raise
            inner = [
                replace(one, key=f"config.{one.key}" if one.key else "config")
                for one in fault.problems
            ]
            raise ConfigInvalid(inner) from None
        if not any(entry["enabled"] for entry in config.values["providers"].values()):
            self.refuse(("config",), "found no enabled provider, expected at least one")
            self.end()
        return _alone(config)

    # --- traffic ---------------------------------------------------------------------------------

    def _phases(self, values: Mapping[str, Any]) -> list[Phase]:
        found = []
        arrivals = 0.0
        for index, row in enumerate(values["traffic"]["phases"]):
            path: Path = ("traffic", "phases", index)
            rate, ramp, clients = row["rate"], row["ramp_to"], row["clients"]
            if (rate is None) == (clients is None):
                what = "neither rate nor clients" if rate is None else "rate and clients"
                self.refuse(path, f"found {what}, expected one of the two")
            if clients is not None and ramp is not None:
                self.refuse((*path, "ramp_to"), "found it with clients, expected it with rate only")
            arrivals += row["for"] * max(rate or 0, ramp or 0)
            found.append(
                Phase(
                    for_s=row["for"],
                    rate=None if rate is None else float(rate),
                    ramp_to=None if ramp is None else float(ramp),
                    arrivals=row["arrivals"],
                    clients=clients,
                    think=self.spread(row["think"], (*path, "think")) or fixed(1.0),
                )
            )
        if arrivals > _MOST_ARRIVALS:
            self.refuse(
                ("traffic", "phases"),
                f"found about {arrivals:.0f} requests, expected at most {_MOST_ARRIVALS}",
            )
        if not arrivals and not any(phase.clients for phase in found):
            self.refuse(
                ("traffic", "phases"), "found no request at all, expected a rate above 0 or clients"
            )
        return found

    def _templates(self, rows: list[Mapping[str, Any]], config: Config) -> list[Template]:
        if not rows:
            return [Template("chat")]
        found = []
        names: set[str] = set()
        routes = Routes(build_settings(config))
        for index, row in enumerate(rows):
            path: Path = ("traffic", "requests", index)
            if row["name"] in names:
                self.refuse((*path, "name"), "found this name twice, expected names that differ")
            names.add(row["name"])
            body = self._body(row["body"], (*path, "body"))
            target = row["path"] or path_of(body)
            route = routes.match(target)
            if route is None or route.counting:
                served = ", ".join(routes.labels(counting=False))
                self.refuse(
                    (*path, "path"),
                    f"found a path the configuration does not serve, expected one of {served}",
                )
            headers = [(name.lower(), value) for name, value in row["headers"].items()]
            if row["key"] is not None:
                headers.append(self._key(row["key"], (*path, "key"), config))
            found.append(
                Template(
                    name=row["name"],
                    body=body,
                    weight=float(row["weight"]),
                    path=target,
                    headers=tuple(headers),
                    signed=row["key"] is not None,
                    prompt_tokens=self.spread(
                        row["prompt_tokens"], (*path, "prompt_tokens"), times=False
                    ),
                    output_tokens=self.spread(
                        row["output_tokens"], (*path, "output_tokens"), times=False
                    ),
                    stream=row["stream"],
                    turns=self.spread(row["turns"], (*path, "turns"), times=False),
                    pause=self.spread(row["pause"], (*path, "pause")),
                    patience=self.spread(row["patience"], (*path, "patience")),
                )
            )
        if not any(template.weight for template in found):
            self.refuse(("traffic", "requests"), "found no weight above 0, expected at least one")
        return found

    def _body(self, value: Any, path: Path) -> Mapping[str, Any]:
        import orjson

        if value is None:
            return HELLO
        if isinstance(value, Mapping):
            return value
        file = self.folder / value
        try:
            with file.open("rb") as opened:
                raw = opened.read(_LARGEST_BODY + 1)
            body = orjson.loads(raw)
        except OSError as fault:
            self.refuse(path, f"found no readable file ({fault.strerror}), expected a JSON body")
            return HELLO
        except orjson.JSONDecodeError as fault:
            self.refuse(
                path, f"found a file that is not JSON (line {fault.lineno}), expected a JSON body"
            )
            return HELLO
        if not isinstance(body, dict):
            self.refuse(path, "found a file without a JSON object, expected a request body")
            return HELLO
        return body

    def _key(self, name: str, path: Path, config: Config) -> tuple[str, str]:
        keys = config.values["security"]["auth"]["api_keys"]
        for row in keys:
            if row["name"] == name:
                return ("authorization", f"Bearer {row['key']}")
        known = [row["name"] for row in keys]
        self.refuse(
            path,
            "found a key the configuration does not have, expected one of "
            f"security.auth.api_keys{suggestion(name, known)}",
        )
        return ("authorization", "Bearer none")

    def _duration(self, values: Mapping[str, Any], phases: list[Phase]) -> float:
        whole = sum(phase.for_s for phase in phases)
        found: float = whole if values["duration"] is None else min(whole, values["duration"])
        if found > _LONGEST_S:
            self.refuse(
                ("duration",) if values["duration"] else ("traffic", "phases"),
                "found more than a year of traffic, expected at most 366 days",
            )
        return found

    def _start(self, text: str) -> float:
        try:
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.refuse(("start",), "found a time that does not exist, expected a time")
            return 0.0

    # --- expectations ----------------------------------------------------------------------------

    def _expectations(
        self, expect: Mapping[str, Any], config: Config, templates: list[Template]
    ) -> None:
        entries = config.values["providers"]
        names = [name for name, row in entries.items() if row["enabled"]]
        models = [
            f"{name}/{row.get('model') or row['name']}"
            for name in names
            for row in entries[name]["models"]
        ]
        kinds = [template.name for template in templates]
        for path, message in faults_of(expect, names, models, kinds):
            self.refuse(("expect", *path), message)


def _alone(config: Config) -> Config:
    """Return the configuration with everything kept in this process: nothing is asked, or written
    to, that lives on after the run."""
    values = dict(config.values)
    for section, key, inside in (
        ("state", "backend", "memory"),
        ("conversations", "store", "memory"),
    ):
        held = values.get(section)
        if isinstance(held, Mapping) and held.get(key) not in (None, "none", inside):
            values[section] = {**held, key: inside, "url": None}
    return replace(config, values=values)


def path_of(body: Mapping[str, Any]) -> str:
    """Return where a body is sent, by its shape."""
    if "messages" in body:
        return "/v1/chat/completions"
    if "contents" in body:
        return "/v1beta/models/auto:generateContent"
    if "prompt" in body:
        return "/v1/completions"
    if "input" in body:
        return "/v1/responses"
    return "/v1/chat/completions"
