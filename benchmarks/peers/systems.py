"""What the sections ask of every system, Linkbeat and peers alike."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

Instance_co = TypeVar("Instance_co", covariant=True)


@dataclass(frozen=True)
class Window:
    """The whole buckets that a sparkline of `period` shows: [start, end), in seconds since 1970."""

    period: str
    bucket_seconds: int
    start: int
    end: int

    @classmethod
    def of(cls, period: str) -> Self:
        bucket = {"1h": 60, "24h": 900, "7d": 3600}[period]
        seconds = {"1h": 3600, "24h": 86_400, "7d": 7 * 86_400}[period]
        end = int(time.time()) // bucket * bucket
        return cls(period, bucket, end - seconds + bucket, end)


class Ingests(Protocol):
    """Takes heartbeats.

    heartbeats      environment of heartbeats.lua
    cpu_seconds     of all its processes so far; None where they cannot be seen
    stored          heartbeats that a query finds
    """

    @property
    def base(self) -> str: ...
    @property
    def heartbeats(self) -> Mapping[str, str]: ...
    def cpu_seconds(self) -> float | None: ...
    def stored(self) -> int: ...


class Answers(Protocol):
    """Gives sparklines.

    paths       for a GET of each series' octets, in and out, per bucket
    received    octets received in each bucket of such an answer, by the bucket's start
    """

    @property
    def base(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    def path(self, server_id: str, interface: str, window: Window) -> str: ...
    def received(self, body: bytes) -> dict[int, float]: ...


@dataclass(frozen=True)
class System(Generic[Instance_co]):
    """A name for the output, and how to start one with empty data."""

    name: str
    start: Callable[[], AbstractContextManager[Instance_co]]
