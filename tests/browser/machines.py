"""Machines for the dashboard's tests, as agents would report them: heartbeats of the last hours, posted at once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from tests.browser.serving import Served
from tests.helpers.support import boot_id, heartbeat, interface

MINUTE = timedelta(minutes=1)
# Of nas, minutes before the last heartbeat: it is silent after the first and reports again at the second.
GAP = (60, 45)
REBOOTED = 20
RESET = 10  # of eth1
MARKUP = '<img src=x onerror="document.title=1">'


def minute_now() -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0)


async def nas(site: Served, minutes: int = 100, **more: Any) -> datetime:
    """A server that reports every 30 s: eth0 gets 1 Mbit/s and sends half of it; when its last heartbeat was.

    eth1 gets a tenth of that and is reset once, wg0 lies on eth0, eth2 is down; it has a gap, and was rebooted.
    """
    last = minute_now()
    beats = []
    for ago in (half / 2 for half in range(2 * minutes, -1, -1)):
        if GAP[0] > ago > GAP[1]:
            continue
        n = minutes - ago if ago > REBOOTED else REBOOTED - ago
        beats.append(
            beat("nas", last - ago * MINUTE, n, n if ago > RESET else RESET - ago, boot=int(ago <= REBOOTED), **more)
        )
    answer = await site.client.post_batch(beats)
    # A client that was answered 503 posts again, and what was stored by then is a duplicate.
    assert answer["stored"] + answer["duplicate"] == len(beats), answer
    return last


def beat(server_id: str, at: datetime, n: float, of_eth1: float, boot: int = 1, **more: Any) -> dict[str, Any]:
    """The heartbeat after n minutes of traffic."""
    rx, tx = round(7_500_000 * n), round(3_750_000 * n)
    up: dict[str, Any] = {"kind": "physical", "speed_mbps": 1000, "operstate": "up", "rx_errors": 0, "tx_errors": 0}
    return (
        heartbeat(server_id, at=at, boot=boot_id(f"boot-{boot}"))
        | {
            "interval_seconds": 30,
            "primary_interface": "eth0",
            "agent_version": "1.2.3",
            "metrics": {"cpu_percent": 25.5, "memory_percent": 45.2, "load_1m": 0.75, "uptime_seconds": 90_000},
            "network_interfaces": [
                interface("eth0", rx, tx, **up, rx_dropped=12, tx_dropped=0),
                interface("eth1", round(750_000 * of_eth1), 0, **up),
                interface("eth2", 0, 0, is_up=False, kind="physical", operstate="down"),
                interface("wg0", rx // 10, tx // 10, kind="tunnel", stacked_on=["eth0"], operstate="unknown"),
            ],
            "filesystems": [
                filesystem("/", 60.0),
                filesystem("/srv/data", 97.5),
                filesystem("/media/cd", 100.0, fs_type="iso9660", available_bytes=0),
            ],
        }
        | more
    )


def filesystem(mount_point: str, percent: float, **more: Any) -> dict[str, Any]:
    """A filesystem of 100 GB."""
    used = round(percent * 10**9)
    sizes = {"total_bytes": 100 * 10**9, "used_bytes": used, "available_bytes": 100 * 10**9 - used, "percent": percent}
    return {"mount_point": mount_point, "device": "/dev/sda1", "fs_type": "ext4"} | sizes | more


async def evaluate(database: asyncpg.Connection, after: timedelta = MINUTE) -> None:
    """An evaluation of alerts, as if the last one was so long ago."""
    await database.execute("UPDATE linkbeat.alert_clock SET evaluated_at = evaluated_at - $1::interval", after)
    await database.execute("SELECT linkbeat.evaluate_alerts()")


async def fires(
    database: asyncpg.Connection, rule_id: str, subject: str = "", *, since: timedelta = MINUTE, **columns: Any
) -> None:
    """An alert of nas that fires, as an evaluation would have stored it."""
    values = {"severity": "warning", "sequence": 1} | columns
    names = "".join(f", {name}" for name in values)
    places = "".join(f", ${place}" for place in range(4, 4 + len(values)))
    await database.execute(
        "INSERT INTO linkbeat.alerts "
        f"(rule_id, server_id, subject, state, active_at, fired_at, seen_at, episode{names}) "
        f"VALUES ($1, 'nas', $2, 'firing', now() - $3::interval, now(), now(), gen_random_uuid(){places}) "
        "ON CONFLICT (rule_id, server_id, subject) DO UPDATE SET "
        "(state, active_at, reason, value, severity, cleared_at) = "
        "(EXCLUDED.state, EXCLUDED.active_at, EXCLUDED.reason, EXCLUDED.value, EXCLUDED.severity, NULL)",
        rule_id, subject, since, *values.values(),
    )  # fmt: skip
