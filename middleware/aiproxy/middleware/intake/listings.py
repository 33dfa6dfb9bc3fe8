"""The model list in the shapes of other APIs than OpenAI's; all of it on one page."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from aiproxy.middleware.ensembles.roster import Ensemble
from aiproxy.middleware.gateway import MODEL_CREATED, Gateway
from aiproxy.middleware.registry import Model

_CREATED: Final = datetime.fromtimestamp(MODEL_CREATED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
_METHODS: Final = ("generateContent", "streamGenerateContent", "countTokens")


def anthropic_models(gateway: Gateway) -> dict[str, Any]:
    """``GET /v1/models`` for a client that says ``anthropic-version``."""
    rows = [_anthropic(name, rows) for name, rows in _everything(gateway)]
    ends = {"first_id": rows[0]["id"], "last_id": rows[-1]["id"]} if rows else {}
    return {"data": rows, "has_more": False, "first_id": None, "last_id": None, **ends}


def anthropic_model(gateway: Gateway, name: str) -> dict[str, Any]:
    """One entry of the list.

    Raises:
        ProxyError: 404 ``model_not_found``.
    """
    return _anthropic(name, _known(gateway, name))


def google_models(gateway: Gateway) -> dict[str, Any]:
    """``GET /v1beta/models``."""
    return {"models": [_google(name, rows) for name, rows in _everything(gateway)]}


def google_model(gateway: Gateway, name: str) -> dict[str, Any]:
    """``GET /v1beta/models/NAME``.

    Raises:
        ProxyError: 404 ``model_not_found``.
    """
    return _google(name, _known(gateway, name))


def _known(gateway: Gateway, name: str) -> Sequence[Model]:
    gateway.model(name)  # the one place that says what a missing model is
    return gateway.registry.by_name.get(name) or _members(gateway, gateway.ensembles[name])


def _everything(gateway: Gateway) -> Iterator[tuple[str, Sequence[Model]]]:
    """Every public name with the models behind it: of an ensemble, those of its members."""
    yield from gateway.registry.by_name.items()
    for name, ensemble in gateway.ensembles.items():
        yield name, _members(gateway, ensemble)


def _members(gateway: Gateway, ensemble: Ensemble) -> Sequence[Model]:
    by_name = gateway.registry.by_name
    return [row for member in ensemble.members for row in by_name.get(member.model, ())]


def _anthropic(name: str, rows: Sequence[Model]) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": _CREATED,
        "lifecycle": "active",
        "max_input_tokens": _largest(row.context_window for row in rows),
        "max_tokens": _largest(row.max_output_tokens for row in rows),
    }


def _google(name: str, rows: Sequence[Model]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": f"models/{name}",
        "version": "1",
        "displayName": name,
        "supportedGenerationMethods": list(_METHODS)
        if any("text-generation" in row.capabilities for row in rows)
        else [],
    }
    for member, value in (
        ("inputTokenLimit", _largest(row.context_window for row in rows)),
        ("outputTokenLimit", _largest(row.max_output_tokens for row in rows)),
    ):
        if value is not None:
            found[member] = value
    return found


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
