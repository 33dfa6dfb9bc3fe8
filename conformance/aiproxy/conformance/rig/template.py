"""A configuration of the target from a text template: ``--config-for PATH``.

In the text ``{port}`` and ``{world}`` are filled in, and ``{default.id}`` or any other member of
the default provider (``id model upstream_model key endpoint priority price dialect``). Lines
between one that ends with ``each provider`` and one that ends with ``end each`` are repeated for
every provider, the default one too, with ``{id}`` and so on filled in. In the path ``{world}`` is
the name of the world, for a file each.

A template says nothing about strategies, policies or limits, so it can only serve worlds that ask
for no more than providers; for others give a template of their own (``{world}`` in the path).
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from aiproxy.conformance.rig.fleet import PLAIN, Actor, Casts, World
from aiproxy.conformance.rig.rendering import Renderer, Unrenderable, actors, own_config

_FIELD: Final = re.compile(r"\{([a-z_.]+)\}")
_BEGIN: Final = re.compile(r"each provider\W*$")
_END: Final = re.compile(r"end each\W*$")
# What routing a world may ask for without its template having to know: any order will do.
_FREE: Final[tuple[Mapping[str, Any], ...]] = ({}, {"routing": {"strategy": "availability"}})


def from_template(path: str, known: tuple[str, ...]) -> Renderer:
    """Return a renderer that fills in the template at ``path``.

    Raises:
        ValueError: no such file; the message names the ``known`` renderers.
    """
    own_files = "{world}" in path
    first = Path(path.replace("{world}", PLAIN.name))
    if not first.is_file():
        close = get_close_matches(path, known, 3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ValueError(f"--config-for: neither {', '.join(known)} nor a file: {path!r}{hint}")

    def render(world: World, casts: Casts, default: Actor, port: int) -> str:
        file = Path(path.replace("{world}", world.name))
        if not file.is_file():
            raise Unrenderable(f"there is no template {file}")
        if not own_files and own_config(world, casts) not in _FREE:
            raise Unrenderable(f"the template {file} does not serve this world")
        lines = file.read_text(encoding="utf-8").splitlines()
        return "\n".join(_filled(lines, world, casts, default, port)) + "\n"

    return render


def _filled(
    lines: list[str], world: World, casts: Casts, default: Actor, port: int
) -> Iterator[str]:
    facts = {"port": str(port), "world": world.name}
    facts |= {f"default.{name}": value for name, value in _facts(default).items()}
    held: list[str] | None = None
    for line in lines:
        if _BEGIN.search(line):
            held = []
        elif _END.search(line) and held is not None:
            for actor in actors(casts, default):
                yield from (_line(one, facts | _facts(actor)) for one in held)
            held = None
        elif held is not None:
            held.append(line)
        else:
            yield _line(line, facts)
    if held is not None:
        raise Unrenderable("the template lacks the line that ends with 'end each'")


def _facts(actor: Actor) -> dict[str, str]:
    return {
        "id": actor.id,
        "model": actor.model,
        "upstream_model": actor.upstream_model,
        "key": actor.key,
        "endpoint": actor.endpoint,
        "priority": str(actor.fake.priority),
        "price": str(actor.fake.price if actor.fake.price is not None else 0),
        "dialect": actor.fake.dialect,
    }


def _line(line: str, facts: Mapping[str, str]) -> str:
    return _FIELD.sub(lambda found: facts.get(found[1], found[0]), line)
