"""How hot machines are."""

from migrations.sql import run_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    run_file("schema/temperature.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
