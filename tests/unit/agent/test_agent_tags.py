"""Tags of the machine, by setting and flag; and a report that the service asks for."""

from typing import Any

import msgspec
import pytest

from agent import remote
from agent.__main__ import argument_parser
from agent.heartbeat import Collector, encode
from agent.settings import Settings, SettingsError
from service.wire import Heartbeat


def load(tags: str) -> Settings:
    return Settings.from_environment({"LINKBEAT_TAGS": tags, "LINKBEAT_SERVER_ID": "nas"})


def test_tags_are_in_every_heartbeat_and_left_out_without_any() -> None:
    beat = msgspec.json.decode(encode(Collector(load("site=home, web")).collect()), type=Heartbeat)
    plain: dict[str, Any] = msgspec.json.decode(encode(Collector(load("")).collect()))

    assert beat.tags == ["site=home", "web"]
    assert "tags" not in plain


@pytest.mark.parametrize(
    "tags", ["two words", "=x", "a=", "a=b=c", "-a", "a*", "x" * 33, f"a={'x' * 64}", "role=a,role=b", "a,a"]
)
def test_a_wrong_tag_prevents_the_start_and_names_the_variable(tags: str) -> None:
    with pytest.raises(SettingsError, match="LINKBEAT_TAGS"):
        load(tags)


def test_too_many_tags_prevent_the_start() -> None:
    assert len(load(",".join(f"t{n}" for n in range(32))).tags) == 32
    with pytest.raises(SettingsError, match="at most 32 tags"):
        load(",".join(f"t{n}" for n in range(33)))


def test_the_flag_stands_before_or_after_the_command() -> None:
    parser = argument_parser()

    assert parser.parse_args(["--tags", "a", "run"]).tags == parser.parse_args(["run", "--tags", "a"]).tags == "a"
    assert parser.parse_args(["run"]).tags is None


@pytest.mark.parametrize(
    ("value", "read"),
    [("2026-01-29T10:00:00Z", "2026-01-29T10:00:00Z"), (5, None), ("", None), ("a\n", None), ("x" * 65, None)],
)
def test_a_request_for_a_report_is_read_whatever_is_sent(value: Any, read: str | None) -> None:
    config = remote.parse(msgspec.json.encode({"report_at": value})).config

    assert config.report_at == read
    assert remote.apply(load(""), config).remote.report_at == read
    refuses = msgspec.structs.replace(load(""), remote_config=False)
    assert remote.apply(refuses, config).remote.report_at is None
