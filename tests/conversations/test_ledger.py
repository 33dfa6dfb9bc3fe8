"""What happens to conversations, in every store: turns, branches, merges and their bounds."""

import threading
from typing import Any

import orjson
import pytest

from aiproxy.middleware.conversations.ledger import MOST_BRANCHES, Begin, Ledger, Opened
from aiproxy.middleware.conversations.record import line, read_turns
from aiproxy.middleware.errors import ProxyError

req = pytest.mark.requirement


def said(word: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"ask {word}"}, {"role": "assistant", "content": word}]


def turn(word: str) -> bytes:
    return line("chat", said(word))


@pytest.fixture
def book(any_store: Any, clock: Any) -> Ledger:
    return Ledger(any_store, most_bytes=100_000, clock=clock)


class Talk:
    """Turns as requests take them."""

    def __init__(self, book: Ledger, clock: Any, owner: str = "o") -> None:
        self.book, self.clock, self.owner = book, clock, owner
        self._count = 0

    def begin(self, name: str = "", told: int = 0, wait: float = 60.0) -> Begin:
        self._count += 1
        name = name or f"{self.owner}-{self._count}"
        return Begin(self.owner, name, f"t{self._count}", self.clock() + wait, told)

    def first(self, word: str, **more: Any) -> str:
        opened = Opened(self.begin().id)
        assert self.keep(opened, None, word, **more) == "kept"
        return opened.id

    def again(self, name: str, word: str) -> Opened:
        begin = self.begin(name)
        opened = self.book.carry_on(begin)
        self.keep(opened, begin.token, word)
        return opened

    def branch(self, parent: str, name: str | None, word: str | None) -> tuple[Opened, Begin]:
        begin = self.begin()
        opened = self.book.branch(begin, parent, name)
        if word is not None:
            self.keep(opened, begin.token, word)
        return opened, begin

    def merge(self, *names: str, parent: str | None = None) -> dict[str, str]:
        opened = self.book.merge(self.begin(), names, parent)
        return {name: words(history) for name, history in opened.merged}

    def keep(self, opened: Opened, token: str | None, word: str, **more: Any) -> str:
        return self.book.keep(opened, self.owner, turn(word), token=token, **more)

    def words(self, name: str) -> str:
        found = self.book.carry_on(Begin(self.owner, name, None, 0.0))
        assert found.kept
        return words(found.history)


def words(history: Any) -> str:
    """The answers of a history, in order."""
    return " ".join(
        message["content"]
        for _, messages in history
        for message in messages
        if message["role"] == "assistant"
    )


@pytest.fixture
def talk(book: Ledger, clock: Any) -> Talk:
    return Talk(book, clock)


@req("XAI-FAIL-004", "XAI-WF-003")
def test_turns_follow_each_other_and_belong_to_their_owner(talk: Talk) -> None:
    name = talk.first("one")
    second = talk.again(name, "two")
    assert words(second.history) == "one"
    assert talk.words(name) == "one two"
    other = Talk(talk.book, talk.clock, "p")
    assert not talk.book.carry_on(other.begin(name)).kept
    with pytest.raises(ProxyError) as foreign:
        other.branch(name, "x", None)
    with pytest.raises(ProxyError) as unknown:
        other.branch("never-was", "x", None)
    assert foreign.value.body() == unknown.value.body()
    assert foreign.value.code == "conversation_not_found"


@req("XAI-WF-006", "XAI-WF-008", "XAI-FIG-020")
def test_branches_have_the_base_and_nothing_of_each_other(talk: Talk) -> None:
    base = talk.first("base")
    left, _ = talk.branch(base, "left", "L")
    right, _ = talk.branch(base, "right", "R")
    assert len({base, left.id, right.id}) == 3
    assert talk.words(left.id) == "base L"
    assert talk.words(right.id) == "base R"
    assert talk.words(base) == "base"
    talk.again(base, "more")
    assert talk.words(left.id) == "base L"
    again, _ = talk.branch(base, "left", "L2")
    assert again.id == left.id
    assert talk.words(left.id) == "base L L2"
    nameless, _ = talk.branch(base, None, "N")
    assert talk.words(nameless.id) == "base more N"


@req("XAI-WF-001", "XAI-WF-009")
def test_a_merge_has_what_branches_added_in_the_order_asked_for(talk: Talk) -> None:
    base = talk.first("base")
    left, _ = talk.branch(base, "left", "L")
    talk.branch(base, "right", "R")
    talk.again(left.id, "L2")
    assert list(talk.merge("right", "left", parent=base).items()) == [
        ("right", "R"),
        ("left", "L L2"),
    ]
    inner, _ = talk.branch(left.id, "inner", "I")
    assert inner.root == base
    assert talk.merge("inner", parent=left.id) == {"inner": "I"}


