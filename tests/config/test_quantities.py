"""Durations and sizes: a number, one unit, nothing else."""

import contextlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.config.quantities import parse_duration, parse_size

SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
NUMBERS = st.decimals(min_value=0, max_value=10**9, places=3).map(lambda number: f"{number:f}")


@given(number=NUMBERS, unit=st.sampled_from(sorted(SECONDS)))
def test_a_duration_is_number_times_unit_in_seconds(number: str, unit: str) -> None:
    assert parse_duration(number + unit) == float(Decimal(number) * SECONDS[unit])


@given(number=NUMBERS, unit=st.sampled_from(sorted(BYTES)))
def test_a_size_is_number_times_unit_in_whole_bytes(number: str, unit: str) -> None:
    assert parse_size(number + unit) == int(Decimal(number) * BYTES[unit])


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("0s", 0)]
)
def test_known_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("10MB", 10_000_000), ("2KiB", 2048), ("512B", 512), ("1.5GiB", 1610612736)]
)
def test_known_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["5", "", "s", "5 s", "-1s", "+1s", "5 parsecs", "5S", "1e3s", ".5s", "5.s", "5s\n", "٥s"],
)
def test_other_forms_are_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration with a unit"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["10", "10 MB", "10mb", "10 apples", "-1MB", "10MB ", "1TB"])
def test_other_forms_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size with a unit"):
        parse_size(text)


@given(text=st.text(max_size=12))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
