"""Which database a data directory used last, so that a Docker or a package of today does not hide yesterday's data.

<data_dir>/database-kind    embedded, docker or host; written before a database is used, and flushed to the disk
"""

import os
from pathlib import Path
from typing import Literal, get_args

from service.embedded import packages
from service.embedded.accounts import owner_of, read_as
from service.embedded.problems import UnreachableDirectoryError

Kind = Literal["embedded", "docker", "host"]

NOTE = "database-kind"
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
_BEFORE_KINDS = "cluster"
"""In notes of earlier versions: embedded or host, whose clusters lie in the same place."""


def remembered(data_dir: Path) -> Kind | None:
    """The kind of database that has the data of `data_dir`; None if it was never used.

    Raises UnreachableDirectoryError for a note that cannot be read or understood: guessing would hide the data.
    """
    try:
        note = (data_dir / NOTE).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return _kind_of_cluster(data_dir)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreachableDirectoryError(
            f"{data_dir / NOTE}, which names the database that has the data, cannot be read: {error}",
            "Make it readable, or set LINKBEAT_DATABASE to embedded, docker or host",
        ) from error
    if note == _BEFORE_KINDS:
        return _kind_of_cluster(data_dir) or "embedded"
    if note not in _KINDS:
        raise UnreachableDirectoryError(
            f'{data_dir / NOTE} holds "{note[:40]}", which is not a kind of database',
            "Write embedded, docker or host into it, or set LINKBEAT_DATABASE to that",
        )
    return _KINDS[note]


def remember(data_dir: Path, kind: Kind) -> None:
    """Write the note, so that it outlives a power failure. Raises OSError."""
    note = data_dir / NOTE
    try:
        if note.read_text(encoding="ascii") == kind + "\n":
            return
    except (OSError, UnicodeDecodeError):
        pass
    fresh = data_dir / f"{NOTE}.{os.getpid()}.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="ascii") as file:
        file.write(kind + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(note)
    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def cluster_major(data_dir: Path) -> int | None:
    """PostgreSQL's major version of the cluster in `data_dir`; None if there is no cluster."""
    cluster = data_dir / "postgres"
    text = read_as(owner_of(cluster), cluster / "PG_VERSION").strip()
    return int(text) if text.isdecimal() else None


def _kind_of_cluster(data_dir: Path) -> Kind | None:
    """For data of before there was a note: another version than the packages have can only be the host's."""
    major = cluster_major(data_dir)
    if major is None:
        return None
    return "embedded" if major == packages.MAJOR else "host"
