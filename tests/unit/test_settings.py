"""The service's settings; and docs/settings.md, which must say of every setting what the code says."""

import re
from pathlib import Path

import pytest

from agent import settings as agent_settings
from agent.environment import SettingDescription
from service import settings as service_settings
from service.settings import Settings, SettingsError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
DESCRIBED = {"The service": service_settings.described(), "The agent": agent_settings.described()}
SHARED = {one.variable for one in DESCRIBED["The service"]} & {one.variable for one in DESCRIBED["The agent"]}

NONE = "\N{EN DASH}"

WRONG = [
    ("LINKBEAT_RETAIN_AUDIT_DAYS", "0"),
    ("LINKBEAT_TRUSTED_USER_HEADER", "two words"),
    ("LINKBEAT_TRUSTED_GROUPS_HEADER", "a:b"),
    ("LINKBEAT_TRUSTED_ADMINS", "ada,b\x01b"),
    ("LINKBEAT_TRUSTED_ADMINS", "ada,group:"),
    ("LINKBEAT_HOST", "not a host"),
    ("LINKBEAT_HOST", "http://127.0.0.1"),
    ("LINKBEAT_PORT", "0"),
    ("LINKBEAT_PORT", "65536"),
    ("LINKBEAT_PORT", "http"),
    ("LINKBEAT_PORT", "80.5"),
    ("LINKBEAT_DATA_DIR", "relative/path"),
    ("LINKBEAT_DATA_DIR", "~/linkbeat"),
    ("LINKBEAT_DATABASE_URL", "mysql://someone:s3cret-password@db/linkbeat"),
    ("LINKBEAT_DATABASE_URL", "host=db password=s3cret-password"),
    ("LINKBEAT_DATABASE", "postgres"),
    ("LINKBEAT_DATABASE", "Docker"),
    ("LINKBEAT_DURABILITY", "synchronous"),
    ("LINKBEAT_DURABILITY", "Replicated"),
    ("LINKBEAT_DATABASE_PORT", "65536"),
    ("LINKBEAT_DATABASE_PORT", "-1"),
    ("LINKBEAT_API_KEY", "s3cret-password"),
    ("LINKBEAT_API_KEY", "s3cret-password with a space"),
    ("LINKBEAT_API_KEY", "s3cret-19-character"),
    ("LINKBEAT_API_KEY", "s3cret-" * 5),
    ("LINKBEAT_SECRET_KEY", "s3cret-password"),
    ("LINKBEAT_SECRET_KEY_FILE", "secret"),
    ("LINKBEAT_ACCEPT_X_API_KEY", "maybe"),
    ("LINKBEAT_ACCEPT_X_AGENT_TOKEN", "2"),
    ("LINKBEAT_TRUSTED_PROXIES", "10.0.0.0/33"),
    ("LINKBEAT_TRUSTED_PROXIES", "proxy.example.net"),
    ("LINKBEAT_CONNECTIONS_PER_ADDRESS", "0"),
    ("LINKBEAT_CONNECTIONS_PER_ADDRESS", "1.5"),
    ("LINKBEAT_FAILED_TOKENS_PER_MINUTE", "0"),
    ("LINKBEAT_SERVER_REQUESTS_PER_MINUTE", "many"),
    ("LINKBEAT_READ_REQUESTS_PER_MINUTE", "-1"),
    ("LINKBEAT_OLDEST_HEARTBEAT_DAYS", "0.5"),
    ("LINKBEAT_OLDEST_HEARTBEAT_DAYS", "91"),
    ("LINKBEAT_OLDEST_HEARTBEAT_DAYS", "a fortnight"),
    ("LINKBEAT_OLDEST_HEARTBEAT_DAYS", "nan"),
    ("LINKBEAT_OLDEST_HEARTBEAT_DAYS", "inf"),
    ("LINKBEAT_COMPRESS_AFTER_DAYS", "0"),
    ("LINKBEAT_RETAIN_RAW_DAYS", "1"),
    ("LINKBEAT_RETAIN_1M_DAYS", "-30"),
    ("LINKBEAT_RETAIN_15M_DAYS", "for ever"),
    ("LINKBEAT_RETAIN_1H_DAYS", "5 years"),
    ("LINKBEAT_RETAIN_1D_DAYS", "36501"),
    ("LINKBEAT_QUEUE_HEARTBEATS", "0"),
    ("LINKBEAT_ALERT_SECONDS", "1"),
    ("LINKBEAT_QUEUE_HEARTBEATS", "1000001"),
    ("LINKBEAT_QUEUE_HEARTBEATS", "many"),
    ("LINKBEAT_MAX_SERIES", "0"),
    ("LINKBEAT_MAX_SERIES", "some"),
    ("LINKBEAT_FOLD_MINUTES", "-1"),
    ("LINKBEAT_FOLD_MINUTES", "an hour"),
    ("LINKBEAT_CORS_ORIGINS", "https://a.example,dash.example.net"),
    ("LINKBEAT_CORS_ORIGINS", "https://a.example/path"),
    ("LINKBEAT_ALERTS_FILE", "alerts.toml"),
    ("LINKBEAT_ALERT_PRIVATE_ADDRESSES", "some"),
    ("LINKBEAT_MAINTENANCE", "false"),
    ("LINKBEAT_METRICS_PUBLIC", "perhaps"),
    ("LINKBEAT_READ_DATABASE_URL", "mysql://reader:s3cret@host/db"),
    ("LINKBEAT_READ_LAG_SECONDS", "0.1"),
    ("LINKBEAT_READ_LAG_SECONDS", "soon"),
    ("LINKBEAT_LOG_LEVEL", "loud"),
    ("LINKBEAT_LOG_LEVEL", "INFO"),
]


