"""The configuration of a target that names the fake providers of one world.

``RENDERERS`` maps the name given to ``--config-for`` to a renderer: a function of the world, the
casts of its scenarios, the default provider and the port, that returns the text of a file.
A target that takes its configuration from each request has an entry in ``HEADERS`` too: a function
of the world, one scenario's cast and the default provider, that returns header fields.
One in ``LACKS`` says of a fake what the target has no words for: a scenario that has such a fake
cannot be looked at, and says nothing about the target.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

from aiproxy.conformance.rig.fleet import Actor, Cast, Casts, Fake, World
from aiproxy.conformance.rig.guard import HarnessFault
from aiproxy.conformance.rig.peers import is_peer, mesh_of
from aiproxy.spec import Invalid, validate

Renderer = Callable[[World, Casts, Actor, int], str]
Headers = Callable[[World, Cast, Actor], Mapping[str, str]]

# What stands in a configuration where a dialect's own provider type differs from its name.
_TYPES: Final = {"openai": "openai_compatible"}
NODE: Final = "conformance-target"
# Stands in a world's configuration for the folder that the configuration is written to.
FOLDER: Final = "{folder}"


class Unrenderable(Exception):
    """The target has no configuration for this world; the text says what it lacks."""


def aiproxy_yaml(world: World, casts: Casts, default: Actor, port: int) -> str:
    """Return an ``aiproxy.yaml`` (AIProxy Standard, section 4).

    Raises:
        HarnessFault: what the scenarios ask for breaks the schema of the configuration.
    """
    import yaml

    try:
        config = configuration(world, casts, default, port)
        validate(config, "config")
    except Invalid as wrong:
        raise HarnessFault(f"the configuration of world {world.name!r}: {wrong}") from wrong
    except (KeyError, TypeError, ValueError) as wrong:
        reason = f"{type(wrong).__name__}: {wrong}"
        raise HarnessFault(f"the configuration of world {world.name!r}: {reason}") from wrong
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(config, Dumper=dumper, sort_keys=False, allow_unicode=True)
    return text


def configuration(world: World, casts: Casts, default: Actor, port: int) -> dict[str, Any]:
    """Return the configuration of ``world`` as data."""
    every = tuple(actors(casts, default))
    providers = {actor.id: _provider(actor) for actor in every if not is_peer(actor)}
    mesh = mesh_of(every, port)
    rendered = {
        "version": "1.0",
        "node": {"id": NODE, **({"mesh": mesh} if mesh else {})},
        "server": {"listen_addr": f"127.0.0.1:{port}"},
        "providers": providers,
        "routing": {
            "scope": "all",
            "default_provider": default.id,
            "failover": {"enabled": True, "max_retries": 3, "retry_delay": "10ms"},
        },
    }
    return laid_over(rendered, own_config(world, casts))


def own_config(world: World, casts: Casts) -> Mapping[str, Any]:
    """Return what ``world`` itself asks of the configuration."""
    return world.config(casts) if callable(world.config) else world.config


def actors(casts: Casts, default: Actor) -> Iterator[Actor]:
    """Yield every actor of a world, the default provider in the middle of them."""
    every = [actor for name in sorted(casts) for actor in _in_order(casts[name])]
    half = len(every) // 2
    yield from (*every[:half], default, *every[half:])


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` on top: mappings merge, all else replaces."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        merged[name] = laid_over(under, value) if both else value  # type: ignore[arg-type]
    return merged


def renderer(name: str) -> Renderer:
    """Return the renderer ``name``, or one for the template file of that path.

    Raises:
        ValueError: neither a renderer nor a file.
    """
    _know_all()
    if name in RENDERERS:
        return RENDERERS[name]
    from aiproxy.conformance.rig.template import from_template

    return from_template(name, tuple(RENDERERS))


def headers_of(name: str) -> Headers | None:
    """Return what makes the fields that configure the target ``name``, if it takes any."""
    _know_all()
    return HEADERS.get(name)


def unsaid(name: str, one: Cast) -> str:
    """Return what the target ``name`` cannot be told of the providers in ``one``, if anything."""
    _know_all()
    lacks = LACKS.get(name)
    if lacks is None:
        return ""
    told = (lacks(actor.fake) for actor in one.actors.values())
    missing = ", ".join(dict.fromkeys(filter(None, told)))
    return f"a configuration of {name} has no words for {missing}" if missing else ""


def ranks(every: Iterable[Actor]) -> Mapping[str, int]:
    """Return the place of each actor among those of its model, by id: 1 is asked first."""
    found: dict[str, int] = {}
    last: Counter[str] = Counter()
    for actor in sorted(every, key=lambda one: one.fake.priority):
        last[actor.model] += 1
        found[actor.id] = last[actor.model]
    return found


def patience_s(fake: Fake) -> float | None:
    """Return how long a provider may take to begin its answer, in seconds, if that is limited."""
    said = str(fake.provider.get("timeouts", {}).get("first_byte", ""))
    if not said:
        return None
    return float(said[:-2]) / 1000 if said.endswith("ms") else float(said.removesuffix("s"))


def _know_all() -> None:
    for module in ("litellm", "portkey"):
        import_module(f"aiproxy.conformance.rig.rendering_{module}")


def _in_order(one: Cast) -> Iterable[Actor]:
    return one.actors.values()


def _provider(actor: Actor) -> dict[str, Any]:
    fake = actor.fake
    credentials = {"api_key": actor.key}
    if fake.dialect == "cloudflare":
        credentials = {"account_id": "conformance", "api_token": actor.key}
    entry = {
        "type": _TYPES.get(fake.dialect, fake.dialect),
        "priority": fake.priority,
        "endpoint": actor.endpoint,
        "credentials": credentials,
        "models": [_model(actor)],
    }
    return laid_over(entry, fake.provider)


def _model(actor: Actor) -> dict[str, Any]:
    fake = actor.fake
    entry: dict[str, Any] = {
        "name": actor.model,
        "model": actor.upstream_model,
        "capabilities": list(fake.capabilities),
    }
    if fake.price is not None:
        entry["cost_per_1k_tokens"] = fake.price
    if fake.quality is not None:
        quality = fake.quality
        entry["quality"] = dict(quality) if isinstance(quality, Mapping) else quality
    return laid_over(entry, fake.model)


RENDERERS: Final[dict[str, Renderer]] = {"aiproxy": aiproxy_yaml}
HEADERS: Final[dict[str, Headers]] = {}
LACKS: Final[dict[str, Callable[[Fake], str]]] = {}
