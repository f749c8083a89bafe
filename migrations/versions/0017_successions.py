"""Servers that replaced other servers."""

from migrations.sql import run_file

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    run_file("schema/successions.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
