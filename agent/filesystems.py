"""How full every filesystem is, without ever waiting for one that does not answer."""

import contextlib
import errno
import importlib
import logging
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import msgspec

from .complaints import Complaints
from .mounts import Mount, below, groups_to_measure, parse_mounts
from .roots import Roots, read_text, wire_text

log = logging.getLogger(__name__)
_complaints = Complaints(log)

ANSWER_DEADLINE_SECONDS = 1.0
OCTETS_MAX = 2**64 - 1
LONGEST_PATH = 4096  # characters that the service takes of a mount point or a device
LONGEST_TYPE = 255
# What a mount answers when its server or its device is gone: it is there, but not reachable.
_GONE = {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.ECONNRESET,
}


class Filesystem(msgspec.Struct, frozen=True):
    """One filesystem's sizes.

    total_bytes, used_bytes   octets; `used` counts the blocks reserved for root as neither used nor available.
    available_bytes           octets that an ordinary user can still write.
    percent                   used / (used + available) * 100, as df counts it.
    state                     "unreachable": it did not answer; the sizes are the last known, available_bytes is 0.
    """

    mount_point: str
    device: str
    fs_type: str
    total_bytes: int
    used_bytes: int
    available_bytes: int
    percent: float
    state: Literal["ok", "unreachable"] = "ok"


