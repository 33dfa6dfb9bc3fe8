"""What the auto parameters of one request become for one model: decided once for each attempt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiproxy.middleware.auto.limits import token_limit
from aiproxy.middleware.auto.offer import Offer, offer_for
from aiproxy.middleware.auto.rungs import Rung, rung_for
from aiproxy.middleware.intent import AUTO, LIMIT_NAMES, Intent
from aiproxy.middleware.registry import Model

_REASONING: Final = ("reasoning", "reasoning_effort")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The decisions of one attempt; where a parameter was not auto there is none.

    ``limits`` are the names under which a token limit was auto, ``limit`` what is sent for them
    (``None``: nothing). ``reasoning`` are the members that asked for it by the word. ``shape`` is
    the word that stood for a response format.
    """

    limits: tuple[str, ...] = ()
    limit: int | None = None
    basis: str | None = None
    offer: Offer | None = None
    reasoning: tuple[str, ...] = ()
    rung: Rung | None = None
    shape: str | None = None

    @property
    def nothing(self) -> bool:
        """Whether the request is sent as it came, but for the model's name."""
        return (
            not (self.limits or self.reasoning)
            and self.offer is None
            and self.shape is None
            and (self.rung is None or self.rung.capability in ("enhanced", "none"))
        )

    def record(self, intent: Intent, model: Model) -> dict[str, dict[str, Any]]:
        """Return the entry of each auto parameter: requested, resolved, basis (XAI-RESP-010)."""
        if intent.mode != "assisted":
            return {}
        found: dict[str, dict[str, Any]] = {}
        if intent.model_auto:
            found["model"] = _entry(model.upstream, None)
        for name in self.limits:
            found[name] = _entry(self.limit, self.basis)
        if self.offer is not None:
            names = [tool.name for tool in self.offer.selected]
            found["tools"] = _entry(names, "operator_allow_list" if names else "no_tool_available")
        if self.rung is not None:
            for name in self.reasoning:
                found[name] = _entry(self.rung.capability, self.rung.technique or "model")
        if self.shape is not None:
            entry = _entry("text", "no shape was asked for")
            found["response_format"] = {**entry, "requested": self.shape}
        return found


NOTHING: Final = Resolved()


def resolve(intent: Intent, body: Mapping[str, Any], model: Model, dialect: str) -> Resolved:
    """Return what the auto parameters of a body become for a model.

    ``body`` is the request in OpenAI's shape. With the master switch off, or without any header,
    auto is an ordinary value that no provider knows: the parameter is left out (XAI-SYNC-002).
    """
    limits = tuple(name for name in LIMIT_NAMES if name in intent.autos)
    limit, basis = intent.output_limit, None
    if limits:
        limit, basis = token_limit(intent, model) if intent.mode == "assisted" else (None, None)
    return Resolved(
        limits=limits,
        limit=limit,
        basis=basis,
        offer=offer_for(intent, body, model, dialect),
        reasoning=tuple(name for name in _REASONING if name in intent.autos),
        rung=rung_for(intent, model),
        shape=str(body["response_format"]) if "response_format" in intent.autos else None,
    )


def _entry(resolved: Any, basis: str | None) -> dict[str, Any]:
    return {"requested": AUTO, "resolved": resolved, "basis": basis}
