"""Alerts in tests: rules, rows with times of the test's own choosing, and turns that are given the time."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any

import asyncpg

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
TURN = 15 * SECOND
MEGABIT = 1_000_000


@dataclass
class Row:
    """A sample of an interface, as ingest would have stored it; rates in bits per second."""

    time: datetime
    rx_bps: float = 0
    tx_bps: float = 0
    server_id: str = "nas"
    interface_name: str = "eth0"
    elapsed_seconds: float = 30
    interval_seconds: float = 30
    is_up: bool = True
    delta_kind: str = "normal"
    faults: int = 0
    packets: int = 100_000
    speed_mbps: int | None = None

    def values(self) -> tuple[Any, ...]:
        counted = self.delta_kind not in ("first", "rejected", "glitch")
        moved = [round(bps * self.elapsed_seconds / 8) if counted else 0 for bps in (self.rx_bps, self.tx_bps)]
        return (
            self.time, self.server_id, self.interface_name, *moved, self.packets, 0, self.faults,
            round(self.elapsed_seconds * 1000), round(self.interval_seconds * 1000), self.is_up, self.delta_kind,
            self.speed_mbps, True, True, 0, 0, 0, 0,
        )  # fmt: skip


COLUMNS = (
    "time", "server_id", "interface_name", "rx_bytes_delta", "tx_bytes_delta", "rx_packets_delta", "tx_packets_delta",
    "rx_dropped_delta", "elapsed_ms", "interval_ms", "is_up", "delta_kind", "speed_mbps", "is_lowest", "counts_64bit",
    "rx_bytes", "tx_bytes", "rx_packets", "tx_packets",
)  # fmt: skip


async def store(database: asyncpg.Connection, rows: Iterable[Row]) -> None:
    """Writes rows, and the servers' state that goes with them; they arrived at their times."""
    rows = list(rows)
    await database.copy_records_to_table(
        "network_interface_metrics", columns=COLUMNS, records=[row.values() for row in rows]
    )
    newest: dict[str, Row] = {}
    names: dict[str, set[str]] = {}
    for row in rows:
        names.setdefault(row.server_id, set()).add(row.interface_name)
        if row.server_id not in newest or newest[row.server_id].time < row.time:
            newest[row.server_id] = row
    for server_id, row in newest.items():
        await arrive(database, server_id, row.time, row.interval_seconds, sorted(names[server_id]))


async def store_late(database: asyncpg.Connection, rows: Iterable[Row], at: datetime) -> None:
    """Writes rows that arrive at `at`, in no order; what ingest would note of them is noted."""
    rows = list(rows)
    for server_id in {row.server_id for row in rows}:
        of_server = [row for row in rows if row.server_id == server_id]
        last_seen = await database.fetchval("SELECT last_seen FROM servers WHERE server_id = $1", server_id)
        late = [row.time for row in of_server if at - row.time > 10 * SECOND or (last_seen and row.time <= last_seen)]
        await store(database, of_server)
        if last_seen:
            await database.execute(
                "UPDATE servers SET last_seen = greatest(last_seen, $2) WHERE server_id = $1", server_id, last_seen
            )
        if late:
            await database.executemany(
                "INSERT INTO linkbeat.late_arrivals (server_id, since, until) VALUES ($1, $2, $2)",
                [(server_id, moment) for moment in late],
            )


async def arrive(
    database: asyncpg.Connection,
    server_id: str,
    at: datetime,
    interval_seconds: float = 30,
    interfaces: Sequence[str] = (),
    **columns: Any,
) -> None:
    """A live heartbeat of the server, as its row shows it; `columns` are others of servers."""
    await database.execute(
        "INSERT INTO servers (server_id, hostname, first_seen, last_seen, received_at, live_at, interval_seconds) "
        "VALUES ($1, $1, $2, $2, $2, $2, $3) ON CONFLICT (server_id) DO UPDATE SET "
        "last_seen = $2, received_at = $2, live_at = $2, interval_seconds = $3",
        server_id,
        at,
        interval_seconds,
    )
    if interfaces:
        await database.execute(
            "UPDATE servers s SET interface_names = n.names, interfaces = ("
            "SELECT array_agg(jsonb_populate_record(NULL::linkbeat.interface_state, jsonb_build_object("
            "'interface_name', name, 'time', s.last_seen, 'kind', 'physical'))) FROM unnest(n.names) AS name) "
            "FROM (SELECT array_agg(DISTINCT name ORDER BY name) AS names FROM (SELECT unnest($2::text[]) AS name "
            "UNION SELECT unnest(interface_names) FROM servers WHERE server_id = $1) k) n WHERE server_id = $1",
            server_id,
            list(interfaces),
        )
    for name, value in columns.items():
        await database.execute(f"UPDATE servers SET {name} = $2 WHERE server_id = $1", server_id, value)


async def begin(database: asyncpg.Connection, at: datetime) -> None:
    """No rules but those of the test, and the turn before was a moment before `at`."""
    await database.execute("DELETE FROM linkbeat.alert_rules")
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = $1", at - TURN)


