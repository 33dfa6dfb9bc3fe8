"""Mirrored requests under ASGI: each is a task of its own, beside the requests that clients wait
for."""

import asyncio
from collections.abc import Sequence

from aiproxy.middleware.answering.mirrors import Mirrored
from aiproxy.middleware.driving.forks_asgi import Opened, perform_rare
from aiproxy.middleware.effects import Fork
from aiproxy.middleware.providers.aio import AsyncAppCaller, AsyncTransports


class MirrorTasks:
    """The mirrored requests under way of one mount."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, flows: Sequence[Mirrored], transports: AsyncTransports, app: AsyncAppCaller
    ) -> None:
        for flow in flows:
            task = asyncio.ensure_future(_run(flow, transports, app))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Close what is under way, connections too."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(flow: Mirrored, transports: AsyncTransports, app: AsyncAppCaller) -> None:
    opened = Opened()
    try:
        await perform_rare(Fork([flow]), transports, app, opened)
    finally:
        for stream in opened:
            await transports.close_stream(stream)
