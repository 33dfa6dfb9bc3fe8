"""Several members answer one request: ``routing.ensembles``, asked for as ``ensemble/NAME``."""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from right_server import Refusal

from right_router import attempts, shapes
from right_router.candidates import with_fallbacks

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.preferences import Preferences
    from right_router.serving import Exchange

PREFIX = "ensemble/"
#: A member's request, its answer as the client would get it, and the row that names it.
Answer = tuple["Ask", dict[str, Any], Mapping[str, Any]]


def named(exchange: "Exchange", model: object) -> Mapping[str, Any] | None:
    """Return the ensemble of that name, ``None`` for a model.

    Raises:
        Refusal: there is no such ensemble.
    """
    if not isinstance(model, str) or not model.startswith(PREFIX):
        return None
    rows: Mapping[str, Any] = exchange.router.settings.routing.get("ensembles") or {}
    row: Mapping[str, Any] | None = rows.get(model.removeprefix(PREFIX))
    if row is None:
        raise Refusal(404, "model_not_found", "no such model", "model")
    return row


def answered(
    exchange: "Exchange", row: Mapping[str, Any], body: dict[str, Any], said: "Preferences"
) -> Answer:
    """Return the answer of an ensemble.

    Raises:
        Refusal: too few members answer.
    """
    has, members = exchange.has, list(row["members"])
    if row["method"] == "cascade":
        return _cascade(exchange, members, body, said)
    workers = 1 if has("members-in-turn") else len(members)
    with ThreadPoolExecutor(workers) as pool:
        given = list(pool.map(lambda one: _member(exchange, one, body, said), members))
    found = [answer for answer in given if answer is not None]
    quorum = row.get("quorum") or len(members) // 2 + 1
    if has("one-failure-is-fatal"):
        quorum = len(members)
    if has("no-quorum"):
        quorum = 1
    if len(found) < quorum:
        raise Refusal(502, "all_providers_failed", "too few members answered")
    if has(f"{row['method']}-takes-the-first"):
        return found[0]
    votes: Counter[str] = Counter()
    for _, answer, one in found:
        heavy = row["method"] == "weighted" and not has("weights-forgotten")
        votes[_text(answer)] += one["weight"] if heavy else 1
    most = votes.most_common(1)[0][0]
    return next(answer for answer in found if _text(answer[1]) == most)


def _cascade(
    exchange: "Exchange", members: list[Any], body: dict[str, Any], said: "Preferences"
) -> Answer:
    names = {one["model"] for one in members}
    models = [m for m in exchange.router.settings.models if m.name in names]
    prices = {m.provider.id: m.price for m in models}
    dearest_first = exchange.has("cascade-upside-down")
    members.sort(key=lambda one: prices.get(one["provider"]) or (0, 0), reverse=dearest_first)
    found = None
    for one in members:
        answer = _member(exchange, one, body, said)
        found = found or answer
        if exchange.has("cascade-gives-up") or (
            found is not None and not exchange.has("cascade-asks-everybody")
        ):
            break
    if found is None:
        raise Refusal(502, "all_providers_failed", "nobody answered")
    return found


def _member(
    exchange: "Exchange", one: Mapping[str, Any], body: dict[str, Any], said: "Preferences"
) -> Answer | None:
    ask = exchange.asked("chat", {**body, "model": one["model"]}, said)
    wanted = frozenset({one["provider"]})
    ask.pool = wanted if ask.pool is None else ask.pool & wanted
    try:
        ask.plan = with_fallbacks(ask)
        found = attempts.serve(ask)
    except Refusal:
        return None
    assert isinstance(found, attempts.Answered)
    return ask, shapes.answer(ask, found), one


def _text(answer: Mapping[str, Any]) -> str:
    text = answer["choices"][0]["message"].get("content")
    return str(text)