@req("XAI-WF-010", "XAI-WF-011")
def test_a_merge_names_what_it_means(talk: Talk) -> None:
    one, two = talk.first("one"), talk.first("two")
    talk.branch(one, "shared", "S1")
    talk.branch(two, "shared", "S2")
    talk.branch(one, "single", "X")
    for names, parent, code in (
        (("shared", "nowhere"), one, "workflow_branch_not_found"),
        (("nowhere",), None, "workflow_branch_not_found"),
        (("shared",), None, "workflow_branch_ambiguous"),
        (("shared",), "never-was", "conversation_not_found"),
    ):
        with pytest.raises(ProxyError) as found:
            talk.merge(*names, parent=parent)
        assert found.value.code == code
    assert talk.merge("shared", parent=two) == {"shared": "S2"}
    assert talk.merge("shared", "single") == {"shared": "S1", "single": "X"}
    with pytest.raises(ProxyError) as foreign:
        Talk(talk.book, talk.clock, "p").merge("single")
    assert foreign.value.code == "workflow_branch_not_found"


@req("XAI-WF-012")
def test_a_branch_under_way_is_not_merged_and_a_lost_one_does_not_last(talk: Talk) -> None:
    base = talk.first("base")
    opened, begin = talk.branch(base, "slow", None)
    with pytest.raises(ProxyError) as found:
        talk.merge("slow", parent=base)
    assert (found.value.code, found.value.status) == ("workflow_branch_incomplete", 409)
    assert found.value.should_retry
    talk.keep(opened, begin.token, "done")
    assert talk.merge("slow", parent=base) == {"slow": "done"}
    again, second = talk.branch(base, "slow", None)
    with pytest.raises(ProxyError, match="not finished"):
        talk.merge("slow", parent=base)
    assert second.token is not None
    talk.book.drop("o", again.id, second.token)
    assert talk.merge("slow", parent=base) == {"slow": "done"}
    dead, _ = talk.branch(base, "dead", None)  # whoever served it is gone
    talk.clock.now += 61
    with pytest.raises(ProxyError) as gone:
        talk.merge("dead", parent=base)
    assert gone.value.code == "workflow_branch_not_found"
    assert talk.branch(base, "dead", "alive")[0].id == dead.id


def test_a_branch_that_came_to_nothing_is_gone(talk: Talk) -> None:
    base = talk.first("base")
    opened, begin = talk.branch(base, "b", None)
    assert begin.token is not None
    talk.book.drop("o", opened.id, begin.token)
    assert not talk.book.carry_on(talk.begin(opened.id)).kept
    with pytest.raises(ProxyError) as found:
        talk.merge("b", parent=base)
    assert found.value.code == "workflow_branch_not_found"


@req("XAI-WF-014")
def test_steps_of_a_workflow_have_numbers_of_their_own(talk: Talk) -> None:
    base = talk.first("base")
    left, _ = talk.branch(base, "left", "L")
    right, _ = talk.branch(base, "right", "R")
    third = talk.again(left.id, "L2")
    merged = talk.book.merge(talk.begin(), ("left", "right"), base)
    last = talk.again(base, "more")
    assert [one.step for one in (left, right, third, merged, last)] == [2, 3, 4, 5, 6]


@req("XAI-FAIL-026", "XAI-WF-007")
def test_turns_at_once_are_kept_whole_one_after_the_other(talk: Talk) -> None:
    base = talk.first("base")
    started = [(talk.book.carry_on(b), b) for b in (talk.begin(base) for _ in range(8))]
    threads = [
        threading.Thread(target=talk.keep, args=(opened, begin.token, f"w{n}"))
        for n, (opened, begin) in enumerate(started)
    ]
    branches = [
        threading.Thread(target=talk.branch, args=(base, f"b{n}", f"B{n}")) for n in range(4)
    ]
    for thread in (*threads, *branches):
        thread.start()
    for thread in (*threads, *branches):
        thread.join(60)
    history = talk.book.carry_on(Begin("o", base, None, 0.0)).history
    flat = [message["content"] for _, messages in history for message in messages]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    assert pairs[0] == ("ask base", "base")
    assert sorted(pairs[1:]) == [(f"ask w{n}", f"w{n}") for n in range(8)]
    assert len(set(talk.merge(*(f"b{n}" for n in range(4)), parent=base).values())) == 4


def test_the_clients_account_counts_unless_somebody_was_faster(talk: Talk) -> None:
    base = talk.first("base")
    begin = talk.begin(base)
    opened = talk.book.carry_on(begin)
    talk.keep(opened, begin.token, "new", account=turn("edited"), base=1)
    assert talk.words(base) == "edited new"
    late, early = talk.begin(base), talk.begin(base)
    slow, quick = talk.book.carry_on(late), talk.book.carry_on(early)
    talk.keep(quick, early.token, "quick")
    talk.keep(slow, late.token, "slow", account=turn("mine"), base=1)
    assert talk.words(base) == "edited new quick slow"


def test_a_told_branch_is_known_by_what_it_adds(talk: Talk) -> None:
    base = talk.first("base")
    begin = talk.begin(told=2)
    opened = talk.book.branch(begin, base, "b", told=True)
    assert opened.history == []
    account = turn("their base") + turn("and more")
    talk.keep(opened, begin.token, "mine", account=account, base=2)
    assert talk.words(opened.id) == "their base and more mine"
    assert talk.merge("b", parent=base) == {"b": "mine"}


