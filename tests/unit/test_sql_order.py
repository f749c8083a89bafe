"""sql/order.txt: everything that is replaceable is applied, once, and after what it is made of."""

import re

import pytest

from service.database import replaceable
from service.database.schema import ROOT

SQL = ROOT / "sql"
EDITIONS = ("apache", "community")
REPLACEABLE = sorted(path for path in SQL.rglob("*.sql") if path.relative_to(SQL).parts[0] != "schema")


@pytest.mark.parametrize("edition", EDITIONS)
def test_an_edition_is_made_of_every_file_but_those_of_the_other(edition: str) -> None:
    (other,) = set(EDITIONS) - {edition}

    assert sorted(replaceable.files(SQL, edition)) == [path for path in REPLACEABLE if path.parent.name != other]


def test_both_editions_define_the_same_routines_that_others_call() -> None:
    """What the files of no edition call has to be in both."""
    called = set(
        re.findall(r"linkbeat\.(\w+)\(", "".join(p.read_text() for p in REPLACEABLE if p.parent.parent == SQL))
    )
    for edition in EDITIONS:
        defined = {name for path in replaceable.files(SQL, edition) for name in re.findall(
            r"CREATE OR REPLACE (?:FUNCTION|PROCEDURE) linkbeat\.(\w+)", path.read_text())}  # fmt: skip
        missing = {name for name in called - defined if not name.startswith("watermark_")}
        assert missing <= {"row_before", "maintain"}, edition


def test_files_that_run_once_define_no_routines_and_no_views() -> None:
    for path in (SQL / "schema").glob("*.sql"):
        assert not re.search(r"CREATE (OR REPLACE )?(FUNCTION|PROCEDURE|TRIGGER|VIEW)", path.read_text()), path.name


def test_the_fingerprint_is_the_editions_own() -> None:
    assert replaceable.fingerprint(SQL, "apache") != replaceable.fingerprint(SQL, "community")
