"""Reads how a scenario's providers behave."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiproxy.middleware.config import Config
from aiproxy.middleware.config.faults import suggestion
from aiproxy.middleware.config.nodes import Path
from aiproxy.reference_server.simulate.reading import Reader
from aiproxy.reference_server.simulate.scripts import Script, Trouble
from aiproxy.reference_server.simulate.spreads import Spread


def read_scripts(reader: Reader, rows: Mapping[str, Any], config: Config) -> dict[str, Script]:
    """Return the scripts of the filled section ``providers``, by id and ``*``."""
    known = [name for name, row in config.values["providers"].items() if row["enabled"]]
    scripts = {}
    usual = Script()
    if "*" in rows:
        usual = _script(reader, rows["*"], ("providers", "*"), usual)
    for name, row in rows.items():
        path: Path = ("providers", name)
        if name != "*" and name not in known:
            reader.refuse(
                path,
                "found a provider the configuration does not have (or has not enabled), "
                f"expected one of {', '.join(known)} or *{suggestion(name, known)}",
            )
            continue
        script = usual if name == "*" else _script(reader, row, path, usual)
        models = {
            model: _script(reader, inner, (*path, "models", model), script)
            for model, inner in row["models"].items()
        }
        _known_models(reader, name, models, config)
        scripts[name] = replace(
            script,
            max_in_flight=row["max_in_flight"],
            when_full=row["when_full"],
            max_queue=row["max_queue"],
            models=models,
        )
    return scripts


def _known_models(reader: Reader, name: str, models: Mapping[str, Script], config: Config) -> None:
    if name == "*":
        return
    rows = config.values["providers"][name]["models"]
    if not rows:
        return
    known = [word for row in rows for word in (row["name"], row.get("model")) if word]
    for model in models:
        if model not in known:
            reader.refuse(
                ("providers", name, "models", model),
                f"found a model that {name} does not list, expected one of its own"
                f"{suggestion(model, known)}",
            )


def _script(reader: Reader, row: Mapping[str, Any], path: Path, otherwise: Script) -> Script:
    """Return the script of a row; what it does not say is as in ``otherwise``."""

    def spread(key: str, usual: Spread, *, times: bool = True) -> Spread:
        found = reader.spread(row[key], (*path, key), times=times)
        return usual if found is None else found

    first = reader.spread(row["first_token"], (*path, "first_token"))
    if first is None and row["latency"] is None:
        first = otherwise.first_token
    return replace(
        otherwise,
        latency=spread("latency", otherwise.latency),
        first_token=first,
        per_token=spread("per_token", otherwise.per_token),
        output_tokens=spread("output_tokens", otherwise.output_tokens, times=False),
        text=otherwise.text if row["text"] is None else row["text"],
        troubles=_troubles(reader, row, path, otherwise),
        slow=otherwise.slow
        if row["slow"] is None
        else tuple(
            (reader.window(one, (*path, "slow", index)), float(one["factor"]))
            for index, one in enumerate(row["slow"])
        ),
    )


def _troubles(
    reader: Reader, row: Mapping[str, Any], path: Path, otherwise: Script
) -> tuple[Trouble, ...]:
    if row["errors"] is None and row["outages"] is None:
        return otherwise.troubles
    found = [
        Trouble(reader.window(one, (*path, "outages", index)), fault="refused")
        for index, one in enumerate(row["outages"] or ())
    ]
    for index, one in enumerate(row["errors"] or ()):
        at: Path = (*path, "errors", index)
        if (one["status"] is None) == (one["fault"] is None):
            what = "neither status nor fault" if one["status"] is None else "status and fault"
            reader.refuse(at, f"found {what}, expected one of the two")
        found.append(
            Trouble(
                reader.window(one, at),
                rate=float(one["rate"]),
                status=one["status"],
                fault=one["fault"],
                retry_after_s=one["retry_after"],
                code=one["code"],
                message=one["message"],
                after=float(one["after"]),
                latency=reader.spread(one["latency"], (*at, "latency")),
            )
        )
    return tuple(found)
