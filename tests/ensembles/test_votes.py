"""The functions that make one answer of several: what they promise whatever was answered."""

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiproxy.middleware.ensembles.likeness import (
    Form,
    calls_form,
    json_form,
    likeness,
    refusal_form,
    text_form,
)
from aiproxy.middleware.ensembles.voting import (
    Vote,
    chosen,
    consensus,
    figures,
    likenesses,
    plurality,
)

req = pytest.mark.requirement

WORDS = st.lists(
    st.sampled_from(["the", "capital", "of", "france", "is", "paris", "lyon", "42", "43", "not"]),
    max_size=8,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", "y", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
FORMS = st.one_of(
    WORDS.map(lambda words: text_form(" ".join(words))),
    JSON.map(json_form),
    st.lists(st.tuples(st.sampled_from(["f", "g"]), JSON), min_size=1, max_size=3).map(calls_form),
    st.just(refusal_form()),
)
WEIGHTS = st.floats(0.01, 100, allow_nan=False)


@st.composite
def panels(draw: Any) -> list[Vote]:
    """Votes of up to six members, each with a cost of its own: only equal costs leave it to order."""
    forms = draw(st.lists(FORMS, min_size=1, max_size=6))
    costs = draw(st.permutations(range(len(forms))))
    return [
        Vote(form, draw(WEIGHTS), cost, place)
        for place, (form, cost) in enumerate(zip(forms, costs, strict=True))
    ]


METHODS = {
    "consensus": lambda votes: consensus(votes, 0.6),
    "voting": plurality,
    "weighted": lambda votes: plurality(votes, weighed=True),
}


@given(FORMS, FORMS)
def test_likeness_is_symmetric_and_one_only_for_the_same(one: Form, other: Form) -> None:
    found = likeness(one, other)
    assert found == likeness(other, one)
    assert 0 <= found <= 1
    assert (found == 1) == (one.key == other.key)
    assert likeness(one, one) == 1


@pytest.mark.parametrize("method", METHODS)
@given(votes=panels(), order=st.randoms(use_true_random=False))
def test_the_members_order_does_not_matter(method: str, votes: list[Vote], order: Any) -> None:
    """The same answers at the same prices give the same winner, in whatever order they are listed."""
    decide = METHODS[method]
    first = decide(votes)
    mixed = list(votes)
    order.shuffle(mixed)
    again = decide([replace(vote, place=i) for i, vote in enumerate(mixed)])
    assert mixed[again.winner].cost == votes[first.winner].cost
    assert again.agreement == first.agreement
    assert sorted(again.each) == sorted(first.each)


@pytest.mark.parametrize("method", METHODS)
@given(votes=panels())
def test_the_figures_hold_together(method: str, votes: list[Vote]) -> None:
    verdict = METHODS[method](votes)
    assert verdict == METHODS[method](votes)
    assert verdict.winner in verdict.agreeing
    assert 0 < verdict.agreement <= 1 + 1e-9
    assert verdict.each[verdict.winner] == verdict.agreement
    assert verdict.consensus == (verdict.agreement > 0.5)
    if len({vote.form.key for vote in votes}) == 1:
        assert verdict.agreement == pytest.approx(1)


@req("UNI-ENS-003")
@given(panels(), st.floats(0.01, 50))
def test_more_weight_never_costs_the_winner_its_win(votes: list[Vote], more: float) -> None:
    """UNI-ENS-003."""
    won = plurality(votes, weighed=True).winner
    heavier = list(votes)
    heavier[won] = replace(votes[won], weight=votes[won].weight + more)
    again = plurality(heavier, weighed=True).winner
    assert heavier[again].form.key == votes[won].form.key


@req("UNI-ENS-002")
@given(panels(), FORMS)
def test_one_more_equal_vote_never_costs_the_winner_its_win(votes: list[Vote], form: Form) -> None:
    """UNI-ENS-002."""
    won = votes[plurality(votes).winner]
    more = [*votes, Vote(won.form, 1.0, len(votes), len(votes))]
    assert more[plurality(more).winner].form.key == won.form.key


@given(panels())
def test_a_majority_of_equal_answers_always_wins(votes: list[Vote]) -> None:
    keys = [vote.form.key for vote in votes]
    most = max(keys, key=keys.count)
    if keys.count(most) * 2 > len(keys):
        assert votes[plurality(votes).winner].form.key == most


def votes_of(
    *texts: str, costs: tuple[int, ...] = (), weights: tuple[float, ...] = ()
) -> list[Vote]:
    return [
        Vote(text_form(text), (weights or (1,) * 9)[i], (costs or (1,) * 9)[i], i)
        for i, text in enumerate(texts)
    ]


@req("UNI-ENS-002")
def test_an_even_split_goes_by_weight_then_cost_then_order() -> None:
    """UNI-ENS-002: the documented tie rule."""
    assert plurality(votes_of("x", "y", weights=(1, 2))).winner == 1
    assert plurality(votes_of("x", "y", costs=(2, 1))).winner == 1
    assert plurality(votes_of("x", "y")).winner == 0
    assert plurality(votes_of("x", "y", "y", "x", costs=(5, 4, 9, 5))).winner == 1


@req("UNI-ENS-003")
def test_a_heavy_minority_wins_by_weight_alone() -> None:
    """UNI-ENS-003: weights 1, 1, 3."""
    votes = votes_of("x", "x", "y", weights=(1, 1, 3))
    assert plurality(votes).winner == 0
    verdict = plurality(votes, weighed=True)
    assert (verdict.winner, verdict.agreement) == (2, 0.6)


@req("UNI-ENS-001", "UNI-ENS-008")
def test_three_different_answers_are_no_consensus() -> None:
    """UNI-ENS-001, UNI-ENS-008."""
    verdict = consensus(votes_of("red", "green", "blue"), 0.6)
    assert (verdict.winner, verdict.agreement, verdict.consensus) == (
        0,
        pytest.approx(1 / 3),
        False,
    )
    found = figures(likenesses(votes_of("red", "green", "blue")), 0.6)
    assert (found.diversity, found.consistency, found.outliers) == (1.0, 0.0, ())


@req("UNI-ENS-011")
def test_an_outlier_among_three_is_flagged_and_identical_answers_are_not() -> None:
    """UNI-ENS-011."""
    assert figures(likenesses(votes_of("paris", "Paris.", "lyon")), 0.6).outliers == (2,)
    assert figures(likenesses(votes_of("paris", "paris", "paris")), 0.6).outliers == ()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The capital is Paris.", "the  capital is PARIS", True),
        ("**Paris**", "Paris", True),
        ("The answer is 42.", "The answer is 43.", False),
        ("It costs 1,000 dollars", "It costs 1,000 dollars!", True),
        ("東京は日本の首都です。", "東京は日本の首都です", True),
        ("東京は日本の首都です", "京都は日本の古都です", False),
        ("!!!", "???", False),
        ("", "", True),
    ],
)
def test_texts_are_compared_by_what_they_say(one: str, other: str, same: bool) -> None:
    assert (likeness(text_form(one), text_form(other)) == 1) is same
    if not same:
        assert likeness(text_form(one), text_form(other)) < 0.75


