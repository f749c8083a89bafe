"""POST /api/v1/agents/heartbeat: what is answered, and what is stored."""

import asyncio
from datetime import timedelta

import asyncpg

from tests.helpers.support import Client, deltas, heartbeat, hours_ago, interface

T0 = hours_ago(1)


async def test_case_11_a_heartbeat_updates_the_server_and_writes_history(
    service: Client, database: asyncpg.Connection
) -> None:
    await service.post(heartbeat(at=T0, eth0=(1_000, 2_000)))

    answer = await service.post(
        {**heartbeat(at=T0 + timedelta(seconds=30), eth0=(1_500, 2_100)), "hostname": "renamed.local"}
    )

    assert answer["status"] == "ok"
    assert (answer["server_registered"], answer["duplicate"]) == (False, False)
    assert answer["pending_commands"] == answer["results_acknowledged"] == []
    server = await database.fetchrow("SELECT hostname, last_seen, first_seen FROM servers WHERE server_id = 'nas'")
    assert server is not None
    assert tuple(server) == ("renamed.local", T0 + timedelta(seconds=30), T0)
    assert await deltas(database) == [(0, "first"), (500, "normal")]


async def test_case_16_one_row_an_interface_with_the_values_and_time_sent(
    service: Client, database: asyncpg.Connection
) -> None:
    body = heartbeat(at=T0)
    body["network_interfaces"] = [
        interface("eth0", 11, 12, rx_errors=1, tx_errors=2, rx_dropped=3, tx_dropped=4),
        interface("wlan0", 21, 22, is_up=False),
    ]

    await service.post(body)

    rows = await database.fetch(
        "SELECT interface_name, time, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped, is_up "
        "FROM network_interface_metrics ORDER BY interface_name"
    )
    assert [tuple(row) for row in rows] == [
        ("eth0", T0, 11, 12, 1, 2, 3, 4, True),
        ("wlan0", T0, 21, 22, None, None, None, None, False),
    ]


async def test_the_first_heartbeat_registers_the_server(service: Client) -> None:
    first = await service.post(heartbeat(at=T0))
    second = await service.post(heartbeat(at=T0 + timedelta(seconds=30)))

    assert (first["server_registered"], second["server_registered"]) == (True, False)


async def test_a_replayed_heartbeat_is_stored_once(service: Client, database: asyncpg.Connection) -> None:
    beat = heartbeat(at=T0, eth0=(1_000, 2_000))

    first = await service.post(beat)
    second = await service.post(beat)

    assert (first["duplicate"], second["duplicate"]) == (False, True)
    assert await database.fetchval("SELECT count(*) FROM network_interface_metrics") == 1


async def test_of_a_conflicting_replay_the_first_value_stays(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(at=T0, eth0=(1_000, 0)))

    answer = await service.post_batch([heartbeat(at=T0, eth0=(9_999, 0))])

    assert (answer["stored"], answer["duplicate"], answer["conflict"]) == (0, 1, 1)
    assert await database.fetchval("SELECT rx_bytes FROM network_interface_metrics") == 1_000


async def test_a_replay_of_a_heartbeat_without_interfaces_is_a_duplicate(service: Client) -> None:
    beat = heartbeat(at=T0)

    assert not (await service.post(beat))["duplicate"]
    assert (await service.post(beat))["duplicate"]


async def test_without_a_timestamp_the_services_clock_stands_in(service: Client, database: asyncpg.Connection) -> None:
    await service.post(heartbeat(eth0=(1, 1)))

    age = await database.fetchval("SELECT now() - time FROM network_interface_metrics")
    assert timedelta(0) <= age < timedelta(seconds=10)


async def test_without_timestamps_all_heartbeats_of_a_batch_are_stored_in_their_order(
    service: Client, database: asyncpg.Connection
) -> None:
    answer = await service.post_batch([heartbeat(eth0=(rx, 0)) for rx in (1_000, 1_500, 1_600)])

    assert (answer["stored"], answer["duplicate"]) == (3, 0)
    assert await deltas(database) == [(0, "first"), (500, "normal"), (100, "normal")]


async def test_counters_keep_all_64_bits(service: Client, database: asyncpg.Connection) -> None:
    for n, value in enumerate((2**63 - 1, 2**63, 2**64 - 1)):
        await service.post(heartbeat(at=T0 + timedelta(minutes=n), eth0=(value, 2**64 - 1 - value)))

    rows = await database.fetch(
        "SELECT linkbeat.unsigned(rx_bytes) AS rx, linkbeat.unsigned(tx_bytes) AS tx "
        "FROM network_interface_metrics ORDER BY time"
    )
    assert [(int(row["rx"]), int(row["tx"])) for row in rows] == [
        (2**63 - 1, 2**63),
        (2**63, 2**63 - 1),
        (2**64 - 1, 0),
    ]
    shown = (await service.get("/servers/nas"))["network_interfaces"][0]
    assert (shown["rx_bytes"], shown["tx_bytes"]) == (2**64 - 1, 0)


async def test_missing_null_and_empty_lists_are_the_same(service: Client) -> None:
    bodies: list[dict[str, object]] = [
        {},
        {"network_interfaces": None, "filesystems": None},
        {"network_interfaces": []},
    ]
    for n, extra in enumerate(bodies):
        body = {"server_id": f"s{n}", "hostname": "h", **extra}
        await service.post(body)
        server = await service.get(f"/servers/s{n}")
        assert (server["network_interfaces"], server["filesystems"]) == ([], [])


async def test_fields_that_others_in_the_field_send_are_skipped(service: Client) -> None:
    await service.post(
        heartbeat(at=T0, eth0=(1, 1))
        | {"services": [], "packages": {"a": 1}, "cpu_info": "x", "agent_mode": "full", "updates_available": 3}
    )


async def test_an_older_heartbeat_leaves_the_newest_state(service: Client) -> None:
    await service.post(heartbeat(at=T0, eth0=(2_000, 0)))
    await service.post({**heartbeat(at=T0 - timedelta(minutes=5), eth0=(1_000, 0)), "hostname": "old"})

    server = await service.get("/servers/nas")

    assert server["hostname"] == "nas.local"
    assert server["network_interfaces"][0]["rx_bytes"] == 2_000


async def test_concurrent_heartbeats_of_one_server_account_every_byte_once(
    service: Client, database: asyncpg.Connection
) -> None:
    beats = [heartbeat(at=T0 + timedelta(seconds=n), eth0=(n * 1_000, 0)) for n in range(60)]

    await asyncio.gather(*(service.post(beat) for beat in reversed(beats)))

    assert await database.fetchval("SELECT sum(rx_bytes_delta) FROM network_interface_metrics") == 59_000
    assert (await deltas(database))[1:] == [(1_000, "normal")] * 59
