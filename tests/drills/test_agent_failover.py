"""D12 and D13 with kills: databases that lack the last of what they were given, and an agent that is killed again and
again.

    make drill-agent

A database is a set of heartbeats and an epoch. A failover takes the last ones away, a restore many more; the agent is
killed at random before, in between and after. What was acknowledged once must be in the last database.
"""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.agents import AgentProcess, Ledger, LedgerHandler

KILLS = 30
SECONDS_TO_CATCH_UP = 120.0


class Database:
    """Answers for the newest of its lives, and now and then not at all."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.epoch = 1
        self.stored: dict[bytes, None] = {}  # in the order of arrival
        self.acknowledged: set[bytes] = set()
        self.duplicates = self.lost = 0
        self.is_reliable = False

    def respond(self, handler: LedgerHandler) -> None:
        chance = 0.0 if self.is_reliable else self._rng.random()
        if 0.7 < chance <= 0.85:
            handler.answer(503, b"")
            return
        self.duplicates += sum(body in self.stored for body in handler.bodies)
        self.stored |= dict.fromkeys(handler.bodies)
        if chance > 0.85:
            handler.close_connection = True  # stored, and the agent does not know
            return
        self.acknowledged |= set(handler.bodies)
        handler.answer(200, json.dumps({"status": "ok", "epoch": f"7.{self.epoch}"}).encode())

    def lose(self, count: int) -> None:
        """Another one takes over, without the last of them."""
        self.epoch += 1
        gone = list(self.stored)[-count:]
        self.lost += len(gone)
        for body in gone:
            del self.stored[body]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger()
    yield ledger
    ledger.shutdown()
    ledger.server_close()


def test_what_was_acknowledged_is_in_the_last_of_several_databases_whenever_the_agent_is_killed(
    ledger: Ledger, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    database = Database(rng)
    ledger.respond = database.respond
    for number in range(KILLS):
        agent = AgentProcess(ledger.url, tmp_path / "spool", "agent", SPOOL_KEEP_SECONDS="86400")
        time.sleep(rng.uniform(1.0, 5.0))
        assert agent.process.poll() is None, agent.log
        if number % 5 == 4:
            with ledger.arrived:
                database.lose(rng.choice([1, 3, 1_000]))
            time.sleep(rng.uniform(0.0, 2.0))
        agent.kill()
    database.is_reliable = True
    with AgentProcess(ledger.url, tmp_path / "spool", "agent", SPOOL_KEEP_SECONDS="86400") as agent:
        ledger.wait_for(lambda: database.acknowledged <= database.stored.keys(), SECONDS_TO_CATCH_UP)
        log = agent.log

    missing = database.acknowledged - database.stored.keys()
    changes = database.epoch - 1
    print(f"\nseed {seed}: {len(database.acknowledged)} acknowledged; {database.lost} lost in {changes} changes of the")
    print(f"database; {database.duplicates} duplicates; {len(missing)} missing")
    assert not missing
    assert database.lost >= KILLS / 5
    assert ledger.conflicts() == []
    assert "Traceback" not in log
