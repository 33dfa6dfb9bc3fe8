from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.routing.globs import automaton, compile_glob

TEXTS = st.text("ab[]!-.\n", max_size=12)
PATTERNS = st.text("ab[]!-.*?", max_size=12)


@given(PATTERNS, TEXTS)
def test_patterns_agree_with_the_standard_library(pattern: str, text: str) -> None:
    expected = fnmatchcase(text, pattern.replace("[", "[[]"))
    assert (compile_glob(pattern)(text), automaton(pattern)(text)) == (expected, expected)


@given(st.text(max_size=20))
def test_any_text_fits_itself_and_a_star(text: str) -> None:
    assert compile_glob(text)(text)
    assert compile_glob("*")(text)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("llama-*", "llama-3-8b", True),
        ("llama-*", "xllama-1", False),
        ("llama-*", "LLAMA-3", False),
        ("llama-[0-9]", "llama-3", False),
        ("llama-[0-9]", "llama-[0-9]", True),
        ("gpt-4*", "gpt-4", True),
        ("gpt-4*", "gpt-4*", True),
        ("gpt-4*", "gpt-3.5", False),
        ("aba*aba", "aba", False),
        ("a.c", "abc", False),
        ("?", "", False),
        ("", "", True),
        ("a*b?c*", "axxbyc", True),
    ],
)
def test_examples(pattern: str, text: str, expected: bool) -> None:
    assert compile_glob(pattern)(text) is expected


class Counted(str):
    """Text that counts how many of its characters were looked at."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        for char in str.__iter__(self):
            self.looks += 1
            yield char


@pytest.mark.parametrize(
    "pattern",
    ["a*" * 500 + "b", "*" * 10_000, "*a?" * 300 + "b", "*" + "a" * 400 + "b*", "?*" * 400],
)
def test_each_character_is_looked_at_once_however_bad_the_pattern(pattern: str) -> None:
    looks = []
    for size in (1_000, 2_000, 4_000):
        text = Counted("a" * size)
        automaton(pattern)(text)
        looks.append(text.looks)
    assert looks == [1_000, 2_000, 4_000]


def test_ten_thousand_stars_fit_everything() -> None:
    assert compile_glob("*" * 10_240)("gpt-4o")
