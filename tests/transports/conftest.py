"""One face for both transports, so that every behaviour is tested on both."""

import asyncio
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiproxy.middleware.effects import Answer, Call, Failure, Read
from aiproxy.middleware.providers.aio import AsyncTransports
from aiproxy.middleware.providers.link import Link
from aiproxy.middleware.providers.sync import SyncTransports


def _load_faults() -> Any:
    # Under --import-mode=importlib a test folder is not a package; this gives the module a name.
    if "transport_faults" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "transport_faults", Path(__file__).with_name("faults.py")
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["transport_faults"] = module
        spec.loader.exec_module(module)
    return sys.modules["transport_faults"]


faults = _load_faults()


class SyncFace:
    """The threaded transport."""

    def __init__(self, links: dict[str, Link] | None = None) -> None:
        self.transports = SyncTransports(links)

    def call(self, call: Call) -> Answer | Failure:
        return self.transports.call(call)

    def idle(self, seconds: float) -> None:
        """Let time pass between two calls."""
        time.sleep(seconds)

    def read(self, stream: object, timeout_s: float | None = 5.0, soft: bool = False) -> Any:
        return self.transports.read(Read(stream, timeout_s, soft))

    def close_stream(self, stream: object) -> None:
        self.transports.close_stream(stream)

    def close(self) -> None:
        self.transports.close()


class AsyncFace:
    """The event loop's transport, run step by step on a loop of its own."""

    def __init__(self, links: dict[str, Link] | None = None) -> None:
        self._runner = asyncio.Runner()
        self.transports = AsyncTransports(links)

    def call(self, call: Call) -> Answer | Failure:
        return self._runner.run(self.transports.call(call))

    def idle(self, seconds: float) -> None:
        """Let time pass between two calls, with the loop running as a server's does."""
        self._runner.run(asyncio.sleep(seconds))

    def read(self, stream: object, timeout_s: float | None = 5.0, soft: bool = False) -> Any:
        return self._runner.run(self.transports.read(Read(stream, timeout_s, soft)))

    def close_stream(self, stream: object) -> None:
        self._runner.run(self.transports.close_stream(stream))

    def close(self) -> None:
        self._runner.run(self.transports.aclose())
        self._runner.close()


@pytest.fixture
def server() -> Iterator[Any]:
    made = faults.FaultServer()
    yield made
    made.close()


@pytest.fixture(params=[AsyncFace, SyncFace], ids=["aio", "sync"])
def face_class(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def face(face_class: Any) -> Iterator[Any]:
    made = face_class()
    yield made
    made.close()


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return faults.certificates(tmp_path_factory.mktemp("certs"))
