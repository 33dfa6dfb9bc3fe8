"""From a configuration file, or none, to what this server can really offer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aiproxy.middleware.config import Config, load_config

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.local_model import Loader, LocalModel
    from aiproxy.reference_server.onnx.local_models import LocalModels

#: What stands where a configuration says nothing: this server looks at every request.
BASE: Final[Mapping[str, Any]] = {"routing": {"scope": "all"}}


def read_config(source: Any = None) -> Config:
    """Return the configuration of a path, a mapping, or ``None`` for the embedded default.

    Raises:
        ConfigInvalid: a bad configuration.
    """
    if source is None:
        from aiproxy.reference_server.embedded import embedded_config

        return embedded_config()
    return source if isinstance(source, Config) else load_config(source, base=BASE)


def load_local_models(config: Config, *, load: bool = True) -> tuple["LocalModels", Config]:
    """Load what providers of type ``local`` list; return it with the configuration that remains.

    A model that cannot run (missing file, runtime not available) is not offered: it is taken out
    of the configuration and stays in ``LocalModels`` with its reason. What the others can do and
    how much they take in is written into their rows, so that the router knows. Without ``load``
    their files are read and nothing is loaded before somebody asks.
    """
    from aiproxy.reference_server.onnx.loading import load_models
    from aiproxy.reference_server.onnx.local_models import LocalModels

    values = dict(config.values)
    providers: dict[str, Any] = {}
    loaders: list[Loader] = []
    for name, entry in values["providers"].items():
        if not entry["enabled"] or (entry["type"] or name) != "local":
            providers[name] = entry
            continue
        waiting = [{**row, "load": "on_demand"} for row in entry["models"]]
        found = load_models(entry if load else {**entry, "models": waiting})
        running = {loader.model.name: loader.model for loader in found if loader.model.available}
        rows = [
            told(row, running[row["name"]]) for row in entry["models"] if row["name"] in running
        ]
        providers[name] = {**entry, "models": rows, "enabled": bool(rows)}
        loaders += found
    values["providers"] = providers
    return LocalModels(tuple(loaders)), replace(config, values=values)


def told(row: Mapping[str, Any], model: "LocalModel") -> dict[str, Any]:
    """Return a model's row with what its files say where the row itself says nothing."""
    formats = row["response_formats"]
    if formats is None and model.text is not None:
        can = model.text.engine.runner.traits.grammars
        formats = ["text", *(shape for shape in ("json_object", "json_schema") if shape in can)]
    return {
        **row,
        "context_window": row["context_window"] or model.context_window,
        "capabilities": list(model.capabilities),
        "response_formats": formats,
    }
