"""The reports in ``conformance/reports``: complete, valid, and telling nothing of a machine."""

import json
import re
import socket
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from aiproxy.conformance.manifest import read_manifest
from aiproxy.spec import validate

REPORTS = Path(__file__).parents[2] / "conformance" / "reports"
FOLDERS = sorted(folder for folder in REPORTS.iterdir() if folder.is_dir())
PEERS = [folder for folder in FOLDERS if folder.name != "aiproxy"]
FILES = {"README.md", "aiproxy-target.yaml", "report.json", "report.yaml", "badge.json"}
MOST_PAGE = 300 << 10
# A path of somebody's machine, and a key that is not masked.
PRIVATE = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|usr|opt|Users)/|sk-[A-Za-z0-9_-]{16,}")


def named(folders: list[Path]):
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def test_there_are_reports_of_others():
    assert {"litellm", "portkey"} <= {folder.name for folder in PEERS}


@named(PEERS)
def test_the_report_of_a_peer_is_complete(folder: Path):
    assert {file.name for file in folder.iterdir()} >= FILES | {"junit.xml"}
    page = folder / "report.html"
    assert not page.exists() or page.stat().st_size < MOST_PAGE


@named(FOLDERS)
def test_every_file_of_a_report_is_valid(folder: Path):
    manifest = read_manifest(folder / "aiproxy-target.yaml", {})
    assert manifest.target.implementation
    if (folder / "report.json").exists():
        validate(json.loads((folder / "report.json").read_text()), "report")
    if (folder / "report.yaml").exists():
        validate(yaml.safe_load((folder / "report.yaml").read_text()), "report-summary")
    if (folder / "badge.json").exists():
        badge = json.loads((folder / "badge.json").read_text())
        assert (badge["schemaVersion"], badge["label"]) == (1, "AIProxy")
    if (folder / "junit.xml").exists():
        ET.parse(folder / "junit.xml")


@named(PEERS)
def test_the_files_of_a_report_agree(folder: Path):
    report = json.loads((folder / "report.json").read_text())
    short = yaml.safe_load((folder / "report.yaml").read_text())
    manifest = read_manifest(folder / "aiproxy-target.yaml", {})
    assert report["mode"] == short["mode"] == "controlled"
    assert report["seed"] == short["seed"]
    assert not report["partial"]
    assert report["target"]["version"] == short["implementation"]["version"]
    assert report["target"]["version"] == manifest.target.version
    assert report["counts"]["harness-error"] == report["counts"]["unreachable"] == 0


@named(PEERS)
def test_the_text_tells_how_to_repeat_it_and_every_red_line_of_level_1(folder: Path):
    text = (folder / "README.md").read_text()
    report = json.loads((folder / "report.json").read_text())
    assert "## Reproduce" in text
    assert f"--seed {report['seed']}" in text
    assert report["target"]["version"] in text
    assert report["started"][:10] in text
    red = [
        result["check"]
        for result in report["results"]
        if result["level"] == 1 and result["status"] == "fail" and "derived_from" not in result
    ]
    assert [name for name in red if name not in text] == []


@named(FOLDERS)
def test_nothing_tells_of_the_machine(folder: Path):
    host = socket.gethostname()
    for file in folder.iterdir():
        text = file.read_text(encoding="utf-8")
        assert PRIVATE.findall(text) == [], file.name
        assert len(host) < 6 or host not in text, file.name
