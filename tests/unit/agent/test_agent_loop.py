"""Ticks, signals and what the agent warns of at its start."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from agent.complaints import Complaints
from agent.enrolment import Enrolment
from agent.identity import ApiKey, Identity
from agent.loop import next_tick, open_sender, warn_if_contained, warn_of_open_token
from agent.settings import Settings, SettingsError
from agent.signals import Signals
from tests.helpers.durations import fastest


@pytest.mark.parametrize(
    ("now", "expected"), [(100.0, 110.0), (100.4, 110.0), (109.9, 110.0), (110.0, 120.0), (175.0, 180.0), (99.9, 110.0)]
)
def test_pitfall_38_ticks_keep_to_their_grid_and_missed_ones_are_skipped(now: float, expected: float) -> None:
    assert next_tick(100.0, 10.0, now) == expected


def test_ticks_do_not_drift() -> None:
    tick = 0.0
    for _ in range(10_000):
        tick = next_tick(tick, 30.0, tick + 0.05)

    assert tick == 300_000.0


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGTERM, "stop"), (signal.SIGINT, "stop"), (signal.SIGHUP, "reload")]
)
def test_a_signal_ends_the_wait_at_once_and_handlers_are_put_back(number: signal.Signals, cause: str) -> None:
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.wait_until(time.monotonic() + 0.01) is None

        def wait() -> None:
            os.kill(os.getpid(), number)
            assert signals.wait_until(time.monotonic() + 120) == cause

        assert fastest(wait, within=1) < 1

    assert signal.getsignal(number) is before


def test_another_thread_ends_the_wait_and_may_come_too_late() -> None:
    with Signals() as signals:

        def wait() -> None:
            threading.Timer(0.05, signals.wake).start()
            assert signals.wait_until(time.monotonic() + 120) == "wake"

        assert fastest(wait, within=1) < 1
        for _ in range(100_000):  # more than the socket holds
            signals.wake()
        assert signals.wait_until(time.monotonic() + 10) == "wake"

    signals.wake()


@pytest.mark.parametrize(
    ("url", "token", "warnings"),
    [
        ("http://beat.example.net", "secret", 1),
        ("http://beat.example.net", "", 0),
        ("https://beat.example.net", "secret", 0),
        ("http://127.0.0.1:8000", "secret", 0),
        ("http://localhost", "secret", 0),
        ("http://[::1]:8000", "secret", 0),
    ],
)
def test_a_token_that_crosses_a_network_in_the_open_is_warned_of(
    url: str, token: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(url=url, api_key=token)

    warn_of_open_token(settings, ApiKey(settings))

    assert len(caplog.records) == warnings
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("in_container", "proc", "interfaces", "warnings"),
    [(True, "/proc", 1, 1), (True, "/proc", 5, 0), (True, "/host/proc", 1, 0), (False, "/proc", 1, 0)],
)
def test_pitfall_17_a_container_with_a_network_of_its_own_is_warned_of_once(
    in_container: bool,
    proc: str,
    interfaces: int,
    warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: in_container)
    complaints = Complaints(logging.getLogger("test"))

    for _ in range(3):
        warn_if_contained(Settings(proc=proc), interfaces, complaints)

    assert len(caplog.records) == warnings


def test_a_file_of_authorities_that_cannot_be_read_is_named() -> None:
    settings = Settings(url="https://h", ca_file="/no/such.pem")

    with pytest.raises(SettingsError, match=r'LINKBEAT_CA_FILE: "/no/such.pem": No such file'):
        open_sender(settings, ApiKey(settings), Enrolment(Identity("a", None, "a"), Path("/nonexistent/token")))
