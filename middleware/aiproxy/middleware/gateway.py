"""What all requests of one mount share: configuration, registry, planner, recent decisions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from random import random
from secrets import token_hex
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

import orjson

from aiproxy.middleware.answering.hedges import Hedges
from aiproxy.middleware.config import Config, ConfigInvalid, Problem, load_config
from aiproxy.middleware.config.unenforced import unenforced_protections, unserved_features
from aiproxy.middleware.conversations import build_conversations
from aiproxy.middleware.decision import Decision, DecisionLog
from aiproxy.middleware.effects import Headers, Reply
from aiproxy.middleware.ensembles.roster import Ensemble, build_ensembles
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.money.budgets import build_budget, warn_of_unpriced
from aiproxy.middleware.registry import Model, Registry, build
from aiproxy.middleware.routing.affinity import build_affinity
from aiproxy.middleware.routing.balancing import EndpointChoice
from aiproxy.middleware.routing.canary import build_canaries
from aiproxy.middleware.routing.plan import Planner
from aiproxy.middleware.routing.rules import compile_policies
from aiproxy.middleware.settings import Settings, build_settings
from aiproxy.middleware.watching.background import Background

if TYPE_CHECKING:
    from aiproxy.middleware.answering.mirrors import Mirrors

log = getLogger("aiproxy")


@dataclass(frozen=True, slots=True)
class Runtime:
    """Clocks, ids and chance, as arguments. ``now`` is monotonic, ``wall`` Unix time, in seconds;
    ``new_id`` has 128 random bits: conversations are known by it alone (T-35);
    ``jitter`` returns 0..1."""

    now: Callable[[], float] = monotonic
    wall: Callable[[], float] = time
    new_id: Callable[[], str] = lambda: token_hex(16)
    jitter: Callable[[], float] = random


@dataclass(slots=True)
class Inbound:
    """A request as received. Header names are lower case; ``endpoint`` is the kind its path has.

    ``path`` is what records call the path. ``query`` is raw and may hold a key: it is never logged.
    ``model`` and ``stream`` are set where the path itself says them; ``counting``: the client only
    asks how many tokens its request has.
    """

    path: str
    endpoint: str
    headers: Headers
    body: bytes
    query: str = field(default="", repr=False)
    model: str | None = None
    stream: bool = False
    counting: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Gateway:
    """Built once; everything that changes afterwards is health, turns and the decision log.

    ``on_decision`` is called with every finished decision (for logs, metrics, the ledger); it must
    be quick and must not raise. A configuration that asks for protections this release does not
    enforce is refused with ``ConfigInvalid`` unless ``allow_unenforced``. Without ``ledger`` nothing
    that is spent is read or kept: for what only looks on.
    """

    def __init__(
        self,
        config: Any = None,
        *,
        wrapped_app: bool = True,
        scope: str | None = None,
        runtime: Runtime | None = None,
        on_decision: Callable[[Decision], None] | None = None,
        allow_unenforced: bool = False,
        ledger: bool = True,
    ) -> None:
        self.config: Config = config if isinstance(config, Config) else load_config(config)
        if not allow_unenforced:
            _refuse_unenforced(self.config)
        for name in unserved_features(self.config.values):
            log.warning("not part of this release, and left out: %s", name)
        self.runtime = runtime or Runtime()
        self.settings: Settings = build_settings(self.config, scope=scope)
        self.registry: Registry = build(self.config, wrapped_app=wrapped_app)
        rows = self.config.values["routing"]["policies"]
        policies = (
            compile_policies(rows, provider_ids=list(self.registry.providers)) if rows else None
        )
        self.budget = build_budget(self.config, self.runtime.wall, ledger=ledger)
        if self.budget is not None and self.budget.limited:
            warn_of_unpriced(self.registry)
        self.planner = Planner(self.registry, self.settings, policies)
        routing = self.config.values["routing"]
        self.ensembles = build_ensembles(routing["ensembles"])
        #: what makes requests beside the clients' own; None: nothing does
        self.mirrors: Mirrors | None = None
        if routing["mirrors"]:
            from aiproxy.middleware.answering.mirrors import (
                build_mirrors,  # which serves requests with this
            )

            self.mirrors = build_mirrors(routing["mirrors"])
        self.conversations = build_conversations(
            self.config,
            guarded=bool(self.registry.labels or self.settings.classes),
            new_id=self.runtime.new_id,
            now=self.runtime.now,
            wall=self.runtime.wall,
        )
        hedging = self.settings.hedging
        self.hedges = None if hedging is None else Hedges(hedging.share)
        self.background = Background(self)
        self.decisions = DecisionLog()
        self._on_decision = on_decision
        self.endpoints = EndpointChoice(self.runtime.now)
        self.canaries = build_canaries(self.config.values["routing"]["canaries"])
        self.affinity = build_affinity(self.config.values["routing"]["affinity"])

    def finished(self, decision: Decision) -> None:
        if decision.conversation is not None and self.affinity is not None:
            served, plan = decision.served, decision.plan
            # whom a canary sent it to is the canary's business: its share may be taken back
            if served is not None and decision.outcome == "ok" and plan and plan.canary is None:
                now = self.runtime.now()
                self.affinity.remember(decision.owner, decision.conversation, served.model, now)
        self.decisions.add(decision)
        if self._on_decision is not None:
            self._on_decision(decision)

    # --- what GET requests are answered with -----------------------------------------------------

    def models(self) -> dict[str, Any]:
        """The model list: one entry a public name, its providers merged (AIP-API-019 to 023)."""
        return {
            "object": "list",
            "data": [
                *(self._model_entry(name, rows) for name, rows in self.registry.by_name.items()),
                *map(self._ensemble_entry, self.ensembles.values()),
            ],
        }

    def model(self, name: str) -> dict[str, Any]:
        """One entry of the list.

        Raises:
            ProxyError: 404 ``model_not_found``.
        """
        rows = self.registry.by_name.get(name)
        if rows is None and name in self.ensembles:
            return self._ensemble_entry(self.ensembles[name])
        if rows is None:
            raise ProxyError(
                "model_not_found",
                "No provider here serves this model; GET /v1/models lists the names.",
                param="model",
            )
        return self._model_entry(name, rows)

    def _model_entry(self, name: str, rows: tuple[Model, ...]) -> dict[str, Any]:
        now = self.runtime.now()
        return {
            "id": name,
            "object": "model",
            "created": MODEL_CREATED,
            "owned_by": rows[0].owned_by,
            "providers": [
                {
                    "name": row.provider.id,
                    "available": row.track.blocked_for(now) == 0
                    and row.provider.track.blocked_for(now) == 0
                    and not row.provider.track.cooling(now),
                    "cost_per_1k_tokens": row.cost_per_1k,
                    "avg_latency_ms": row.track.latency_mean_ms(now),
                }
                for row in rows
            ],
        }

    def _ensemble_entry(self, ensemble: Ensemble) -> dict[str, Any]:
        """An ensemble among the models; who takes part is told to callers with a key (T-42)."""
        told: dict[str, Any] = {"method": ensemble.method, "quorum": ensemble.quorum}
        if self.settings.keys is not None:
            told["members"] = [
                {"model": one.model, "provider": one.provider, "weight": one.weight}
                for one in ensemble.members
            ]
            told["judge"] = ensemble.judge
        return {
            "id": ensemble.name,
            "object": "model",
            "created": MODEL_CREATED,
            "owned_by": self.settings.node,
            "providers": [],
            "ensemble": told,
        }

    def decision(self, request_id: str, owner: str | None) -> dict[str, Any]:
        """The record of a recent request of the same caller.

        Raises:
            ProxyError: 404 ``not_found``, the same for unknown and foreign ids.
        """
        found = self.decisions.get(request_id, owner)
        if found is None:
            raise ProxyError(
                "not_found", "No decision with this request id is kept here; only recent ones are."
            )
        return found.record()


def _refuse_unenforced(config: Config) -> None:
    problems = [
        Problem(
            config.file,
            0,
            0,
            name.partition(" ")[0],
            f"found {name}, which this release does not enforce, expected no such protection "
            "(or allow_unenforced, to run without it)",
        )
        for name in unenforced_protections(config.values)
    ]
    if problems:
        raise ConfigInvalid(problems)


#: ``created`` of every model entry: the Standard needs a time and no source knows a truer one.
MODEL_CREATED: Final = 1_767_225_600


def json_reply(
    document: Mapping[str, Any], request_id: str, *, status: int = 200, extra: Headers = ()
) -> Reply:
    """A JSON response with its request id."""
    headers = (("content-type", "application/json"), ("x-request-id", request_id), *extra)
    return Reply(status, headers, orjson.dumps(document))
