"""An answer of every provider reaches the clients of every dialect, streamed or whole."""

import pytest
from fidelity.answers import ANSWERS
from fidelity.client_readers import WHOLE
from fidelity.facts import Fact
from fidelity.provider_writers import PROVIDERS
from fidelity.reply_grid import BY_NAME, cell, check_reply, told
from fidelity.request_grid import INGRESS, there

from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec

NAMES = tuple(BY_NAME)
PAIRS = [
    (provider, ingress)
    for ingress in INGRESS
    if there(ingress) and hasattr(codec(ingress), "encode_reply")
    for provider in SPOKEN_FOR[ingress]
    if there(provider)
]  # fmt: skip
#: Answers whose stream a client's dialect cannot show although it can show the whole: by client,
#: and always declared.
STREAM_SHOWS_LESS = {
    "hosted tool": ("responses", "draft"),
    "two choices": ("draft",),
    "sound": ("draft",),
}


def test_the_table_is_wide_enough() -> None:
    assert len(ANSWERS) >= 30
    assert len(NAMES) == len(ANSWERS), "two answers have one name"
    for answer in ANSWERS:
        assert any(p.says(answer, True) for p in PROVIDERS.values()), answer.name
    assert {provider for provider, _ in PAIRS} <= set(PROVIDERS)
    assert {ingress for _, ingress in PAIRS} <= set(WHOLE)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("provider", "ingress"), PAIRS)
def test_nothing_is_lost_in_silence(provider: str, ingress: str, stream: bool) -> None:
    cells = {name: cell(provider, ingress, name, stream) for name in NAMES}
    assert {n: (c.missing, told(provider, ingress, n, stream)) for n, c in cells.items()
            if c.state == "silent"} == {}  # fmt: skip
    assert sum(found.state == "kept" for found in cells.values()) >= 8


@pytest.mark.parametrize(("provider", "ingress"), PAIRS)
def test_a_stream_put_together_is_the_whole_answer(provider: str, ingress: str) -> None:
    source = PROVIDERS[provider]
    different: dict[str, tuple[list[Fact], list[Fact]]] = {}
    for name in NAMES:
        if not source.says(BY_NAME[name], True):
            continue
        if ingress in STREAM_SHOWS_LESS.get(name, ()):
            continue
        whole, streamed = (told(provider, ingress, name, stream) for stream in (False, True))
        assert whole is not None
        assert streamed is not None
        if sorted(set(whole[0])) != sorted(set(streamed[0])):
            different[name] = (sorted(set(whole[0])), sorted(set(streamed[0])))
    assert different == {}


@pytest.mark.parametrize("provider", sorted({provider for provider, _ in PAIRS}))
def test_usage_is_read_the_same_from_the_whole_body(provider: str) -> None:
    """What is metered without decoding is what decoding finds."""
    module = codec(provider)
    for answer in ANSWERS:
        if not PROVIDERS[provider].says(answer, False):
            continue
        body = PROVIDERS[provider].whole(answer)
        assert check_reply(provider, body) is None
        if hasattr(module, "read_usage"):
            assert module.read_usage(body) == module.decode_reply(body).usage