class Usage(msgspec.Struct, frozen=True):
    """Sizes in octets from one statvfs, and the share that df prints."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    percent: float


def get_filesystem_metrics(
    roots: Roots | None = None, *, probe: "FilesystemProbe | None" = None, platform: str = sys.platform
) -> list[Filesystem]:
    """Every filesystem that holds data, one entry a device, in the kernel's order; [] where none can be read.

    Takes at most about a second, also when a network mount hangs: then once, and nothing from the next call on.
    """
    roots = roots or Roots()
    mounts, tree = _mounts(roots) if platform == "linux" else (_from_psutil(), roots.tree)
    found = (probe or _probe).measure(groups_to_measure(mounts), tree)
    # By the name that travels: of two that differ only in what is escaped, the service would keep one as it likes.
    return [each for each in {each.mount_point: each for each in found}.values() if _is_sendable(each)]


def get_root_usage(roots: Roots, filesystems: Iterable[Filesystem], probe: "FilesystemProbe") -> Usage | None:
    """Sizes of the root filesystem: from `filesystems`, or measured where it is not among them (a container's overlay).

    As the others through a probe: a root on a dead server must not hold the heartbeat.
    """
    root = next((each for each in filesystems if each.mount_point == "/"), None)
    if root is None:
        measured = probe.measure({("", "/"): [Mount("", "/", "", "")]}, roots.tree)
        root = measured[0] if measured else None
    if root is None or root.total_bytes == 0:
        return None
    return Usage(root.total_bytes, root.used_bytes, root.available_bytes, root.percent)


def usage(sizes: "os.statvfs_result") -> Usage | None:
    """Sizes from statvfs(3), in fragments of f_frsize; None for a filesystem without blocks."""
    if sizes.f_blocks <= 0:
        return None
    used = max(0, sizes.f_blocks - sizes.f_bfree) * sizes.f_frsize
    # Some report more free than there is, when the reserve is overdrawn.
    available = min(max(0, sizes.f_bavail), sizes.f_blocks) * sizes.f_frsize
    percent = round(100 * used / (used + available), 2) if used + available else 100.0
    # A FUSE program may claim more than 64 bits of octets; the service would refuse the whole heartbeat.
    total, used, available = (min(octets, OCTETS_MAX) for octets in (sizes.f_blocks * sizes.f_frsize, used, available))
    return Usage(total, used, available, percent)


def usage_of(path: Path) -> Usage | None:
    """Sizes of the filesystem that holds `path`. Raises OSError."""
    if sys.platform == "win32":
        total, used, free = shutil.disk_usage(path)
        return Usage(total, used, free, round(100 * used / total, 2)) if total else None
    return usage(os.statvfs(path))


class FilesystemProbe:
    """Measures mounts in threads of their own, and remembers what each said last.

    statvfs on a dead NFS, CIFS or FUSE mount can block for hours and cannot be interrupted by a signal. Such a thread
    is left alone until it returns by itself; no second one is started for the same storage.
    """

    def __init__(
        self,
        *,
        statvfs: "Callable[[Path], os.statvfs_result] | None" = None,
        deadline_seconds: float = ANSWER_DEADLINE_SECONDS,
    ) -> None:
        self._measure = usage_of if statvfs is None else lambda path: usage(statvfs(path))
        self._deadline_seconds = deadline_seconds
        self._complaints = Complaints(log)
        self._running: dict[tuple[str, str], _Measurement] = {}
        self._last: dict[tuple[str, str], Filesystem] = {}

    def measure(self, groups: dict[tuple[str, str], list[Mount]], tree: Path) -> list[Filesystem]:
        """One entry for each group of mounts that share their storage, except those that cannot be used."""
        started = {}
        for identity, mounts in groups.items():
            earlier = self._running.get(identity)
            if earlier is None or earlier.done.is_set():
                started[identity] = self._running[identity] = _Measurement(mounts, tree, self._measure)
                started[identity].start_or_fail()
        deadline = time.monotonic() + self._deadline_seconds
        for measurement in started.values():
            measurement.done.wait(max(0.0, deadline - time.monotonic()))
        entries = [self._entry(identity, mounts[0]) for identity, mounts in groups.items()]
        self._last = {identity: self._last[identity] for identity in groups if identity in self._last}
        self._complaints.keep_only(groups.keys())
        return [entry for entry in entries if entry is not None]

    def _entry(self, identity: tuple[str, str], mount: Mount) -> Filesystem | None:
        measurement = self._running[identity]
        point = wire_text(mount.mount_point)
        if not measurement.done.is_set():
            self._complaints.about(identity, "%s: does not respond; reported as unreachable", point)
            return self._unreachable(identity, mount)
        del self._running[identity]
        if measurement.error is not None and measurement.error.errno in _GONE:
            self._complaints.about(identity, "%s: %s; reported as unreachable", point, measurement.error.strerror)
            return self._unreachable(identity, mount)
        if measurement.error is not None:
            self._complaints.about(identity, "%s: %s; skipped", point, measurement.error.strerror)
            return None
        self._complaints.settled(identity, "%s: responds again", point)
        sizes = measurement.usage
        if sizes is None:
            return None
        self._last[identity] = Filesystem(
            mount_point=wire_text(measurement.mount.mount_point),
            device=wire_text(mount.device),
            fs_type=wire_text(mount.fs_type),
            total_bytes=sizes.total_bytes,
            used_bytes=sizes.used_bytes,
            available_bytes=sizes.available_bytes,
            percent=sizes.percent,
        )
        return self._last[identity]

    def _unreachable(self, identity: tuple[str, str], mount: Mount) -> Filesystem:
        last = self._last.get(identity)
        if last is None:
            point, device, fs_type = (wire_text(text) for text in (mount.mount_point, mount.device, mount.fs_type))
            return Filesystem(point, device, fs_type, 0, 0, 0, 0.0, state="unreachable")
        return msgspec.structs.replace(last, available_bytes=0, state="unreachable")


class _Measurement(threading.Thread):
    """Measures the first of `mounts` that is a directory; `usage` or `error` is set before `done`."""

    def __init__(self, mounts: list[Mount], tree: Path, measure: Callable[[Path], Usage | None]) -> None:
        # A daemon: a thread that the kernel holds must not hold the agent's exit.
        super().__init__(name=f"statvfs {wire_text(mounts[0].mount_point)}", daemon=True)
        self._mounts, self._tree, self._measure = mounts, tree, measure
        self.mount = mounts[0]
        self.usage: Usage | None = None
        self.error: OSError | None = None
        self.done = threading.Event()

    def start_or_fail(self) -> None:
        """A system that is out of threads fails the measurement and not the heartbeat."""
        try:
            self.start()
        except RuntimeError:
            self.error = OSError(errno.EAGAIN, "no free thread to measure it")
            self.done.set()

    def run(self) -> None:
        for mount in self._mounts:
            path = self._tree / mount.mount_point.lstrip("/")
            try:
                # Docker binds single files (/etc/hosts); they say nothing about a filesystem of this tree.
                if not stat.S_ISDIR(path.stat().st_mode):
                    continue
                self.mount, self.usage, self.error = mount, self._measure(path), None
                break
            except OSError as error:
                self.error = error
            except ValueError as error:  # a NUL in the path
                self.error = OSError(errno.EINVAL, str(error))
        self.done.set()


_probe = FilesystemProbe()


def _is_sendable(filesystem: Filesystem) -> bool:
    """Whether the service takes it: one name that is too long must not cost the heartbeat."""
    if (
        max(len(filesystem.mount_point), len(filesystem.device)) > LONGEST_PATH
        or len(filesystem.fs_type) > LONGEST_TYPE
    ):
        log.debug("%.100s…: the name is too long to be reported", filesystem.mount_point)
        return False
    return True


def _mounts(roots: Roots) -> tuple[Iterable[Mount], Path]:
    """The mounts, and the tree that their mount points lie in."""
    path, tree = roots.mounts, roots.tree
    try:
        mounts = parse_mounts(read_text(path))
    except OSError as error:
        if roots.is_foreign:
            # hidepid hides process 1, or what is in it. What the host's tree is mounted as is among one's own mounts.
            with contextlib.suppress(OSError):
                mounts = below(roots.root, parse_mounts(read_text(Path(roots.proc, "self", "mounts"))))
                _complaints.about(path, "%s: %s; only the mounts of this process are reported", path, error.strerror)
                return mounts, Path(roots.root)
        _complaints.about(path, "%s: %s; no filesystems are reported", path, error.strerror)
        return [], tree
    _complaints.settled(path, "%s: can be read again", path)
    return mounts, tree


def _from_psutil() -> Iterable[Mount]:
    psutil = importlib.import_module("psutil")
    return [Mount(part.device, part.mountpoint, part.fstype, part.opts) for part in psutil.disk_partitions(all=False)]
