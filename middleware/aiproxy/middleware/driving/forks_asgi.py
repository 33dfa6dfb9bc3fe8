"""The rarer effects under ASGI: waiting, asking a store, and branches that run side by side."""

import asyncio
from collections.abc import Generator, Iterator
from typing import Any

from aiproxy.middleware.effects import (
    Call,
    Close,
    Consult,
    Effect,
    Ending,
    Failure,
    Fork,
    Outcome,
    Read,
    Told,
    Wait,
)
from aiproxy.middleware.providers.aio import AsyncAppCaller, AsyncTransports


class Opened:
    """The streams an exchange has open, by identity."""

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        self._streams: list[object] = []

    def add(self, stream: object) -> None:
        self._streams.append(stream)

    def remove(self, stream: object) -> None:
        self._streams = [one for one in self._streams if one is not stream]

    def take(self, other: "Opened") -> None:
        """Have what ``other`` had."""
        self._streams += other._streams
        other._streams = []

    def __iter__(self) -> Iterator[object]:
        return iter(self._streams)


async def perform_rare(
    effect: Effect, transports: AsyncTransports, app: AsyncAppCaller, opened: Opened
) -> Outcome:
    """Perform ``Wait``, ``Consult`` or ``Fork``."""
    if isinstance(effect, Fork):
        return await _fork(effect, transports, app, opened)
    if isinstance(effect, Consult):
        try:
            return Told(await asyncio.to_thread(effect.ask))
        except OSError as error:
            return Failure("store_unavailable", type(error).__name__)
    if isinstance(effect, Wait):
        await asyncio.sleep(effect.seconds)
    return None


async def _fork(
    fork: Fork, transports: AsyncTransports, app: AsyncAppCaller, opened: Opened
) -> list[Ending]:
    tasks = [
        asyncio.ensure_future(_branch(flow, ending, transports, app, opened))
        for flow, ending in zip(fork.branches, fork.endings, strict=True)
    ]
    running = set(tasks)
    try:
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a bug of ours surfaces here
            if fork.enough(fork.endings):
                break
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
        for flow, ending in zip(fork.branches, fork.endings, strict=True):
            if ending.state == "running":  # not even begun
                ending.state = "stopped"
                flow.close()
    return fork.endings


async def _branch(
    flow: Generator[Any, Any, Any],
    ending: Ending,
    transports: AsyncTransports,
    app: AsyncAppCaller,
    opened: Opened,
) -> None:
    own = Opened()
    try:
        effect: Effect = next(flow)
        while True:
            outcome: Outcome = None
            if isinstance(effect, Call):
                outcome = answer = await transports.call(effect, app)
                if not isinstance(answer, Failure) and answer.stream is not None:
                    own.add(answer.stream)
            elif isinstance(effect, Read):
                outcome = await transports.read(effect)
            elif isinstance(effect, Close):
                await transports.close_stream(effect.stream)
                own.remove(effect.stream)
            else:
                outcome = await perform_rare(effect, transports, app, own)
            effect = flow.send(outcome)
    except StopIteration as stop:
        ending.state, ending.value = "done", stop.value
        opened.take(own)
    except asyncio.CancelledError:
        ending.state = "stopped"
        raise
    except Exception as fault:  # noqa: BLE001 - whoever forked looks at it
        ending.state, ending.fault = "raised", fault
    finally:
        flow.close()
        for stream in own:
            await transports.close_stream(stream)
