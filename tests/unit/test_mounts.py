"""service.fleet.servers: filesystems that are full by their nature."""

import pytest

from service.fleet.servers import is_image

TMP = "/tmp"  # noqa: S108 - where AppImages mount themselves; nothing is written there


@pytest.mark.parametrize(
    ("fs_type", "mount_point"),
    [
        ("squashfs", "/snap/core22/1033"),
        ("iso9660", "/media/cd"),
        ("udf", "/media/ana/FILM"),
        ("erofs", "/opt/image"),
        ("cramfs", "/rom"),
        ("romfs", "/rom"),
        ("fuse.squashfuse", "/opt/img"),
        ("fuse.squashfuse_ll", "/opt/img"),
        ("fuse.Obsidian-1.5.AppImage", f"{TMP}/.mount_ObsidiAbc123"),
        ("fuse.launcher-lite.AppImage", f"{TMP}/.mount_launchQ1"),
        ("fuse.nvim.appimage", f"{TMP}/.mount_nvimXY"),
        ("fuse.cursor", f"{TMP}/.mount_cursorAbc"),
        ("fuse", f"{TMP}/.mount_x"),
    ],
)
def test_an_image_is_one(fs_type: str, mount_point: str) -> None:
    assert is_image(fs_type, mount_point)


@pytest.mark.parametrize(
    ("fs_type", "mount_point"),
    [
        ("ext4", "/"),
        ("", "/"),
        ("ext4", f"{TMP}/.mount_x"),
        ("fuse.sshfs", "/home/ana/server"),
        ("fuse.mergerfs", "/srv/AppImages"),
        ("fuseblk", "/media/ana/disk"),
        ("squashfs-like", "/x"),
        ("btrfs", "/snap"),
    ],
)
def test_what_can_be_written_to_is_none(fs_type: str, mount_point: str) -> None:
    assert not is_image(fs_type, mount_point)
