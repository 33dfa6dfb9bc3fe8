"""``aiproxy conformance init``: configurations for a target that somebody else starts.

Writes one configuration for each world, with fixed ports for the target and for every fake
provider, and an ``aiproxy-target.yaml`` that names them, so that a run finds both again.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiproxy.conformance.command import Parser
from aiproxy.conformance.manifest import FILE_NAME
from aiproxy.conformance.options import fresh_seed
from aiproxy.conformance.planning import every_scenario, plan
from aiproxy.conformance.rig.fleet import BASE, PLAIN, World
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.rendering import RENDERERS, Unrenderable, actors, headers_of, renderer
from aiproxy.conformance.scoring import CONTROLLED, rows
from aiproxy.conformance.staging import casts_of, file_name, opened

_OK, _FAILED, _USAGE = 0, 1, 2
_HOST: Final = "127.0.0.1"
_MOST_PORT: Final = 65535
_START: Final = {
    "aiproxy": "aiproxy serve --config {config} --port {port}",
    "litellm": "litellm --config {config} --port {port} --host 127.0.0.1 --telemetry False",
    "portkey": "npx -y @portkey-ai/gateway --port={port} --headless",
}


def init_main(argv: Sequence[str]) -> int:
    """Run the command and return its exit status: 0 written, 1 cannot be written, 2 usage."""
    asked = _parser().parse_args(argv)
    seed = fresh_seed() if asked.seed is None else asked.seed
    needed = plan(rows(asked.level, CONTROLLED), CONTROLLED).worlds if asked.level else ()
    names = (PLAIN.name, BASE.name, *needed, *asked.world)
    try:
        written = write_files(asked.target, asked.dir, asked.port_base, seed, names)
    except (ValueError, Unrenderable) as fault:
        return _say(_USAGE, str(fault))
    except OSError as fault:
        return _say(_FAILED, f"{fault.strerror} (--dir {asked.dir}, --port-base {asked.port_base})")
    except HarnessFault as fault:
        return _say(_FAILED, str(fault))
    for line in written:
        print(line)
    return _OK


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="aiproxy conformance init",
        description="Write configurations that name the suite's providers, for a target that you "
        "start yourself.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--for", dest="target", default="aiproxy", metavar="NAME",
        help="aiproxy (default), litellm, portkey, or the path of a template",
    )  # fmt: skip
    parser.add_argument("--dir", type=Path, default=Path("conformance"), metavar="D")
    parser.add_argument("--port-base", type=int, default=9100, metavar="N", help="first port")
    parser.add_argument("--seed", type=int, metavar="S", help="repeat the names of an earlier one")
    parser.add_argument(
        "--level", type=int, choices=range(1, 6), metavar="N",
        help="all that levels 1 to N need; without it what plain and base show",
    )  # fmt: skip
    parser.add_argument(
        "--world", action="append", default=[], metavar="W",
        help="a further configuration, beside plain and base (repeatable)",
    )  # fmt: skip
    return parser


def write_files(
    target: str, folder: Path, port_base: int, seed: int, names: Sequence[str]
) -> list[str]:
    """Write everything into ``folder`` and return what to tell: the files, the next commands.

    Raises:
        ValueError: an unknown target or world, or ports beyond the last one.
        Unrenderable: the target cannot be configured so. OSError: the folder cannot be written.
    """
    from aiproxy.conformance.rig.upstreams import Upstreams

    render = renderer(target)
    worlds = [_world(name) for name in dict.fromkeys(names)]
    ports: dict[str, int] = {}
    urls: dict[str, str] = {}
    texts: dict[Path, str] = {}
    for place, world in enumerate(worlds):
        casts, default = casts_of(world, every_scenario(world, CONTROLLED), seed)
        first = port_base + len(worlds) + len(ports)
        own = {actor.id: first + n for n, actor in enumerate(actors(casts, default))}
        if not 1 <= port_base <= _MOST_PORT - len(worlds) - len(ports) - len(own):
            raise ValueError(f"--port-base {port_base}: no room for {len(ports) + len(own)} ports")
        with Upstreams() as upstreams:  # also shows that the ports are free
            casts, default = opened(upstreams, casts, default, own)
        stem, _, ending = file_name(target).rpartition(".")
        file = folder / f"{stem or ending}-{world.name}.{ending}"
        texts[file] = render(world, casts, default, port_base + place)
        urls[world.name] = f"http://{_HOST}:{port_base + place}"
        ports |= own
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    manifest = folder / FILE_NAME
    manifest.write_text(_manifest(target, seed, urls, ports), encoding="utf-8")
    return [*_told(target, list(texts), port_base), f"aiproxy conformance --manifest {manifest}"]


def _world(name: str) -> World:
    known = plan(rows(5, CONTROLLED), CONTROLLED).worlds
    if name not in known:
        raise ValueError(f"--world: no world {name!r}; there are {', '.join(known)}")
    return known[name]


def _manifest(target: str, seed: int, urls: dict[str, str], ports: dict[str, int]) -> str:
    import yaml

    data = {
        "implementation": target if target in RENDERERS else Path(target).stem,
        **({"config_for": target} if headers_of(target) else {}),
        "seed": seed,
        "worlds": urls,
        "upstreams": {"ports": ports},
    }
    head = (
        "# What aiproxy conformance needs to know about the target. The names and ports below\n"
        "# belong to the configurations beside this file: make them anew together.\n"
        "# level: 2            # the level that you claim\n"
        "# features: []        # the optional features that you have\n"
    )
    return head + yaml.safe_dump(data, sort_keys=False)


def _told(target: str, files: list[Path], port_base: int) -> list[str]:
    lines = [f"wrote {file}" for file in files]
    lines.append("next, start the target once for each configuration and grade it:")
    start = _START.get(target, "start your gateway with {config} on port {port}")
    for place, file in enumerate(files):
        command = start.replace("{config}", str(file)).replace("{port}", str(port_base + place))
        lines.append(f"{command} &")
    return lines


def _say(status: int, message: str) -> int:
    print(f"aiproxy conformance init: {message}", file=sys.stderr)
    return status
