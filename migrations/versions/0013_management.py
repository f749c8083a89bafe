"""The audit log, display names and tags of servers, and requests for a report."""

from migrations.sql import run_file

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    run_file("schema/audit.sql")
    run_file("schema/labels.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
