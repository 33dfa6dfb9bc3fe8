"""The batcher: what is computed together, in whose turn, and what happens to those who leave."""

import asyncio
import threading
import time

import pytest

from aiproxy.reference_server.onnx.errors import EngineClosed, LocalBusy, ModelUnavailable
from aiproxy.reference_server.onnx.vectors.batching import Batcher
from aiproxy.reference_server.onnx.vectors.session import ComputationFailed

GONE = 10**9
NAN = 10**8


class Machine:
    """Doubles numbers; an input is (number, length). Computes only while the gate is open."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.batches = []
        self.busy = threading.Event()

    def compute(self, inputs):
        self.busy.set()
        assert self.gate.wait(20)
        self.batches.append(list(inputs))
        if any(number < 0 for number, _ in inputs):
            raise ValueError("a negative number")
        if any(number == GONE for number, _ in inputs):
            raise ModelUnavailable("it is gone")
        if any(number == NAN for number, _ in inputs):
            raise ComputationFailed
        return [2 * number for number, _ in inputs]

    def shut(self):
        self.gate.clear()
        self.busy.clear()


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def batcher(machine):
    """``batcher(**limits)``"""
    made = []

    def build(**limits):
        options = {"max_batch": 4, **limits}
        made.append(Batcher(machine.compute, lambda pair: pair[1], **options))
        return made[-1]

    yield build
    machine.gate.set()
    for one in made:
        one.close()


async def begun(machine, batcher, pair=(0, 1)):
    """A call that occupies the machine, so that what follows waits together."""
    machine.shut()
    task = asyncio.create_task(batcher.map([pair]))
    await asyncio.to_thread(machine.busy.wait, 10)
    return task


async def settle(batcher, waiting):
    while batcher.load[1] != waiting:
        await asyncio.sleep(0.001)


def test_outputs_come_in_the_order_of_the_inputs(batcher, machine):
    pairs = [(number, (number * 7) % 11 + 1) for number in range(50)]
    found = asyncio.run(batcher(max_batch=8).map(pairs))
    assert found == [2 * number for number in range(50)]
    assert sum(map(len, machine.batches)) == 50
    assert max(map(len, machine.batches)) == 8


def test_like_lengths_are_computed_together(batcher, machine):
    async def run():
        one = batcher(max_batch=4)
        first = await begun(machine, one)
        calls = [one.map([(n, length)]) for n, length in enumerate([9, 100, 10, 98, 11, 99])]
        tasks = [asyncio.create_task(call) for call in calls]
        await settle(one, 6)
        machine.gate.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(run())
    lengths = [[length for _, length in batch] for batch in machine.batches[1:]]
    assert lengths == [[9, 10, 11, 98], [99, 100]] or lengths[0][:3] == [9, 10, 11], lengths


def test_a_batch_costs_its_longest_times_its_number(batcher, machine):
    asyncio.run(
        batcher(max_batch=64, max_batch_tokens=100).map([(n, 1 + n % 30) for n in range(90)])
    )
    assert sum(map(len, machine.batches)) == 90
    assert all(len(b) * max(length for _, length in b) <= 100 for b in machine.batches)
    assert max(map(len, machine.batches)) > 8


def test_an_input_above_the_budget_is_computed_alone(batcher, machine):
    assert asyncio.run(batcher(max_batch_tokens=10).map([(1, 5), (2, 500), (3, 5)])) == [2, 4, 6]
    assert [(2, 500)] in machine.batches


def test_a_call_of_one_does_not_wait_for_a_call_of_thousands(batcher, machine):
    async def run():
        one = batcher(max_batch=4)
        first = await begun(machine, one)
        many = asyncio.create_task(one.map([(n, 5) for n in range(1000)]))
        await settle(one, 1000)
        single = asyncio.create_task(one.map([(7, 900)]))
        await settle(one, 1001)
        machine.gate.set()
        assert await single == [14]
        await asyncio.gather(first, many)

    asyncio.run(run())
    assert len(machine.batches) > 250
    [turn] = [n for n, batch in enumerate(machine.batches) if (7, 900) in batch]
    assert turn <= 2  # after the one that was running and one of the thousand's


def test_whoever_left_is_not_computed(batcher, machine):
    async def run():
        one = batcher()
        first = await begun(machine, one)
        left = [asyncio.create_task(one.map([(100 + n, 3)] * 50)) for n in range(4)]
        stays = asyncio.create_task(one.map([(5, 3)]))
        await settle(one, 201)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert one.load == (1, 1)
        machine.gate.set()
        assert await stays == [10]
        await first

    asyncio.run(run())
    assert all(number < 100 for batch in machine.batches for number, _ in batch)


def test_too_many_calls_are_busy_at_once(batcher, machine):
    async def run():
        one = batcher(max_waiting=3)
        first = await begun(machine, one)
        tasks = [asyncio.create_task(one.map([(n, 3)])) for n in range(3)]
        await settle(one, 3)
        began = time.monotonic()
        with pytest.raises(LocalBusy) as busy:
            await one.map([(9, 3)])
        assert time.monotonic() - began < 0.05
        assert (busy.value.running, busy.value.waiting) == (1, 3)
        machine.gate.set()
        assert await asyncio.gather(*tasks) == [[0], [2], [4]]
        await first

    asyncio.run(run())


def test_a_call_that_waits_too_long_is_told_busy_while_the_machine_hangs(batcher, machine):
    async def run():
        one = batcher(max_wait_s=0.1)
        first = await begun(machine, one)
        began = time.monotonic()
        with pytest.raises(LocalBusy):
            await one.map([(1, 3)])
        assert 0.05 < time.monotonic() - began < 2
        assert one.load == (1, 0)
        machine.gate.set()
        assert await first == [0]  # it had begun: its age no longer counts

    asyncio.run(run())
    assert machine.batches == [[(0, 1)]]


@pytest.mark.parametrize("bad", [-1, NAN], ids=["an exception", "no number"])
def test_one_bad_input_fails_alone(batcher, machine, bad):
    async def run():
        one = batcher(max_batch=8)
        first = await begun(machine, one)
        tasks = [asyncio.create_task(one.map([(n, 3)])) for n in (1, 2, bad, 3, 4)]
        await settle(one, 5)
        machine.gate.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(run())
    assert found[:2] + found[3:] == [[2], [4], [6], [8]]
    assert isinstance(found[2], ComputationFailed)


def test_a_machine_that_is_gone_fails_the_whole_batch_at_once(batcher, machine):
    async def run():
        one = batcher(max_batch=8)
        first = await begun(machine, one)
        tasks = [asyncio.create_task(one.map([(n, 3)])) for n in (1, GONE, 3)]
        await settle(one, 3)
        machine.gate.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(one, ModelUnavailable) for one in asyncio.run(run()))
    assert len(machine.batches) == 2


def test_a_failed_input_drops_the_rest_of_its_call(batcher, machine):
    async def run():
        with pytest.raises(ComputationFailed):
            await batcher(max_batch=1).map([(-1, 1), *((n, 2) for n in range(500))])

    asyncio.run(run())
    assert len(machine.batches) < 100


def test_close_ends_those_that_wait_and_refuses_more(batcher, machine):
    async def run():
        one = batcher()
        first = await begun(machine, one)
        waits = asyncio.create_task(one.map([(1, 3)]))
        await settle(one, 1)
        closing = asyncio.create_task(asyncio.to_thread(one.close))
        with pytest.raises(EngineClosed):
            await waits
        machine.gate.set()
        await closing
        assert await first == [0]
        with pytest.raises(EngineClosed):
            await one.map([(1, 3)])

    asyncio.run(run())


def test_no_thread_is_started_before_the_first_call(batcher):
    before = threading.active_count()
    one = batcher()
    assert threading.active_count() == before
    assert asyncio.run(one.map([])) == []
    assert threading.active_count() == before
    assert asyncio.run(one.map([(1, 1)])) == [2]


def test_several_event_loops_share_a_batcher(batcher):
    one = batcher(max_batch=8)
    found = {}

    def work(number):
        async def ask():
            return [await one.map([(number * 100 + n, n % 5 + 1)]) for n in range(20)]

        found[number] = asyncio.run(ask())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == {k: [[2 * (k * 100 + n)] for n in range(20)] for k in range(6)}


def test_a_storm_of_cancels_loses_and_duplicates_nothing(batcher, machine):
    """Of 400 calls half leave at any moment; each that stays gets its own answer."""

    async def run():
        one = batcher(max_batch=5)
        tasks = [
            asyncio.create_task(one.map([(n * 10 + k, (n * k) % 13 + 1) for k in range(n % 4 + 1)]))
            for n in range(1, 401)
        ]
        for turn, task in enumerate(tasks):
            if turn % 2:
                task.cancel()
            if turn % 7 == 0:
                await asyncio.sleep(0)
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert one.load[1] == 0
        return found

    for turn, found in enumerate(asyncio.run(run())):
        n = turn + 1
        if turn % 2 == 0 or not isinstance(found, asyncio.CancelledError):
            assert found == [2 * (n * 10 + k) for k in range(n % 4 + 1)]
    computed = [number for batch in machine.batches for number, _ in batch]
    assert len(computed) == len(set(computed))
