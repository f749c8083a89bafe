"""What a raw row takes before it is compressed, and would take in other forms: python -m benchmarks.row_bytes.

A million rows of 200 servers with four interfaces, in the order in which they arrive. Each form is the table with some
columns replaced.
"""

import argparse
import asyncio
import os

import asyncpg

from benchmarks.harness import database, machine
from service.embedded.choose import choose_test_database

_FAULTS = [f"{side}_{what}" for side in ("rx", "tx") for what in ("errors", "dropped")]
_FORMS: dict[str, dict[str, str]] = {
    "as it is": {},
    "null for errors and drops of 0": {f"{name}_delta": f"nullif({name}_delta, 0)" for name in _FAULTS},
    "errors and drops as numeric": {
        name: f"{name}::numeric" for fault in _FAULTS for name in (fault, f"{fault}_delta")
    },
    'delta_kind as "char"': {"delta_kind": """delta_kind::"char" """},
    "an integer for server_id and interface_name": {"server_id": "1", "interface_name": "NULL::text"},
    "no counters, only deltas": dict.fromkeys(
        ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets", *_FAULTS), "NULL::bigint"
    ),
}
_ROWS = """
INSERT INTO network_interface_metrics (
    time, server_id, interface_name, boot, rx_bytes, tx_bytes, rx_packets, tx_packets,
    rx_bytes_delta, tx_bytes_delta, rx_packets_delta, tx_packets_delta, rx_errors, tx_errors, rx_dropped, tx_dropped,
    rx_errors_delta, tx_errors_delta, rx_dropped_delta, tx_dropped_delta, elapsed_ms, is_up, counts_64bit, delta_kind,
    speed_mbps, ifindex)
SELECT t, format('server-%s', s), name, 123456789012345, 5000000000, 3000000000, 5000000, 5000000,
       30000, 30000, 40, 30, 0, 0, 12, 0, 0, 0, 0, 0, 30000, true, true, 'normal', 1000, place
FROM generate_series(date_trunc('day', now()), date_trunc('day', now()) + INTERVAL '37470 seconds', '30 seconds') AS t,
     generate_series(1, 200) AS s, unnest('{eth0,eth1,docker0,wg0}'::text[]) WITH ORDINALITY AS i(name, place)
ORDER BY t
"""


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.row_bytes", description=__doc__).parse_args()
    print(machine())
    with (
        choose_test_database(os.environ.get("TEST_DATABASE_URL") or None, print) as server,
        database(server.url) as url,
    ):
        asyncio.run(measure(url))


async def measure(url: str) -> None:
    """Prints bytes a row of the heap in each form, and of the index."""
    connection = await asyncpg.connect(url, command_timeout=3_600)
    try:
        # Triggers would count the rows into aggregates, which is not what is measured.
        await connection.execute("SET session_replication_role = replica")
        status = await connection.execute(_ROWS)
        rows = int(status.rpartition(" ")[2])
        names = await connection.fetchval(
            "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'network_interface_metrics'::regclass AND attnum > 0 AND NOT attisdropped"
        )
        for form, replaced in _FORMS.items():
            columns = ", ".join(f"{replaced.get(name, name)} AS {name}" for name in names)
            await connection.execute(
                f"CREATE TEMP TABLE form AS SELECT {columns} FROM network_interface_metrics ORDER BY time"
            )
            size = await connection.fetchval("SELECT pg_relation_size('form')")
            await connection.execute("DROP TABLE form")
            print(f"{size / rows:6.1f} bytes a row: {form}")
        for when in ("as rows arrived", "rebuilt"):
            size = await connection.fetchval(
                "SELECT pg_indexes_size(c) FROM show_chunks('network_interface_metrics') AS c"
            )
            print(f"{size / rows:6.1f} bytes a row: its indexes, {when}")
            chunk = await connection.fetchval("SELECT show_chunks('network_interface_metrics')::text")
            await connection.execute(f"REINDEX TABLE {chunk}")
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
