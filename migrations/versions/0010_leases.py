"""Work that one of many services does at a time."""

from migrations.sql import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    run_file("schema/leases.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
