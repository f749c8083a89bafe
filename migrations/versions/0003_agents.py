"""What agents say of themselves, and what they are asked to do."""

from migrations.sql import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_file("schema/agents.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
