"""docs/sql.md and the database's comments: complete, and the same."""

import asyncpg

from docs.generate import DOCUMENT, rendered
from service.database.roles import ANALYST

NOT_OF_AN_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend WHERE objid = {0}.oid AND deptype = 'e')"


async def test_the_document_is_what_the_database_says(database: asyncpg.Connection) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == await rendered(database), "run: make docs"


async def test_every_relation_and_column_in_public_has_a_comment(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT c.relname || coalesce('.' || a.attname, '') FROM pg_class c "
        "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') "
        f"AND {NOT_OF_AN_EXTENSION.format('c')} "
        "AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)"
    )

    assert [row[0] for row in rows] == []


async def test_every_function_that_an_analyst_can_name_has_a_comment(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT p.proname, obj_description(p.oid, 'pg_proc') AS comment FROM pg_proc p "
        "WHERE has_schema_privilege($1, pronamespace, 'USAGE') AND has_function_privilege($1, oid, 'EXECUTE') "
        "AND pronamespace IN ('public'::regnamespace, 'linkbeat'::regnamespace) "
        f"AND {NOT_OF_AN_EXTENSION.format('p')} ORDER BY proname",
        ANALYST,
    )

    assert [row["proname"] for row in rows] == [
        "billing_period",
        "day_start",
        "interface_last_change",
        "linked_samples",
        "linked_traffic",
        "network_counters",
        "network_days",
        "network_forecast",
        "network_month",
        "network_percentile",
        "network_total",
        "quota_usage",
        "server_total",
    ]
    assert [row["proname"] for row in rows if not row["comment"]] == []


async def test_every_view_in_public_is_an_analysts_and_nothing_else(database: asyncpg.Connection) -> None:
    rows = await database.fetch(
        "SELECT relname, relkind = 'v' AS is_view, has_table_privilege($1, oid, 'SELECT') AS readable FROM pg_class c "
        "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') "
        f"AND {NOT_OF_AN_EXTENSION.format('c')}",
        ANALYST,
    )

    assert len(rows) > 19
    assert [row["relname"] for row in rows if row["is_view"] is not row["readable"]] == []
