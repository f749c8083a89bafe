"""The names that an administrator gave interfaces."""

from migrations.sql import run_file

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    run_file("schema/interface_labels.sql")


def downgrade() -> None:
    raise NotImplementedError("Linkbeat does not undo a migration: restore the backup taken before it")
