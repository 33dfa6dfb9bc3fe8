"""Text from tokens: whole characters, exact stops, whatever the cuts."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from aiproxy.reference_server.onnx.detokenising import Detokeniser, StopScanner


def decode_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


@given(st.text())
def test_characters_come_whole_and_complete(text: str) -> None:
    detokeniser = Detokeniser(decode_bytes)
    pieces = [detokeniser.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) == len(text)


def test_broken_bytes_do_not_hold_up_what_follows() -> None:
    detokeniser = Detokeniser(decode_bytes)
    text = "".join(detokeniser.push(byte) for byte in b"\xff\xff\xff\xffhello")
    assert text.endswith("hello")


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
