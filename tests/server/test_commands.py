"""The command line: what it prints, where, and its exit codes."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from mounts import HELLO
from served import AIPROXY, COMMANDS, pair_config, run, serve, write_config
from upstreams import Upstream, free_port

from aiproxy.spec import schema, validate

BROKEN = Path(__file__).parent.parent / "config" / "broken"
EXPECT = re.compile(r"# expect: (\d+): (.*?): (.*)")
CANARIES = {
    "OPENAI_API_KEY": "openai-canary-value",
    "CLOUDFLARE_API_TOKEN": "cloudflare-canary-value",
    "AIPROXY_API_KEY_1": "first-canary-value-0001",
    "AIPROXY_API_KEY_2": "second-canary-value-0002",
    "SHORT": "canary",
}
#: One of each kind of fault; every file of the folder is loaded in tests/config.
SERVED_BROKEN = (
    "a_list",
    "api_key_short",
    "auth_type_unknown",
    "broken_indent",
    "budget_typo",
    "chain_unknown",
    "cloudflare_without_account",
    "compatible_without_endpoint",
    "duplicate_model",
    "duplicate_provider",
    "endpoint_plain_http",
    "illegal_variable",
    "log_level",
    "mesh_duplicate_peer",
    "negative_price",
    "openai_without_key",
    "provider_type_unknown",
    "read_timeout_bare_number",
    "request_size_apples",
    "rule_else_first",
    "several_problems",
    "strategy_misspelt",
    "tab_indent",
    "top_level_typo",
    "unset_variable",
    "version_unknown",
)
LOCAL_ONLY = {"providers": {"local": {"models": [{"name": "demo", "path": "builtin:demo"}]}}}


@pytest.fixture
def unasked() -> dict[str, Any]:
    """A sound configuration whose provider nobody reaches."""
    model = {"name": "m", "cost_per_1k_tokens": 0.5}
    entry = {"type": "openai_compatible", "endpoint": "https://up.example/v1", "models": [model]}
    return {"providers": {"up": entry}}


# --- serve ---------------------------------------------------------------------------------------


@pytest.mark.requirement("AIP-CLI-001")
@pytest.mark.parametrize("name", SERVED_BROKEN)
def test_a_broken_configuration_exits_2_and_binds_nothing(name: str, tmp_path: Path) -> None:
    file = BROKEN / f"{name}.yaml"
    expected = [
        found.groups() for found in map(EXPECT.fullmatch, file.read_text().splitlines()) if found
    ]
    port = free_port()
    with socket.socket() as taken:
        # Were the address looked at first, this would be another exit code.
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = run("serve", "--config", str(file), "--port", str(port), env=CANARIES, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    assert len(told) == len(expected) > 0
    for line, (number, key, words) in zip(told, expected, strict=True):
        assert line.startswith(f"{file}:{number}: {key}")
        assert words in line
    assert not any(secret in done.stderr for secret in CANARIES.values())


def test_there_are_at_least_twenty_broken_configurations() -> None:
    assert len(SERVED_BROKEN) >= 20


@pytest.mark.parametrize("missing", ["no-such.yaml", "."])
def test_a_configuration_that_is_no_file_exits_2(missing: str, tmp_path: Path) -> None:
    done = run("serve", "--config", missing, cwd=tmp_path)
    assert done.returncode == 2
    assert missing in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_exits_1_and_says_so(unasked: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--config", str(write_config(tmp_path, unasked)), "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "choose another port with --port"
    )


def test_an_address_that_is_not_ours_exits_1(unasked: dict[str, Any], tmp_path: Path) -> None:
    config = str(write_config(tmp_path, unasked))
    done = run("serve", "--config", config, "--host", "host.invalid", "--port", "0")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", [("--host", "0.0.0.0"), ("--host", "::")])
def test_a_public_address_with_a_paid_provider_and_no_keys_is_refused(
    option: tuple[str, str], unasked: dict[str, Any], tmp_path: Path
) -> None:
    config = str(write_config(tmp_path, unasked))
    done = run("serve", "--config", config, "--port", "0", *option)
    assert done.returncode == 2
    assert "expected security.auth, a loopback address, or" in done.stderr


JWT = {"issuer": "i", "audience": "a", "secret": "not-a-secret-000001", "algorithms": ["HS256"]}


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"budget": {"daily_limit": 5.0, "cost_db": "postgresql://db/costs"}}, "budget.cost_db"),
        (
            {"security": {"auth": {"enabled": True, "type": "jwt", "jwt": JWT}}},
            "security.auth.type",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_protection_that_is_not_enforced_is_refused(
    section: dict[str, Any], named: str, unasked: dict[str, Any], tmp_path: Path
) -> None:
    config = str(write_config(tmp_path, {**unasked, **section}))
    done = run("serve", "--config", config, "--port", "0")
    assert done.returncode == 2
    assert named in done.stderr
    assert "--allow-unenforced" in done.stderr


def test_allow_unenforced_starts_with_a_warning(unasked: dict[str, Any], tmp_path: Path) -> None:
    config = {**unasked, "budget": {"daily_limit": 5.0, "cost_db": "postgresql://db/costs"}}
    with serve(tmp_path, config, "--allow-unenforced") as server:
        warnings = [x for x in server.err.read_text().splitlines() if x.startswith("warning: ")]
    assert any("not enforced" in line and "budget.cost_db" in line for line in warnings)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"observability": {"metrics": {"enabled": True}}}, "observability.metrics"),
        ({"security": {"rate_limiting": {"enabled": True}}}, "security.rate_limiting"),
        ({"cache": {"enabled": True, "embedding_model": "m"}}, "cache"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_left_out_is_said_at_the_start(
    section: dict[str, Any], named: str, unasked: dict[str, Any], tmp_path: Path
) -> None:
    with serve(tmp_path, {**unasked, **section}) as server:
        assert f"not part of this release, and left out: {named}" in server.err.read_text()


@pytest.mark.requirement("AIP-CLI-004")
def test_the_alias_serves(unasked: dict[str, Any], tmp_path: Path) -> None:
    command = (str(COMMANDS / "aiserve-gpuproxyd"),)
    with serve(tmp_path, unasked, command=command) as server:
        assert server.get("/healthz").status == 200
        assert server.err.read_text().splitlines()[-1] == f"listening on {server.url}"
        assert server.stop() == 0


def test_peers_are_refused_rather_than_ignored() -> None:
    done = run("serve", "--peers", "b=127.0.0.1:9090")
    assert done.returncode == 2
    assert "mesh" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--port", "70000"], ["serve", "--workers", "0"], ["nonsense"], ["serve", "x"]],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_log_file_that_cannot_be_written_exits_2(unasked: dict[str, Any], tmp_path: Path) -> None:
    unasked["observability"] = {"logging": {"output": str(tmp_path / "no" / "such" / "file")}}
    done = run("serve", "--config", str(write_config(tmp_path, unasked)), "--port", "0")
    assert done.returncode == 2
    assert "observability.logging.output" in done.stderr


# --- config --------------------------------------------------------------------------------------


@pytest.mark.requirement("AIP-CLI-005")
def test_config_check_is_quiet_about_a_sound_file(unasked: dict[str, Any], tmp_path: Path) -> None:
    file = str(write_config(tmp_path, unasked))
    done = run("config", "check", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: sound; 1 providers, 1 models\n"


def test_config_check_names_every_fault() -> None:
    file = BROKEN / "several_problems.yaml"
    done = run("config", "check", str(file), env=CANARIES)
    assert done.returncode == 2
    assert all(line.startswith(f"{file}:") for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) > 1


SECRETS = """
providers:
  openai:
    credentials: {api_key: literal-canary-0001}
    headers: {x-team: header-canary-0002}
    models: [{name: m}]
  groq:
    credentials: {api_key: "${GROQ_API_KEY}"}
    models: [{name: n}]
