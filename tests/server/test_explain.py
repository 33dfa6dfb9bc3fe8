"""``aiproxy explain`` for people: who would serve any kind of request, and why nobody else."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aiproxy.reference_server.cli.commands import aiproxy
from aiproxy.spec import validate

HI = [{"role": "user", "content": "Hi"}]
CONFIG = {
    "routing": {"scope": "all", "strategy": "cost_optimized", "auto_without_headers": "select"},
    "providers": {
        "cheap": {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "models": [
                {
                    "name": "small",
                    "price": {"input": 0.001, "output": 0.002},
                    "quality": 0.6,
                    "latency_prior": "400ms",
                },
                {"name": "vectors", "capabilities": ["embeddings"], "price": {"input": 0.0001}},
            ],
        },
        "good": {
            "type": "openai_compatible",
            "endpoint": "http://127.0.0.1:9/v1",
            "models": [{"name": "large", "price": {"input": 0.01, "output": 0.02}, "quality": 0.9}],
        },
    },
}
#: body, and where it goes when nobody says so
SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"model": "small", "messages": HI}, "/v1/chat/completions"),
    ({"model": "small", "messages": HI, "system": "Be brief", "max_tokens": 9}, "/v1/messages"),
    ({"model": "small", "input": "Hi"}, "/v1/responses"),
    ({"model": "small", "prompt": "Hi"}, "/v1/completions"),
    ({"model": "vectors", "input": "Hi"}, "/v1/embeddings"),
    ({"model": "auto", "input": ["Hi"], "encoding_format": "float"}, "/v1/embeddings"),
    ({"model": "small", "input": "Hi", "routing": {"max_cost": 1}}, "/aiproxy/predict"),
    ({"contents": [{"parts": [{"text": "Hi"}]}]}, "/v1beta/models/{model}:generateContent"),
]


@pytest.fixture
def explain(tmp_path: Path) -> Any:
    """Run the command on a body; ``headers`` as lines."""
    config = tmp_path / "aiproxy.json"
    config.write_text(json.dumps(CONFIG))

    def run(body: Any, *options: str, headers: tuple[str, ...] = ()) -> Result:
        file = tmp_path / "body.json"
        file.write_text(json.dumps(body))
        given = [part for line in headers for part in ("--header", line)]
        return CliRunner().invoke(
            aiproxy,
            ["explain", "--config", str(config), *given, *(options or ("--table",)), str(file)],
        )

    return run


@pytest.mark.parametrize(("body", "where"), SHAPES, ids=[where for _, where in SHAPES])
def test_every_kind_of_request_is_understood_by_its_shape(
    explain: Any, body: dict[str, Any], where: str
) -> None:
    done = explain(body, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.output)
    validate(record, "decision")
    assert record["requested"]["endpoint"] == where
    assert record["selected"]["provider"] == "cheap"
    told = explain(body).output
    assert f"request         {where}, model" in told
    assert "served by       cheap/" in told


def test_the_path_may_be_said(explain: Any) -> None:
    for option in ("--endpoint", "--path"):
        done = explain(
            {"model": "small", "messages": HI, "max_tokens": 9}, option, "/v1/messages", "--table"
        )
        assert "request         /v1/messages, model small" in done.output


def test_the_table_says_who_and_why_not(explain: Any) -> None:
    """UNI-ROUTE-016: primary factors, trade-offs, alternatives and risk, for a reader."""
    body = {"model": "auto", "messages": HI, "max_tokens": "auto"}
    header = "X-AI-Quality-Threshold: 0.8"
    done = explain(body, headers=(header,))
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines()]
    assert ["served", "by", "good/large"] in [line[:3] for line in lines]
    limits = next(line for line in lines if line[:1] == ["limits"])
    assert limits[1:3] == ["quality_threshold", "0.8,"]
    rows = {tuple(line[1:3]): line for line in lines if line and line[0] in ("1", "2", "-")}
    assert rows["good", "large"][0] == "1"
    assert rows["cheap", "small"][3] == "below_quality_threshold"
    assert rows["cheap", "vectors"][3] == "lacks_capability"
    assert any(line[:2] == ["auto", "max_tokens"] for line in lines)
    record = json.loads(explain(body, "--json", headers=(header,)).output)
    if record.get("explanation"):
        assert "risk" in done.output


def test_without_the_limit_the_cheap_one_serves_and_the_other_is_second(explain: Any) -> None:
    rows = explain({"model": "auto", "messages": HI}).output.splitlines()
    assert rows[-2].split()[:4] == ["2", "good", "large", "lower_score"]


def test_a_refusal_exits_1_and_says_its_error(explain: Any) -> None:
    done = explain({"model": "no-such", "messages": HI})
    assert done.exit_code == 1
    assert "refused         404 model_not_found" in done.output
    done = explain({"model": "auto", "messages": HI}, headers=("X-AI-Cost-Limit: much",))
    assert done.exit_code == 1
    assert "refused         400" in done.output


def test_what_was_ignored_is_told(explain: Any) -> None:
    header = "X-AI-Quality-Threshold: 0.8"
    done = explain({"model": "small", "messages": HI}, headers=(header,))
    assert "ignored         X-AI-Quality-Threshold: explicit_model" in done.output


def test_text_that_looks_like_markup_is_printed_as_it_is(explain: Any) -> None:
    done = explain({"model": "[red]x[/]", "messages": HI})
    assert "model [red]x[/]" in done.output


def test_without_a_terminal_it_is_the_record(explain: Any) -> None:
    """What reads it there is a program."""
    done = explain({"model": "auto", "messages": HI}, "--endpoint", "/v1/chat/completions")
    validate(json.loads(done.output), "decision")
