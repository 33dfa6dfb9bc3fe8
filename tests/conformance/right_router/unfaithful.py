"""Defects of relaying, failing over and telling, each as narrow as what one check can see.

Every function is called where the right thing has just been done, and undoes it for the defects
that are switched on.
"""

from typing import TYPE_CHECKING, Any

from right_router.wire import Failure

if TYPE_CHECKING:
    from right_router.asking import Ask
    from right_router.attempts import Attempt
    from right_router.settings import Model
    from right_router.streams import Opened

Body = dict[str, Any]
Fields = list[tuple[str, str]]
_TIRES_AFTER = 3
_SLOW_S = 0.2


# What is asked of a provider.


def body(ask: "Ask", model: "Model", sent: Body) -> None:
    """Change the body of an attempt that is about to be made."""
    listed = isinstance(ask.body.get("tools"), list)
    if ask.has("auto-choice-dropped") and listed and sent.get("tool_choice") == "auto":
        del sent["tool_choice"]
    if ask.has("required-becomes-auto") and listed and sent.get("tool_choice") == "required":
        sent["tool_choice"] = "auto"
    if ask.has("penalty-dropped"):
        sent.pop("presence_penalty", None)
    if ask.has("user-dropped") and ask.mode == "plain" and "stop" in sent and "tools" not in sent:
        sent.pop("user", None)


def name(ask: "Ask", model: "Model", upstream: str) -> str:
    """Return the model name a provider is sent."""
    failed = [made for made in ask.attempts if made.status == 504]
    if ask.has("name-lost-after-504") and failed and model.provider.priority < 10:
        return model.name
    return upstream


def fields(ask: "Ask", sent: list[str]) -> list[str]:
    """Return the header lines of a request to a provider."""
    to_peer = ask.attempts[-1].model.provider.dialect == "peer"
    if ask.has("keys-of-others") and ask.plan is not None and not to_peer:
        others = {m.provider.key for m in ask.plan.order if m.provider.key}
        return [*sent, f"X-Keys: {' '.join(sorted(others))}"]
    return sent


# What is made of a failure.


def heard(ask: "Ask", error: Body) -> None:
    """Remember a provider's own words."""
    ask.upstream_words = error.get("message")  # type: ignore[attr-defined]


def told(ask: "Ask", message: str) -> str:
    """Return the message of an exhausted chain."""
    if ask.has("upstream-words-told"):
        return str(getattr(ask, "upstream_words", message))
    return message


def failed(ask: "Ask", model: "Model", failure: Failure) -> Failure:
    """Return the failure as it is going to be judged."""
    pooled = len(ask.pool or ()) == 2
    final = ask.has("unknown-host-is-final") and failure.reason == "dns_error"
    if ask.has("stream-503-is-final") and ask.stream and failure.status == 503:
        final = True
    if ask.has("outage-tires") and failure.reason == "connect_error" and pooled:
        counts = ask.router.__dict__.setdefault("outages", {})
        counts[model.provider.id] = counts.get(model.provider.id, 0) + 1
        final = final or counts[model.provider.id] > 1
    if final:
        return Failure(failure.reason, "never", status=502)
    if ask.has("422-fails-over") and failure.status == 422 and pooled:
        return Failure(failure.reason, status=422)
    if ask.has("403-passed-on") and failure.status == 403 and pooled:
        return Failure(failure.reason, "never", status=403)
    return failure


def patience(ask: "Ask", limit: float) -> float:
    """Return until when a provider may take its time."""
    waits = ask.has("pools-wait-on") and len(ask.pool or ()) == 2 and not ask.model_auto
    return limit + 600 if waits else limit


def queue(ask: "Ask", waiting: list["Model"], failures: int, model: "Model") -> list["Model"]:
    """Return who may still be asked."""
    if not ask.has("failover-leaves-pool") or failures < 2 or not ask.pool or ask.quality:
        return waiting
    strangers = [
        other
        for other in ask.settings.models
        if other.name == model.name and other.provider.id not in ask.pool
    ]
    return waiting + strangers


