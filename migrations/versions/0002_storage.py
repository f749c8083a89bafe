"""Servers, what their interfaces, filesystems and they themselves report, and the definitions of the aggregates.

0001 was the schema of the time before the first release; it cannot be upgraded (schema.BEFORE_RELEASE).
"""

from alembic import op

from migrations.sql import edition, run_file

revision = "0002"
down_revision = None


def upgrade() -> None:
    chosen = edition()
    for name in ("types", "servers", "network_interface_metrics", "host_metrics", "installation", "aggregates"):
        run_file(f"schema/{name}.sql")
    op.execute(f"INSERT INTO linkbeat.installation (edition) VALUES ('{chosen}')")
    if chosen == "apache":
        run_file("schema/apache.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
