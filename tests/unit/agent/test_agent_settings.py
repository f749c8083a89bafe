"""Settings from the environment: what is allowed, and what is said when it is not."""

import pytest

from agent.environment import SettingDescription
from agent.settings import Settings, SettingsError, described


def test_without_variables_the_defaults_stand() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({"LINKBEAT_URL": "", "LINKBEAT_INTERVAL_SECONDS": " "}) == Settings()


def test_variables_are_converted_to_their_types() -> None:
    found = Settings.from_environment(
        {
            "LINKBEAT_URL": "https://beat.example.net/base",
            "LINKBEAT_INTERVAL_SECONDS": " 10 ",
            "LINKBEAT_BACKLOG_HEARTBEATS": "7",
            "LINKBEAT_EXCLUDE_INTERFACES": "veth*, br-*,",
            "LINKBEAT_LOG_LEVEL": "debug",
            "LINKBEAT_PROC": "/host/proc",
            "OTHER": "x",
        }
    )

    assert found == Settings(
        url="https://beat.example.net/base",
        interval_seconds=10.0,
        backlog_heartbeats=7,
        exclude_interfaces=("veth*", "br-*"),
        log_level="debug",
        proc="/host/proc",
    )
    assert found.roots.is_foreign


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "INTERVAL_SECONDS",
            "abc",
            'LINKBEAT_INTERVAL_SECONDS: "abc" is not a number of seconds from 1 to 3600',
        ),
        ("INTERVAL_SECONDS", "0", 'LINKBEAT_INTERVAL_SECONDS: "0" is not a number of seconds from 1 to 3600'),
        (
            "SPOOL_KEEP_SECONDS",
            "86401",
            'LINKBEAT_SPOOL_KEEP_SECONDS: "86401" is not a number of seconds from 0 to 86400',
        ),
        (
            "SPOOL_KEEP_SECONDS",
            "15m",
            'LINKBEAT_SPOOL_KEEP_SECONDS: "15m" is not a number of seconds from 0 to 86400',
        ),
        ("INTERVAL_SECONDS", "nan", 'LINKBEAT_INTERVAL_SECONDS: "nan" is not a number of seconds from 1 to 3600'),
        ("INTERVAL_SECONDS", "3601", 'LINKBEAT_INTERVAL_SECONDS: "3601" is not a number of seconds from 1 to 3600'),
        (
            "BACKLOG_HEARTBEATS",
            "1.5",
            'LINKBEAT_BACKLOG_HEARTBEATS: "1.5" is not a whole number of heartbeats from 1 to 100000',
        ),
        ("LOG_LEVEL", "loud", 'LINKBEAT_LOG_LEVEL: "loud" is not one of debug, info, warning, error'),
        ("SERVER_ID", "a b", "LINKBEAT_SERVER_ID: \"a b\" is not 1 to 100 of letters, digits, '.', '_' and '-'"),
        ("PROC", "proc", 'LINKBEAT_PROC: "proc" is not an absolute path'),
    ],
)
def test_a_bad_value_names_the_variable_and_what_is_allowed(variable: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({f"LINKBEAT_{variable}": value})

    assert str(raised.value) == message


@pytest.mark.parametrize(
    "url",
    [
        "beat.example.net",
        "ftp://x",
        "http://",
        "http://a b",
        "http://user:secret@host",
        "http://host:99999",
        "http://host:x",
        "http://host/?q=1",
        "http://ho\x01st/",
    ],
)
def test_a_url_that_is_not_http_with_a_host_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="LINKBEAT_URL"):
        Settings.from_environment({"LINKBEAT_URL": url})


@pytest.mark.parametrize("url", ["http://[::1]:8000", "https://h", "http://h:80/a/b", "http://192.0.2.1/"])
def test_a_url_with_a_host_is_taken(url: str) -> None:
    assert Settings.from_environment({"LINKBEAT_URL": url}).url == url


def test_a_bad_token_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({"LINKBEAT_API_KEY": "two words"})

    assert str(raised.value) == "LINKBEAT_API_KEY: the value is not a token of visible ASCII characters"


def test_every_setting_is_described() -> None:
    found = {each.variable: each for each in described()}

    assert list(found) == [f"LINKBEAT_{name.upper()}" for name in Settings.__struct_fields__]
    assert all(each.description.endswith(".") and each.allowed for each in found.values())
    assert found["LINKBEAT_INTERVAL_SECONDS"] == SettingDescription(
        variable="LINKBEAT_INTERVAL_SECONDS",
        allowed="a number of seconds from 1 to 3600",
        unit="seconds",
        default="30",
        description="Time between heartbeats.",
        secret=False,
    )
    assert found["LINKBEAT_API_KEY"].secret
