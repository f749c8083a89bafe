"""The migrations' files, and when Alembic is imported."""

import subprocess
import sys

from alembic.script import ScriptDirectory

from service.database import schema
from service.database.upgrade import alembic_config


def test_the_names_of_the_files_tell_the_revisions_in_their_order() -> None:
    scripts = ScriptDirectory.from_config(alembic_config(schema.ROOT)).walk_revisions()

    assert schema.revisions() == [script.revision for script in reversed(list(scripts))]


def test_a_command_starts_without_the_libraries_that_migrate() -> None:
    """They would double the time that each process takes to start, and add a third to its memory."""
    script = "import sys, service.__main__; print(*sorted({'alembic', 'mako', 'sqlalchemy'} & sys.modules.keys()))"

    run = subprocess.run([sys.executable, "-c", script], cwd=schema.ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.split() == []
