"""The responses of usage, and their construction from rows of the database."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Literal

import asyncpg
import msgspec

from service.database.series_links import Sums
from service.usage.quotas import QuotaState


class Amount(msgspec.Struct, frozen=True):
    """Octets."""

    rx_bytes: int
    tx_bytes: int
    total_bytes: int


class Rates(msgspec.Struct, frozen=True):
    """Bits per second, received and sent.

    max_bps  the greater of the two, by which most transit is billed
    sum_bps  of both directions together: the percentile of their sums, not the sum of their percentiles
    """

    rx_bps: float
    tx_bps: float
    max_bps: float
    sum_bps: float


class Percentile(msgspec.Struct, frozen=True):
    """The 95th percentile of the average rates of a month's complete 5-minute slots.

    The highest 5 % of them (rounded down) are dropped, and the next one is the percentile.

    of_samples  of the slots with samples, as transit is billed; null: none
    of_slots    of all slots so far, where a missing one counts as 0; null: none
    """

    samples: int
    slots: int
    of_samples: Rates | None
    of_slots: Rates | None


class Month(Amount, frozen=True, kw_only=True):
    """A billing month, [since, until), and its traffic so far.

    samples     number of heartbeats; with 0, the traffic is unknown and not 0
    expected    forecast for the end of the month at the average rate since it began, or since the server's first
                heartbeat; null during the first day
    percentile  null: its 1-minute buckets are no longer retained (LINKBEAT_RETAIN_1M_DAYS)
    """

    since: datetime
    until: datetime
    samples: int
    expected: Amount | None
    percentile: Percentile | None


class Day(Amount, frozen=True, kw_only=True):
    """A calendar day, which may have 23 hours, or 25, or 24.5."""

    day: date
    samples: int


class InterfaceUsage(Amount, frozen=True, kw_only=True):
    """One interface over all days or months; is_lowest: it is counted in the server's traffic."""

    interface: str
    is_lowest: bool


class Usage(msgspec.Struct, frozen=True):
    """Traffic of one server, or of one of its interfaces, by day or month in `time_zone`.

    interface    null: the server's own traffic, each byte counted once, at the lowest interface
    month        the current billing month
    since, until the requested days, half-open
    days, months the one that `by` selects, oldest first, without those that have no samples: a gap is never 0
    interfaces   each over the whole range; [] if one interface was requested
    quota        null: none
    sums         interfaces that links add up, also where both have samples at the same time; absent: none
    """

    server_id: str
    interface: str | None
    time_zone: str
    billing_day: int
    month: Month
    by: Literal["day", "month"]
    since: date
    until: date
    days: list[Day]
    months: list[Month]
    interfaces: list[InterfaceUsage]
    quota: QuotaState | None
    sums: Sums = msgspec.UNSET


class ServerUsage(Amount, frozen=True, kw_only=True):
    """One server in the requested billing month; its quota is the current one."""

    server_id: str
    hostname: str
    quota: QuotaState | None


class FleetUsage(msgspec.Struct, frozen=True):
    """Servers by their traffic in the billing month [since, until), busiest first; `next` continues the list.

    Amounts grow while servers report, so a server may appear on two pages or on none. `sums` as in Usage.
    """

    time_zone: str
    billing_day: int
    since: datetime
    until: datetime
    servers: list[ServerUsage]
    next: str | None
    sums: Sums = msgspec.UNSET


def amount(rx_bytes: int, tx_bytes: int) -> dict[str, int]:
    """The fields of an Amount."""
    return {"rx_bytes": rx_bytes, "tx_bytes": tx_bytes, "total_bytes": rx_bytes + tx_bytes}


def month_of(row: asyncpg.Record) -> Month:
    """A row of network_month() and network_percentile()."""
    expected = percentile = None
    if row["expected_rx_bytes"] is not None:
        expected = Amount(**amount(row["expected_rx_bytes"], row["expected_tx_bytes"]))
    if row["slots"] is not None:
        percentile = Percentile(
            row["percentile_samples"],
            row["slots"],
            _rates(row["rx_bps"], row["tx_bps"], row["sum_bps"]),
            _rates(row["rx_bps_of_slots"], row["tx_bps_of_slots"], row["sum_bps_of_slots"]),
        )
    return Month(
        **amount(row["rx_bytes"], row["tx_bytes"]),
        since=row["since"],
        until=row["until"],
        samples=row["samples"],
        expected=expected,
        percentile=percentile,
    )


def _rates(rx_bps: float | None, tx_bps: float | None, sum_bps: float | None) -> Rates | None:
    """None without samples: the three values are null together."""
    if rx_bps is None or tx_bps is None or sum_bps is None:
        return None
    return Rates(rx_bps, tx_bps, max(rx_bps, tx_bps), sum_bps)


def by_day(rows: Iterable[asyncpg.Record]) -> list[Day]:
    """Rows of network_days() added up for each day, in order."""
    days: dict[date, list[int]] = {}
    for row in rows:
        total = days.setdefault(row["day"], [0, 0, 0])
        total[0] += row["rx_bytes"]
        total[1] += row["tx_bytes"]
        total[2] += row["samples"]
    return [Day(**amount(rx, tx), day=day, samples=samples) for day, (rx, tx, samples) in days.items()]


def by_interface(rows: Sequence[asyncpg.Record]) -> list[InterfaceUsage]:
    """Rows of days or months added up for each interface."""
    interfaces: dict[str, list[int]] = {}
    for row in rows:
        total = interfaces.setdefault(row["interface_name"], [0, 0, 0])
        total[0] += row["rx_bytes"]
        total[1] += row["tx_bytes"]
        total[2] |= row["is_lowest"]
    return [
        InterfaceUsage(**amount(rx, tx), interface=name, is_lowest=bool(lowest))
        for name, (rx, tx, lowest) in sorted(interfaces.items())
    ]