def documented(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table below a heading, as a reader sees their cells."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        tuple(re.sub(r"\\(.)", r"\1", cell.strip()).strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in section.splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == ("Variable", "Unit", "Default", "Allowed", "What it does")
    return rows[2:]


@pytest.mark.parametrize("heading", list(DESCRIBED))
def test_the_documentation_holds_every_setting_and_nothing_else(heading: str) -> None:
    assert documented(heading) == [
        (one.variable, one.unit or NONE, one.default or NONE, one.allowed, one.description)
        for one in DESCRIBED[heading]
    ]


def test_variables_that_belong_to_both_are_explained() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").split("\n## Variables that belong to both\n")[1]

    assert set(re.findall(r"^- `(LINKBEAT_[A-Z_]+)`", section, re.MULTILINE)) == SHARED


@pytest.mark.parametrize("one", DESCRIBED["The service"], ids=lambda one: one.variable)
def test_every_setting_says_what_it_does_and_its_unit_stands_in_its_name(one: SettingDescription) -> None:
    assert one.description.endswith(".")
    assert one.allowed != "text"
    assert one.unit is None or one.variable.endswith(f"_{one.unit.upper()}")


@pytest.mark.parametrize(("variable", "value"), WRONG)
def test_a_wrong_value_is_refused_naming_the_variable_and_what_is_allowed(variable: str, value: str) -> None:
    setting = next(one for one in DESCRIBED["The service"] if one.variable == variable)

    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({variable: value})

    message = str(raised.value)
    assert message.startswith(f"{variable}: ")
    assert message.endswith(f" is not {setting.allowed}")
    assert (value in message) is not setting.secret
    assert "s3cret" not in message


def test_every_setting_has_a_wrong_value_here() -> None:
    assert {variable for variable, _ in WRONG} == {one.variable for one in DESCRIBED["The service"]}


def test_secrets_are_marked() -> None:
    secrets = {one.variable for described in DESCRIBED.values() for one in described if one.secret}

    assert secrets == {
        "LINKBEAT_API_KEY", "LINKBEAT_DATABASE_URL", "LINKBEAT_READ_DATABASE_URL", "LINKBEAT_SECRET_KEY",
    }  # fmt: skip


def test_secrets_are_not_shown() -> None:
    secrets = {"LINKBEAT_API_KEY": "s3cret-and-long-enough", "LINKBEAT_SECRET_KEY": "s3cret-" * 5,
               "LINKBEAT_DATABASE_URL": "postgresql://someone:s3cret@db/linkbeat"}  # fmt: skip

    shown = f"{Settings.from_environment(secrets)!r} {Settings.from_environment(secrets)}"

    assert "port=8000" in shown
    assert "s3cret" not in shown


def test_without_variables_the_defaults_hold() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({one.variable: " " for one in DESCRIBED["The service"]}) == Settings()


def test_the_defaults_are_allowed() -> None:
    defaults = {one.variable: one.default for one in DESCRIBED["The service"]}

    assert Settings.from_environment(defaults) == Settings()


def test_values_are_read_with_their_types() -> None:
    found = Settings.from_environment(
        {
            "LINKBEAT_HOST": "::", "LINKBEAT_PORT": "443", "LINKBEAT_DATA_DIR": "/srv/link beat",
            "LINKBEAT_DATABASE_URL": "postgres://u:p%40@h/d?sslmode=require", "LINKBEAT_API_KEY": "0123456789" * 2,
            "LINKBEAT_OLDEST_HEARTBEAT_DAYS": "1.5", "LINKBEAT_QUEUE_HEARTBEATS": "7",
            "LINKBEAT_MAX_SERIES": "9", "LINKBEAT_FOLD_MINUTES": "0.5", "LINKBEAT_LOG_LEVEL": "debug",
            "LINKBEAT_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "LINKBEAT_ACCEPT_X_API_KEY": "false", "UNRELATED": "1",
        }
    )  # fmt: skip

    assert found == Settings(
        host="::", port=443, data_dir="/srv/link beat", database_url="postgres://u:p%40@h/d?sslmode=require",
        api_key="0123456789" * 2, oldest_heartbeat_days=1.5, queue_heartbeats=7, max_series=9, fold_minutes=0.5,
        log_level="debug", trusted_proxies=("10.0.0.0/8", "::1"), accept_x_api_key=False,
    )  # fmt: skip
    assert found.data_path == Path("/srv/link beat")


@pytest.mark.parametrize(
    ("changed", "value", "refused", "says", "by"),
    [
        ("OLDEST_HEARTBEAT", "8", "COMPRESS_AFTER", "9 days is not above 9", "OLDEST_HEARTBEAT"),
        ("COMPRESS_AFTER", "7", "COMPRESS_AFTER", "7 days is not above 8", "OLDEST_HEARTBEAT"),
        ("RETAIN_RAW", "9", "RETAIN_RAW", "9 days is not above 9", "COMPRESS_AFTER"),
        ("RETAIN_RAW", "36", "RETAIN_1M", "35 days is not at least 36", "RETAIN_RAW"),
        ("RETAIN_1M", "401", "RETAIN_15M", "400 days is not at least 401", "RETAIN_1M"),
        ("RETAIN_15M", "1827", "RETAIN_1H", "1826 days is not at least 1827", "RETAIN_15M"),
        ("RETAIN_1D", "400", "RETAIN_1D", "400 days is not at least 1826", "RETAIN_1H"),
    ],
)
def test_ages_that_do_not_follow_each_other_are_refused_naming_both(
    changed: str, value: str, refused: str, says: str, by: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({f"LINKBEAT_{changed}_DAYS": value})

    assert str(raised.value) == f"LINKBEAT_{refused}_DAYS: {says}, which LINKBEAT_{by}_DAYS requires"


def test_ages_may_be_as_close_as_a_refresh_allows() -> None:
    days = {"OLDEST_HEARTBEAT": "30", "COMPRESS_AFTER": "31.5", "RETAIN_RAW": "32", "RETAIN_1M": "32"}

    found = Settings.from_environment({f"LINKBEAT_{name}_DAYS": value for name, value in days.items()})

    assert list(found.database_configuration().values()) == [30, 31.5, 32, 32, 400, 1826, 1826, 365]


def test_a_key_that_the_service_takes_the_agent_takes_too() -> None:
    environ = {"LINKBEAT_API_KEY": "".join(map(chr, range(0x21, 0x7F)))}

    assert agent_settings.Settings.from_environment(environ).api_key == Settings.from_environment(environ).api_key
