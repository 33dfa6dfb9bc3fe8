"""The other side of a request: what the fake providers saw of it and said, fit for a report."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from aiproxy.conformance.endpoint import Endpoint, Sent
from aiproxy.conformance.redaction import Redactor
from aiproxy.conformance.rig.log import Attempt
from aiproxy.conformance.rig.proof import nonces

# An attempt belongs to the last request that left before it; this covers a coarse clock.
_SLACK_S = 0.002


def fill_in(endpoint: Endpoint, since: int, attempts: Callable[[str], tuple[Attempt, ...]]) -> None:
    """Add to the exchanges of ``endpoint`` from number ``since`` on what reached the fakes."""
    sent = endpoint.sent[since:]
    by_nonce: dict[str, list[int]] = {}
    for place, one in enumerate(sent):
        for name in dict.fromkeys(nonces(one.content)):
            by_nonce.setdefault(name, []).append(place)
    texts: dict[int, list[str]] = {}
    for name, places in by_nonce.items():
        for attempt in attempts(name):
            place = _cause(attempt, places, sent)
            texts.setdefault(place, []).append(_text(attempt, sent[place], endpoint.redactor))
    for place, found in texts.items():
        exchange = endpoint.exchanges[since + place]
        endpoint.exchanges[since + place] = replace(exchange, upstream=tuple(found))


def _cause(attempt: Attempt, places: list[int], sent: list[Sent]) -> int:
    """Return which of the requests at ``places`` led to ``attempt``, as far as one can tell."""
    before = [place for place in places if sent[place].begun <= attempt.at + _SLACK_S]
    return max(before, key=lambda place: sent[place].begun, default=places[0])


def _text(attempt: Attempt, sent: Sent, redact: Redactor) -> str:
    who = f"{attempt.role} ({attempt.provider}), attempt {attempt.number} there"
    head = redact.head(f"{attempt.method} {attempt.path}", attempt.headers.items())
    return (
        f"{who}, {attempt.at - sent.begun:+.3f} s\n{head}\n\n{redact.text(attempt.body)}\n"
        f"({'; '.join(_fate(attempt))})"
    )


def _fate(attempt: Attempt) -> Iterable[str]:
    if attempt.status is not None and attempt.answered_at is not None:
        yield f"answered {attempt.status} after {attempt.answered_at - attempt.at:.3f} s"
    else:
        yield "not answered"
    if attempt.fault:
        yield f"fault {attempt.fault}"
    if attempt.gone:
        yield "the target closed the connection"
