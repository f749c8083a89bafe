"""What a server may move in a billing month."""

from migrations.sql import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_file("schema/quotas.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
