"""YAML and JSON are read safely, strictly and with places (AIP-CFG-002, 003, 005)."""

import contextlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.config import ConfigInvalid, load_config
from aiproxy.middleware.config.json_reader import read_json
from aiproxy.middleware.config.nodes import Unreadable
from aiproxy.middleware.config.yaml_reader import read_yaml

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)
)
HOSTILE = {
    "billion laughs": LAUGHS,
    "recursive alias": "a: &a [*a]\n",
    "deep flow": "[" * 50_000,
    "deep closed flow": "[" * 5_000 + "]" * 5_000,
    "deep block": "\n".join("  " * i + "a:" for i in range(500)),
    "object tag": "a: !!python/object/apply:os.system [id]\n",
    "local tag": "a: !secret x\n",
    "tagged key": "!!python/name:os.system a: 1\n",
    "list as key": "? [a, b]\n: 1\n",
    "alias as key": "a: &a x\n*a : 1\n",
    "undefined alias": "a: *nowhere\n",
    "merge of a scalar": "a: &a 1\nb: {<<: *a}\n",
    "second document": "a: 1\n---\nb: 1\n",
    "huge integer": "a: " + "9" * 39 + "\n",
    "nan": "a: .nan\n",
    "control character": "a: \x07\n",
    "many anchors": "".join(f"k{i}: &a{i} x\n" for i in range(260_000)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_yaml_is_refused_quickly(text: str) -> None:
    began = time.thread_time()
    with pytest.raises(Unreadable):
        read_yaml(text)
    assert time.thread_time() - began < 5  # of this thread alone: the machine may be busy


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# nothing\n", {}),
        ("a: yes\n", {"a": "yes"}),
        ("a: True\n", {"a": True}),
        ("a: 2026-01-31\n", {"a": "2026-01-31"}),
        ("a: 1:30\n", {"a": "1:30"}),
        ("a: 010\n", {"a": 10}),
        ("a: 0x10\n", {"a": 16}),
        ("a: 1e3\n", {"a": 1000.0}),
        ("a: '1'\n", {"a": "1"}),
        ("a: !!str 1\n", {"a": "1"}),
        ("a: ~\n", {"a": None}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("a: &a [1]\nb: *a\n", {"a": [1], "b": [1]}),
        ("'<<': 1\n", {"<<": 1}),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert read_yaml(text).plain() == value


def test_a_duplicate_key_names_both_lines() -> None:
    with pytest.raises(Unreadable, match="first in line 1") as refused:
        read_yaml("a: 1\nb: 2\na: 3\n")
    assert (refused.value.line, refused.value.column, refused.value.key) == (3, 1, "a")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("{\n  // note\n}", 2, "a comment"),
        ('{\n  "a": 1,\n}', 3, "a key in double quotes"),
        ('{"a": [1,]}', 1, "a JSON value"),
        ('{"a": 1, "a": 2}', 1, "second time"),
        ('{"a": NaN}', 1, "a JSON value"),
        ('{"a": 01}', 1, '"," or "}"'),
        ('{"a": "\\ud800"}', 1, "surrogate"),
        ('{"a": 1e999}', 1, "not finite"),
        ('{"a"', 1, "end of the file"),
        ('{"a": "x', 1, "broken string"),
        ("{'a': 1}", 1, "double quotes"),
        ("", 1, "end of the file"),
        ("{} {}", 1, "more text"),
        ("[" * 100, 1, "too many"),
    ],
)
def test_json_is_strict_and_says_where(text: str, line: int, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as refused:
        read_json(text)
    assert refused.value.line == line


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(value=JSON, indent=st.sampled_from([None, 1, "\t"]), ascii_only=st.booleans())
def test_json_reads_as_the_standard_library_reads_it(
    value: object, indent: int | str | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read_json(text).plain() == value


@given(text=st.text(alphabet=st.sampled_from("ab:-[]{}#&*!|>'\"%@`,? \n\t0.$<~\\é"), max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (read_yaml, read_json):
        with contextlib.suppress(Unreadable):
            assert isinstance(read(text).plain(), object)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: \xff\n", "not UTF-8"),
        (b"\n\nserver: 1 2: 3\n", ":3: "),
        (b"x" * (4 * 1024 * 1024 + 1), "more than"),
        (b"just text\n", "expected a mapping"),
    ],
)
def test_an_unreadable_file_is_refused_with_its_name(
    content: bytes, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigInvalid) as refused:
        load_config(file)
    assert str(refused.value).startswith(f"{file}:")
    assert words in str(refused.value)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no readable file"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfserver: {workers: 2}\n")
    assert load_config(file).values["server"]["workers"] == 2
