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


@pytest.mark.parametrize(
    ("command", "begin", "end"),
    [("explain", "## One request", "## Traffic"), ("simulate", "## Traffic", "### Providers")],
)
def test_commands_have_the_options_of_the_simulation_page(
    command: str, begin: str, end: str
) -> None:
    shown = CliRunner().invoke(aiproxy, [command, "--help"]).output
    page = (DOCS / "simulate.md").read_text("utf-8").partition(begin)[2].partition(end)[0]
    cells = re.findall(r"^\| (`--.+?`) \|", page, re.MULTILINE)
    named = {option for cell in cells for option in re.findall(r"--[a-z-]+", cell)}
    assert named == set(re.findall(r"--[a-z-]+", shown)) - {"--help"}


def test_the_simulation_page_names_every_key_of_a_scenario() -> None:
    from aiproxy.spec import schema

    page = (DOCS / "simulate.md").read_text("utf-8")
    document = schema("scenario")
    top = document["properties"]
    traffic = top["traffic"]["properties"]
    provider = top["providers"]["additionalProperties"]["properties"]
    keys = [
        *provider,
        *traffic["phases"]["items"]["properties"],
        *traffic["requests"]["items"]["properties"],
        *top["expect"]["properties"],
        *filter(None, document["$defs"]["error"]["properties"]["fault"]["enum"]),
    ]
    missing = [key for key in keys if not re.search(rf"`{key}[`:]|{key}: ", page)]
    assert missing == []


def test_conformance_has_the_options_of_the_grading_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli_main(["--help"]) == 0
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--verbose"}
    page = (DOCS / "grade.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(--[a-z-]+)", page, re.MULTILINE)) == shown