@req("XAI-WF-015")
def test_labels_bind_branches_and_merges(talk: Talk) -> None:
    base = talk.first("base", labels={"hipaa"}, classes={"health"})
    plain = talk.first("plain")
    left, begin = talk.branch(base, "left", None)
    assert (left.labels, left.classes) == ({"hipaa"}, {"health"})
    talk.keep(left, begin.token, "L", labels={"pci"})
    assert talk.book.carry_on(talk.begin(left.id)).labels == {"hipaa", "pci"}
    assert talk.book.carry_on(talk.begin(base)).labels == {"hipaa"}
    talk.clock.now += 100
    merged = talk.book.merge(talk.begin(), ("left",), None)
    assert (merged.labels, merged.classes) == ({"hipaa", "pci"}, {"health"})
    assert talk.book.carry_on(talk.begin(plain)).labels == frozenset()


@req("XAI-FAIL-025", "XAI-WF-016")
def test_a_conversation_that_rests_is_over(make_store: Any, clock: Any) -> None:
    store = make_store(ttl_s=0.3)
    talk = Talk(Ledger(store, most_bytes=1000, clock=clock), clock)
    name = talk.first("one")
    clock.now += 0.4
    if make_store.kind == "valkey":
        threading.Event().wait(0.4)
    assert not talk.book.carry_on(talk.begin(name)).kept


def test_a_conversation_that_went_meanwhile_is_kept_with_what_was_read(
    make_store: Any, clock: Any
) -> None:
    store = make_store()
    talk = Talk(Ledger(store, most_bytes=10_000, clock=clock), clock)
    name = talk.first("one")
    begin = talk.begin(name)
    opened = talk.book.carry_on(begin)
    (row,) = store.get([("o", name)])
    from aiproxy.middleware.conversations.stores import Change

    assert store.put([Change(("o", name), row.version, None)])
    talk.keep(opened, begin.token, "two")
    assert talk.words(name) == "one two"


@req("XAI-WF-016")
def test_a_long_history_loses_its_oldest_turns_whole(any_store: Any, clock: Any) -> None:
    talk = Talk(Ledger(any_store, most_bytes=600, clock=clock), clock)
    name = talk.first("first")
    results = []
    for number in range(20):
        begin = talk.begin(name)
        opened = talk.book.carry_on(begin)
        results.append(talk.keep(opened, begin.token, f"w{number}"))
    (row,) = any_store.get([("o", name)])
    assert len(row.turns) <= 600
    history = read_turns(row.turns)
    assert history[0][1][0]["role"] == "user"
    assert words(history).split()[-1] == "w19"
    assert "first" not in words(history)
    assert results[0] == "kept"
    assert results[-1] == "trimmed"
    assert talk.book.carry_on(talk.begin(name)).trimmed


@req("XAI-WF-016")
def test_what_does_not_fit_by_itself_leaves_no_gap(any_store: Any, clock: Any) -> None:
    talk = Talk(Ledger(any_store, most_bytes=300, clock=clock), clock)
    name = talk.first("one")
    begin = talk.begin(name)
    opened = talk.book.carry_on(begin)
    assert talk.keep(opened, begin.token, "x" * 400) == "too_large"
    assert not talk.book.carry_on(talk.begin(name)).kept


@req("XAI-WF-016")
def test_branches_are_bounded_and_those_that_are_gone_do_not_count(clock: Any) -> None:
    from aiproxy.middleware.conversations.stores import MemoryStore

    store = MemoryStore(ttl_s=60, most=10_000, clock=clock)
    talk = Talk(Ledger(store, most_bytes=10_000, clock=clock), clock)
    base = talk.first("base")
    for number in range(MOST_BRANCHES):
        talk.branch(base, f"b{number}", "x")
    with pytest.raises(ProxyError) as found:
        talk.branch(base, "one-more", None)
    assert found.value.param == "X-AI-Workflow-Branch"
    opened, _ = talk.branch(base, "b0", None)
    (row,) = store.get([("o", opened.id)])
    from aiproxy.middleware.conversations.stores import Change

    store.put([Change(("o", opened.id), row.version, None)])
    assert talk.branch(base, "one-more", "x")[0].kept


def test_looking_changes_nothing(talk: Talk, any_store: Any) -> None:
    base = talk.first("base")
    talk.branch(base, "b", "B")
    keys = [("o", base)]
    before = any_store.get(keys)
    look = Begin("o", base, None, 0.0)
    talk.book.carry_on(look)
    talk.book.branch(Begin("o", "new", None, 0.0), base, "c")
    talk.book.merge(Begin("o", "new", None, 0.0), ("b",), base)
    assert any_store.get([*keys, ("o", "new")]) == [*before, None]


def test_rows_hold_json_a_person_can_read(talk: Talk, any_store: Any) -> None:
    name = talk.first("one")
    (row,) = any_store.get([("o", name)])
    assert orjson.loads(row.head)["root"] == name
    assert orjson.loads(row.turns) == {"d": "chat", "m": said("one")}