async def set_rule(
    database: asyncpg.Connection,
    rule_id: str,
    kind: str,
    *,
    severity: str = "warning",
    enabled: bool = True,
    **spec: Any,
) -> bool:
    return bool(
        await database.fetchval(
            "SELECT linkbeat.set_alert_rule($1, $2, $3, $4, $5)", rule_id, kind, json.dumps(spec), severity, enabled
        )
    )


async def set_channel(database: asyncpg.Connection, channel_id: str = "ops", **more: Any) -> None:
    named = "".join(f", new_{name} => ${place}" for place, name in enumerate(more, start=2))
    await database.execute(
        f"SELECT linkbeat.set_alert_channel($1, 'webhook', '{{}}'{named})", channel_id, *more.values()
    )


async def turn(database: asyncpg.Connection, at: datetime) -> bool:
    """One turn; False where it was not due."""
    return bool(await database.fetchval("SELECT is_evaluated FROM linkbeat.evaluate_alerts($1)", at))


async def turns(database: asyncpg.Connection, since: datetime, until: datetime, every: timedelta = TURN) -> None:
    """Turns at `since` and then `every` so often, up to `until`."""
    at = since
    while at <= until:
        assert await turn(database, at)
        at += every


async def listen(database: asyncpg.Connection, since: datetime, until: datetime, process: str = "service") -> None:
    """A process that could store heartbeats all that time."""
    await database.execute(
        "INSERT INTO linkbeat.listening (process, since, until) VALUES ($1, $2, $3) "
        "ON CONFLICT (process, since) DO UPDATE SET until = EXCLUDED.until",
        process,
        since,
        until,
    )


async def states(database: asyncpg.Connection) -> dict[tuple[str, str, str], str]:
    """(rule, server, subject) → state, of all that is not ok."""
    rows = await database.fetch("SELECT rule_id, server_id, subject, state FROM public.alerts")
    return {(row["rule_id"], row["server_id"], row["subject"]): row["state"] for row in rows}


async def events(database: asyncpg.Connection) -> list[tuple[str, str, datetime]]:
    """(server and subject, to_state, at) in the order of recording."""
    rows = await database.fetch("SELECT server_id, subject, to_state, at FROM public.alert_events ORDER BY event_id")
    return [(f"{row['server_id']} {row['subject']}".strip(), row["to_state"], row["at"]) for row in rows]


@dataclass(frozen=True)
class Episode:
    server_id: str
    subject: str
    active_at: datetime
    fired_at: datetime
    cleared_at: datetime | None
    resolved_at: datetime | None

    @property
    def key(self) -> tuple[str, str]:
        return self.server_id, self.subject


def _in_order(episodes: Iterable[Episode]) -> list[Episode]:
    """By server, subject and times: one that goes on comes after one with the same beginning that has ended."""
    return sorted(episodes, key=lambda one: [(value is None, value) for value in astuple(one)])


async def recorded(database: asyncpg.Connection, rule_id: str | None = None) -> list[Episode]:
    """Episodes as turns recorded them, of one rule or of all."""
    rows = await database.fetch(
        "SELECT f.server_id, f.subject, f.active_at, f.at AS fired_at, e.cleared_at, e.at AS resolved_at "
        "FROM public.alert_events f "
        "LEFT JOIN public.alert_events e ON e.episode = f.episode AND e.to_state <> 'firing' "
        "WHERE f.to_state = 'firing' AND f.rule_id = coalesce($1, f.rule_id)",
        rule_id,
    )
    return _in_order(Episode(**dict(row)) for row in rows)


async def backtest(
    database: asyncpg.Connection, kind: str, since: datetime, until: datetime, **spec: Any
) -> list[Episode]:
    """Episodes as linkbeat.alert_episodes says that the rule would have had."""
    rows = await database.fetch(
        "SELECT * FROM linkbeat.alert_episodes($1, $2, $3)", json.dumps({"kind": kind, **spec}), since, until
    )
    names = Episode.__dataclass_fields__
    return _in_order(Episode(**{name: row[name] for name in names}) for row in rows)


async def claim(database: asyncpg.Connection, at: datetime, at_most: int = 8) -> list[dict[str, Any]]:
    rows = await database.fetch("SELECT * FROM linkbeat.claim_messages($1, $2)", at_most, at)
    return [dict(row) | {"payload": json.loads(row["payload"])} for row in rows]


async def deliver(database: asyncpg.Connection, at: datetime) -> list[dict[str, Any]]:
    """Payloads of all messages that are due, delivered."""
    taken: list[dict[str, Any]] = []
    while claimed := await claim(database, at):
        for message in claimed:
            await database.execute("SELECT linkbeat.message_delivered($1, 200, $2)", message["message_id"], at)
            taken.append(message["payload"])
    return taken


def told(payloads: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(state, server and subject) of each alert in messages."""
    return [
        (alert["state"], f"{alert['server_id']} {alert['subject']}".strip())
        for payload in payloads
        for alert in payload.get("alerts", [payload])
    ]


def samples(start: datetime, rates: Sequence[float], **more: Any) -> list[Row]:
    """Rows every 30 seconds from `start` on, with these receive rates."""
    return [Row(start + 30 * number * SECOND, rate, **more) for number, rate in enumerate(rates)]