security:
  auth: {enabled: true, api_keys: [{name: a, key: client-canary-0003}]}
state: {backend: valkey, url: "redis://:url-canary-0004@127.0.0.1:6379"}
node: {mesh: {secret: mesh-canary-0005-long-enough-for-any-rule}}
"""


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_show_masks_every_secret(form: list[str], tmp_path: Path) -> None:
    file = tmp_path / "aiproxy.yaml"
    file.write_text(SECRETS)
    done = run("config", "show", str(file), *form, env={"GROQ_API_KEY": "env-canary-0006"})
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stdout + done.stderr
    shown = json.loads(done.stdout) if form else yaml.safe_load(done.stdout)
    assert shown["providers"]["groq"]["credentials"]["api_key"] == "${GROQ_API_KEY}"
    assert shown["providers"]["openai"]["credentials"]["api_key"] == "***"
    assert shown["routing"]["scope"] == "all"


def test_config_schema_is_the_schema() -> None:
    done = run("config", "schema")
    assert json.loads(done.stdout) == schema("config")


# --- models, providers ---------------------------------------------------------------------------


@pytest.mark.requirement("AIP-CLI-005")
def test_models_and_providers_list_what_is_configured(tmp_path: Path) -> None:
    a, b = Upstream("a"), Upstream("b")
    config = str(write_config(tmp_path, pair_config(a, b)))
    models = json.loads(run("models", "--config", config, "--json").stdout)["models"]
    assert [(row["model"], row["provider"]) for row in models] == [
        ("shared", "a"),
        ("only-a", "a"),
        ("vectors", "a"),
        ("shared", "b"),
        ("only-b", "b"),
    ]
    providers = json.loads(run("providers", "--config", config, "--json").stdout)["providers"]
    assert [(row["provider"], row["default"], row["models"]) for row in providers] == [
        ("a", True, 3),
        ("b", False, 2),
    ]
    table = run("providers", "--config", config).stdout
    assert [line.split()[0] for line in table.splitlines()] == ["provider", "a", "b"]
    table = run("models", "--config", config).stdout
    assert len(table.splitlines()) == 6
    assert "127.0.0.1" not in table


def test_a_broken_file_is_refused_by_every_command() -> None:
    file = str(BROKEN / "top_level_typo.yaml")
    for command in (["models", "--config"], ["providers", "--config"], ["config", "show"]):
        done = run(*command, file)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"{file}:")


# --- explain -------------------------------------------------------------------------------------


def test_explain_reads_a_file_or_stdin(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, pair_config(Upstream("a"), Upstream("b"))))
    body = json.dumps({"model": "auto", "messages": HELLO}).encode()
    (tmp_path / "body.json").write_bytes(body)
    header = "X-AI-Provider-Pool: b"
    told = []
    for source, stdin in ((str(tmp_path / "body.json"), b""), ("-", body)):
        done = run("explain", "--json", "--config", config, "--header", header, source, stdin=stdin)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        validate(record, "decision")
        told.append((record["selected"], record["attempts"]))
    assert told[0] == told[1]
    assert (told[0][0]["provider"], told[0][1]) == ("b", [])


def test_explain_of_a_refused_request_exits_1_with_its_error(tmp_path: Path) -> None:
    config = str(write_config(tmp_path, pair_config(Upstream("a"), Upstream("b"))))
    for body in (b"{", b'{"model": "no-such", "messages": []}', b"[]"):
        done = run("explain", "--json", "--config", config, "-", stdin=body)
        assert done.returncode == 1, done.stderr
        record = json.loads(done.stdout)
        validate(record, "decision")
        assert 400 <= record["error"]["status"] < 500


@pytest.mark.parametrize(
    "arguments",
    [
        ["--header", "nocolon", "-"],
        ["--endpoint", "/v1/nothing", "-"],
        ["no-such-file.json"],
        ["--config", "no-such.yaml", "-"],
    ],
)
def test_explain_of_no_request_exits_2(arguments: list[str], tmp_path: Path) -> None:
    done = run("explain", *arguments, stdin=b"{}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_explain_leaves_out_a_local_model_that_cannot_run(tmp_path: Path) -> None:
    config = pair_config(Upstream("a"), Upstream("b"))
    config["providers"]["local"] = {
        "priority": 0,
        "models": [{"name": "shared", "path": str(tmp_path / "nothing.onnx")}],
    }
    body = json.dumps({"model": "shared", "messages": HELLO}).encode()
    file = str(write_config(tmp_path, config))
    record = json.loads(run("explain", "--json", "--config", file, "-", stdin=body).stdout)
    assert record["selected"]["provider"] == "a"


# --- the program itself --------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert run("--version").stdout.startswith("aiproxy, version ")
    told = run("-h").stdout
    for command in ("serve", "config", "explain", "simulate", "models", "providers", "conformance"):
        assert f"  {command} " in told
    assert Path(AIPROXY).exists()


def test_without_the_server_extra_grading_works_and_the_rest_says_what_it_needs() -> None:
    code = (
        "import sys; sys.modules['click'] = None; sys.argv[0] = 'aiproxy'\n"
        "from aiproxy.reference_server.cli import main; main()"
    )
    ran = {
        words: subprocess.run(
            [sys.executable, "-c", code, *words.split()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for words in ("conformance --help", "serve")
    }
    assert ran["conformance --help"].returncode == 0
    assert "--launch CMD" in ran["conformance --help"].stdout
    assert (ran["serve"].returncode, ran["serve"].stderr) == (
        2,
        "aiproxy: this needs: pip install 'aiproxy[server]'\n",
    )
