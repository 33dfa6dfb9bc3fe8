"""The options the pages name are those the commands have."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiproxy.conformance import cli_main
from aiproxy.reference_server.cli.commands import aiproxy

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_serve_has_the_options_of_the_operations_page() -> None:
    shown = CliRunner().invoke(aiproxy, ["serve", "--help"]).output
    page = (DOCS / "run.md").read_text("utf-8").partition("## When it does not start")[0]
    named = set(re.findall(r"^\| (`--.+?`) \|", page, re.MULTILINE))
    options = {option for cell in named for option in re.findall(r"--[a-z-]+", cell)}
    assert options == {"--host", "--port", "--workers", "--allow-unenforced"}
    assert [option for option in sorted(options) if option not in shown] == []


def test_conformance_has_the_options_of_the_grading_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli_main(["--help"]) == 0
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--verbose"}
    page = (DOCS / "grade.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)) == shown
