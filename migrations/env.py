"""Alembic's environment: one transaction, with limits on every wait.

Run through service.database.schema.migrate(), which hands the connection over when it is its turn.
"""

from alembic import context
from sqlalchemy import Connection, text


def run(connection: Connection) -> None:
    """Upgrades to the revision asked for; all of it, or nothing."""
    connection.execute(text("SET LOCAL lock_timeout = '10s'"))
    connection.execute(text("SET LOCAL statement_timeout = '10min'"))
    # A role named linkbeat has the schema of that name before public: analysts would not find what is made there.
    connection.execute(text("SET LOCAL search_path = public"))
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS linkbeat"))
    context.configure(connection=connection, version_table_schema="linkbeat", version_table="schema_version")
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
