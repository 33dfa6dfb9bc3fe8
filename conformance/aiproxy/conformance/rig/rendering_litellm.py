"""A configuration of the LiteLLM proxy: one entry of ``model_list`` for each provider.

Entries of one name are tried in the order of their priority. What LiteLLM has no words for
(policies, limits, quality) makes a world unrenderable.
"""

from collections.abc import Mapping
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor, Casts, World
from aiproxy.conformance.rig.rendering import RENDERERS, Unrenderable, actors, own_config

_DIALECTS: Final = frozenset({"openai", "anthropic", "cohere", "mistral"})
_SERVED: Final[tuple[Mapping[str, Any], ...]] = (
    {},
    {"routing": {"strategy": "availability"}},
)


def litellm_yaml(world: World, casts: Casts, default: Actor, port: int) -> str:
    """Return a ``config.yaml``; the port is a word of the command, not of the file.

    Raises:
        Unrenderable: the world asks for what the file cannot say.
    """
    import yaml

    if own_config(world, casts) not in _SERVED:
        raise Unrenderable("a LiteLLM configuration cannot say what this world needs")
    config = {
        "model_list": [_entry(actor) for actor in actors(casts, default) if _speaks(actor)],
        "litellm_settings": {"drop_params": False, "telemetry": False},
        "router_settings": {"num_retries": 3, "retry_after": 0},
    }
    text: str = yaml.safe_dump(config, sort_keys=False)
    return text


def _speaks(actor: Actor) -> bool:
    return actor.fake.dialect in _DIALECTS


def _entry(actor: Actor) -> dict[str, Any]:
    params: dict[str, Any] = {
        "model": f"{actor.fake.dialect}/{actor.upstream_model}",
        "api_base": actor.endpoint,
        "api_key": actor.key,
        "order": actor.fake.priority,
    }
    if actor.fake.price is not None:
        params["input_cost_per_token"] = params["output_cost_per_token"] = actor.fake.price / 1000
    return {
        "model_name": actor.model,
        "litellm_params": params,
        "model_info": {"id": actor.id},
    }


RENDERERS["litellm"] = litellm_yaml
