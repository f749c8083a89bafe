"""Heartbeats a second by batches of 100: a relay's, of 100 servers, and a replay's, of one server after an outage."""

from collections.abc import Sequence
from statistics import median

from benchmarks.harness import wrk
from benchmarks.peers.linkbeat import Linkbeat
from benchmarks.peers.plan import Plan
from benchmarks.peers.systems import System

BATCH = 100
CONNECTIONS = 16
FORMS = {"relay": "100 heartbeats of 100 servers", "replay": "100 heartbeats of one server"}


def batch(linkbeats: Sequence[System[Linkbeat]], plan: Plan) -> None:
    """Every round starts the service on a new database.

    Raises AssertionError where something that was acknowledged is not stored: a batch is answered with 200 even where
    it holds heartbeats that were refused.
    """
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(plan.rounds):
        for system in linkbeats:
            for form, what in FORMS.items():
                with system.start() as linkbeat:
                    environment = {"BENCH_FORM": form, "BENCH_KEY": linkbeat.key}
                    wrk("batches.lua", linkbeat.base, CONNECTIONS, 2, **environment)
                    before = linkbeat.stored()
                    result = wrk("batches.lua", linkbeat.base, CONNECTIONS, plan.seconds, **environment)
                    stored = linkbeat.stored() - before
                heartbeats = result.requests * BATCH
                assert stored >= heartbeats, f"of {heartbeats} acknowledged heartbeats {stored} are stored"
                rates.setdefault((system.name, form), []).append(result.per_second * BATCH)
                print(f"  round {number + 1}, {system.name}, batches of {what}: {result}")
    for (name, form), found in rates.items():
        print(f"batches of {FORMS[form]}, {CONNECTIONS} connections, {name}: {median(found):,.0f} heartbeats/s")
