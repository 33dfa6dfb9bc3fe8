"""A configuration of the Portkey gateway: the JSON that its header ``x-portkey-config`` carries.

The gateway has no file of providers, so the launch command has to put this text in front of it.
Each public model name leads to its providers, in the order of their priority.
"""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor, Casts, World
from aiproxy.conformance.rig.rendering import RENDERERS, Unrenderable, actors, own_config

_SERVED: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {"routing": {"strategy": "availability"}},
)


def portkey_json(world: World, casts: Casts, default: Actor, port: int) -> str:
    """Return a gateway configuration; the port is a word of the command, not of the file.

    Raises:
        Unrenderable: the world asks for what the file cannot say.
    """
    if own_config(world, casts) not in _SERVED:
        raise Unrenderable("a Portkey configuration cannot say what this world needs")
    every = sorted(actors(casts, default), key=lambda a: (a.model, a.fake.priority))
    groups = [_group(model, own) for model, own in groupby(every, key=lambda a: a.model)]
    conditions = [
        {"query": {"params.model": {"$eq": group["name"]}}, "then": group["name"]}
        for group in groups
    ]
    strategy = {"mode": "conditional", "conditions": conditions, "default": default.model}
    return json.dumps({"strategy": strategy, "targets": groups}, indent=2) + "\n"


def _group(model: str, own: Iterable[Actor]) -> dict[str, Any]:
    return {
        "name": model,
        "strategy": {"mode": "fallback"},
        "targets": [
            {
                "provider": actor.fake.dialect,
                "api_key": actor.key,
                "custom_host": actor.endpoint,
                "override_params": {"model": actor.upstream_model},
            }
            for actor in own
        ],
    }


RENDERERS["portkey"] = portkey_json
