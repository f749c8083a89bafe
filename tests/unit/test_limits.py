"""Limits: token buckets of bounded memory, and the true address of who sends."""

from typing import Any

import pytest

from service.http import limits
from service.http.limits import ClientAddress, RateLimiter, Recent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, to be moved by the test."""
    now = [1000.0]
    monkeypatch.setattr(limits, "monotonic", lambda: now[0])
    return now


def test_a_bucket_lets_so_many_through_at_once_and_so_many_a_minute(clock: list[float]) -> None:
    buckets = RateLimiter(60)

    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == pytest.approx(1.0)
    assert buckets.wait_seconds("a") == pytest.approx(1.0)
    assert buckets.take("b") == 0.0
    clock[0] += 1.001
    assert buckets.wait_seconds("a") == 0.0
    assert buckets.take("a") == 0.0
    assert buckets.take("a") > 0
    clock[0] += 3600
    assert [buckets.take("a") > 0 for _ in range(61)] == [False] * 60 + [True]


def test_asking_how_long_counts_nothing(clock: list[float]) -> None:
    buckets = RateLimiter(1)

    assert [buckets.wait_seconds("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") == 0.0
    assert buckets.wait_seconds("a") == pytest.approx(60.0)


def test_memory_is_bounded_and_the_oldest_is_forgotten() -> None:
    buckets, recent = RateLimiter(1, remembered=100), Recent(100)

    for n in range(100_000):
        buckets.take(n)
        recent.add(n)

    assert len(buckets._levels) == 100
    assert len(recent._keys) == 100
    assert buckets.wait_seconds(99_999) > 0
    assert 99_999 in recent
    assert 0 not in recent


def scope(client: str | None, *forwarded: str) -> Any:
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded] + [(b"x-forwarded-host", b"203.0.113.9")]
    return {"client": (client, 1) if client else None, "headers": headers}


TRUSTED = ("10.0.0.0/8", "2001:db8:1::/48")


@pytest.mark.parametrize(
    ("trusted", "client", "forwarded", "expected"),
    [
        ((), "198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        ((), "10.0.0.1", ["203.0.113.1"], "10.0.0.1"),
        ((), None, ["203.0.113.1"], ""),
        (TRUSTED, "198.51.100.7", ["203.0.113.1"], "198.51.100.7"),
        (TRUSTED, "10.0.0.1", [], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        (TRUSTED, "10.0.0.1", ["1.1.1.1, 203.0.113.1, 10.9.9.9"], "203.0.113.1"),
        (TRUSTED, "10.0.0.1", ["1.1.1.1", "203.0.113.1", "10.9.9.9"], "203.0.113.1"),
        (TRUSTED, "10.0.0.1", ["203.0.113.1:4711"], "203.0.113.1"),
        (TRUSTED, "10.0.0.1", ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (TRUSTED, "10.0.0.1", ["203.0.113.1, nonsense"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", ["203.0.113.1,"], "10.0.0.1"),
        (TRUSTED, "10.0.0.1", ["nonsense, 203.0.113.1"], "203.0.113.1"),
        (TRUSTED, "::ffff:10.0.0.1", ["203.0.113.1"], "203.0.113.1"),
        (TRUSTED, "2001:db8:1::1", ["[2001:db8:2::5]:443"], "2001:db8:2::/64"),
        (TRUSTED, "2001:db8:1::1", ["2001:db8:2:0:1:2:3:4"], "2001:db8:2::/64"),
        (TRUSTED, "10.0.0.1", ["::ffff:203.0.113.1"], "203.0.113.1"),
        (("10.0.0.1",), "10.0.0.1", ["203.0.113.1, " + "10.0.0.1, " * 5000 + "10.0.0.1"], "10.0.0.1"),
    ],
)
def test_the_peer_is_who_connected_or_whom_a_trusted_proxy_names(
    trusted: tuple[str, ...], client: str | None, forwarded: list[str], expected: str
) -> None:
    assert ClientAddress(trusted).of(scope(client, *forwarded)) == expected
