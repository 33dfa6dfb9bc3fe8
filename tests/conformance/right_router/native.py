"""The Standard's own routes: predict, models with their providers, providers, decisions."""

from typing import TYPE_CHECKING, Any

from right_server import Refusal

from right_router import pictures
from right_router.answers import failover_reason
from right_router.asking import AUTO, Ask
from right_router.candidates import cost_as_float
from right_router.preferences import FIELDS
from right_router.settings import Model, Provider, canonical

if TYPE_CHECKING:
    from right_router.serving import RightRouter

Body = dict[str, Any]
CREATED = 1_700_000_000
RESPONSE_HEADERS = (
    "X-AI-Provider-Used", "X-AI-Model-Mapped", "X-AI-Auto-Selection", "X-AI-Tool-Mapping",
    "X-AI-Auto-Decisions", "X-AI-Alternatives-Considered", "X-AI-Selection-Confidence",
    "X-AI-Failover-Occurred",
)  # fmt: skip


def models(router: "RightRouter") -> Body:
    """Return GET /v1/models: each public name once, with everybody who serves it."""
    names = list(dict.fromkeys(model.name for model in router.settings.models))
    rows = [entry(router, name) for name in names]
    if router.has("models-per-provider"):
        rows = [
            {**entry(router, m.name), "providers": [provider_row(router, m)]}
            for m in router.settings.models
        ]
    return {"object": "list", "data": [*rows, pictures.entry()]}


def entry(router: "RightRouter", name: str) -> Body:
    """Return one model.

    Raises:
        Refusal: nobody has it.
    """
    served = [m for m in router.settings.models if m.name == name]
    if name == pictures.NAME:
        return pictures.entry()
    if not served:
        raise Refusal(404, "model_not_found", "no such model", "model")
    found = {"id": name, "object": "model", "created": CREATED, "owned_by": served[0].provider.id}
    if not router.has("models-without-providers"):
        found["providers"] = [provider_row(router, m) for m in served]
    return found


def provider_row(router: "RightRouter", model: Model) -> Body:
    """Return one provider of a model's entry."""
    track = router.health.track(model)
    well = track.blocked_for() == 0
    cost: Any = cost_as_float(model.listed_price)
    if router.has("models-cost-as-text"):
        cost = f"${cost}"
    return {
        "name": "somebody" if router.has("models-alias-names") else model.provider.id,
        "available": True if router.has("always-available") else well,
        "cost_per_1k_tokens": cost,
        "avg_latency_ms": track.mean_ms(),
    }


def providers(router: "RightRouter") -> Body:
    """Return GET /v1/providers: who they are, never how they are reached."""
    rows: list[Body] = [provider_entry(router, p) for p in router.settings.providers.values()]
    left_out = {
        "providers-unnamed": ("displayName", "description"),
        "providers-without-models": ("models",),
    }
    for defect, names in left_out.items():
        if router.has(defect):
            rows = [{n: v for n, v in row.items() if n not in names} for row in rows]
    return {"object": "list", "data": rows}


def provider_entry(router: "RightRouter", p: Provider) -> Body:
    """Return one provider."""
    found: Body = {
        "id": p.id,
        "object": "provider",
        "name": p.id,
        "displayName": p.raw.get("display_name") or p.id,
        "description": p.raw.get("description") or f"provider {p.id}",
        "type": p.type,
        "priority": p.priority,
        "status": "healthy" if any(up(router, m) for m in p.models) else "unhealthy",
        "models": [m.name for m in p.models],
        "metrics": metrics(router, p.models),
    }
    if router.has("providers-show-endpoints"):
        found["endpoint"] = p.raw.get("endpoint")
    return found


def up(router: "RightRouter", model: Model) -> bool:
    return router.health.track(model).blocked_for() == 0


def metrics(router: "RightRouter", models_of: list[Model]) -> Body:
    """Return what the calls of a provider add up to."""
    tracks = [router.health.track(m) for m in models_of]
    totals = [row[1] for track in tracks for row in track.latencies]
    outcomes = [ok for track in tracks for _, ok in track.outcomes]
    totals.sort()
    return {
        "requests": len(outcomes),
        "success_rate": outcomes.count(True) / len(outcomes) if outcomes else None,
        "error_rate": outcomes.count(False) / len(outcomes) if outcomes else None,
        "latency_ms": {
            "mean": sum(totals) / len(totals) if totals else None,
            "p50": percentile(totals, 0.50),
            "p95": percentile(totals, 0.95),
        },
        "in_flight": sum(track.in_flight for track in tracks),
    }


