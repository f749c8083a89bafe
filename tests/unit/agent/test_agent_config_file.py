"""Settings from a TOML file, beside the environment, and again on a reload."""

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import environment, settings
from agent.settings import Settings, SettingsError, load, reload, warnings_about


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def loaded(config: Path, text: str, **environ: str) -> Settings:
    config.write_text(text, encoding="utf-8")
    return load({f"LINKBEAT_{name}": value for name, value in environ.items()}, str(config))


def refusal(config: Path, text: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        loaded(config, text, **environ)
    return str(raised.value)


def test_keys_are_the_names_of_the_settings(config: Path) -> None:
    found = loaded(
        config,
        """
        url = "https://beat.example.net"
        interval_seconds = 45
        exclude_interfaces = ["veth*", "br-*"]
        remote_config = false
        server_id = ""
        """,
    )

    assert found == Settings(
        config=str(config),
        url="https://beat.example.net",
        interval_seconds=45.0,
        exclude_interfaces=("veth*", "br-*"),
        remote_config=False,
    )


def test_the_environment_goes_before_the_file(config: Path) -> None:
    found = loaded(config, "interval_seconds = 45\ntimeout_seconds = 7", INTERVAL_SECONDS="50", TIMEOUT_SECONDS=" ")

    assert (found.interval_seconds, found.timeout_seconds) == (50.0, 7.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'interval_seconds = "30"',
            ': interval_seconds: "30" in quotes is not a number of seconds from 1 to 3600',
        ),
        ("interval_seconds = true", ": interval_seconds: true is not a number of seconds from 1 to 3600"),
        ("interval_seconds = 0.5", ": interval_seconds: 0.5 is not a number of seconds from 1 to 3600"),
        ("interval_seconds = nan", ": interval_seconds: the value is not a number of seconds from 1 to 3600"),
        ("interval_seconds = [30]", ": interval_seconds: the value is not a number of seconds from 1 to 3600"),
        (f"interval_seconds = {'9' * 400}", ": interval_seconds: the value is not a number of seconds from 1 to 3600"),
        ("backlog_heartbeats = 1.5", ": backlog_heartbeats: 1.5 is not a whole number of heartbeats from 1 to 100000"),
        ("remote_config = 1", ": remote_config: 1 is not true or false"),
        ('log_level = "loud"', ': log_level: "loud" is not one of debug, info, warning, error'),
        (
            'exclude_interfaces = "veth*"',
            ': exclude_interfaces: "veth*" is not an array of strings such as ["eth0", "veth*"]',
        ),
        ('api_key = "two words"', ": api_key: the value is not a token of visible ASCII characters"),
        ("intervall_seconds = 30", ': "intervall_seconds" is not a setting; did you mean "interval_seconds"?'),
        ('config = "/elsewhere"', ': "config" is not a setting; did you mean "remote_config"?'),
        ("url = 1\nurl = 2", ", line 2: url: is set twice"),
        ("timeout_seconds = 5\ninterval_seconds =", ", line 2: interval_seconds: Invalid value"),
        ('url = "http://h:99999"', ': url: "http://h:99999" has a port that is not between 0 and 65535'),
        (
            "min_interval_seconds = 10\nmax_interval_seconds = 9",
            ": min_interval_seconds: 10 is above max_interval_seconds, which is 9",
        ),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(config: Path, text: str, said: str) -> None:
    assert refusal(config, text) == f"{config}{said}"


def test_a_table_is_no_setting_and_the_settings_are_named(config: Path) -> None:
    said = refusal(config, "[agent]\ninterval_seconds = 30")

    assert said.startswith(f'{config}: "agent" is not a setting; the settings are url, api_key, ')


def test_a_line_that_cannot_be_read_is_not_repeated(config: Path) -> None:
    assert "s3cret" not in refusal(config, 'api_key = "s3cret\n')


def test_a_contradiction_names_where_the_value_came_from(config: Path) -> None:
    said = refusal(config, "max_interval_seconds = 9", MIN_INTERVAL_SECONDS="10")

    assert said == "LINKBEAT_MIN_INTERVAL_SECONDS: 10 is above max_interval_seconds, which is 9"


@pytest.mark.parametrize("content", [b"\xff", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000, b"\x00", b"a.b.c"])
def test_a_file_that_is_no_toml_is_refused_in_one_line(config: Path, content: bytes) -> None:
    config.write_bytes(content)

    with pytest.raises(SettingsError, match=re.escape(str(config))) as raised:
        load({}, str(config))

    assert "\n" not in str(raised.value)


@given(st.binary(max_size=200) | st.text(alphabet="ab_=[]{}\"'\n.#0123456789e-", max_size=60).map(str.encode))
def test_no_file_is_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    config = tmp_path_factory.getbasetemp() / "any.toml"
    config.write_bytes(content)

    said = str(config)
    try:
        load({}, str(config))
    except SettingsError as error:
        said = str(error)

    assert said.startswith(str(config))


def test_a_file_that_is_named_must_be_there(config: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"agent\.toml: No such file"):
        load({"LINKBEAT_CONFIG": str(config)})
    with pytest.raises(SettingsError, match="Is a directory"):
        load({}, str(tmp_path))


def test_the_default_file_is_read_where_it_is_there(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", config)
    without = load({})
    config.write_text("interval_seconds = 45")

    assert without == Settings()
    assert load({}) == Settings(config=str(config), interval_seconds=45.0)


def test_a_file_that_the_environment_names_is_read(config: Path, tmp_path: Path) -> None:
    config.write_text("interval_seconds = 45")
    other = tmp_path / "other.toml"
    other.write_text("interval_seconds = 50")

    assert load({"LINKBEAT_CONFIG": str(config)}).interval_seconds == 45.0
    assert load({"LINKBEAT_CONFIG": str(config)}, str(other)).config == str(other)


def test_a_token_of_the_environment_goes_before_any_of_the_file(config: Path) -> None:
    text = 'api_key_file = "/from/file"\napi_key = "from-file"'

    assert loaded(config, text).api_key_file == "/from/file"
    from_environment = loaded(config, text, API_KEY="from-environment")
    assert (from_environment.api_key, from_environment.api_key_file) == ("from-environment", "")


def test_without_a_named_token_systemds_credential_is_used(config: Path, tmp_path: Path) -> None:
    config.touch()
    (tmp_path / "linkbeat-token").write_text("from-systemd")
    beside = tmp_path / "token"
    beside.write_text("beside")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}

    assert load(environ, str(config)).api_key_file == str(tmp_path / "linkbeat-token")
    assert load(environ | {"LINKBEAT_API_KEY": "named"}, str(config)).api_key_file == ""
    assert load({}, str(config)).api_key_file == str(beside)
    beside.write_text("")
    assert load({}, str(config)).api_key_file == ""


def test_a_file_with_a_token_that_everybody_can_read_is_warned_of(config: Path, tmp_path: Path) -> None:
    token = tmp_path / "secret"
    token.write_text("t")
    token.chmod(0o644)
    config.write_text(f'api_key = "t"\napi_key_file = "{token}"')
    config.chmod(0o644)

    opened = warnings_about(load({}, str(config)))
    config.chmod(0o640)
    token.chmod(0o600)
    closed = warnings_about(load({}, str(config)))
    config.write_text("")
    config.chmod(0o644)

    assert [said.partition(" ")[0] for said in opened] == [str(token), str(config)]
    assert closed == []
    assert warnings_about(load({"LINKBEAT_API_KEY": "t"}, str(config))) == []


def test_a_reload_brings_what_the_file_says_now(config: Path) -> None:
    running = loaded(config, "interval_seconds = 45")
    config.write_text("interval_seconds = 50")

    found, complaints = reload(running, {})

    assert found == Settings(config=str(config), interval_seconds=50.0)
    assert complaints == []


@pytest.mark.parametrize("text", ["interval_seconds = 0", "interval_seconds = ", None])
def test_a_reload_of_a_wrong_file_keeps_what_runs(config: Path, text: str | None) -> None:
    running = loaded(config, "interval_seconds = 45")
    if text is None:
        config.unlink()
    else:
        config.write_text(text)

    found, complaints = reload(running, {})

    assert found is running
    assert len(complaints) == 1
    assert str(config) in complaints[0]


def test_a_reload_does_not_change_who_the_machine_is(config: Path) -> None:
    running = loaded(config, 'server_id = "one"\nproc = "/host/proc"\ninterval_seconds = 45')
    config.write_text('server_id = "two"\nproc = "/host/proc"\ninterval_seconds = 50')

    found, complaints = reload(running, {})

    assert (found.server_id, found.proc, found.interval_seconds) == ("one", "/host/proc", 50.0)
    assert complaints == ["LINKBEAT_SERVER_ID cannot change while the agent runs; restart it to apply the change"]


def test_what_a_reload_does_not_change_says_so_where_it_is_described() -> None:
    described = {one.variable: one.description for one in settings.described()}
    fixed = {environment.variable(name) for name in environment.fixed(Settings)}

    assert {"LINKBEAT_SERVER_ID", "LINKBEAT_PROC", "LINKBEAT_SYS", "LINKBEAT_ROOT"} <= fixed
    assert fixed == {variable for variable, words in described.items() if "A reload does not change it." in words}


def test_loading_logs_nothing(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        loaded(config, 'api_key = "t"')

    assert caplog.records == []
