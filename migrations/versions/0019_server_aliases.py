"""Other ids of servers."""

from migrations.sql import run_file

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    run_file("schema/server_aliases.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
