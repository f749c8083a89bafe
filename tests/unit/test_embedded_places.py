"""Directories, ports and settings of the embedded database."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from service import directories
from service.embedded import accounts, places, server_config, sockets
from service.embedded.problems import ClusterError, UnreachableDirectoryError

GIGABYTE = 1024 * server_config.MEGABYTE


def test_root_keeps_its_things_where_another_account_can_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_CACHE_HOME", "/root/.cache")

    assert directories.default_cache_dir() == Path("/var/cache/linkbeat")
    assert directories.default_data_dir() == Path("/var/lib/linkbeat")


def test_a_user_keeps_them_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")

    assert directories.default_cache_dir() == Path("/home/ann/.cache/linkbeat")
    assert directories.default_data_dir() == Path("/home/ann/.local/share/linkbeat")


def test_the_xdg_directories_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    monkeypatch.setenv("XDG_DATA_HOME", "/big/data")

    assert directories.default_cache_dir() == Path("/big/cache/linkbeat")
    assert directories.default_data_dir() == Path("/big/data/linkbeat")


def test_a_private_file_is_closed_to_others_under_any_umask(tmp_path: Path) -> None:
    path = tmp_path / "password"
    before = os.umask(0)
    try:
        places.write_private(None, path, "secret\n")
        places.write_private(None, path, "another\n")
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text(encoding="ascii") == "another\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["password"]


def test_made_directories_let_others_through_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        places.make_enterable(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]


@pytest.mark.parametrize(
    ("memory_bytes", "free_bytes", "is_used"),
    [
        (4 * GIGABYTE, 2 * GIGABYTE, True),
        (4 * GIGABYTE, 2 * GIGABYTE - 1, False),
        (4 * GIGABYTE - 1, GIGABYTE * 9, False),
    ],
)
def test_a_throwaway_database_lies_in_memory_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_bytes: int, free_bytes: int, is_used: bool
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(places, "MEMORY", str(tmp_path))
    monkeypatch.setattr(places, "require_access", lambda *_: None)  # pytest's own directories are closed to others
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))

    with places.reachable_directory(memory_bytes) as directory:
        assert (directory.parent == tmp_path) == is_used


def test_no_memory_is_asked_for_where_there_is_no_such_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MEMORY", "/nonexistent")

    with places.reachable_directory(8 * GIGABYTE) as directory:
        assert directory.is_dir()


def test_the_programs_environment_leaves_out_what_would_redirect_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    monkeypatch.setenv("PGHOST", "db.example")

    assert accounts.program_environment().keys() == {"PATH", "LC_ALL", "OPENSSL_CONF"}


@pytest.mark.parametrize(("memory", "megabytes"), [(GIGABYTE // 8, 32), (GIGABYTE, 128), (16 * GIGABYTE, 256)])
def test_shared_buffers_fit_the_machine(memory: int, megabytes: int) -> None:
    assert server_config.shared_buffers_bytes(memory) == megabytes * server_config.MEGABYTE


@pytest.mark.parametrize(("tcp", "listens_on"), [(False, ""), (True, "127.0.0.1")])
def test_the_settings_flush_to_disk_and_listen_on_tcp_only_if_asked_to(tcp: bool, listens_on: str) -> None:
    text = server_config.settings_text(
        socket_directory=Path("/var/lib/it's/postgres"), port=15500, tcp=tcp, memory_bytes=GIGABYTE, durable=True
    )

    assert f"\nlisten_addresses = '{listens_on}'\n" in text
    assert "\nport = '15500'\n" in text
    assert "\nfsync = 'on'\n" in text
    assert "\nsynchronous_commit = 'on'\n" in text
    assert "\njit = 'off'\n" in text
    assert "\nunix_socket_directories = '/var/lib/it''s/postgres'\n" in text


@pytest.fixture
def short_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for sockets of clusters whose own path is too long."""
    monkeypatch.setattr(sockets, "_short_directories", lambda _: iter([tmp_path / "first", tmp_path / "second"]))
    return tmp_path


def test_a_socket_lies_in_the_cluster_where_its_path_is_short_and_plain(short_directories: Path) -> None:
    short = Path("/var/lib/linkbeat/postgres")
    longest = Path("/" + "d" * (107 - len("//.s.PGSQL.5432")))

    assert sockets.socket_directory(short, None, 5432) == short
    assert sockets.socket_directory(longest, None, 5432) == longest
    assert list(short_directories.iterdir()) == []


@pytest.mark.parametrize(
    "data_dir",
    [
        "/" + "d" * (108 - len("//.s.PGSQL.5432")),
        "/" + "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 60,
        "/a,b",
        "/with space",
    ],
)
def test_else_in_a_short_directory_that_is_closed_to_others(short_directories: Path, data_dir: str) -> None:
    made = sockets.socket_directory(Path(data_dir), None, 5432)
    again = sockets.socket_directory(Path(data_dir), None, 5432)

    assert made == again == short_directories / "first"
    assert made.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["open", "link", "file"])
def test_a_directory_that_was_planted_there_is_passed_over(short_directories: Path, planted: str) -> None:
    first = short_directories / "first"
    if planted == "open":
        first.mkdir()
        first.chmod(0o777)
    elif planted == "link":
        (short_directories / "elsewhere").mkdir(mode=0o700)
        first.symlink_to(short_directories / "elsewhere")
    else:
        first.touch(0o700)

    assert sockets.socket_directory(Path("/" + "d" * 200), None, 5432) == short_directories / "second"
    assert planted == "file" or list(first.iterdir()) == []


def test_where_every_place_is_taken_the_error_names_each(short_directories: Path) -> None:
    for name in ("first", "second"):
        (short_directories / name).touch()

    with pytest.raises(UnreachableDirectoryError, match=r"first.*second.*shorter path"):
        sockets.socket_directory(Path("/" + "d" * 200), None, 5432)


def test_a_message_ends_with_its_remedy() -> None:
    assert str(ClusterError("It failed.", "Start again")) == "It failed. Start again"
