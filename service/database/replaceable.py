"""Reapplies functions, views and rights whenever they differ, in the order of sql/order.txt."""

import hashlib
import re
from pathlib import Path

import asyncpg

# PostgreSQL does not replace a routine with another result, kind, default or name of an argument.
_IN_THE_WAY = (asyncpg.InvalidFunctionDefinitionError, asyncpg.WrongObjectTypeError)
_DEFINED = re.compile(r"^CREATE OR REPLACE (?:FUNCTION|PROCEDURE) (\w+)\.(\w+)", re.MULTILINE)
_EDITIONS = {"apache", "community"}

# Only Linkbeat's own routines, not those of extensions and other roles in the schema.
_OWN = """
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proowner = (SELECT nspowner FROM pg_namespace WHERE nspname = 'linkbeat')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
"""
# The place of a routine's row, which changes when the routine is replaced, also within a transaction.
_PLACES = f"SELECT p.oid, p.ctid::text AS place {_OWN} AND n.nspname = 'linkbeat'"
_NAMED = f"SELECT p.oid, p.oid::regprocedure::text AS signature {_OWN} AND (n.nspname, p.proname) = ($1, $2)"
# In one statement, so that stale routines may depend on each other.
_DROP = """
DO $$ BEGIN
    EXECUTE (SELECT 'DROP ROUTINE ' || string_agg(oid::regprocedure::text, ', ') FROM unnest('{%s}'::oid[]) AS oid);
END $$
"""


def files(sql: Path, edition: str) -> list[Path]:
    """The files of an edition below `sql`, in the order in which they are applied."""
    lines = (sql / "order.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    return [sql / name for name in names if not (_EDITIONS - {edition}).intersection(name.split("/"))]


def fingerprint(sql: Path, edition: str) -> str:
    """A hash of the files of an edition: names, order and contents."""
    digest = hashlib.sha256()
    for path in files(sql, edition):
        digest.update(f"{path.relative_to(sql).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


async def apply(connection: asyncpg.Connection, sql: Path, edition: str) -> None:
    """Applies all files, and drops the routines of schema linkbeat that no file defines any more.

    Runs in the caller's transaction. Raises asyncpg.PostgresError, for example if a foreign view uses a routine to be
    dropped: the message names both.
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
    # After all files, which replace the views and bodies that used stale routines. But before rights, because granting
    # them rewrites every routine's row, and needs unique names.
    stale |= {row["oid"] for row in await connection.fetch(_PLACES) if before.get(row["oid"]) == row["place"]}
    if stale:
        await connection.execute(_DROP % ",".join(map(str, sorted(stale))))
    for script in rights:
        await connection.execute(script)


async def _set_aside(connection: asyncpg.Connection, script: str) -> set[int]:
    """Renames the routines that a file defines, so that it can define them again; objects that use them keep the
    renamed ones."""
    aside = set()
    for schema, name in dict.fromkeys(_DEFINED.findall(script)):
        for row in await connection.fetch(_NAMED, schema, name):
            await connection.execute(f'ALTER ROUTINE {row["signature"]} RENAME TO "{row["oid"]} {name}"')
            aside.add(row["oid"])
    return aside
