"""How long each measurement lasts, and on how much data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The sizes of one run.

    seconds         of one load of heartbeats
    read_seconds    of one load of sparklines
    rounds          how often the systems take turns; the middle one of a figure's rounds is shown
    minutes         of load on the service whose memory is watched
    servers         with four interfaces each, whose traffic is loaded
    history_days    to compare: a little history, and much
    known_servers   to compare: a few servers known, and many
    bytes_days      of the traffic that is compressed
    year_servers, year_days   of the traffic of which default retention keeps a part
    """

    seconds: int = 10
    read_seconds: int = 5
    rounds: int = 3
    minutes: float = 10
    servers: int = 50
    history_days: tuple[int, int] = (1, 30)
    known_servers: tuple[int, int] = (1_000, 100_000)
    bytes_days: int = 7
    year_servers: int = 2
    year_days: int = 365


QUICK = Plan(
    seconds=2,
    read_seconds=1,
    rounds=1,
    minutes=0.2,
    servers=4,
    history_days=(1, 3),
    known_servers=(1_000, 4_000),
    bytes_days=2,
    year_servers=1,
    year_days=40,
)
