"""Each file of ``broken/`` is refused with the line, the key and the words of its first lines.

A header line reads ``# expect: LINE: KEY: WORDS``; KEY may be empty. The problems of the file are
exactly those expected.
"""

import re
from pathlib import Path

import pytest

from aiproxy.middleware.config import ConfigInvalid, load_config

FOLDER = Path(__file__).parent / "broken"
FILES = sorted(FOLDER.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (\d+): (.*?): (.*)")
ENV = {
    "OPENAI_API_KEY": "openai-canary-value",
    "CLOUDFLARE_API_TOKEN": "cloudflare-canary-value",
    "AIPROXY_API_KEY_1": "first-canary-value-0001",
    "AIPROXY_API_KEY_2": "second-canary-value-0002",
    "SHORT": "canary",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_broken_file_is_refused_with_line_key_and_reason(file: Path) -> None:
    expected = [match.groups() for match in map(EXPECT.fullmatch, _lines(file)) if match]
    with pytest.raises(ConfigInvalid) as refused:
        load_config(file, env=ENV)
    problems = refused.value.problems
    assert [(str(one.line), one.key) for one in problems] == [row[:2] for row in expected]
    for problem, (line, _, words) in zip(problems, expected, strict=True):
        assert words in problem.message
        assert str(problem).startswith(f"{file}:{line}: ")
        assert "canary" not in str(problem)


def test_there_are_at_least_forty_broken_files() -> None:
    assert len(FILES) >= 40


def test_every_broken_file_says_what_to_expect() -> None:
    assert [file.name for file in FILES if not EXPECT.match(_lines(file)[0])] == []


def _lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()
