"""Lines that clients cause: the first at once, the others counted."""

import asyncio
import logging
import time

import pytest

from service.http import log_limit
from service.http.log_limit import LimitedFilter, LogLimit

LOG = logging.getLogger("linkbeat.test")


def test_the_first_line_of_each_cause_and_sender_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    limit = LogLimit(LOG)

    for n in range(1_000):
        limit(logging.WARNING, ("refused", f"192.0.2.{n % 3}"), "%s refused %d", f"192.0.2.{n % 3}", n)

    assert caplog.messages == ["192.0.2.0 refused 0", "192.0.2.1 refused 1", "192.0.2.2 refused 2"]


async def test_how_many_more_there_were_is_said_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "WINDOW_SECONDS", 0.05)
    now = time.monotonic()
    monkeypatch.setattr(log_limit, "monotonic", lambda: now)  # all of it is within the window, however long it takes
    limit = LogLimit(LOG)

    for n in range(100):
        limit(logging.WARNING, "refused", "refused %d", n)
    limit(logging.WARNING, "alone", "alone")
    async with asyncio.timeout(60):
        while len(caplog.messages) < 3:  # noqa: ASYNC110 - a logger tells nobody
            await asyncio.sleep(0.01)
    limit(logging.WARNING, "refused", "refused %d", 100)

    assert caplog.messages == [
        "refused 0", "alone", "refused 99 (and 99 more like it within a minute)", "refused 100"
    ]  # fmt: skip


def test_of_many_senders_the_ones_before_are_forgotten_and_said(caplog: pytest.LogCaptureFixture) -> None:
    limit = LogLimit(LOG, remembered=2)

    for sender in ("a", "a", "b", "c"):
        limit(logging.WARNING, sender, "refused %s", sender)

    assert caplog.messages == ["refused a", "refused b", "refused a (and 1 more like it within a minute)", "refused c"]
    assert len(limit._windows) == 2


def test_the_lines_of_another_library_are_limited_and_its_errors_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("linkbeat.library")
    logger.addFilter(LimitedFilter(logger))

    for _ in range(5):
        logger.warning("Invalid HTTP request received.")
        logger.error("a bug of %s", "its own")

    assert caplog.messages.count("Invalid HTTP request received.") == 1
    assert caplog.messages.count("a bug of its own") == 5
