"""Which mounts are worth measuring: the text of /proc/mounts, filtered, one group a device."""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")
_KERNEL_TREES = ("/sys", "/proc", "/dev", "/run", "/snap")
# Types that hold no user's data. autofs stands here for another reason too: a stat would mount the share and wake its
# disk.
_VIRTUAL = frozenset(
    {
        "aufs",
        "autofs",
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "cpuset",
        "debugfs",
        "devfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fdescfs",
        "fuse.gvfsd-fuse",
        "fuse.lxcfs",
        "fuse.portal",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nfsd",
        "nsfs",
        "overlay",
        "pidfs",
        "pipefs",
        "proc",
        "procfs",
        "pstore",
        "ramfs",
        "rootfs",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "sockfs",
        "sysfs",
        "tmpfs",
        "tracefs",
    }
)


# Images that are packed once: always 100 % full, which needs no attention. A read-only disk (ext4, ntfs)
# is not one of them: it was filled while in use, and may be written to again.
_IMAGES = frozenset(
    {
        "composefs",
        "cramfs",
        "erofs",
        "fuse.archivemount",
        "fuse.dwarfs",
        "fuse.erofsfuse",
        "fuse.fuse-archive",
        "fuse.fuseiso",
        "fuse.mount-zip",
        "fuse.ratarmount",
        "fuse.snapfuse",
        "fuse.squashfuse",
        "fuse.squashfuse_ll",
        "iso9660",
        "romfs",
        "squashfs",
        "udf",
    }
)
# An AppImage mounts itself while it runs (type 2 runtime): its file's name is the subtype, which a program may cut or
# rename, and /tmp/.mount_ and the beginning of that name the place. TMPDIR moves it.
_APPIMAGE_TYPE = re.compile(r"fuse\..*\.AppImage", re.IGNORECASE | re.DOTALL)
_APPIMAGE_PLACE = re.compile(r"(?:/.*)?/\.mount_[^/]+", re.DOTALL)


class Mount(NamedTuple):
    """One line of /proc/mounts, decoded; texts may hold surrogates, so that the mount point still opens."""

    device: str
    mount_point: str
    fs_type: str
    options: str


def parse_mounts(text: str) -> list[Mount]:
    """The mounts in the text of /proc/mounts, in its order; a line with fewer than four fields is skipped.

    Format (fs/proc_namespace.c, show_vfsmnt): device, mount point, type, options, two zeros, one space between; space,
    tab, newline, backslash and # inside a field are written as octal escapes, everything else as it is.
    """
    mounts = []
    # split with a separator: a mount point may hold other white space (\r, U+0085), which the kernel does not escape.
    for line in text.split("\n"):
        fields = line.split(" ")
        if len(fields) >= 4 and fields[1].startswith("/"):
            mounts.append(Mount(*(_unescaped(field) for field in fields[:4])))
    return mounts


def groups_to_measure(mounts: Iterable[Mount]) -> dict[tuple[str, str], list[Mount]]:
    """The mounts worth measuring, those of one device together, the one to report first.

    The first of a group has the shortest mount point; the others are its bind mounts, there for when it cannot be
    used (a container's /etc/hosts is a mount, but a file).
    """
    # A mount hides what was mounted at the same place before it: only the last is there to be measured.
    visible = {mount.mount_point: mount for mount in mounts}
    groups: dict[tuple[str, str], list[Mount]] = {}
    for mount in visible.values():
        if mount.fs_type not in _VIRTUAL and not is_in_kernel_tree(mount.mount_point) and not is_image(mount):
            groups.setdefault(_identity(mount), []).append(mount)
    for group in groups.values():
        group.sort(key=lambda mount: (len(mount.mount_point), mount.mount_point))
    return groups


def below(root: str, mounts: Iterable[Mount]) -> list[Mount]:
    """The mounts at or below `root`, as they are called from there."""
    prefix = root.rstrip("/")
    return [
        mount._replace(mount_point=mount.mount_point[len(prefix) :] or "/")
        for mount in mounts
        if mount.mount_point == prefix or mount.mount_point.startswith(prefix + "/")
    ]


def is_in_kernel_tree(mount_point: str) -> bool:
    """Whether it is or lies below /sys, /proc, /dev, /run or /snap (/system and /snapshots do not)."""
    return any(mount_point == tree or mount_point.startswith(tree + "/") for tree in _KERNEL_TREES)


def is_image(mount: Mount) -> bool:
    """Whether it is an image that is always full."""
    if mount.fs_type in _IMAGES or _APPIMAGE_TYPE.fullmatch(mount.fs_type):
        return True
    is_fuse = mount.fs_type == "fuse" or mount.fs_type.startswith("fuse.")
    if not is_fuse or not _APPIMAGE_PLACE.fullmatch(mount.mount_point):
        return False
    in_tmp = mount.mount_point.startswith("/tmp/")  # noqa: S108  # compared, never opened
    return in_tmp or "ro" in mount.options.split(",")


def _identity(mount: Mount) -> tuple[str, str]:
    """What two mounts of the same storage share: the device, and the subvolume where a device holds several."""
    if mount.fs_type == "btrfs":
        options = dict(option.partition("=")[::2] for option in mount.options.split(","))
        return mount.device, options.get("subvolid") or options.get("subvol") or mount.mount_point
    names_one_thing = mount.fs_type == "zfs" or mount.device.startswith("/") or ":" in mount.device
    # Sources such as `none` or `rclone`, and whatever a FUSE program calls itself, do not tell mounts apart.
    if not names_one_thing or mount.fs_type == "fuse" or mount.fs_type.startswith("fuse."):
        return mount.device, mount.mount_point
    return mount.device, ""


def _unescaped(field: str) -> str:
    if "\\" not in field:
        return field
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), os.fsencode(field)))
