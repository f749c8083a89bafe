"""Tokens, and the removal of servers."""

from migrations.sql import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    run_file("schema/tokens.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