def test_other_numbers_halve_a_likeness() -> None:
    """Four of five words and three of four pairs in common would be 0.78."""
    found = likeness(text_form("the answer is now 42"), text_form("the answer is now 43"))
    assert found == pytest.approx((2 * 7 / 18) / 2)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1}, 1.0),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 1 / 3),
        ({"a": True}, {"a": 1}, 0.0),
        ([1, 2], [2, 1], 0.0),
        ({}, [], 0.0),
    ],
)
def test_json_is_compared_leaf_by_leaf(one: Any, other: Any, expected: float) -> None:
    assert likeness(json_form(one), json_form(other)) == pytest.approx(expected)


def test_tool_calls_are_the_same_or_not() -> None:
    """In any order, with arguments as JSON."""
    calls = [("f", {"a": 1, "b": [2]}), ("g", {})]
    assert likeness(calls_form(calls), calls_form(calls[::-1])) == 1
    assert likeness(calls_form(calls), calls_form([("f", {"a": 2, "b": [2]}), ("g", {})])) == 0
    assert likeness(calls_form(calls), calls_form(calls[:1])) == 0
    assert likeness(calls_form(calls), text_form("f g")) == 0


def test_a_chosen_winner_keeps_its_figures() -> None:
    for order in permutations(range(3)):
        votes = votes_of(*("paris", "Paris", "lyon"))
        verdict = chosen([votes[i] for i in order], order.index(2), 0.6)
        assert (verdict.winner, verdict.agreement) == (order.index(2), pytest.approx(1 / 3))
