"""A small fleet's history, as ingest would have stored it, for tests that read it with SQL.

nas     since February, every 15 minutes: eth0 below br0, eth1 up and idle, with three wrong readings;
        it missed four hours and was rebooted once
edge    in March, every 5 minutes: eth0, whose rate goes from 1 to 100 Mbit/s over and over
pi      in March until the 16th, every 15 minutes: usb0 below tun0, wlan0 down in the afternoons, old0 that went away
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 17, 12, tzinfo=UTC)
PI_ENDS = datetime(2026, 3, 16, tzinfo=UTC)
OLD_ENDS = datetime(2026, 3, 10, tzinfo=UTC)
GAP = (datetime(2026, 3, 5, 2, tzinfo=UTC), datetime(2026, 3, 5, 6, tzinfo=UTC))
REBOOT = (datetime(2026, 3, 8, 10, tzinfo=UTC), datetime(2026, 3, 8, 10, 30, tzinfo=UTC))
RESET = datetime(2026, 3, 9, 12, tzinfo=UTC)
WRAP = datetime(2026, 3, 12, tzinfo=UTC)
REJECTED = datetime(2026, 3, 13, tzinfo=UTC)
DIPS = (datetime(2026, 3, 11, 1, tzinfo=UTC), datetime(2026, 3, 11, 2, tzinfo=UTC))
GLITCH = datetime(2026, 3, 11, 3, tzinfo=UTC)
BUSY = datetime(2026, 3, 10, 18, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
SHARED = (
    MARCH,
    datetime.now(UTC),
)  # The end is told by the database's own clock: after a day, a server is no longer shared.


@dataclass
class Sample:
    """A row of network_interface_metrics; what a column is called there it is called here."""

    time: datetime
    server_id: str
    interface_name: str
    rx_bytes_delta: int
    tx_bytes_delta: int
    interval_ms: int
    elapsed_ms: int
    delta_kind: str = "normal"
    rx_packets_delta: int = 0
    tx_packets_delta: int = 0
    rx_errors_delta: int = 0
    tx_errors_delta: int = 0
    rx_dropped_delta: int = 0
    tx_dropped_delta: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    speed_mbps: int | None = None
    boot: int = 1
    is_up: bool = True
    is_lowest: bool = True
    counts_64bit: bool = True


def samples() -> list[Sample]:
    """Every sample of the fleet, by server, interface and time."""
    return [*_nas(), *_edge(), *_pi()]


async def store(database: asyncpg.Connection) -> None:
    """Writes the history, and the state that goes with it."""
    rows = samples()
    columns = list(asdict(rows[0]))
    await database.copy_records_to_table(
        "network_interface_metrics", columns=columns, records=[tuple(asdict(row).values()) for row in rows]
    )
    await database.executemany(
        "INSERT INTO server_metrics (time, server_id, cpu_percent, memory_percent) VALUES ($1, $2, $3, 50)",
        [
            (NOW - hours * timedelta(hours=1), server_id, cpu)
            for hours in range(1, 24 * 7)
            for server_id, cpu in (("nas", 20.0 if hours % 2 else 40.0), ("edge", 5.0), ("pi", None))
        ],
    )
    await database.executemany(
        "INSERT INTO filesystem_metrics (time, server_id, mount_point, device, fs_type, total_bytes, used_bytes, "
        "available_bytes, percent) VALUES ($1, 'nas', $2, '/dev/sda', 'ext4', 100000000000, $3, $4, 0)",
        [
            (NOW - hours * timedelta(hours=1), mount_point, used, 50_000_000_000 - used)
            for hours in range(1, 24 * 13)
            for mount_point, used in (("/", 10_000_000_000), ("/data", 40_000_000_000 - hours * 100_000_000))
        ],
    )
    await database.executemany(
        "INSERT INTO server_boots (server_id, boot, boot_id, first_seen, last_seen) VALUES ($1, $2, $3, $4, $5)",
        [
            ("nas", 1, "winter", FEBRUARY, REBOOT[0]),
            ("nas", 2, "spring", REBOOT[1], NOW - QUARTER),
            ("pi", 1, "only", MARCH, PI_ENDS),
        ],
    )
    for server_id in ("nas", "edge", "pi"):
        await _store_server(database, [row for row in rows if row.server_id == server_id])


async def become_analyst(database: asyncpg.Connection) -> None:
    """From here on the connection is an analyst's, to whom now() is NOW."""
    await database.execute(
        f"""
        CREATE SCHEMA IF NOT EXISTS clock;
        CREATE OR REPLACE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
            RETURN TIMESTAMPTZ '{NOW.isoformat()}';
        GRANT USAGE ON SCHEMA clock TO analyst;
        SET search_path = clock, public, pg_catalog;
        SET ROLE analyst;
        """
    )