def percentile(ordered: list[float], share: float) -> float | None:
    """Return the nearest-rank percentile of ordered numbers."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def extensions() -> Body:
    """Return GET /v1/extensions: the headers of the draft."""
    names = [field.name for field in FIELDS.values()]
    return {"object": "list", "data": [{"id": name} for name in (*names, *RESPONSE_HEADERS)]}


def capabilities(router: "RightRouter") -> Body:
    """Return GET /v1/capabilities: what the models can do between them."""
    rows = [
        {"model": m.name, "capabilities": sorted(m.capabilities)} for m in router.settings.models
    ]
    rows.append({"model": pictures.NAME, "capabilities": pictures.capabilities(router)})
    return {"object": "list", "data": rows}


def decision(router: "RightRouter", name: str) -> Body:
    """Return the decision record of a request.

    Raises:
        Refusal: no such request, or too long ago.
    """
    found = router.decisions.get(name)
    if found is None or router.has("no-decisions"):
        raise Refusal(404, "not_found", "no such decision")
    return found


def costs(router: "RightRouter") -> Body:
    """Return the ledger as GET /v1/analytics shows it."""
    rows = [
        {**row, "at": row["at"].isoformat(), "cost": float(row["cost"])}
        for row in router.ledger.rows
    ]
    total = sum((row["cost"] for row in router.ledger.rows), start=0)
    return {"object": "analytics", "cost_usd": float(total), "rows": rows}


# --- predict --------------------------------------------------------------------------------------


def predict_body(router: "RightRouter", body: Body) -> tuple[str, Body, Body]:
    """Return endpoint, chat or embeddings body, and the routing member of a predict request.

    Raises:
        Refusal: 400, something is missing or wrong.
    """
    for name in ("model", "input"):
        if name not in body:
            raise Refusal(400, "missing_required_parameter", f"{name} is missing", name)
    if not isinstance(body["model"], str):
        raise Refusal(400, "invalid_type", "model is text", "model")
    routing = routing_of(router, body.get("routing"))
    rest = {n: v for n, v in body.items() if n not in ("model", "input", "routing", "stream")}
    served = [m for m in router.settings.models if m.name == body["model"]]
    embeds = served and all("embeddings" in m.capabilities for m in served)
    if embeds and not router.has("predict-text-only"):
        return "embeddings", {**rest, "model": body["model"], "input": body["input"]}, routing
    if not isinstance(body["input"], str):
        raise Refusal(400, "unsupported_capability", "the model takes text", "input")
    turns = [{"role": "user", "content": body["input"]}]
    return "chat", {**rest, "model": body["model"], "messages": turns}, routing


def routing_of(router: "RightRouter", given: Any) -> Body:
    """Return the routing member, its strategy in canonical spelling."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise Refusal(400, "invalid_type", "routing is an object", "routing")
    found = dict(given)
    unknown = set(found) - {"strategy", "max_cost", "timeout"}
    if unknown:
        raise Refusal(400, "invalid_value", "unknown member", f"routing.{min(unknown)}")
    strategy = found.get("strategy")
    if strategy is not None:
        known = canonical(strategy) if isinstance(strategy, str) else None
        if known is None and not router.has("body-strategy-any"):
            code = "invalid_value" if isinstance(strategy, str) else "invalid_type"
            raise Refusal(400, code, "unknown strategy", "routing.strategy")
        found["strategy"], found["asked"] = known, strategy
    check_number(found.get("max_cost"), "routing.max_cost", 0, whole=False)
    for defect, name in (
        ("predict-strategy-ignored", "strategy"),
        ("predict-limit-ignored", "max_cost"),
    ):
        if router.has(defect):
            found.pop(name, None)
    if not router.has("timeout-any"):
        check_number(found.get("timeout"), "routing.timeout", 1, whole=True)
    return found


def check_number(value: Any, name: str, least: float, *, whole: bool) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        raise Refusal(400, "invalid_type", f"{name} is a number", name)
    if value < least:
        raise Refusal(400, "invalid_value", f"{name} is too small", name)


def predicted(ask: Ask, body: Body) -> Body:
    """Return the native answer for what a provider said."""
    served = ask.served
    assert served is not None
    assert ask.plan is not None
    output: Any
    if ask.endpoint == "embeddings":
        output = [row["embedding"] for row in body["data"]]
        output = output[0] if isinstance(ask.body["input"], str) else output
    else:
        output = body["choices"][0]["message"].get("content")
    usage = served.usage or {}
    made, prompt = usage.get("completion_tokens", 0), usage.get("prompt_tokens", 0)
    tried = list(dict.fromkeys(one.model.provider.id for one in ask.attempts))
    currency = "EUR" if ask.has("predict-euro") else "USD"
    amount = cost_as_float(served.cost)
    if ask.has("predict-cost-rounded") and amount is not None:
        amount = round(amount, 4)
    metadata: Body = {
        "provider": served.model.provider.id,
        "node_id": ask.settings.node,
        "latency_ms": ask.elapsed_ms(),
        "tokens": {"input": prompt, "output": made, "total": prompt + made},
        "cost": {"amount": amount, "currency": currency},
        "routing": {
            "strategy_used": ask.native.get("asked") or ask.strategy,
            "providers_tried": tried[-1:] if ask.has("tried-only-last") else tried,
            "failovers": len(tried) if ask.has("failovers-off-by-one") else len(tried) - 1,
            "reason": failover_reason(ask) or ask.plan.reason,
        },
    }
    if ask.has("predict-no-routing"):
        del metadata["routing"]
    name = "constant" if ask.has("predict-same-id") else ask.id
    model = AUTO if ask.model_auto else served.model.name
    return {"request_id": name, "model": model, "output": output, "metadata": metadata}
