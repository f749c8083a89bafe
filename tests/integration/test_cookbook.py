"""docs/cookbook.md: every query runs as analyst over a small fleet's history, and answers what the page says."""

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers import fleet
from tests.helpers.fleet import (
    BUSY,
    DIPS,
    FEBRUARY,
    GAP,
    GLITCH,
    MARCH,
    NOW,
    OLD_ENDS,
    PI_ENDS,
    REBOOT,
    REJECTED,
    RESET,
    SHARED,
    WRAP,
)

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")
# A title, what it answers, and one query.
RECIPE = re.compile(r"^### (?P<title>.+)\n\n(?:(?!#|```).*\n)+```sql\n(?P<sql>(?:(?!```).*\n)+)```$", re.MULTILINE)
SAMPLES = fleet.samples()
WEEK, DAY = NOW - timedelta(days=7), NOW - timedelta(days=1)


def moved(
    server_id: str, since: datetime, until: datetime = NOW, interfaces: tuple[str, ...] = ("eth0", "usb0")
) -> tuple[int, int]:
    """Octets received and sent, added up from the fleet's samples without a database; by the lowest interfaces."""
    rows = [
        row
        for row in SAMPLES
        if row.server_id == server_id and row.interface_name in interfaces and since <= row.time < until
    ]
    return sum(row.rx_bytes_delta for row in rows), sum(row.tx_bytes_delta for row in rows)


def both(server_id: str, since: datetime, until: datetime = NOW) -> int:
    return sum(moved(server_id, since, until))


BERLIN_15TH = datetime(2026, 3, 14, 23, tzinfo=UTC)
LORD_HOWE = datetime(2026, 2, 28, 13, tzinfo=UTC)  # its first of March begins
BERLIN_DAY = (datetime(2026, 3, 9, 23, tzinfo=UTC), datetime(2026, 3, 10, 23, tzinfo=UTC))
USED = both("edge", MARCH)
PI_SAMPLES = 529  # of the last seven days: five and a half of them, both ends included

EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Top talkers": [
        ("edge", "eth0", both("edge", WEEK), "3693 GB"),
        ("nas", "eth0", both("nas", WEEK), "2197 MB"),
        ("pi", "usb0", both("pi", WEEK), "302 MB"),
        ("nas", "eth1", 0, "0 bytes"),
        ("pi", "wlan0", 0, "0 bytes"),
    ],
    "Month to date": [(name, *moved(name, MARCH)) for name in ("edge", "nas", "pi")],
    "Quota use": [
        ("edge", MARCH, USED, round(100 * USED / 60e12, 1), round(100 * USED / 60e12 * 31 / 16.5, 1)),
        # A month of 743 hours: summer time begins in it.
        ("nas", BERLIN_15TH, 732_000_000, 7.3, round(7.32 * 743 / 61, 1)),
    ],
    "Growth month over month": [("nas", date(2026, 2, 1), both("nas", FEBRUARY, MARCH), None)],
    "A day in a local time zone": [(name, *moved(name, *BERLIN_DAY)) for name in ("edge", "nas", "pi")],
    "Days of a local month": [
        (date(2026, 3, 1 + day), *moved("nas", LORD_HOWE + timedelta(days=day), LORD_HOWE + timedelta(days=day + 1)))
        for day in range(3)
    ],
    "The billing month, and what it comes to": [
        (
            MARCH,
            *moved("edge", MARCH),
            round(moved("edge", MARCH)[0] * 62 / 33),
            4752,
            4752,
            95_000_000,
            2_000_000,
            97_000_000,
        )
    ],
    "Busiest hour": [
        ("edge", datetime(2026, 3, 2, tzinfo=UTC), 42_975_000_000, 95_500_000),
        ("nas", BUSY, 300_000_000, 666_667),
        ("pi", datetime(2026, 3, 1, 1, tzinfo=UTC), 2_400_000, 5_333),
    ],
    # The busy hour, and the one that the gap's traffic is counted in.
    "The day's course": [(19, 32_571_429), (7, 15_214_286), (0, 12_000_000)],
    "95th percentile of the month under way": [(4752, 95_000_000, 2_000_000, 95_000_000, 97_000_000, 100_000_000)],
    "95th percentile of last month": [("nas", 2688, 8_889, 4_444)],
    "Traffic by kind of interface": [
        ("physical", 3, *(nas + edge for nas, edge in zip(moved("nas", DAY), moved("edge", DAY), strict=True))),
        ("bridge", 1, *moved("nas", DAY)),
    ],
    "What a sum over all interfaces counts twice": [
        ("edge", both("edge", DAY), both("edge", DAY), ["eth0"]),
        ("nas", both("nas", DAY), 2 * both("nas", DAY), ["eth0", "eth1"]),
    ],
    "A line with its gaps": [
        (GAP[0] + timedelta(hours=hours), rate)
        for hours, rate in ((-2, 17_778), (-1, 17_778), (0, 4_444), (1, None), (2, None), (3, None), (4, 84_444))
    ],
    "Link utilisation": [("edge", "eth0", 1000, 5.02, 10), ("nas", "eth0", 1000, 0, 0), ("nas", "eth1", 1000, 0, 0)],
    "Errors and drops": [("pi", "usb0", PI_SAMPLES, 2 * PI_SAMPLES, 1000, 2000)],
    "Uptime of an interface": [("pi", "wlan0", 45.6, 60.25)],
    "Silent interfaces": [("nas", "eth1", "physical")],
    "Interfaces that have gone": [("pi", "old0", "other", OLD_ENDS - fleet.QUARTER)],
    "Coverage": [("pi", name, PI_SAMPLES, 78.7) for name in ("tun0", "usb0", "wlan0")],
    "Gaps": [
        ("nas", name, *GAP, 240, moved) for name, moved in (("br0", 48_000_000), ("eth0", 48_000_000), ("eth1", 0))
    ],
    "Reboots and downtime": [("nas", *REBOOT, 30)],
    "Resets and wraps": [
        (RESET, "nas", "eth0", "reset", 2_000_000, 1_000_000),
        (WRAP, "pi", "usb0", "wrap", 500_000, 100_000),
    ],
    "Rejected samples": [(REJECTED, "pi", "usb0", 2**63 - 1, 5, 900)],
    "Wrong readings": [("nas", "eth1", "dip", 2, DIPS[1]), ("nas", "eth1", "glitch", 1, GLITCH)],
    "What the kernel counted": [
        (row.time, row.rx_bytes, row.tx_bytes)
        for row in reversed([row for row in SAMPLES if (row.server_id, row.interface_name) == ("nas", "eth0")][-3:])
    ],
    "Silent servers": [("pi", "pi.example", PI_ENDS, timedelta(days=1, hours=12))],
    "Two machines under one id": [("edge", *SHARED, 7)],
    "Busiest servers by processor": [("nas", 29.9, 40), ("edge", 5, 5)],
    "Filesystems that will be full": [("nas", "/data", 2_400_000_000, 10_100_000_000, 4.2)],
}


@pytest.fixture
async def analyst(database: asyncpg.Connection) -> asyncpg.Connection:
    """An analyst on the fleet's database, at NOW."""
    await fleet.store(database)
    await fleet.become_analyst(database)
    return database


def plain(value: Any) -> Any:
    """A value without the difference between 1, 1.0 and Decimal(1)."""
    if isinstance(value, Decimal | float):
        return int(value) if value == int(value) else float(value)
    return value


async def test_every_recipe_answers_its_question(analyst: asyncpg.Connection) -> None:
    recipes = {found["title"]: found["sql"] for found in RECIPE.finditer(PAGE)}

    answers = {title: [tuple(map(plain, row)) for row in await analyst.fetch(sql)] for title, sql in recipes.items()}

    assert PAGE.count("```sql") == PAGE.count("\n### ") == len(recipes)
    assert answers == EXPECTED
