"""``${NAME}``: replaced once, after parsing, and never shown (AIP-CFG-006 to 008, 114)."""

from pathlib import Path

import pytest

from aiproxy.middleware.config import ConfigInvalid, load_config

OPENAI = """
providers:
  openai:
    enabled: {enabled}
    credentials: {{api_key: "${{OPENAI_API_KEY}}"}}
    timeouts: {{connect: "${{CONNECT}}"}}
    headers: {{x-team: "${{TEAM}}"}}
"""


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${A}", "alpha"),
        ("x ${A} y", "x alpha y"),
        ("${A}${B}", "alphabeta"),
        ("${UNSET:-fallback}", "fallback"),
        ("${EMPTY:-fallback}", "fallback"),
        ("${A:-fallback}", "alpha"),
        ("x${UNSET:-}y", "xy"),
        ("$${A}", "${A}"),
        ("$${A} ${A}", "${A} alpha"),
        ("costs $5", "costs $5"),
        ("$A", "$A"),
        ("${NESTED}", "${A}"),
        ("${YAML}", "x: [1"),
        ("${UNSET:-a:-b}", "a:-b"),
    ],
)
def test_a_reference_is_replaced_once(written: str, value: str, tmp_path: Path) -> None:
    env = {"A": "alpha", "B": "beta", "EMPTY": "", "NESTED": "${A}", "YAML": "x: [1"}
    assert load_config({"node": {"name": written}}, env=env).values["node"]["name"] == value
    file = tmp_path / "c.yaml"
    file.write_text(f"node:\n  name: '{written}'\n")
    assert load_config(file, env=env).values["node"]["name"] == value


@pytest.mark.parametrize("written", ["${", "${A", "${}", "${A B}", "${1A}", "${A-b}", "x ${:-y}"])
def test_a_malformed_reference_is_refused(written: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"node\.name: found"):
        load_config({"node": {"name": written}}, env={"A": "x"})


@pytest.mark.parametrize("env", [{}, {"A": ""}], ids=["unset", "empty"])
def test_an_unset_or_empty_variable_is_refused_by_name(env: dict[str, str]) -> None:
    with pytest.raises(ConfigInvalid, match=r"node\.name: found \$\{A\}.* variable A "):
        load_config({"node": {"name": "${A}"}}, env=env)


def test_a_disabled_provider_may_name_unset_variables(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(OPENAI.format(enabled="false"))
    config = load_config(file, env={})
    assert config.values["providers"]["openai"]["timeouts"]["connect"] == 5.0
    assert load_config(config.masked(), env={}).values == config.values


def test_an_enabled_provider_reports_each_unset_variable_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(OPENAI.format(enabled="true"))
    with pytest.raises(ConfigInvalid) as refused:
        load_config(file, env={})
    assert [(one.line, one.key) for one in refused.value.problems] == [
        (5, "providers.openai.credentials.api_key"),
        (6, "providers.openai.timeouts.connect"),
        (7, "providers.openai.headers.x-team"),
    ]


def test_disabled_authentication_may_name_unset_variables() -> None:
    keys = [{"key": "${NO_KEY}", "name": "a"}, {"key": "${NO_KEY}", "name": "b"}]
    source = {"security": {"auth": {"enabled": False, "api_keys": keys}}}
    assert load_config(source, env={}).values["security"]["auth"]["enabled"] is False


def test_a_disabled_budget_may_hold_a_variable_where_text_cannot_stand() -> None:
    alerts = [{"threshold": "${PERCENT}", "action": "log"}]
    source = {"budget": {"enabled": False, "alerts": alerts, "daily_limit": "${LIMIT}"}}
    assert load_config(source, env={}).values["budget"]["daily_limit"] is None


def test_a_variable_gives_text_and_never_a_number() -> None:
    with pytest.raises(ConfigInvalid, match="a variable always gives text"):
        load_config({"server": {"workers": "${N}"}}, env={"N": "3"})


def test_a_variable_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="not valid UTF-8"):
        load_config({"node": {"name": "${A}"}}, env={"A": "\udcff"})


def test_secrets_may_lie_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "TEAM_NAME").write_text("from the file\n")
    source = {"credentials": {"directory": str(tmp_path)}, "node": {"name": "${TEAM_NAME}"}}
    assert load_config(source, env={}).values["node"]["name"] == "from the file"
    assert load_config(source, env={"TEAM_NAME": "env"}).values["node"]["name"] == "env"
