"""The embedded default: what ``aiproxy serve`` runs without a configuration, a key or a network.

The bundled demo model answers; a cloud provider joins when its usual environment variable is set;
a local server (Ollama, LM Studio, vLLM, LocalAI) joins when it answers a short probe on its usual
loopback port, with the models it lists. Nothing else is contacted.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from threading import Thread
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from aiproxy.middleware import load_config
from aiproxy.middleware.config import Config
from aiproxy.spec.catalog import Preset, presets

DEMO_MODEL: Final = "aiproxy-demo"
#: Seconds a loopback server has to answer; it is on this machine or it is not there.
PROBE_S: Final = 0.25
#: Seconds all probes together may take.
PROBE_ALL_S: Final = 0.5
_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_MODELS: Final = 200
_ONNX: Final = ("numpy", "onnxruntime", "tokenizers")
#: The demo model knows one subject; anything else that is configured is a better answer.
_DEMO: Final = {
    "type": "local",
    "priority": 1000,
    "device": "cpu",  # a GPU would be kept busy starting for a model of 2 MB
    "models": [
        {
            "name": DEMO_MODEL,
            "path": "builtin:demo",
            "runtime": "onnx",
            "capabilities": ["text-generation"],
            "cost_per_1k_tokens": 0.0,
            "quality": 0.05,
            "quality_source": "declared: a demonstration model that knows AIProxy alone",
            "owned_by": "aiproxy",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Found:
    """One line of the start-up banner: what it is, whether it is used, and what it would need."""

    name: str
    used: bool
    detail: str


def embedded_config(env: Mapping[str, str] | None = None, *, probe: bool = True) -> Config:
    """Return the embedded default for this environment; see ``discover`` for what was found."""
    config, _ = discover(env, probe=probe)
    return config


def discover(
    env: Mapping[str, str] | None = None, *, probe: bool = True
) -> tuple[Config, tuple[Found, ...]]:
    """Return the embedded configuration and a line about each provider it knows of."""
    environment = os.environ if env is None else env
    providers: dict[str, Any] = {}
    found: list[Found] = []
    for preset in presets().values():
        if preset.transport != "http" or preset.local or not preset.starter_models:
            continue
        entry, line = _cloud(preset, environment)
        found.append(line)
        if entry is not None:
            providers[preset.name] = entry
    if probe:
        for name, entry, line in _local_servers():
            found.append(line)
            if entry is not None:
                providers[name] = entry
    if all(find_spec(name) is not None for name in _ONNX):
        providers["local"] = _DEMO
        found.append(Found("local", True, f"the bundled demo model {DEMO_MODEL}"))
    else:
        found.append(Found("local", False, "needs pip install 'aiproxy[onnx]'"))
    values = {
        "node": {"id": "embedded"},
        "routing": {"scope": "all", "strategy": "availability"},
        "providers": providers,
    }
    return load_config(values, env=environment), tuple(found)


def _cloud(preset: Preset, env: Mapping[str, str]) -> tuple[dict[str, Any] | None, Found]:
    credentials: dict[str, str] = {}
    missing: list[str] = []
    for key in preset.required:
        names = preset.environment.get(key, ())
        name = next((n for n in names if env.get(n)), None)
        if name is None:
            missing.append(names[0] if names else key)
        else:
            credentials[key] = "${" + name + "}"
    if missing:
        return None, Found(preset.name, False, "needs " + " and ".join(missing))
    models = [{"name": model} for model in preset.starter_models]
    entry = {"type": preset.name, "priority": 10, "credentials": credentials, "models": models}
    return entry, Found(preset.name, True, ", ".join(preset.starter_models))


def _local_servers() -> list[tuple[str, dict[str, Any] | None, Found]]:
    """What each known kind of local server answers. Never takes longer than ``PROBE_ALL_S``: a
    server that dribbles is left behind in a thread that ends with the process."""
    known = [p for p in presets().values() if p.local and p.probe is not None]
    listed: dict[str, list[str]] = {}

    def ask(preset: Preset) -> None:
        listed[preset.name] = listed_models(preset.probe or "")

    threads = [Thread(target=ask, args=(preset,), daemon=True) for preset in known]
    for thread in threads:
        thread.start()
    deadline = monotonic() + PROBE_ALL_S
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return [_local_server(preset, listed.get(preset.name, [])) for preset in known]


def _local_server(preset: Preset, names: list[str]) -> tuple[str, dict[str, Any] | None, Found]:
    where = urlsplit(preset.probe or "").netloc
    if not names:
        return preset.name, None, Found(preset.name, False, f"nothing answers at {where}")
    entry = {
        "type": preset.name,
        "priority": 100,
        "endpoint": f"http://{where}",
        "models": [{"name": name} for name in names],
    }
    return preset.name, entry, Found(preset.name, True, f"{len(names)} models at {where}")


def listed_models(url: str) -> list[str]:
    """The model ids a server on this machine lists; empty when none answers in time.

    A list whose entries name providers is another router's, or our own: that is no model server,
    and asking it would go round in circles.
    """
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=PROBE_S)
    try:
        connection.request("GET", parts.path, headers={"accept": "application/json"})
        reply = connection.getresponse()
        body = reply.read(_MOST_BYTES)
        document = orjson.loads(body) if reply.status == 200 else None
    except (HTTPException, OSError, ValueError):
        return []
    finally:
        connection.close()
    if not isinstance(document, dict):
        return []
    listed = document.get("data") or document.get("models")
    if not isinstance(listed, list):
        return []
    rows = [row for row in listed[:_MOST_MODELS] if isinstance(row, dict)]
    if any("providers" in row for row in rows):
        return []
    names = [row.get("id") or row.get("name") for row in rows]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))
