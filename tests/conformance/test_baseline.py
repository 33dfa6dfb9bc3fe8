"""The baseline: known failures are not news, and nothing else changes."""

import pytest

from aiproxy.conformance.baseline import Baseline, UnusableBaseline, compare, read_baseline
from aiproxy.conformance.results import Result, Status

CHECKS = ("AIP-API-001", "AIP-API-003", "XAI-HDR-001")


def results(**statuses: str) -> list[Result]:
    names = dict(zip("abc", CHECKS, strict=True))
    return [Result(names[n], 1, "MUST", "", "", Status(status)) for n, status in statuses.items()]


@pytest.mark.parametrize(
    "text",
    [
        "AIP-API-001\nXAI-HDR-001\n",
        "# known\n\nAIP-API-001   # see issue 12\n  XAI-HDR-001",
        "---\n- AIP-API-001\n- XAI-HDR-001\n",
        "\ufeffAIP-API-001\r\nXAI-HDR-001\r\n",
    ],
)
def test_a_list_is_read_with_comments_and_dashes(text: str):
    found = read_baseline(text, "known.txt", CHECKS)
    assert found == Baseline("known.txt", ("AIP-API-001", "XAI-HDR-001"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("AIP-API-001\n\nAIP-API-002\n", "known.txt:3: no check 'AIP-API-002'; did you mean"),
        ("AIP-API-001\nAIP-API-001", "known.txt:2: AIP-API-001 is listed twice"),
        ("AIP-API-001: later", "known.txt:1: a check id is needed, found 'AIP-API-001: later'"),
        ("[AIP-API-001]", "known.txt:1: a check id is needed"),
    ],
)
def test_what_is_no_check_is_refused_with_its_line(text: str, says: str):
    with pytest.raises(UnusableBaseline) as refused:
        read_baseline(text, "known.txt", CHECKS)
    assert says in str(refused.value)


def test_an_empty_baseline_expects_nothing():
    assert read_baseline("# nothing yet\n", "known.txt", CHECKS).expected == ()


@pytest.mark.parametrize(
    ("statuses", "expected", "known", "unexpected", "stale"),
    [
        ({"a": "pass", "b": "fail"}, (), (), "b", ()),
        ({"a": "pass", "b": "fail"}, "b", "b", (), ()),
        ({"a": "pass", "b": "pass"}, "b", (), (), "b"),
        ({"a": "pass", "b": "warn"}, "b", (), (), "b"),
        ({"a": "fail", "b": "not-testable", "c": "fail"}, "ab", "ab", "c", ()),
        ({"a": "inconclusive", "b": "unsupported", "c": "not-run"}, "abc", (), (), ()),
        ({"a": "harness-error", "b": "unreachable"}, "ab", (), "ab", ()),
        ({"a": "pass"}, "b", (), (), ()),
    ],
)
def test_only_news_is_red(statuses, expected, known, unexpected, stale):
    names = dict(zip("abc", CHECKS, strict=True))
    found = compare(results(**statuses), [names[letter] for letter in expected])
    wanted = [tuple(names[letter] for letter in part) for part in (known, unexpected, stale)]
    assert [found.known, found.unexpected, found.stale] == wanted
    assert found.red == found.unexpected + found.stale


def test_what_only_repeats_others_is_no_news():
    repeated = Result("AIP-CHK-002", 1, "MUST", "", "", Status.FAIL, derived_from=("AIP-API-001",))
    assert compare([repeated]).red == ()