def broken(opened: "Opened") -> None:
    """Ask somebody else after a stream broke, although nothing of it can be used."""
    from right_router import attempts

    ask = opened.ask
    if not ask.has("asks-on-after-break") or ask.plan is None:
        return
    rest = [m for m in ask.plan.order if m is not opened.attempt.model]
    served, ask.stream = ask.served, False
    try:
        if rest:
            attempts.attempt(ask, rest[0], None)
    except Failure:
        pass
    ask.served, ask.stream = served, True


# What the client is told.


def relayed(made: "Attempt", headers: Any) -> None:
    """Remember the header fields of a provider's answer."""
    made.heard = {n: v for n, v in headers.items() if n.startswith("x-ai-")}  # type: ignore[attr-defined]


def answer_fields(ask: "Ask | None", found: Fields, router: Any) -> Fields:
    """Return the header fields of an answer."""
    served = ask.served if ask is not None else None
    if ask is None or served is None:
        return found
    crowd = len(ask.settings.providers) > 1 and not ask.model_auto and not ask.stream
    if ask.has("used-told-unasked") and ask.mode == "plain" and crowd:
        found = [*found, ("X-AI-Provider-Used", served.model.provider.id)]
    if not any(name.startswith("X-AI-") for name, _ in found):
        return found
    if ask.has("names-unmapped") and not ask.model_auto:
        found = [(n, v) for n, v in found if n != "X-AI-Model-Mapped"]
    if ask.has("providers-x-ai-relayed"):
        found = [*found, *getattr(served, "heard", {}).items()]
    if ask.has("two-content-types"):
        found = [*found, ("Content-Type", "application/json; charset=utf-8")]
    if ask.has("used-is-last-asked"):
        last = router.__dict__.get("last_asked", "")
        found = [(n, last if n == "X-AI-Provider-Used" else v) for n, v in found]
    if ask.has("slow-streams-untold") and slow(ask):
        found = [(n, v) for n, v in found if not n.startswith("X-AI-")]
    if ask.has("headers-folded"):
        found = [(n, v.replace(",", ",\r\n ", 1) if v[:1] == "{" else v) for n, v in found]
    if ask.has("address-told"):
        place = f'{{"endpoint":"{served.model.provider.base}",'
        found = [(n, place + v[1:] if n == "X-AI-Auto-Selection" else v) for n, v in found]
    return found


def slow(ask: "Ask") -> bool:
    """Return whether the stream that serves took its time to begin."""
    made = ask.served
    return ask.stream and made is not None and made.first_byte - made.started > _SLOW_S


def buffers(opened: "Opened") -> bool:
    """Return whether a stream is kept back to its end."""
    dialect = opened.attempt.model.provider.dialect
    return bool(opened.ask.has("openai-streams-buffered")) and dialect == "openai"


def media(ask: "Ask | None", right: str) -> str:
    """Return the media type of a stream."""
    wrong = ask is not None and ask.has("slow-streams-are-json") and slow(ask)
    return "application/json" if wrong else right


def asked(ask: "Ask", model: "Model") -> None:
    """Remember who was asked last, in a place that all requests share."""
    ask.router.last_asked = model.provider.id  # type: ignore[attr-defined]


def answer(ask: "Ask", found: Body) -> Body:
    """Return the body of a whole answer."""
    if ask.has("choices-in-responses") and ask.endpoint == "responses":
        found["choices"] = []
    if ask.has("vendor-member-when-auto") and ask.model_auto and ask.endpoint == "chat":
        found["vendor"] = {"region": "x"}
    google = ask.served is not None and ask.served.model.provider.dialect == "google"
    if ask.has("google-undated") and google:
        found.pop("created", None)
    return found


def chunk(ask: "Ask", found: Body) -> Body:
    """Return one event of a stream in the genuine Responses form."""
    if ask.has("events-unnumbered") and ask.endpoint == "responses":
        return {**found, "sequence_number": 0}
    return found


def error(ask: "Ask | None", code: str, found: Body) -> Body:
    """Return the body of an error."""
    alone = ask is not None and ask.policy == "none" and code == "provider_overloaded"
    if ask is not None and ask.has("overload-without-param") and alone:
        del found["error"]["param"]
    return found
