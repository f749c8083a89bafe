"""The prefix: PostgreSQL 17 with TimescaleDB and every library they need, in a private directory.

Built from Debian 13's own packages without root and without installing anything. The prefix
brings its own C library, so that it runs on older Debian too; `elf.py` ties it together.

<cache>/lock                              held by the one builder
<cache>/packages/                         apt's place; archives/ and download.json outlive a build
<cache>/building/                         a prefix being unpacked; left by a crash, removed by the next builder
<cache>/postgresql-17.11-timescaledb-2.19.3-amd64-0123abcd/complete     written last
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from service.embedded import debian, elf
from service.embedded.apt import Package, PrivateApt
from service.embedded.installation import Installation
from service.embedded.places import make_enterable, open_lock
from service.embedded.postmaster import command_of
from service.embedded.problems import EmbeddedError, MirrorError, NoSpaceError, PrefixError
from service.embedded.progress import Say, megabytes
from service.embedded.sources import host_mirrors

SUITE = "trixie"
MAJOR = 17
PACKAGES = (f"postgresql-{MAJOR}", f"postgresql-client-{MAJOR}", f"postgresql-{MAJOR}-timescaledb")

LEFT_OUT = (
    *("adduser", "debconf", "locales", "perl", "perl-base", "postgresql-client-common", "postgresql-common"),
    *("sensible-utils", "ssl-cert", "sysvinit-utils", "tzdata", "ucf"),
    *("libllvm19", "openssl-provider-legacy", "readline-common"),
)
"""Dependencies that no program of the prefix loads (their maintainer scripts do, or jit)."""

PRUNED = (
    *("etc", "var", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/postgresql-common"),
    *(f"usr/lib/postgresql/{MAJOR}/lib/bitcode", f"usr/lib/postgresql/{MAJOR}/lib/llvmjit.so"),
)
"""What the prefix does without; llvmjit.so would look for the LLVM that is left out."""

RECIPE = hashlib.sha256(repr((1, SUITE, PACKAGES, LEFT_OUT, PRUNED)).encode()).hexdigest()[:8]
"""Changes when this file builds something else: older prefixes are then rebuilt. Raise the 1 for changes in elf.py."""

NEEDED_BYTES = 400_000_000


class Download(msgspec.Struct, frozen=True):
    """download.json: the packages that lie complete and checked in archives/."""

    suite: str
    architecture: str
    packages: list[Package]


class Complete(msgspec.Struct, frozen=True):
    """The marker of a prefix that works, written last.

    path    where it was built: the loader's absolute path stands in every program, so a
            prefix that was moved does not run and is built again.
    """

    recipe: str
    architecture: str
    path: str
    postgres_version: str
    timescaledb_version: str
    packages: list[Package]


def prepare(cache_dir: Path, say: Say, *, refresh: bool = False) -> Installation:
    """The prefix, built if there is none that this code's recipe made; network only if so.

    refresh     ask the mirror for newer packages even if a prefix is there.

    Raises UnsupportedHostError, MirrorError, NoSpaceError, PrefixError.
    """
    cache_dir = cache_dir.resolve()
    if not refresh and (found := find(cache_dir)):
        return found
    architecture = debian.architecture()
    try:
        make_enterable(cache_dir)
        with _locked(cache_dir / "lock", say) as lock_fd:
            # Whoever held the lock may have built it meanwhile.
            if not refresh and (found := find(cache_dir)):
                return found
            return _build(cache_dir, architecture, lock_fd, say, refresh=refresh)
    except OSError as error:
        raise NoSpaceError(
            f"The cache {cache_dir} cannot be written: {error.strerror or error}",
            "Free 500 MB there, or set XDG_CACHE_HOME to a directory on a larger disk",
        ) from error


def find(cache_dir: Path) -> Installation | None:
    """The newest complete prefix of this recipe, or None."""
    # Resolved, because the path that a prefix was built for stands in its programs.
    found = [
        (complete, prefix)
        for prefix in cache_dir.resolve().glob("postgresql-*")
        if (complete := _read_complete(prefix))
    ]
    if not found:
        return None
    complete, prefix = max(
        found, key=lambda pair: (debian.numbers(pair[0].postgres_version), debian.numbers(pair[0].timescaledb_version))
    )
    return Installation(
        prefix / f"usr/lib/postgresql/{MAJOR}/bin", complete.postgres_version, complete.timescaledb_version
    )


def _build(cache_dir: Path, architecture: str, lock_fd: int, say: Say, *, refresh: bool) -> Installation:
    elf.find_patchelf()  # before 41 MB are downloaded that nothing could tie together
    if (free := shutil.disk_usage(cache_dir).free) < NEEDED_BYTES:
        raise NoSpaceError(
            f"{cache_dir} has {megabytes(free)} free, the embedded database needs {megabytes(NEEDED_BYTES)}",
            "Free some space, or set XDG_CACHE_HOME to a directory on a larger disk",
        )
    apt = PrivateApt(cache_dir / "packages", architecture, lock_fd=lock_fd)
    download = None if refresh else _kept_download(cache_dir, architecture, apt.archives)
    if download is None:
        download = _download(cache_dir, architecture, apt, say)
    return _unpack(cache_dir, download, apt.archives, say)


def _download(cache_dir: Path, architecture: str, apt: PrivateApt, say: Say) -> Download:
    """Ask the host's mirrors in turn; the first one's failure is told if none works."""
    release = debian.require_debian()
    mirrors = host_mirrors(Path("/etc/apt"), release.get("VERSION_CODENAME", SUITE))
    if not mirrors:
        raise MirrorError("/etc/apt names no mirror of Debian's main archive", "Add one there. Or: " + debian.OTHERWISE)
    failures: list[EmbeddedError] = []
    for mirror in mirrors:
        say(f"Reading the package list of Debian {SUITE} (about 10 MB) from {mirror.uri}")
        try:
            apt.prepare(mirror, SUITE, installed=LEFT_OUT)
            apt.update()
            planned = apt.plan(PACKAGES)
            # apt takes a file of the right size for the right file.
            for damaged in _damaged(planned, apt.archives):
                (apt.archives / damaged).unlink(missing_ok=True)
            apt.download(PACKAGES, planned, say)
        except MirrorError as error:
            failures.append(error)
            continue
        download = Download(SUITE, architecture, planned)
        if broken := _damaged(planned, apt.archives):
            raise MirrorError(
                f"{', '.join(broken)}: do not match the index of the mirror", "Start again. Or: " + debian.OTHERWISE
            )
        _write_json(cache_dir / "packages" / "download.json", download)
        apt.forget(keep=planned)
        return download
    raise failures[0]


def _kept_download(cache_dir: Path, architecture: str, archives: Path) -> Download | None:
    """The download of an earlier build if every file of it is still what it was, so no network is needed."""
    try:
        download = msgspec.json.decode((cache_dir / "packages" / "download.json").read_bytes(), type=Download)
    except (OSError, msgspec.DecodeError):
        return None
    names = {package.name for package in download.packages}
    fits = (download.suite, download.architecture) == (SUITE, architecture)
    usable = fits and names.issuperset(PACKAGES) and names.isdisjoint(LEFT_OUT)
    return download if usable and not _damaged(download.packages, archives) else None


def _damaged(packages: Sequence[Package], archives: Path) -> list[str]:
    """The files that are missing or differ from their recorded hash."""
    damaged = []
    for package in packages:
        try:
            with (archives / package.file).open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
        except OSError:
            intact = False
        if not intact:
            damaged.append(package.file)
    return damaged


def _unpack(cache_dir: Path, download: Download, archives: Path, say: Say) -> Installation:
    versions = {package.name: package.version for package in download.packages}
    postgres = debian.upstream(versions[PACKAGES[0]])
    timescaledb = debian.upstream(versions[PACKAGES[2]])
    content = hashlib.sha256("".join([RECIPE, *(package.sha256 for package in download.packages)]).encode())
    name = f"postgresql-{postgres}-timescaledb-{timescaledb}-{download.architecture}-{content.hexdigest()[:8]}"
    prefix, building = cache_dir / name, cache_dir / "building"
    installation = Installation(prefix / f"usr/lib/postgresql/{MAJOR}/bin", postgres, timescaledb)
    if _read_complete(prefix):
        # A refresh that brought nothing new: a server may be running from it.
        return installation
    # Left by a build that was interrupted, or a prefix that was moved here from elsewhere.
    for stale in (building, prefix):
        shutil.rmtree(stale, ignore_errors=True)
    say(f"Unpacking PostgreSQL {postgres} and TimescaleDB {timescaledb} into {prefix}")
    building.mkdir()
    for package in download.packages:
        _extract(archives / package.file, building)
    for path in PRUNED:
        unwanted = building / path
        shutil.rmtree(unwanted) if unwanted.is_dir() else unwanted.unlink(missing_ok=True)
    building.chmod(0o755)
    elf.relocate(building, prefix, programs=building / f"usr/lib/postgresql/{MAJOR}/bin")
    building.rename(prefix)
    installation.check_it_runs()
    # A power cut must not leave a marker on the disk beside files that never got there.
    os.sync()
    complete = Complete(RECIPE, download.architecture, str(prefix), postgres, timescaledb, download.packages)
    _write_json(prefix / "complete", complete)
    _drop_unused(cache_dir, keep=prefix, say=say)
    return installation


def _extract(package: Path, into: Path) -> None:
    done = subprocess.run(
        ["dpkg-deb", "--extract", str(package), str(into)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if "No space left" in done.stderr:
        raise NoSpaceError(f"{package.name} does not fit into {into}", "Free 500 MB there, or set XDG_CACHE_HOME")
    if done.returncode != 0:
        raise PrefixError(f"{package.name} cannot be unpacked: {done.stderr.strip()}", "Delete it and start again")


def _drop_unused(cache_dir: Path, *, keep: Path, say: Say) -> None:
    """Remove older prefixes from which no program runs; one that is in use goes at a later build."""
    # By command line, because root in a container may not ask for another account's executable.
    running = {Path(command_of(int(process.name))) for process in Path("/proc").glob("[0-9]*")}
    for prefix in cache_dir.glob("postgresql-*"):
        if prefix != keep and not any(program.is_relative_to(prefix) for program in running):
            say(f"Removing the older {prefix.name}")
            shutil.rmtree(prefix, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[int]:
    """Hold the builder's lock; the kernel frees it whichever way its holders end."""
    with os.fdopen(open_lock(path), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another process that prepares the embedded database")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _read_complete(prefix: Path) -> Complete | None:
    """The marker, if this recipe made the prefix and it still lies where it was made."""
    try:
        complete = msgspec.json.decode((prefix / "complete").read_bytes(), type=Complete)
    except (OSError, msgspec.DecodeError):
        return None
    return complete if (complete.recipe, complete.path) == (RECIPE, str(prefix)) else None


def _write_json(path: Path, value: msgspec.Struct) -> None:
    """Whole or not at all: a reader never sees half a file."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(msgspec.to_builtins(value), indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)
