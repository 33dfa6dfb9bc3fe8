"""``aiproxy conformance``: exit statuses, reports, launching."""

import json
import socket
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from right_server import KEY, RightServer

from aiproxy.conformance import cli_main
from aiproxy.spec import validate

HERE = Path(__file__).parent


def test_a_right_target_writes_valid_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with RightServer(key=KEY) as server:
        args = [server.url, "--api-key", KEY, "--seed", "3", "--report-dir", str(tmp_path / "r")]
        assert cli_main(args) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("RESULT: level 1 proven")
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    validate(report, "report")
    assert (report["level"], report["seed"], report["mode"]) == (1, 3, "observe")
    suite = ET.parse(tmp_path / "r" / "junit.xml").getroot()[0]
    assert suite.get("failures") == "0"
    assert json.loads((tmp_path / "r" / "badge.json").read_text())["color"] == "yellowgreen"
    assert "<script" not in (tmp_path / "r" / "report.html").read_text()


def test_no_report_holds_the_key_even_when_the_target_echoes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with RightServer("echo-keys", key=KEY) as server:
        assert cli_main([server.url, "--api-key", KEY, "--report-dir", str(tmp_path), "-v"]) == 1
    told = capsys.readouterr()
    written = [file.read_text() for file in tmp_path.iterdir()]
    assert len(written) == 5
    assert not any(KEY in text for text in (told.out, told.err, *written))
    validate(json.loads((tmp_path / "report.json").read_text()), "report")


def test_a_level_that_a_url_cannot_prove_is_not_proven(capsys: pytest.CaptureFixture[str]):
    with RightServer() as server:
        assert cli_main([server.url, "--level", "2"]) == 1
    assert "level 2 was asked for and is not" in capsys.readouterr().out


def test_a_target_that_wants_a_key_says_so(capsys: pytest.CaptureFixture[str]):
    with RightServer(key=KEY) as server:
        assert cli_main([server.url]) == 1
    assert "asks for one: use --api-key" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["http://127.0.0.1:1", "--launch", "x"],
        ["ftp://host"],
        ["http://127.0.0.1:1", "--level", "9"],
        ["http://127.0.0.1:1", "--check", "NO-SUCH-001"],
        ["--launch", "'"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_one_line_and_status_2(args: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli_main(args) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_an_unreachable_target_is_status_3(capsys: pytest.CaptureFixture[str]):
    with RightServer() as server:
        url = server.url
    assert cli_main([url]) == 3
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_without_httpx_one_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert cli_main(["http://127.0.0.1:1"]) == 2
    assert "pip install 'aiproxy[conformance]'" in capsys.readouterr().err


def test_a_launched_target_is_graded_and_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    script = tmp_path / "serve.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from right_server import RightServer\n"
        "port, config = sys.argv[1:]\n"
        "assert f'127.0.0.1:{port}' in open(config).read()\n"
        "RightServer(port=int(port)).serve_forever()\n"
    )
    command = f"{sys.executable} {script} {{port}} {{config}}"
    assert cli_main(["--launch", command, "--check", "AIP-API-019", "-v"]) == 0
    told = capsys.readouterr().out
    assert "< HTTP/1.1 200" in told
    port = int(told.partition("http://127.0.0.1:")[2].split()[0])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"{sys.executable} -c 'raise SystemExit(\"no such config\")'", "no such config"),
        ("/no/such/program", "cannot run"),
    ],
)
def test_a_target_that_does_not_start_is_status_3(
    command: str, says: str, capsys: pytest.CaptureFixture[str]
):
    assert cli_main(["--launch", command]) == 3
    assert says in capsys.readouterr().err
