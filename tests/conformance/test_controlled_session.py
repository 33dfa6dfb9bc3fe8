"""Controlled runs: worlds, both sides in the report, and targets that break."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from controlled import launcher
from pass_through import PassThrough

from aiproxy.conformance import Options, Report, Status, run, running
from aiproxy.conformance.launching import NotLaunched
from aiproxy.conformance.manifest import Target
from aiproxy.conformance.scoring import CONTROLLED, rows

HERE = Path(__file__).parent
CHAT = "AIP-API-001"  # level 1: world plain
BOOLEAN = "XAI-STREAM-018"  # level 2, without fakes of its own: world base; needs CHAT
COMMAND = f"{sys.executable} {HERE / 'pass_through.py'} {{config}} {{port}}"


class Launches:
    """A launcher that remembers what it did; ``fails`` are the numbers of starts that fail."""

    def __init__(self, *fails: int) -> None:
        self.fails, self.did = fails, list[str]()
        self.configs: list[dict[str, object]] = []

    @contextmanager
    def __call__(self, config: Path, port: int) -> Iterator[str]:
        self.configs.append(yaml.safe_load(config.read_text()))
        number = len(self.configs)
        if number in self.fails:
            raise NotLaunched("the target ended with status 7; its last words: no such option")
        self.did.append(f"start {number}")
        try:
            with PassThrough(self.configs[-1], port) as server:
                yield server.url
        finally:
            self.did.append(f"stop {number}")


def statuses(report: Report) -> dict[str, Status]:
    return {result.check: result.status for result in report.results}


def test_worlds_are_started_once_in_order_the_next_one_ahead():
    launches = Launches()
    report = run("", Options(seed=7, launcher=launches, checks=(BOOLEAN, CHAT)))
    assert statuses(report) == {CHAT: Status.PASS, BOOLEAN: Status.PASS}
    assert (report.mode, report.exit_code) == ("controlled", 0)
    assert [(world.name, world.fault) for world in report.worlds] == [("plain", ""), ("base", "")]
    assert launches.did[:2] == ["start 1", "start 2"]
    assert sorted(launches.did[2:]) == ["stop 1", "stop 2"]


def test_a_check_of_one_world_brings_what_it_needs_from_another():
    launches = Launches()
    report = run("", Options(seed=7, launcher=launches, checks=(BOOLEAN,)))
    assert statuses(report) == {BOOLEAN: Status.PASS}
    assert [world.name for world in report.worlds] == ["plain", "base"]
    assert len(launches.configs) == 2


def test_one_check_alone_has_the_names_it_has_in_the_whole_run():
    whole, alone = Launches(), Launches()
    run("", Options(seed=7, launcher=whole, checks=(CHAT, BOOLEAN)))
    run("", Options(seed=7, launcher=alone, checks=(CHAT,)))
    assert whole.configs[0]["providers"].keys() == alone.configs[0]["providers"].keys()


def test_both_sides_of_a_request_are_in_the_report():
    report = run("", Options(seed=7, launcher=Launches(), checks=(CHAT,)))
    chat = next(e for e in report.exchanges if "chat/completions" in e.request)
    assert len(chat.upstream) == 1
    seen = chat.upstream[0]
    assert "POST /v1/chat/completions" in seen
    assert '"model": "up-' in seen
    assert "authorization: [redacted]" in seen
    assert "answered 200" in seen
    assert "sk-fake-" not in "".join((*chat.upstream, chat.request, chat.response))


def test_the_budget_of_a_controlled_run_is_larger_and_kept():
    options = Options(seed=7, launcher=Launches(), checks=(CHAT, BOOLEAN))
    assert run("", options).budget == 3000
    report = run("", Options(seed=7, launcher=Launches(), checks=(CHAT, BOOLEAN), budget=4))
    assert len(report.exchanges) <= 4
    assert statuses(report)[BOOLEAN] is Status.NOT_RUN


def test_a_world_that_does_not_start_leaves_its_checks_untestable():
    report = run("", Options(seed=7, launcher=Launches(2), checks=(CHAT, BOOLEAN)))
    assert statuses(report) == {CHAT: Status.PASS, BOOLEAN: Status.NOT_TESTABLE}
    reason = next(r.reason for r in report.results if r.check == BOOLEAN)
    assert reason.startswith("the target did not start in world base: ")
    assert "no such option" in reason
    assert (report.unreachable, report.exit_code) == ("", 1)


def test_when_the_first_world_does_not_start_no_other_is_tried():
    launches = Launches(1)
    report = run("", Options(seed=7, launcher=launches, checks=(CHAT, BOOLEAN)))
    assert "no such option" in report.unreachable
    assert (report.exit_code, len(launches.configs)) == (3, 1)


INPUTS = "AIP-API-017"  # level 2: world base alone


def looked_at(monkeypatch: pytest.MonkeyPatch, still_s: float, *wrong: int) -> Report:
    """Return the report of a target that is wrong when it was started for these times, on a machine
    that stands still for so long all the time."""

    class Told:
        def start(self) -> None: ...

        def stop(self) -> None: ...

        def take(self) -> float:
            return still_s

    starts = iter(range(1, 9))

    @contextmanager
    def launch(config: Path, port: int) -> Iterator[str]:
        defects = ("texts-are-pictures",) if next(starts) in wrong else ()
        with launcher(*defects)(config, port) as url:
            yield url

    monkeypatch.setattr(running, "Pulse", Told)
    return run("", Options(seed=7, launcher=launch, level=2, checks=(INPUTS,)))


def test_what_is_wrong_while_the_machine_stands_still_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
):
    report = looked_at(monkeypatch, 1.5, 1)
    assert statuses(report)[INPUTS] is Status.PASS
    assert [(w.name, w.repeated) for w in report.worlds] == [("base", 1)]


def test_what_is_wrong_again_stays_wrong(monkeypatch: pytest.MonkeyPatch):
    report = looked_at(monkeypatch, 1.5, 1, 2, 3)
    assert statuses(report)[INPUTS] is Status.WARN
    assert [w.repeated for w in report.worlds] == [2]


def test_what_is_wrong_on_a_quiet_machine_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch):
    report = looked_at(monkeypatch, 0.0, 1)
    assert statuses(report)[INPUTS] is Status.WARN
    assert [w.repeated for w in report.worlds] == [0]


def test_a_target_that_dies_in_the_middle_is_unreachable_from_there_on():
    command = f"{COMMAND} dies-after=4"
    begun = time.monotonic()
    report = run("", Options(seed=7, level=1, launch=command))
    assert time.monotonic() - begun < 30
    found = statuses(report)
    assert found[CHAT] is Status.PASS
    own = [r for r in report.results if not r.derived_from]
    gone = [r for r in own if r.status is Status.UNREACHABLE]
    assert gone
    assert all("by signal SIGKILL" in r.reason for r in gone)
    assert Status.HARNESS_ERROR not in found.values()
    assert report.exit_code == 1


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("-c 'raise SystemExit(\"no such config\")' {config}", "no such config"),
        ("-c 'import time; time.sleep(60)' {config}", "nothing listened on port"),
        ("-c 'print(\"key sk-abcdefghijklmnopqrstu\"); exit(3)' {config}", "key [redacted]"),
        ('-c \'print("\\033[31mred\\033[0m \\x07 " + "x" * 2000); exit(3)\' {config}', "red"),
    ],
)
def test_a_command_that_starts_nothing_is_told_in_one_line(command: str, says: str):
    options = Options(launch=f"{sys.executable} {command}", ready_s=1.0, checks=(CHAT,))
    begun = time.monotonic()
    report = run("", options)
    assert time.monotonic() - begun < 15
    assert says in report.unreachable
    assert "\n" not in report.unreachable
    assert "\033" not in report.unreachable
    assert len(report.unreachable) < 700
    assert report.exit_code == 3


def test_something_that_listens_and_never_answers_is_unreachable(tmp_path: Path):
    script = tmp_path / "mute.py"
    script.write_text(
        "import socket, sys, time\n"
        "plug = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "time.sleep(60)\n"
    )
    launch = f"{sys.executable} {script} {{port}} {{config}}"
    report = run("", Options(launch=launch, timeout_s=0.5, checks=(CHAT,)))
    assert (report.unreachable, report.exit_code) == ("no answer within 0.5 s", 3)


def test_a_launch_without_a_configuration_is_an_observation(tmp_path: Path):
    script = tmp_path / "serve.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from right_server import RightServer\n"
        "RightServer(port=int(sys.argv[1])).serve_forever()\n"
    )
    report = run("", Options(seed=7, launch=f"{sys.executable} {script} {{port}}", checks=(CHAT,)))
    assert (report.mode, statuses(report)) == ("observe", {CHAT: Status.PASS})


def test_a_launcher_that_breaks_is_a_target_that_did_not_start():
    @contextmanager
    def broken(config: Path, port: int) -> Iterator[str]:
        raise RuntimeError("no such thing")
        yield ""

    report = run("", Options(seed=7, launcher=broken, checks=(CHAT,)))
    assert (report.unreachable, report.exit_code) == ("RuntimeError: no such thing", 3)


def test_what_the_manifest_lacks_is_unsupported_and_not_asked():
    lacking = {row.id: row.feature for row in rows(5, CONTROLLED) if row.feature}
    name, feature = next(iter(lacking.items()))
    told = Target(features={feature: False})
    report = run("", Options(seed=7, launcher=Launches(), checks=(name,), target=told))
    result = next(iter(report.results))
    assert result.status is Status.UNSUPPORTED
    assert result.reason == f"the target's manifest says that it lacks {feature}"


def test_a_template_that_does_not_serve_a_world_leaves_it_untestable(tmp_path: Path):
    (tmp_path / "plain.yaml").write_text(
        "routing: {default_provider: {default.id}}\n"
        "providers:\n"
        "# each provider\n"
        "  {id}:\n"
        "    endpoint: {endpoint}\n"
        "    credentials: {api_key: {key}}\n"
        "    models: [{name: {model}, model: {upstream_model}}]\n"
        "# end each\n"
    )
    template = str(tmp_path / "{world}.yaml")
    report = run(
        "", Options(seed=7, launcher=Launches(), config_for=template, checks=(CHAT, BOOLEAN))
    )
    assert statuses(report) == {CHAT: Status.PASS, BOOLEAN: Status.NOT_TESTABLE}
    assert [world.fault for world in report.worlds if world.name == "base"] == [
        f"there is no template {tmp_path / 'base.yaml'}"
    ]


def test_when_the_time_is_over_no_further_world_is_started():
    launches = Launches()
    options = Options(seed=7, launcher=launches, checks=(CHAT, BOOLEAN), limit_s=0.0)
    report = run("", options)
    assert set(statuses(report).values()) == {Status.NOT_RUN}
    assert launches.configs == []
