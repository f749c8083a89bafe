"""What the service may change of an agent, and what it may not."""

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.remote import RemoteConfig, apply, parse
from agent.settings import Settings

NAMES = st.text(alphabet="abeth0123.-*[]!?", min_size=1, max_size=6)
PATTERNS = st.lists(NAMES, max_size=4)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
ANY_CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "interval_seconds": JSON | st.floats(-10, 1e12),
        "include_interfaces": JSON | PATTERNS,
        "exclude_interfaces": JSON | PATTERNS,
        "paused": JSON,
        "later": JSON,
    },
)


def local(minimum: float = 5.0, maximum: float = 3600.0, **settings: Any) -> Settings:
    return Settings(min_interval_seconds=minimum, max_interval_seconds=maximum, **settings)


def test_what_the_service_sets_is_read() -> None:
    found, complaint = parse(
        b'{"interval_seconds":60,"include_interfaces":["eth*"],"exclude_interfaces":[],"paused":true,"later":{}}'
    )

    assert found == RemoteConfig(interval_seconds=60.0, include_interfaces=("eth*",), paused=True)
    assert complaint == ""


@pytest.mark.parametrize("config", [b"{}", b'{"interval_seconds":null,"paused":null}'])
def test_what_is_missing_is_not_asked_for(config: bytes) -> None:
    assert parse(config) == (RemoteConfig(), "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("interval_seconds", "60"),
        ("interval_seconds", True),
        ("interval_seconds", 0),
        ("interval_seconds", -1),
        ("interval_seconds", 1e300),
        ("interval_seconds", 10**400),
        ("include_interfaces", "eth0"),
        ("include_interfaces", [1]),
        ("include_interfaces", [""]),
        ("include_interfaces", ["a" * 256]),
        ("exclude_interfaces", ["a"] * 101),
        ("paused", 1),
        ("paused", "no"),
    ],
)
def test_a_field_that_makes_no_sense_is_left_out_and_the_others_hold(field: str, value: object) -> None:
    sound = {"interval_seconds": 60} if field != "interval_seconds" else {"paused": True}

    found, complaint = parse(json.dumps({field: value} | sound).encode())

    assert found == RemoteConfig(**sound)
    assert field in complaint


@pytest.mark.parametrize("config", [b"", b"null", b"[]", b"7", b'{"paused":', b"\xff", b"<html>", b"[" * 100_000])
def test_what_is_no_object_is_ignored_with_one_complaint(config: bytes) -> None:
    found, complaint = parse(config)

    assert found == RemoteConfig()
    assert "not an object" in complaint


@given(st.binary(max_size=100) | ANY_CONFIG.map(lambda config: json.dumps(config).encode()))
def test_no_answer_raises(config: bytes) -> None:
    found, complaint = parse(config)

    assert apply(local(), found).settings.url == local().url
    assert "\n" not in complaint


@given(ANY_CONFIG, st.floats(1, 3600), st.floats(1, 3600), st.floats(1, 3600))
def test_the_interval_stays_within_the_local_bounds(
    config: dict[str, Any], own: float, one: float, other: float
) -> None:
    remote = parse(json.dumps(config).encode()).config
    low, high = min(one, other), max(one, other)

    effective = apply(local(low, high, interval_seconds=own), remote)

    assert effective.settings.interval_seconds == own or low <= effective.settings.interval_seconds <= high
    if remote.interval_seconds is None:
        assert effective.settings.interval_seconds == own
    elif low <= remote.interval_seconds <= high:
        assert effective.settings.interval_seconds == remote.interval_seconds
        assert effective.held_back == ()
    else:
        assert len(effective.held_back) == 1


@given(ANY_CONFIG, PATTERNS, PATTERNS, NAMES)
def test_the_service_never_brings_back_an_interface(
    config: dict[str, Any], include: list[str], exclude: list[str], name: str
) -> None:
    remote = parse(json.dumps(config).encode()).config
    settings = local(include_interfaces=tuple(include), exclude_interfaces=tuple(exclude))

    effective = apply(settings, remote)

    if effective.reports(name):
        assert apply(settings, RemoteConfig()).reports(name)
        assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude)
        assert not include or any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


@given(ANY_CONFIG, st.floats(1, 3600), NAMES)
def test_where_it_is_not_allowed_the_service_changes_nothing(config: dict[str, Any], own: float, name: str) -> None:
    remote = parse(json.dumps(config).encode()).config
    settings = local(interval_seconds=own, remote_config=False, exclude_interfaces=("b*",))

    effective = apply(settings, remote)

    assert (effective.settings.interval_seconds, effective.paused) == (own, False)
    assert effective.reports(name) is not name.startswith("b")
    assert bool(effective.held_back) is (remote != RemoteConfig())


def test_the_service_can_leave_out_what_is_reported_here() -> None:
    remote = RemoteConfig(include_interfaces=("eth*", "wg0"), exclude_interfaces=("eth1",))

    effective = apply(local(exclude_interfaces=("wg0",)), remote)

    assert [name for name in ("eth0", "eth1", "wg0", "br0") if effective.reports(name)] == ["eth0"]


def test_a_pause_ends_when_it_is_no_longer_asked_for() -> None:
    assert apply(local(), parse(b'{"paused":true}').config).paused
    assert not apply(local(), parse(b"{}").config).paused
