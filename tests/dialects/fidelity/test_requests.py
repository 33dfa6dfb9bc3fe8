"""A request crosses every pair of dialects with each feature kept, refused, or declared lost."""

from collections import Counter

import pytest
from fidelity.features import REQUESTS
from fidelity.request_grid import (
    FEATURES,
    cell,
    ingresses,
    model_of,
    said_in,
    sent_bodies,
    there,
)
from fidelity.request_readers import DIALECTS
from fidelity.strict_providers import refusal

from aiproxy.middleware.dialects.codecs import SPOKEN_FOR

NAMES = tuple(FEATURES)
PAIRS = [
    (ingress, egress)
    for ingress in ingresses()
    for egress in SPOKEN_FOR[ingress]
    if there(egress)
]  # fmt: skip
#: The strict twins are of what most servers of that shape take; these only OpenAI's own does.
ONLY_OPENAI = {
    "chat": ("custom tool", "custom call and result", "tool_choice of several", "hosted tool"),
    "responses": ("tool_choice of several",),
}


def test_the_table_is_wide_enough() -> None:
    assert len(REQUESTS) >= 40
    assert len(NAMES) == len(REQUESTS), "two features have one name"
    sayable = {name for name in NAMES if any(said_in(i, name, False) for i in ingresses())}
    assert set(NAMES) - sayable == set(), "no dialect has words for it"
    assert len([name for name in NAMES if said_in("chat", name, False)]) >= 50


@pytest.mark.parametrize(("ingress", "egress"), PAIRS)
def test_nothing_is_lost_in_silence(ingress: str, egress: str) -> None:
    cells = {name: cell(ingress, egress, name, False) for name in NAMES}
    silent = {name: found.missing for name, found in cells.items() if found.state == "silent"}
    assert silent == {}
    assert Counter(found.state for found in cells.values())["kept"] >= 5


@pytest.mark.parametrize(("ingress", "egress"), PAIRS)
def test_a_stream_is_asked_for_in_the_same_words(ingress: str, egress: str) -> None:
    for name in NAMES:
        assert cell(ingress, egress, name, True) == cell(ingress, egress, name, False)


@pytest.mark.parametrize("dialect", [i for i in ingresses() if (i, i) in PAIRS])
def test_a_request_that_stays_in_its_dialect_keeps_everything(dialect: str) -> None:
    cells = {name: str(cell(dialect, dialect, name, False)) for name in NAMES}
    assert {n: s for n, s in cells.items() if s not in ("kept", "unsaid")} == {}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ingress", ingresses())
def test_providers_take_what_they_are_sent(ingress: str, stream: bool) -> None:
    """Never a 400 of our making, whatever was said and wherever it goes."""
    refused = {
        (egress, name): why
        for egress, name, body in sent_bodies(ingress, stream)
        if name not in ONLY_OPENAI.get(egress, ())
        and (why := refusal(egress, body, stream, model_of(egress))) is not None
    }
    assert refused == {}


@pytest.mark.parametrize("egress", sorted({egress for _, egress in PAIRS}))
def test_readers_know_every_dialect(egress: str) -> None:
    assert egress in DIALECTS
