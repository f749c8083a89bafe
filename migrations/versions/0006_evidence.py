"""What conclusions about counters need beyond the reading before: levels, doubt, the device's number, arrival."""

from migrations.sql import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_file("schema/evidence.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
