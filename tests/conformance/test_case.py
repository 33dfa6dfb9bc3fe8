"""A case against real fakes: scripts, proofs, streams, clients that leave, many at once."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pass_through import PassThrough

from aiproxy.conformance.case import OMIT, Case
from aiproxy.conformance.endpoint import BudgetSpent, Endpoint
from aiproxy.conformance.probe import Behind, Facts, NotTestable, Probe
from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import BASE, Cast, Fake, Fleet, cast
from aiproxy.conformance.rig.rendering import configuration
from aiproxy.conformance.rig.upstreams import Upstreams
from aiproxy.conformance.staging import opened


@pytest.fixture
def probe() -> Iterator[Probe]:
    """A probe straight at two fakes, ``a`` and ``default``, through a gateway that knows nothing."""
    own = cast(Fleet({"a": Fake()}), "a-test", 7)
    default = cast(Fleet({"default": Fake()}), "world:a-test", 7)["default"]
    with Upstreams() as upstreams:
        casts, default = opened(upstreams, {"a-test": own}, default, {})
        with PassThrough(configuration(BASE, casts, default, 0)) as target:
            endpoint = Endpoint(target.url, timeout_s=10, budget=100)
            behind = Behind(casts["a-test"], default, upstreams, random.Random(1))
            yield Probe(endpoint, Facts(model=default.model), random.Random(2), behind=behind)
            endpoint.close()


def direct(probe: Probe) -> Case:
    """Return a case whose requests go to ``a`` without the gateway, which does not stream."""
    case = probe.case()
    actor = case.actor("a")
    endpoint = Endpoint(actor.endpoint, api_key=actor.key, timeout_s=5)
    own = replace(case.cast, model=actor.upstream_model)
    return replace(case, endpoint=endpoint, cast=own)


def test_who_served_is_told_by_proof(probe: Probe):
    case = probe.case()
    reply = case.chat()
    assert (reply.status, case.served(reply), case.tried()) == (200, "a", ("a",))
    assert case.who("a") == f"a ({case.actor('a').id})"
    other = probe.case()
    assert other.served(reply) == ""  # the proof of another nonce
    reply = other.chat(model=other.default.model)
    assert (other.served(reply), other.order()) == ("default", ("default",))


def test_scripts_follow_the_nonce(probe: Probe):
    case, other = probe.case(), probe.case()
    case.script("a", Act(status=503), always=Act(status=500))
    assert [case.chat().status for _ in range(3)] == [503, 500, 500]
    assert other.chat().status == 200
    attempts = case.attempts()
    assert [attempt.status for attempt in attempts] == [503, 500, 500]
    assert attempts[0].json["messages"][0]["content"].endswith(f"({case.nonce})")
    assert attempts[0].at < attempts[1].at


def test_a_429_is_an_answer_like_any_other(probe: Probe):
    case = probe.case()
    case.script("a", always=Act(status=429, headers=(("retry-after", "9"),)))
    begun = time.monotonic()
    assert case.chat().status == 429
    assert time.monotonic() - begun < 2
    assert len(case.attempts()) == 1


def test_a_stream_has_events_with_times_and_a_text(probe: Probe):
    case = direct(probe)
    case.script("a", Act(wait_s=0.2, gap_s=0.1, pieces=4))
    reply = case.stream()
    assert reply.head_at >= 0.15
    assert reply.events[-1].done
    times = [event.at for event in reply.events]
    assert times == sorted(times)
    assert times[-1] - times[0] >= 0.25
    assert (case.served(reply), reply.stream_fault) == ("a", "")
    case.endpoint.close()


def test_a_client_that_leaves_is_seen_by_the_fake(probe: Probe):
    case = direct(probe)
    case.script("a", Act(gap_s=0.2, pieces=50))
    reply = case.stream(leave_after=2)
    assert reply.answer.left
    assert len(reply.events) >= 2
    assert probe.poll(lambda: case.attempts()[0].gone, until_s=5)
    assert not reply.answer.incomplete
    case.endpoint.close()


def test_a_client_that_leaves_before_any_answer_has_a_reply_without_status(probe: Probe):
    case = direct(probe)
    case.script("a", always=Act(fault="silence"))
    reply = case.chat(stop_after_s=0.3)
    assert (reply.status, reply.answer.left) == (0, True)
    assert "unanswered" in case.endpoint.exchanges[-1].response
    assert probe.poll(lambda: case.attempts(0)[0].gone, until_s=5)
    case.endpoint.close()


def test_bodies_take_fields_away_and_put_them_on_top(probe: Probe):
    case = probe.case()
    body = case.body(max_tokens=OMIT, temperature=0.5, model="auto")
    assert body["model"] == "auto"
    assert "max_tokens" not in body
    assert body["temperature"] == 0.5


def test_many_at_once_are_all_recorded_and_counted(probe: Probe):
    meet = threading.Barrier(20)
    cases = [probe.case() for _ in range(20)]

    def send(case: Case) -> str:
        meet.wait(10)
        return case.served(case.chat())

    assert probe.together(cases, send) == ["a"] * 20
    assert probe.endpoint.spent == 20
    labels = [exchange.label for exchange in probe.endpoint.exchanges]
    assert sorted(map(int, labels)) == list(range(1, 21))


def test_the_budget_holds_for_many_at_once(probe: Probe):
    probe.endpoint.allowance.most = 5
    cases = [probe.case() for _ in range(10)]
    with pytest.raises(BudgetSpent):
        probe.together(cases, Case.chat)
    assert probe.endpoint.spent == 5


def test_polling_wants_several_in_a_row_before_the_deadline(probe: Probe):
    said = iter([True, False, True, True])
    assert probe.poll(lambda: next(said), until_s=5, every_s=0.01, times=2)
    begun = time.monotonic()
    assert not probe.poll(lambda: False, until_s=0.2, every_s=0.05)
    assert time.monotonic() - begun < 1


def test_without_upstreams_there_is_no_case():
    endpoint = Endpoint("http://127.0.0.1:1")
    probe = Probe(endpoint, Facts(), random.Random(1))
    with pytest.raises(NotTestable, match="needs upstreams"):
        probe.case()
    endpoint.close()


def test_a_scenario_without_fakes_talks_to_the_default_provider(probe: Probe):
    assert probe.behind is not None
    bare = Cast("bare", "nobody-serves-this", {})
    behind = Behind(bare, probe.default, probe.upstreams, random.Random(3))
    other = Probe(probe.endpoint, probe.facts, random.Random(4), behind=behind)
    case = other.case()
    assert case.served(case.chat()) == "default"
