"""Failures that only repeat that a means of the suite does not work at this target."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from pass_through import PassThrough

from aiproxy.conformance import Options, Status, run
from aiproxy.conformance.endpoint import Sent
from aiproxy.conformance.instruments import stands_on, used
from aiproxy.conformance.results import DEPENDENCY, Finding

AUTO, POOL, DRAFT = "XAI-AUTO-001", "XAI-HDR-016", "XAI-COMPAT-013"
STREAMED = "XAI-STREAM-011"  # needs a pool to see whether streams are buffered
BROKEN = {f"{name} is fail" for name in (AUTO, POOL)}
FAILED = Finding("X-1", Status.FAIL, "a fact", "b", "c", "12")


def sent(body: object, path: str = "/v1/chat/completions", **fields: str) -> Sent:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    return Sent(0.0, content, path, headers)


@pytest.mark.parametrize(
    ("request_", "means"),
    [
        (sent({"model": "auto"}), (AUTO,)),
        (sent({"model": "Auto"}), ()),
        (sent({"model": "m"}, X_AI_Provider_Pool="a"), (POOL,)),
        (sent({"model": "m", "messages": []}), ()),
        (sent({"model": "auto", "messages": []}, "/v1/responses"), (AUTO, DRAFT)),
        (sent({"model": "m", "input": "x"}, "/v1/responses"), ()),
        (sent(b"POST / HTTP/1.1\r\nx-ai-Provider-Pool: a\r\n\r\n{}", ""), (POOL,)),
        (sent(b"[" * 20_000), ()),
        (sent(b"\xff"), ()),
        (sent([1]), ()),
    ],
)
def test_what_a_request_uses(request_: Sent, means: tuple[str, ...]):
    assert used(request_) == means


def test_a_failure_stands_on_the_means_of_its_own_request():
    means = {"12": (AUTO,), "13": ()}
    moved = stands_on(FAILED, means, [AUTO])
    assert (moved.status, moved.fact) == (Status.NOT_TESTABLE, f"{AUTO} is fail")
    assert (moved.cause, moved.blocks, moved.found) == (DEPENDENCY, True, "")
    assert stands_on(FAILED, means, [POOL]) is FAILED
    other = Finding("X-1", Status.FAIL, "a fact", exchange="13")
    assert stands_on(other, means, [AUTO]) is other


def test_a_failure_that_names_no_request_stands_on_all():
    nameless = Finding("X-1", Status.FAIL, "a fact")
    assert stands_on(nameless, {"12": (AUTO,)}, [AUTO]).status is Status.NOT_TESTABLE


def test_what_is_not_a_failure_stays():
    held = Finding("X-1", Status.PASS, "a fact", exchange="12")
    assert stands_on(held, {"12": (AUTO,)}, [AUTO]) is held


@contextmanager
def passing_through(config: Path, port: int) -> Iterator[str]:
    with PassThrough(yaml.safe_load(config.read_text()), port) as server:
        yield server.url


def test_a_gateway_without_auto_is_not_blamed_for_its_streams():
    options = Options(seed=7, launcher=passing_through, checks=(STREAMED, AUTO))
    found = {result.check: result for result in run("", options).results}
    assert found[AUTO].status is Status.FAIL
    assert found[STREAMED].status is Status.NOT_TESTABLE
    assert found[STREAMED].cause == DEPENDENCY
    assert found[STREAMED].reason in BROKEN


def test_one_check_alone_is_told_the_same_way():
    options = Options(seed=7, launcher=passing_through, checks=(STREAMED,))
    (result,) = run("", options).results
    assert result.status is Status.NOT_TESTABLE
    assert result.reason in BROKEN
