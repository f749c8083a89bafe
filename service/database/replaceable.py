"""The SQL that is reapplied whenever it differs: functions, views and rights, in the order of sql/order.txt."""

import hashlib
import re
from pathlib import Path

import asyncpg

# A replacement that PostgreSQL refuses in place: another result, kind, default or name of an argument.
_IN_THE_WAY = (asyncpg.InvalidFunctionDefinitionError, asyncpg.WrongObjectTypeError)
_DEFINED = re.compile(r"^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (\w+)\.(\w+)", re.MULTILINE)
_EDITIONS = {"apache", "community"}

# Linkbeat's own: what an extension or another role has put into the schema is theirs.
_OWN = """
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proowner = (SELECT nspowner FROM pg_namespace WHERE nspname = 'linkbeat')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""
# Where a routine's row stands: another place once it was replaced, in the same transaction too.
_PLACES = f"SELECT p.oid, p.ctid::text AS place {_OWN} AND n.nspname = 'linkbeat'"
_NAMED = f"SELECT p.oid, p.oid::regprocedure::text AS signature {_OWN} AND (n.nspname, p.proname) = ($1, $2)"
# In one statement, so that stale routines may depend on each other.
_DROP = """
DO $$ BEGIN
    EXECUTE (SELECT 'DROP ROUTINE ' || string_agg(oid::regprocedure::text, ', ') FROM unnest('{%s}'::oid[]) AS oid);
END $$
"""


def files(sql: Path, edition: str) -> list[Path]:
    """What an edition's database is made of, below `sql`, in the order of its application."""
    lines = (sql / "order.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    return [sql / name for name in names if not (_EDITIONS - {edition}).intersection(name.split("/"))]


def fingerprint(sql: Path, edition: str) -> str:
    """Of what an edition's database is made of: names, order and contents."""
    digest = hashlib.sha256()
    for path in files(sql, edition):
        digest.update(f"{path.relative_to(sql).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


async def apply(connection: asyncpg.Connection, sql: Path, edition: str) -> None:
    """Applies all of it, and drops the routines of schema linkbeat that no file defines any more.

    In the caller's transaction. Raises asyncpg.PostgresError, as where a view of somebody else's uses a routine that
    is to be dropped: the message names both.
    """
    before = {row["oid"]: row["place"] for row in await connection.fetch(_PLACES)}
    stale: set[int] = set()
    rights = []
    for path in files(sql, edition):
        script = path.read_text(encoding="utf-8")
        if path.parent.name == "role":
            rights.append(script)
            continue
        try:
            async with connection.transaction():
                await connection.execute(script)
        except _IN_THE_WAY:
            stale |= await _set_aside(connection, script)
            await connection.execute(script)
    # After everything: views and SQL bodies that named the stale ones have been replaced. But before rights, which
    # write every routine's row, and are granted by names that have to be unique.
    stale |= {row["oid"] for row in await connection.fetch(_PLACES) if before.get(row["oid"]) == row["place"]}
    if stale:
        await connection.execute(_DROP % ",".join(map(str, sorted(stale))))
    for script in rights:
        await connection.execute(script)


async def _set_aside(connection: asyncpg.Connection, script: str) -> set[int]:
    """Renames the routines that a file defines, so that it can define them again; what uses them keeps them for now."""
    aside = set()
    for schema, name in dict.fromkeys(_DEFINED.findall(script)):
        for row in await connection.fetch(_NAMED, schema, name):
            await connection.execute(f'ALTER ROUTINE {row["signature"]} RENAME TO "{row["oid"]} {name}"')
            aside.add(row["oid"])
    return aside
