"""What spares a turn of alerts reading the same again."""

from migrations.sql import run_file

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    run_file("schema/alert_turns.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