async def _store_server(database: asyncpg.Connection, rows: list[Sample]) -> None:
    server_id, newest = rows[0].server_id, max(row.time for row in rows)
    last = {row.interface_name: row for row in rows}
    state = [
        asdict(row)
        | {"time": row.time.isoformat(), "is_folded": False}
        | dict(zip(("kind", "stacked_on"), _KINDS[name], strict=True))
        for name, row in last.items()
    ]
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at, interval_seconds, shared_since, "
        "shared_at, conflicts, interface_names, interfaces) "
        # The status is told by the database's own clock.
        "SELECT $1, $1 || '.example', $2, $3, CASE WHEN $1 = 'pi' THEN $3 ELSE now() END, $4, $5, $6, $7, $8, "
        "(SELECT array_agg(i) FROM jsonb_populate_recordset(NULL::linkbeat.interface_state, $9) i)",
        server_id,
        min(row.time for row in rows),
        newest,
        rows[0].interval_ms / 1000,
        *(SHARED if server_id == "edge" else (None, None)),
        7 if server_id == "edge" else 0,
        list(last),
        json.dumps(state),
    )


_KINDS = {
    "eth0": ("physical", None),
    "eth1": ("physical", None),
    "br0": ("bridge", "eth0"),
    "usb0": ("physical", None),
    "tun0": ("tunnel", "usb0"),
    "wlan0": ("physical", None),
    "old0": ("other", None),
}


def _nas() -> Iterator[Sample]:
    for name, lowest in (("eth0", True), ("br0", False), ("eth1", True)):
        before = None
        for time in _times(FEBRUARY, NOW, QUARTER):
            if GAP[0] < time < GAP[1] or REBOOT[0] < time < REBOOT[1]:
                continue
            quarters = (time - (before or time)) // QUARTER
            kind = "normal"
            if before is None:
                kind = "first"
            elif time == GAP[1]:
                kind = "gap"
            elif time == REBOOT[1]:
                kind = "reboot"
            elif time == RESET and name == "eth0":
                kind = "reset"
            elif name == "eth1" and time in (*DIPS, GLITCH):
                kind = "glitch" if time == GLITCH else "dip"
            moved = 0 if name == "eth1" else quarters * (2_000_000 if time >= MARCH else 1_000_000)
            if BUSY <= time < BUSY + timedelta(hours=1) and moved:
                moved = 50_000_000
            yield Sample(
                time,
                "nas",
                name,
                moved,
                moved // 2,
                900_000,
                quarters * 900_000,
                kind,
                rx_packets_delta=1000,
                tx_packets_delta=1000,
                boot=1 if time <= REBOOT[0] else 2,
                is_lowest=lowest,
                speed_mbps=1000 if name != "br0" else None,
            )
            before = time


def _edge() -> Iterator[Sample]:
    for number, time in enumerate(_times(MARCH, NOW, timedelta(minutes=5))):
        # One Mbit/s moves 37.5 MB in five minutes.
        rx, tx = (0, 0) if number == 0 else (37_500_000 * ((number - 1) % 100 + 1), 75_000_000)
        kind = "normal" if number else "first"
        yield Sample(time, "edge", "eth0", rx, tx, 300_000, 300_000 if number else 0, kind, speed_mbps=1000)


def _pi() -> Iterator[Sample]:
    for name in ("old0", "tun0", "usb0", "wlan0"):
        ends = OLD_ENDS if name == "old0" else PI_ENDS + QUARTER
        for time in _times(MARCH, ends, QUARTER):
            row = Sample(time, "pi", name, 0, 0, 900_000, 900_000 if time > MARCH else 0, counts_64bit=False)
            row.delta_kind = "first" if time == MARCH else "normal"
            row.is_up = name != "wlan0" or time.hour < 12
            row.is_lowest = name != "tun0"
            if name in ("usb0", "tun0") and time > MARCH:
                row.rx_bytes_delta, row.tx_bytes_delta, row.rx_packets_delta = 500_000, 100_000, 1000
            if name == "usb0":
                row.speed_mbps, row.rx_errors_delta, row.rx_dropped_delta = 10, 1, 2
                if time == WRAP:
                    row.delta_kind = "wrap"
                if time == REJECTED:
                    row.delta_kind, row.rx_bytes_delta, row.tx_bytes_delta = "rejected", 0, 0
                    row.rx_bytes, row.tx_bytes = 2**64 - 2**63 - 1, 5
            yield row


def _times(since: datetime, until: datetime, step: timedelta) -> Iterator[datetime]:
    for number in range((until - since) // step):
        yield since + number * step
