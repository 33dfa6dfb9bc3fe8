"""Text from tokens: whole characters, exact stops, whatever the cuts; a few tokens decoded each."""

from collections.abc import Sequence

from hypothesis import example, given
from hypothesis import strategies as st

from aiproxy.reference_server.onnx.text.detokenising import (
    Decode,
    Detokeniser,
    StopScanner,
    TextMaker,
)
from aiproxy.reference_server.onnx.text.runner import TokenLogprob

HIDDEN = 300


def decode_bytes(ids: Sequence[int], show_special: bool = False) -> str:
    hidden = b"<end>" if show_special else b""
    pieces = (hidden if byte == HIDDEN else bytes([byte]) for byte in ids)
    return b"".join(pieces).decode("utf-8", "replace")


def decode_words(ids: Sequence[int], show_special: bool = False) -> str:
    """As SentencePiece does: a space before each word but the first."""
    return " ".join(f"w{i}" for i in ids if i != HIDDEN)


@given(st.text())
def test_characters_come_whole_and_complete(text: str) -> None:
    detokeniser = Detokeniser(decode_bytes)
    pieces = [detokeniser.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) == len(text)


@given(st.lists(st.integers(0, 9) | st.just(HIDDEN), min_size=1))
def test_a_decoder_that_looks_at_what_is_before_gives_the_same_text(ids: list[int]) -> None:
    detokeniser = Detokeniser(decode_words)
    assert "".join(map(detokeniser.push, ids)) == decode_words(ids)


def test_a_long_answer_costs_the_decoding_of_a_few_tokens_each() -> None:
    decoded: list[int] = []

    def counting(ids: Sequence[int], show_special: bool) -> str:
        decoded.append(len(ids))
        return decode_bytes(ids)

    detokeniser = Detokeniser(counting)
    for byte in [*b"some words ", HIDDEN, *"möre".encode()] * 500:
        detokeniser.push(byte)
    assert max(decoded) <= 8
    assert sum(decoded) / (500 * 17) < 4


def test_broken_bytes_do_not_hold_up_what_follows() -> None:
    detokeniser = Detokeniser(decode_bytes)
    text = "".join(detokeniser.push(byte) for byte in b"\xff\xff\xff\xffhello")
    assert text.endswith("hello")


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")),
    sizes=st.lists(st.integers(1, 7), min_size=1),
)
@example(
    "000000\x80\U000100000\x80\U00010000", [1, 7, 1, 1]
)  # the fourth token ends one and begins one
def test_tokens_that_begin_and_end_inside_characters_spell_the_text(
    text: str, sizes: list[int]
) -> None:
    assert through(cut(text, sizes)) == text


def test_a_row_of_tokens_across_characters_is_neither_kept_back_nor_decoded_again() -> None:
    tokens = cut("กขค" * 500, [2, *[3] * 1499, 1])
    decoded: list[int] = []
    detokeniser = Detokeniser(decoder(tokens, decoded))
    pieces = [detokeniser.push(at) for at in range(len(tokens))]
    assert ["", *"กขค" * 500] == pieces
    assert max(decoded) <= 4


def cut(text: str, sizes: Sequence[int]) -> list[bytes]:
    """Return the UTF-8 of ``text`` in pieces of these sizes in turn."""
    content, tokens, at = text.encode(), [], 0
    while at < len(content):
        size = sizes[len(tokens) % len(sizes)]
        tokens.append(content[at : at + size])
        at += size
    return tokens


def decoder(tokens: Sequence[bytes], decoded: list[int]) -> Decode:
    """Return what decodes places in ``tokens`` and notes how many at once."""

    def decode(ids: Sequence[int], show_special: bool) -> str:
        decoded.append(len(ids))
        return b"".join(tokens[at] for at in ids).decode("utf-8", "replace")

    return decode


def through(tokens: Sequence[bytes]) -> str:
    detokeniser = Detokeniser(decoder(tokens, []))
    return "".join(map(detokeniser.push, range(len(tokens)))) + detokeniser.flush()


def test_half_a_character_at_the_end_is_left_out() -> None:
    detokeniser = Detokeniser(decode_bytes)
    text = "".join(detokeniser.push(byte) for byte in "ab€".encode()[:-1])
    assert text + detokeniser.flush() == "ab"


def test_special_tokens_show_when_asked_for() -> None:
    shown = Detokeniser(decode_bytes, show_special=True)
    assert "".join(map(shown.push, [97, HIDDEN, 98])) == "a<end>b"


@given(
    text=st.text("abX", max_size=30),
    stops=st.lists(st.text("abX", min_size=1, max_size=4), max_size=3),
    sizes=st.lists(st.integers(1, 5)),
)
def test_cutting_the_text_elsewhere_never_changes_the_answer(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    expected = text[: min(found)] if found else text
    scanner, rest, said = StopScanner(stops), text, ""
    for size in [*sizes, *([1] * len(text))]:
        piece, rest = rest[:size], rest[size:]
        said += scanner.push(piece)
        if scanner.stopped:
            break
    said += scanner.flush()
    assert scanner.stopped == bool(found)
    # A later-starting stop that completes first ends the answer there: nothing after it is known.
    assert expected == said or (found and text.startswith(said))


def test_the_beginning_of_a_stop_string_is_held_until_it_is_decided() -> None:
    scanner = StopScanner(["<end>"])
    assert [scanner.push(piece) for piece in ("one <", "en", "x <end", ">two")] == [
        "one ",
        "",
        "<enx ",
        "",
    ]
    assert scanner.stopped


@given(
    text=st.text("aXé€", min_size=1, max_size=20),
    stops=st.lists(st.text("aXé€", min_size=1, max_size=3), max_size=2),
)
def test_each_log_probability_comes_with_or_after_its_text_and_none_behind_a_stop(
    text: str, stops: list[str]
) -> None:
    maker = TextMaker(decode_bytes, stops, show_special=False)
    said, given = "", 0
    content = text.encode()
    for number, byte in enumerate(content):
        piece, certain = maker.push(byte, TokenLogprob(byte, -float(number)))
        assert [-found.logprob for found in certain] == [*range(given, given + len(certain))]
        said, given = said + piece, given + len(certain)
        if not maker.stopped:
            assert len(content[:given].decode("utf-8", "strict")) <= len(said)
        if maker.stopped:
            break
    if not maker.stopped:
        piece, certain = maker.finish()
        said, given = said + piece, given + len(certain)
        assert (said, given) == (text, len(content))
    assert content[:given] == said.encode()


def test_a_log_probability_says_where_its_text_begins() -> None:
    tokens = [b"a", b"\xe6", b"\x97", b"\xa5\xe6", b"\x9c\xac", b"bc", b"d"]
    maker = TextMaker(decoder(tokens, []), (), show_special=False)
    rows = [row for at in range(7) for row in maker.push(at, TokenLogprob(at, -1.0))[1]]
    assert [row.begin for row in rows] == [0, 1, 1, 1, 2, 3, 5]


def test_tokens_of_half_a_character_keep_their_log_probabilities() -> None:
    maker = TextMaker(decode_bytes, (), show_special=False)
    for byte in b"a\xe2\x82":
        maker.push(byte, TokenLogprob(byte, -1.0))
    assert maker.finish() == ("", (TokenLogprob(0xE2, -1.0), TokenLogprob(0x82, -1.0)))
