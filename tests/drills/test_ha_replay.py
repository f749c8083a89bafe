"""High availability: an asynchronous cluster loses what its standbys had not received; agents send it again."""

import asyncio
import contextlib
import time
from pathlib import Path

from service.operations.verify import verify
from tests.helpers.agents import AgentProcess
from tests.helpers.ha.cluster import HaCluster
from tests.helpers.ha.drill import SLACK, connected, emptied
from tests.helpers.processes import killable_service
from tests.helpers.support import KEY

AGENTS = 4
LAG_SECONDS = 6.0
INTERVAL_SECONDS = 5
INTERVALS = 3  # from an agent's first heartbeat on the new primary until its lost ones are back
_KEYS = "SELECT server_id, time FROM network_interface_metrics GROUP BY 1, 2"


async def test_d12_an_asynchronous_failover_loses_nothing_that_agents_hold(ha: HaCluster, tmp_path: Path) -> None:
    ha.configure(synchronous_mode="off", synchronous_mode_strict=False)
    try:
        async with emptied(ha) as primary, killable_service(ha.url, tmp_path) as service:
            await asyncio.sleep(2 * ha.dcs["loop_wait"])
            async with connected(primary) as database:
                assert await database.fetchval("SHOW synchronous_standby_names") == ""
            with contextlib.ExitStack() as stack:
                for number in range(AGENTS):
                    stack.enter_context(
                        AgentProcess(
                            service.url,
                            tmp_path / f"spool-{number}",
                            f"agent-{number}",
                            API_KEY=KEY,
                            INTERVAL_SECONDS=str(INTERVAL_SECONDS),
                        )
                    )
                await asyncio.sleep(8 * INTERVAL_SECONDS)
                primary.gate.cut()  # what the standbys get; the service goes on being answered
                await asyncio.sleep(LAG_SECONDS)
                async with connected(primary) as database:
                    acknowledged = {tuple(row) for row in await database.fetch(_KEYS)}
                await asyncio.to_thread(primary.kill)
                primary.gate.mend()
                after = await ha.primary(other_than=primary)
                async with connected(after) as database:
                    lost = acknowledged - {tuple(row) for row in await database.fetch(_KEYS)}
                    assert lost, "the standbys had received everything"
                    promoted = time.monotonic()
                    heard: dict[str, float] = {}  # since promotion
                    returned: dict[str, float] = {}
                    while len(returned) < len({server for server, _ in lost}):
                        assert time.monotonic() < promoted + 180, f"of {len(lost)} heartbeats not all are back"
                        await asyncio.sleep(0.2)
                        stored = {tuple(row) for row in await database.fetch(_KEYS)}
                        seconds = time.monotonic() - promoted
                        for server in {server for server, _ in stored - acknowledged}:
                            heard.setdefault(server, seconds)
                        for server in {server for server, _ in lost} - {server for server, _ in lost - stored}:
                            returned.setdefault(server, seconds)
                    waited = max(seconds - heard.get(server, 0.0) for server, seconds in returned.items())
            async with connected(after) as database:
                duplicates = await database.fetchval("SELECT sum(duplicates) FROM servers")
                uneven = await database.fetch(
                    "SELECT server_id, interface_name FROM network_interface_metrics WHERE NOT is_folded "
                    "GROUP BY 1, 2 HAVING sum(rx_bytes_delta) <> max(rx_bytes) - min(rx_bytes)"
                )
                await database.execute("CALL linkbeat.refresh_aggregates(now())")
            found = await verify(after.url())
            assert (found.wrong, uneven) == (0, [])
            assert duplicates > 0
            primary.start()
            await ha.healthy()
    finally:
        ha.configure(synchronous_mode="quorum", synchronous_mode_strict=True)
    print(
        f"D12: {len(lost)} acknowledged heartbeats were on the dead primary alone; all of them back "
        f"{max(returned.values()):.1f} s after the promotion, {waited:.1f} s after their agents' first heartbeat on "
        f"the new primary; {duplicates} duplicates, {found.compared} buckets, 0 differ"
    )
    assert waited <= INTERVALS * INTERVAL_SECONDS * SLACK
