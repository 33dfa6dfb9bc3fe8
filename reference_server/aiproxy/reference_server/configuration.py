"""From a configuration file, or none, to what this server can really offer."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aiproxy.middleware.config import Config, load_config

if TYPE_CHECKING:
    from aiproxy.reference_server.onnx.local_models import LocalModel, LocalModels

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


def load_local_models(config: Config) -> tuple["LocalModels", Config]:
    """Load what providers of type ``local`` list; return it with the configuration that remains.

    A model that cannot run (missing file, runtime not available) is not offered: it is taken out
    of the configuration and stays in ``LocalModels`` with its reason.
    """
    from aiproxy.reference_server.onnx.local_models import LocalModels

    values = dict(config.values)
    providers: dict[str, Any] = {}
    loaded: list[LocalModel] = []
    for name, entry in values["providers"].items():
        if not entry["enabled"] or (entry["type"] or name) != "local":
            providers[name] = entry
            continue
        models = LocalModels.from_config(entry)
        running = {model.name: model for model in models.models if model.available}
        rows = [
            {**row, "context_window": row["context_window"] or running[row["name"]].context_window}
            for row in entry["models"]
            if row["name"] in running
        ]
        providers[name] = {**entry, "models": rows, "enabled": bool(rows)}
        loaded += models.models
    values["providers"] = providers
    return LocalModels(tuple(loaded)), replace(config, values=values)
