"""SQL files for migrations."""

from pathlib import Path

from alembic import op

ROOT = Path(__file__).resolve().parent.parent / "sql"


def run_file(name: str) -> None:
    """Runs a file of sql/ whole, in the migration's transaction.

    By PostgreSQL's simple protocol, which takes many statements at once and reads no parameters into them.
    """
    script = (ROOT / name).read_text(encoding="utf-8")
    op.get_bind().connection.dbapi_connection.run_async(lambda driver: driver.execute(script))  # type: ignore[union-attr]


def edition() -> str:
    """The edition of TimescaleDB that is installed: "apache" or "community". Asked once, by the first migration."""
    license_name = op.get_bind().exec_driver_sql("SHOW timescaledb.license").scalar_one()
    return "apache" if license_name == "apache" else "community"
