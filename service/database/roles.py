"""The database's roles: the role the service assumes to write, to read, and for an interactive psql.

sql/role/ creates them if the migrating login may create roles. If they do not exist, or not for this login or database,
the service works with the rights of the login.
"""

from urllib.parse import urlsplit

import asyncpg

from service.command import COMMAND
from service.database.hosts import connect

CONNECT_SECONDS = 10.0
INGEST = "linkbeat_ingest"
READ = "linkbeat_read"
ANALYST = "analyst"

# The login may assume the role, and the role has its rights in this database: roles are shared by all databases of a
# cluster.
_USABLE = f"""
FROM pg_roles
WHERE rolname = ANY ($1::text[]) AND pg_has_role(oid, 'SET')
  AND CASE rolname
      WHEN '{INGEST}' THEN has_function_privilege(oid, to_regproc('linkbeat.ingest_heartbeats'), 'EXECUTE')
      ELSE has_table_privilege(oid, to_regclass('public.server_overview'), 'SELECT') END
"""

# The settings of a role that the login may set: a setting for superusers would make the session fail.
_LIMITS = """
SELECT array_agg(l.text) FROM pg_db_role_setting CROSS JOIN unnest(setconfig) AS l(text)
LEFT JOIN pg_settings ON name = split_part(l.text, '=', 1)
WHERE setrole = $1::text::regrole AND setdatabase = 0
  AND (context <> 'superuser' OR (SELECT rolsuper FROM pg_roles WHERE rolname = session_user))
"""


async def take(connection: asyncpg.Connection, role: str) -> None:
    """Gives the connection the rights of the role and no others, if it can assume the role."""
    await connection.execute(f"SELECT set_config('role', rolname, false) {_USABLE}", [role])


async def wanting(connection: asyncpg.Connection) -> list[str]:
    """The roles that the connection's login cannot assume, or that have no rights in this database."""
    every = [INGEST, READ, ANALYST]
    usable = {row["rolname"] for row in await connection.fetch(f"SELECT rolname {_USABLE}", every)}
    return [role for role in every if role not in usable]


async def analyst_session(url: str) -> tuple[str, str]:
    """PGOPTIONS that make a session an analyst's, with the limits of the role; and a line that describes the session.

    If the login cannot be an analyst, there are no options, and the line has the reason.
    """
    connection = await connect(url, seconds=CONNECT_SECONDS, command_timeout=CONNECT_SECONDS)
    try:
        login = await connection.fetchval("SELECT current_user")
        if "options=" in urlsplit(url).query:
            return "", f"You are {login}, not {ANALYST}: the database's URL has options of its own"
        if ANALYST in await wanting(connection):
            return "", f"You are {login}, not {ANALYST}, which is not available: {COMMAND} migrate prints the reason"
        # PostgreSQL applies them when a session logs in as the role, not when it assumes the role.
        limits: list[str] | None = await connection.fetchval(_LIMITS, ANALYST)
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
    options = " ".join(f"-c {_escaped(setting)}" for setting in (f"role={ANALYST}", *(limits or ())))
    return options, f"You are {ANALYST} and read the views (docs/sql.md); SET ROLE NONE makes you {login}, their owner"


def _escaped(setting: str) -> str:
    return setting.replace("\\", "\\\\").replace(" ", "\\ ")
