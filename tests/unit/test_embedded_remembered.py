"""The note of the database that has the data: written durably, read strictly, guessed for data of before."""

from pathlib import Path

import pytest

from service.embedded.problems import UnreachableDirectoryError
from service.embedded.remembered import NOTE, Kind, remember, remembered


@pytest.mark.parametrize("kind", ["embedded", "docker", "host"])
def test_what_is_remembered_is_found_and_leaves_no_other_file(tmp_path: Path, kind: Kind) -> None:
    remember(tmp_path, "docker")
    remember(tmp_path, kind)

    assert remembered(tmp_path) == kind
    assert [path.name for path in tmp_path.iterdir()] == [NOTE]


def test_a_new_directory_has_none(tmp_path: Path) -> None:
    assert remembered(tmp_path) is None
    assert remembered(tmp_path / "missing") is None


@pytest.mark.parametrize("note", [None, "cluster\n"])
@pytest.mark.parametrize(("major", "kind"), [("17", "embedded"), ("18", "host"), ("16", "host")])
def test_data_of_before_there_was_a_note_is_known_by_its_cluster(
    tmp_path: Path, note: str | None, major: str, kind: Kind
) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text(f"{major}\n", encoding="ascii")
    if note:
        (tmp_path / NOTE).write_text(note, encoding="ascii")

    assert remembered(tmp_path) == kind


@pytest.mark.parametrize("note", [b"", b"mysql\n", b"docker embedded\n", b"\xff\xfe"])
def test_a_note_that_is_none_is_an_error_and_not_a_guess(tmp_path: Path, note: bytes) -> None:
    (tmp_path / NOTE).write_bytes(note)

    with pytest.raises(UnreachableDirectoryError, match="embedded, docker or host"):
        remembered(tmp_path)
