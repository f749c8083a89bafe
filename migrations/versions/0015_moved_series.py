"""Alerts follow the rows of an interface to another series."""

from migrations.sql import run_file

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    run_file("schema/moved_series.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
