"""Rules for alerts, their states and history, and the messages about them."""

from migrations.sql import run_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    run_file("schema/alerts.sql")
    run_file("schema/alert_messages.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
