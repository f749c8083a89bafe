"""Keys in files: whose they may be, and how open."""

import logging
import os
from pathlib import Path

import pytest

from service.access.keys import KEY_FILE, SECRET_FILE, fleet_key, secret_key
from service.settings import Settings, SettingsError

KEY = "k" * 40
ANOTHER_UID = 65534


@pytest.fixture(params=[KEY_FILE, SECRET_FILE])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(directory: Path) -> tuple[str, bytes]:
    settings = Settings(data_dir=str(directory))
    return fleet_key(settings), secret_key(settings)


def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another account; run the tests as root, or in a container")


def test_keys_are_made_for_their_owner_alone_and_read_again(tmp_path: Path) -> None:
    made = read(tmp_path)

    assert read(tmp_path) == made
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in (KEY_FILE, SECRET_FILE)] == [0o600, 0o600]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666, 0o601])
def test_a_key_that_is_open_to_everybody_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    read(tmp_path)
    (tmp_path / name).chmod(mode)

    with pytest.raises(SettingsError, match=f"{name} is accessible to every user; run: chmod 600"):
        read(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o660])
def test_a_key_that_is_open_to_a_group_is_used_and_said(
    tmp_path: Path, name: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    made = read(tmp_path)
    (tmp_path / name).chmod(mode)

    assert read(tmp_path) == made
    assert f"{tmp_path / name} is accessible to its group" in caplog.text


def test_a_key_of_another_account_is_refused(tmp_path: Path, name: str) -> None:
    needs_root()
    read(tmp_path)
    os.chown(tmp_path / name, ANOTHER_UID, ANOTHER_UID)

    with pytest.raises(SettingsError, match=f"{name} belongs to nobody"):
        read(tmp_path)


def test_no_key_is_made_by_root_where_another_account_can_replace_it(tmp_path: Path) -> None:
    needs_root()
    os.chown(tmp_path, ANOTHER_UID, ANOTHER_UID)

    with pytest.raises(SettingsError, match=f"{tmp_path} belongs to nobody"):
        read(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_service_accounts_own_keys_are_used_by_root_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needs_root()
    made = read(tmp_path)
    for path in (tmp_path, tmp_path / KEY_FILE, tmp_path / SECRET_FILE):
        os.chown(path, ANOTHER_UID, ANOTHER_UID)
    caplog.set_level(logging.WARNING)

    assert read(tmp_path) == made
    assert caplog.text.count("and its directory belong to nobody") == 2


@pytest.mark.parametrize("planted", ["link", "pipe", "directory"])
def test_what_is_planted_in_a_keys_place_is_neither_followed_nor_waited_for(
    tmp_path: Path, name: str, planted: str
) -> None:
    (tmp_path / "target").write_text(KEY)
    (tmp_path / "target").chmod(0o600)
    if planted == "link":
        (tmp_path / name).symlink_to(tmp_path / "target")
    elif planted == "pipe":
        os.mkfifo(tmp_path / name, 0o600)
    else:
        (tmp_path / name).mkdir(0o700)

    with pytest.raises(SettingsError, match=name):
        read(tmp_path)


def test_a_mounted_secret_may_be_a_link_that_everybody_inside_may_read(tmp_path: Path) -> None:
    (tmp_path / "..data").write_text(KEY)
    (tmp_path / "..data").chmod(0o444)
    (tmp_path / "mounted").symlink_to("..data")

    found = secret_key(Settings(secret_key_file=str(tmp_path / "mounted")))

    assert found == secret_key(Settings(secret_key=KEY))


def test_a_secret_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(KEY)
    (tmp_path / "secret").chmod(0o666)

    with pytest.raises(SettingsError, match=r"LINKBEAT_SECRET_KEY_FILE: .*secret is accessible to every user"):
        secret_key(Settings(secret_key_file=str(tmp_path / "secret")))
