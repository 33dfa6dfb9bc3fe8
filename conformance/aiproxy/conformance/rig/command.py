"""The command ``aiproxy conformance upstream``: fake providers on their own.

    aiproxy conformance upstream --port 18100 --count 3

They run until SIGINT or SIGTERM. What is printed says where they listen and how to script them.
"""

import argparse
import json
import os
import random
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NoReturn

from aiproxy.conformance.rig.fleet import Actor, Fake, Fleet, cast

TOKEN_VARIABLE: Final = "AIPROXY_UPSTREAM_TOKEN"  # noqa: S105 (a name)
_OK, _USAGE, _TAKEN = 0, 2, 3
_NAMES: Final = ("role", "id", "model", "upstream_model", "key")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line."""
        self.exit(_USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="aiproxy conformance upstream",
        description="Run fake AI providers that a control port tells what to do, until SIGINT or "
        "SIGTERM. For mode attached, and for tests of a gateway of your own.",
        epilog=f"The control port's token is taken from {TOKEN_VARIABLE}, or made up.",
        allow_abbrev=False,
    )
    parser.add_argument("--port", type=int, default=0, metavar="P", help="of the first provider")
    parser.add_argument("--count", type=int, metavar="N", help="how many plain ones (default 1)")
    parser.add_argument(
        "--fleet", type=Path, metavar="FILE",
        help="YAML or JSON: a list of providers (role, id, key, port, dialect, reach, ...)",
    )  # fmt: skip
    parser.add_argument("--control-port", type=int, default=0, metavar="P", help="loopback only")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="where providers listen")
    parser.add_argument("--seed", type=int, metavar="S", help="repeat an earlier one's names")
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 ended, 2 usage, 3 a port is taken."""
    try:
        asked = _parser().parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _USAGE
    try:
        actors, ports = _fleet(asked)
    except (OSError, ValueError) as fault:
        return _say(_USAGE, str(fault))
    return _run(asked, actors, ports)


def _run(asked: argparse.Namespace, actors: Sequence[Actor], ports: Mapping[str, int]) -> int:
    from aiproxy.conformance.rig.control import Control
    from aiproxy.conformance.rig.upstreams import Upstreams

    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    try:
        with Upstreams(host=asked.host) as upstreams:
            opened = upstreams.open(actors, ports)
            token = os.environ.get(TOKEN_VARIABLE, "")
            with Control(upstreams, port=asked.control_port, token=token) as control:
                _print(asked.format, shown(opened.values(), control.url, control.token))
                ended.wait()
    except OSError as fault:
        return _say(_TAKEN, f"cannot listen: {fault.strerror}")
    return _OK


def shown(actors: Iterable[Actor], url: str, token: str) -> dict[str, Any]:
    """Return what a person needs to know: the control port, and each provider."""
    rows = [
        {
            "id": actor.id,
            "role": actor.role,
            "endpoint": actor.endpoint,
            "key": actor.key,
            "model": actor.upstream_model,
            "dialect": actor.fake.dialect,
            "reach": actor.fake.reach,
        }
        for actor in actors
    ]
    return {"control": {"url": url, "token": token}, "providers": rows}


def _fleet(asked: argparse.Namespace) -> tuple[list[Actor], dict[str, int]]:
    """Return the actors asked for, and the ports that were named.

    Raises:
        ValueError: a number that cannot be, or a file of another shape. OSError: no such file.
    """
    rows: list[dict[str, Any]] = [{} for _ in range(1 if asked.count is None else asked.count)]
    if asked.fleet is not None:
        rows = [] if asked.count is None else rows
        rows = [*read_fleet(asked.fleet.read_text(encoding="utf-8")), *rows]
    if asked.count is not None and not 0 <= asked.count <= 1000:
        raise ValueError("--count: from 0 to 1000")
    if asked.port and not 0 < asked.port <= 65536 - max(1, len(rows)):
        raise ValueError(f"--port {asked.port}: no room for {len(rows)} ports")
    seed = random.randrange(2**32) if asked.seed is None else asked.seed  # noqa: S311
    actors, ports = [], {}
    for place, row in enumerate(rows):
        actor = _actor(row, place, seed)
        actors.append(actor)
        port = row.get("port", asked.port and asked.port + place)
        if port:
            ports[actor.id] = port
    return actors, ports


def read_fleet(text: str) -> list[dict[str, Any]]:
    """Return the providers of a fleet file: a list, or a mapping with ``providers``.

    Raises:
        ValueError: it is neither, or a provider has a member that nobody knows.
    """
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as fault:
        raise ValueError(f"--fleet: no YAML: {fault}") from None
    rows = data.get("providers") if isinstance(data, dict) else data
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("--fleet: a list of providers is needed")
    known = {*_NAMES, "port", *(one.name for one in fields(Fake))}
    for row in rows:
        unknown = sorted(set(row) - known)
        if unknown:
            raise ValueError(f"--fleet: no such member of a provider: {', '.join(unknown)}")
    return rows


def _actor(row: Mapping[str, Any], place: int, seed: int) -> Actor:
    from aiproxy.conformance.rig.shapes import DIALECTS

    given = {one.name: row[one.name] for one in fields(Fake) if one.name in row}
    fake = Fake(**given)
    if fake.dialect not in DIALECTS:
        raise ValueError(f"--fleet: no dialect {fake.dialect!r}")
    if fake.reach not in ("open", "refused", "bad-tls", "no-such-host"):
        raise ValueError(f"--fleet: no reach {fake.reach!r}")
    role = str(row.get("role", f"p{place + 1}"))
    actor = cast(Fleet({role: fake}), f"upstream:{place}", seed)[role]
    names = {name: str(row.get(name, getattr(actor, name))) for name in _NAMES}
    return Actor(**names, fake=fake)


def _print(form: str, data: Mapping[str, Any]) -> None:
    if form == "json":
        print(json.dumps(data, indent=2), flush=True)
        return
    import yaml

    print(yaml.safe_dump(data, sort_keys=False), end="", flush=True)


def _say(status: int, message: str) -> int:
    print(f"aiproxy conformance upstream: {message}", file=sys.stderr)
    return status
