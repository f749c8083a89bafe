"""agent.filesystems and agent.mounts on fixture files, with a statvfs that the test controls."""

import contextlib
import ctypes
import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.filesystems import (
    ANSWER_DEADLINE_SECONDS,
    Filesystem,
    FilesystemProbe,
    Usage,
    get_filesystem_metrics,
    get_root_usage,
    usage,
)
from agent.heartbeat import Collector
from agent.mounts import Mount, below, groups_to_measure, is_in_kernel_tree, parse_mounts
from agent.roots import Roots
from agent.settings import Settings
from tests.helpers.durations import fastest

FIXTURES = Path(__file__).parent / "fixtures"
GIB = 1024**3
MNT_FORCE, MNT_DETACH = 1, 2  # sys/mount.h


def sizes(total: int = 100, free: int = 40, available: int = 35, fragment: int = GIB) -> os.statvfs_result:
    """A statvfs answer in fragments of `fragment` octets."""
    return os.statvfs_result((4096, fragment, total, free, available, 0, 0, 0, 0, 255, 0))


class Host:
    """A file tree below tmp_path with these mounts; every mount point exists as a directory."""

    def __init__(self, tmp_path: Path, mounts: str, *, deadline_seconds: float = 60.0) -> None:
        self.tree = tmp_path / "root"
        self.roots = Roots(proc=str(tmp_path / "proc"), root=str(self.tree))
        self.roots.mounts.parent.mkdir(parents=True)
        self.tree.mkdir()
        self.mount(mounts)
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[], os.statvfs_result]] = {}
        self.probe = FilesystemProbe(statvfs=self.statvfs, deadline_seconds=deadline_seconds)

    def mount(self, mounts: str) -> None:
        self.roots.mounts.write_text(mounts, encoding="utf-8", errors="surrogateescape")
        for mount in parse_mounts(mounts):
            (self.tree / mount.mount_point.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def statvfs(self, path: Path) -> os.statvfs_result:
        point = "/" + str(path.relative_to(self.tree)).removeprefix(".")
        self.asked.append(point)
        return self.answers.get(point, sizes)()

    def metrics(self) -> list[Filesystem]:
        return get_filesystem_metrics(self.roots, probe=self.probe)


def fails_with(number: int) -> Callable[[], os.statvfs_result]:
    def answer() -> os.statvfs_result:
        raise OSError(number, os.strerror(number))

    return answer


def points(found: list[Filesystem]) -> list[str]:
    return [each.mount_point for each in found]


def test_a_servers_mounts_are_filtered_and_decoded(tmp_path: Path) -> None:
    host = Host(tmp_path, (FIXTURES / "mounts_server.txt").read_text())

    found = host.metrics()

    assert points(found) == [
        "/",
        "/boot/efi",
        "/srv/media",
        "/snapshots",
        "/devdata",
        "/system",
        "/pool",
        "/pool/home",
        "/tank",
        "/tank/a",
        "/mnt/nas",
        "/mnt/one",
        "/mnt/two",
    ]
    assert found[0] == Filesystem("/", "/dev/sda2", "ext4", 100 * GIB, 60 * GIB, 35 * GIB, 63.16)


@pytest.mark.parametrize(
    ("escaped", "decoded"),
    [
        ("/mnt/My\\040Disk", "/mnt/My Disk"),
        ("/mnt/a\\011b\\012c\\134d", "/mnt/a\tb\nc\\d"),
        ("/mnt/\\043hash", "/mnt/#hash"),
        ("/mnt/not\\09octal", "/mnt/not\\09octal"),
        ("/mnt/sp\u00a0ace\x0b", "/mnt/sp\u00a0ace\x0b"),
    ],
)
def test_pitfall_20_octal_escapes_are_decoded(escaped: str, decoded: str) -> None:
    assert [mount.mount_point for mount in parse_mounts(f"/dev/sda1 {escaped} ext4 rw 0 0\n")] == [decoded]


def test_pitfall_20_the_decoded_path_is_measured(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /mnt/My\\040Disk ext4 rw 0 0\n")

    assert points(host.metrics()) == ["/mnt/My Disk"]
    assert host.asked == ["/mnt/My Disk"]


def test_pitfall_21_a_name_that_is_not_utf8_is_escaped_and_measured(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /mnt/\udcff ext4 rw 0 0\n/dev/sdb1 /ok ext4 rw 0 0\n")

    found = host.metrics()

    assert points(found) == ["/mnt/\\xff", "/ok"]
    assert host.asked[0] in ("/mnt/\udcff", "/ok")
    msgspec.json.encode(found)


@pytest.mark.parametrize(
    ("mount_point", "expected"),
    [
        ("/sys", True),
        ("/sys/fs/cgroup", True),
        ("/dev/mqueue", True),
        ("/run/user/1000", True),
        ("/snap/core", True),
        ("/system", False),
        ("/snapshots", False),
        ("/devdata", False),
        ("/devel", False),
        ("/", False),
    ],
)
def test_pitfall_22_only_what_lies_below_a_kernel_tree_is_left_out(mount_point: str, expected: bool) -> None:
    assert is_in_kernel_tree(mount_point) is expected


def test_pitfall_23_a_hung_mount_is_unreachable_with_its_last_sizes_and_delays_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    host = Host(tmp_path, "/dev/sda1 / ext4 rw 0 0\nnas:/x /mnt/nas nfs4 rw 0 0\n", deadline_seconds=1.0)
    healthy = host.metrics()[1]
    released = threading.Event()

    def hangs() -> os.statvfs_result:
        released.wait(120)
        return sizes(free=20)

    host.answers["/mnt/nas"] = hangs
    first = host.metrics()
    later: list[list[Filesystem]] = []
    assert fastest(lambda: later.extend(host.metrics() for _ in range(5)), within=0.2) < 0.2

    stuck = msgspec.structs.replace(healthy, state="unreachable", available_bytes=0)
    assert [each[1] for each in (first, *later)] == [stuck] * (1 + len(later))
    assert {each[0].state for each in (first, *later)} == {"ok"}
    assert host.asked.count("/mnt/nas") == 2  # healthy once, hung once, never a second thread beside it
    assert [record.message for record in caplog.records] == ["/mnt/nas: does not respond; reported as unreachable"]

    del host.answers["/mnt/nas"]
    released.set()
    deadline = time.monotonic() + 60
    while host.metrics()[1].state != "ok" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert host.metrics()[1] == healthy
    assert caplog.records[-1].message == "/mnt/nas: responds again"


def test_pitfall_23_a_mount_that_never_answered_has_no_sizes(tmp_path: Path) -> None:
    host = Host(tmp_path, "nas:/x /mnt/nas nfs4 rw 0 0\n", deadline_seconds=0.2)
    released = threading.Event()

    def hangs() -> os.statvfs_result:
        released.wait(120)
        return sizes()

    host.answers["/mnt/nas"] = hangs
    found = host.metrics()
    released.set()

    assert found == [Filesystem("/mnt/nas", "nas:/x", "nfs4", 0, 0, 0, 0.0, "unreachable")]


def test_a_mount_whose_server_is_gone_is_unreachable(tmp_path: Path) -> None:
    host = Host(tmp_path, "me@host: /mnt/ssh fuse.sshfs rw 0 0\n")
    host.metrics()

    host.answers["/mnt/ssh"] = fails_with(errno.ENOTCONN)

    assert [(each.state, each.total_bytes, each.available_bytes) for each in host.metrics()] == [
        ("unreachable", 100 * GIB, 0)
    ]


def test_an_inaccessible_mount_is_skipped_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    host = Host(tmp_path, "/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /secret ext4 rw 0 0\n")
    host.answers["/secret"] = fails_with(errno.EACCES)

    found = [points(host.metrics()) for _ in range(3)]

    assert found == [["/"]] * 3
    assert [record.message for record in caplog.records] == ["/secret: Permission denied; skipped"]


def test_pitfall_24_autofs_is_never_touched_and_what_it_mounted_is(tmp_path: Path) -> None:
    auto = "systemd-1 /mnt/auto autofs rw 0 0\n"
    host = Host(tmp_path, auto)
    assert host.metrics() == []
    assert host.asked == []

    host.mount(auto + "nas:/x /mnt/auto nfs4 rw 0 0\n")

    assert points(host.metrics()) == ["/mnt/auto"]


def test_pitfall_25_bind_mounts_give_one_entry_with_the_shortest_mount_point(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /srv/b ext4 rw 0 0\n/dev/sda1 /a ext4 rw 0 0\n/dev/sda1 /b ext4 rw 0 0\n")

    assert points(host.metrics()) == ["/a"]


def test_pitfall_25_a_mount_over_itself_gives_the_visible_one(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /mnt ext4 rw 0 0\n/dev/sdb1 /mnt xfs rw 0 0\n")
    assert [(each.mount_point, each.device) for each in host.metrics()] == [("/mnt", "/dev/sdb1")]

    host.mount("/dev/sda1 /mnt ext4 rw 0 0\ntmpfs /mnt tmpfs rw 0 0\n")
    assert host.metrics() == []


def test_pitfall_30_single_files_are_not_filesystems_and_do_not_hide_their_device(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /srv/longer/volume ext4 rw 0 0\n")
    (host.tree / "etc").mkdir()
    (host.tree / "etc" / "hosts").touch()
    host.roots.mounts.write_text("/dev/sda1 /etc/hosts ext4 rw 0 0\n/dev/sda1 /srv/longer/volume ext4 rw 0 0\n")
    assert points(host.metrics()) == ["/srv/longer/volume"]

    host.roots.mounts.write_text("/dev/sda1 /etc/hosts ext4 rw 0 0\n")
    assert host.metrics() == []


def test_pitfall_32_percent_is_that_of_df() -> None:
    # 5 % reserved for root: df counts used / (used + available), not used / total.
    found = usage(sizes(total=1000, free=100, available=50, fragment=4096))

    assert found is not None
    assert (found.total_bytes, found.used_bytes, found.available_bytes) == (4096000, 3686400, 204800)
    assert found.percent == 94.74


def test_nearly_full_is_reported_as_it_is() -> None:
    found = usage(sizes(total=1000, free=1, available=0))

    assert found is not None
    assert (found.percent, found.available_bytes) == (100.0, 0)


def test_pitfall_33_a_filesystem_without_blocks_is_skipped(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 /empty ext4 rw 0 0\n")
    host.answers["/empty"] = lambda: sizes(0, 0, 0)

    assert host.metrics() == []


def test_more_than_twenty_are_all_reported(tmp_path: Path) -> None:
    host = Host(tmp_path, "".join(f"/dev/sd{n} /mnt/{n} ext4 rw 0 0\n" for n in range(40)))

    assert len(host.metrics()) == 40


def test_mounted_later_is_seen_at_the_next_call(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 / ext4 rw 0 0\n")
    assert points(host.metrics()) == ["/"]

    host.mount("/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /new ext4 rw 0 0\n")

    assert points(host.metrics()) == ["/", "/new"]


def test_an_empty_file_gives_nothing_and_a_missing_one_a_single_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(tmp_path, "")
    assert host.metrics() == []
    assert caplog.records == []

    host.roots.mounts.unlink()

    assert [host.metrics() for _ in range(3)] == [[]] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_statvfs_of_the_real_system_gives_what_df_counts(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mounts").write_text("/dev/x / ext4 rw 0 0\n")

    [found] = get_filesystem_metrics(Roots(proc=str(tmp_path), root=str(tmp_path)))

    real = os.statvfs(tmp_path)
    assert found.total_bytes == real.f_blocks * real.f_frsize
    assert 0 <= found.percent <= 100


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_no_text_makes_the_parser_raise(text: str) -> None:
    for identity, mounts in groups_to_measure(parse_mounts(text)).items():
        assert mounts
        assert identity[0] == mounts[0].device


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/dev/sda1", "none", "nas:/x", "tank"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8).map(lambda name: "/" + name),
        ),
        max_size=6,
    )
)
def test_whatever_the_kernel_prints_is_read_back(mounts: list[tuple[str, str]]) -> None:
    def mangled(text: str) -> str:  # fs/proc_namespace.c: mangle(), seq_escape(" \t\n\\#")
        return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)

    text = "".join(f"{device} {mangled(point)} ext4 rw 0 0\n" for device, point in mounts)

    assert [(mount.device, mount.mount_point) for mount in parse_mounts(text)] == mounts


def test_pitfall_26_btrfs_subvolumes_keep_an_entry_each_and_their_bind_mounts_none(tmp_path: Path) -> None:
    host = Host(
        tmp_path,
        "/dev/sda1 / btrfs rw,subvolid=256,subvol=/@ 0 0\n"
        "/dev/sda1 /home btrfs rw,subvolid=257,subvol=/@home 0 0\n"
        "/dev/sda1 /srv/home btrfs rw,subvolid=257,subvol=/@home 0 0\n",
    )

    assert points(host.metrics()) == ["/", "/home"]


def test_pitfall_27_zfs_datasets_keep_an_entry_each(tmp_path: Path) -> None:
    host = Host(tmp_path, "tank /tank zfs rw 0 0\ntank/a /tank/a zfs rw 0 0\ntank/a /jail/a zfs rw 0 0\n")

    assert [(each.device, each.mount_point) for each in host.metrics()] == [("tank", "/tank"), ("tank/a", "/jail/a")]


def test_pitfall_28_sources_that_name_nothing_keep_an_entry_each(tmp_path: Path) -> None:
    host = Host(
        tmp_path,
        "none /a fuse rw 0 0\nnone /b fuse rw 0 0\nrclone /c fuse.rclone rw 0 0\nrclone /d fuse.rclone rw 0 0\n",
    )

    assert points(host.metrics()) == ["/a", "/b", "/c", "/d"]


@pytest.mark.parametrize(
    "line",
    [
        "Obsidian-1.5.AppImage /tmp/.mount_ObsidiAbc123 fuse.Obsidian-1.5.AppImage ro,nosuid,user_id=1000",
        "launcher-lite.AppImage /tmp/.mount_launchQ1 fuse.launcher-lite.AppImage ro,nosuid,nodev,relatime,user_id=999",
        "squashfuse /opt/img fuse.squashfuse ro,relatime",
        "/dev/sr0 /media/ana/FILM udf ro,nosuid,nodev,relatime,uid=1000",
        "Krita /tmp/.mount_KritaXyz fuse.Krita ro,nosuid,nodev",
        "nvim /tmp/.mount_nvimAAA fuse ro,nosuid,nodev",
        "My\\040App.appimage /home/ana/.cache/.mount_MyAppQ fuse.My\\040App.appimage ro",
        "tool /var/tmp/.mount_toolQQ fuse.tool ro,nosuid",
        "squashfuse_ll /opt/img fuse.squashfuse_ll ro",
        "/dev/loop7 /opt/rom romfs ro",
        "/dev/loop8 /opt/cram cramfs ro",
        "image.dwarfs /opt/game fuse.dwarfs ro,nosuid",
        "erofsfuse /opt/er fuse.erofsfuse ro",
        "/home/ana/cd.iso /mnt/cd fuse.fuseiso ro",
        "archivemount /mnt/tar fuse.archivemount rw",
        "ratarmount /mnt/tars fuse.ratarmount ro",
    ],
)
def test_pitfall_29_an_image_that_is_always_full_is_left_out_and_not_even_measured(tmp_path: Path, line: str) -> None:
    host = Host(tmp_path, f"/dev/sda1 / ext4 rw 0 0\n{line} 0 0\n")

    assert points(host.metrics()) == ["/"]
    assert host.asked == ["/"]


@pytest.mark.parametrize(
    "line",
    [
        "/dev/sdb1 /mnt/x ext4 ro,relatime",
        "/dev/sdb1 /mnt/x fuseblk rw,user_id=0",
        "/dev/sdb1 /mnt/x fuseblk ro,user_id=0",
        "me@nas:/srv /mnt/x fuse.sshfs rw",
        "b2:bucket /mnt/x fuse.rclone ro",
        "mergerfs /mnt/x fuse.mergerfs rw",
        "app /mnt/x fuse.AppImageStore rw",
        "gocryptfs /mnt/x/.mount_secret fuse.gocryptfs rw",
        "/dev/sdb1 /mnt/.mount_x ext4 rw",
        "/dev/sdb1 /tmp/.mount_x xfs rw",
        "/dev/sdb1 /mnt/x.AppImage btrfs rw",
    ],
)
def test_pitfall_29_a_disk_and_a_share_are_kept(tmp_path: Path, line: str) -> None:
    host = Host(tmp_path, f"{line} 0 0\n")

    assert points(host.metrics()) == [line.split()[1]]


def test_pitfall_29_images_are_left_out_and_a_read_only_disk_is_kept(tmp_path: Path) -> None:
    host = Host(
        tmp_path,
        "/dev/loop1 /opt/core squashfs ro 0 0\n/dev/loop2 /opt/image erofs ro 0 0\n/dev/sr0 /media/cd iso9660 ro 0 0\n"
        "/dev/sda1 /usr ext4 ro 0 0\n",
    )

    assert points(host.metrics()) == ["/usr"]
    assert host.asked == ["/usr"]


HIDEPID = """
mount -t proc -o hidepid={hidepid} proc {place}/proc && mount --bind / {place}/host || exit 3
exec "$0" -c '
import logging, os, sys
from agent.filesystems import get_filesystem_metrics
from agent.roots import Roots
logging.basicConfig(stream=sys.stdout, format="%(message)s")
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for each in get_filesystem_metrics(Roots(proc="{place}/proc", root="{place}/host")):
    print(each.mount_point, each.state, each.total_bytes)
'
"""


@pytest.mark.parametrize("hidepid", [1, 2])
def test_pitfall_31_with_process_1_hidden_the_hosts_tree_is_found_among_ones_own_mounts(hidepid: int) -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs Linux, root and unshare: mounts a /proc with hidepid in a namespace of its own")
    place = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own are closed to other users
    place.chmod(0o755)
    for name in ("proc", "host"):
        (place / name).mkdir()
    script = HIDEPID.format(hidepid=hidepid, place=place)

    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip

    for name in ("proc", "host", ""):
        (place / name).rmdir()
    if ran.returncode == 3:
        pytest.skip(f"this kernel or container mounts no /proc: {ran.stderr.strip()}")
    sizes = os.statvfs("/")
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[1:] == [f"/ ok {sizes.f_blocks * sizes.f_frsize}"]
    assert f"{place}/proc/1/mounts: " in ran.stdout
    assert "only the mounts of this process are reported" in ran.stdout


def test_pitfall_35_only_the_mount_whose_name_is_too_long_is_left_out(tmp_path: Path) -> None:
    host = Host(tmp_path, "/dev/sda1 / ext4 rw 0 0\n")
    host.roots.mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\n{'x' * 5000}: / nfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n")
    assert points(host.metrics()) == ["/"]

    host.roots.mounts.write_text(f"nas:/{'x' * 5000} / nfs4 rw 0 0\n")
    assert host.metrics() == []


def test_more_octets_than_64_bits_hold_are_cut() -> None:
    found = usage(sizes(total=2**62, free=0, available=2**62, fragment=4096))

    assert found is not None
    assert (found.total_bytes, found.used_bytes, found.available_bytes) == (2**64 - 1,) * 3


@pytest.mark.parametrize(
    ("root", "expected"),
    [("/host", ["/", "/srv"]), ("/host/", ["/", "/srv"]), ("/", ["/", "/host", "/host/srv", "/hostile"]), ("/no", [])],
)
def test_mounts_below_a_root_are_called_as_from_there(root: str, expected: list[str]) -> None:
    mounts = [Mount("x", point, "ext4", "rw") for point in ("/", "/host", "/host/srv", "/hostile")]

    assert [mount.mount_point for mount in below(root, mounts)] == expected


def test_the_root_is_measured_where_it_is_no_mount_that_counts_and_never_holds_the_heartbeat(tmp_path: Path) -> None:
    host = Host(tmp_path, "overlay / overlay rw 0 0\n", deadline_seconds=0.5)
    assert get_root_usage(host.roots, host.metrics(), host.probe) == Usage(100 * GIB, 60 * GIB, 35 * GIB, 63.16)

    released = threading.Event()

    def hangs() -> os.statvfs_result:
        released.wait(120)
        return sizes()

    host.answers["/"] = hangs
    stuck: list[Usage | None] = []
    assert fastest(lambda: stuck.extend(get_root_usage(host.roots, [], host.probe) for _ in range(5)), within=1) < 1
    released.set()

    assert stuck == [Usage(100 * GIB, 60 * GIB, 0, 63.16)] * len(stuck)


def test_pitfall_23_a_real_mount_that_never_answers_delays_no_heartbeat(tmp_path: Path) -> None:
    with dead_mount(tmp_path / "root/mnt/dead"):
        settings = Settings(proc=str(tmp_path / "proc"), root=str(tmp_path / "root"), server_id="s")
        settings.roots.mounts.parent.mkdir(parents=True)
        settings.roots.mounts.write_text("/dev/x / ext4 rw 0 0\nnas:/x /mnt/dead nfs4 rw 0 0\n")
        collectors: list[Collector] = []

        def begin() -> None:
            collectors.append(Collector(settings))
            collectors[-1].measure()

        assert ANSWER_DEADLINE_SECONDS <= fastest(begin, within=1.5) < 1.5
        for _ in range(4):
            assert fastest(collectors[-1].measure, within=0.2) < 0.2
            asked = [thread for thread in threading.enumerate() if thread.name == "statvfs /mnt/dead"]
            assert len(asked) == len(collectors), "each asks once"
        beat = collectors[-1].measure()

        assert [(each.mount_point, each.state) for each in beat.filesystems] == [
            ("/", "ok"),
            ("/mnt/dead", "unreachable"),
        ]

    # The connection is gone, and with it what held the thread.
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("statvfs") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(thread.name.startswith("statvfs") for thread in threading.enumerate())


@contextlib.contextmanager
def dead_mount(point: Path) -> Iterator[None]:
    """A FUSE filesystem that nobody serves: whoever asks it anything waits in the kernel, deaf to signals' handlers."""
    if sys.platform != "linux" or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs Linux, root and /dev/fuse (modprobe fuse): mounts a filesystem that never answers")
    point.mkdir(parents=True)
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0"
    if libc.mount(b"dead", os.fsencode(point), b"fuse", 0, options.encode()) != 0:
        os.close(device)
        pytest.skip(f"mount: {os.strerror(ctypes.get_errno())}: run the tests with CAP_SYS_ADMIN")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(point), MNT_FORCE | MNT_DETACH)
        os.close(device)
