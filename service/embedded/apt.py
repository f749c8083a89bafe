"""A private apt: the host's trust, proxies and mirror, but lists, cache and package state of its own.

Nothing of the host changes and no root is needed: apt works in any directory that its
configuration names. apt resolves the dependencies and checks signatures, sizes and hashes.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.embedded.problems import EmbeddedError, MirrorError, NoSpaceError, UnsupportedHostError
from service.embedded.progress import Progress, Say
from service.embedded.sources import Mirror

_PLANNED = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")

_REMEDY_OTHERWISE = "or start Docker, or set LINKBEAT_DATABASE_URL to a TimescaleDB that you run"


@dataclass(frozen=True)
class Package:
    """One .deb as the mirror's signed index describes it."""

    file: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """The package's name; a file is `name_version_architecture.deb`."""
        return self.file.split("_")[0]

    @property
    def version(self) -> str:
        """The Debian version without epoch; apt writes the epoch's colon as %3a."""
        return self.file.split("_")[1].rpartition("%3a")[2]


class PrivateApt:
    """apt in a directory of its own; `archives` keeps what was downloaded across runs.

    lock_fd  a file descriptor that holds the builder's lock. apt inherits it: when this process
             is killed and apt is not, the next builder waits until apt too is gone.
    """

    def __init__(self, place: Path, architecture: str, *, lock_fd: int) -> None:
        self.archives = place / "archives"
        self._place = place
        self._architecture = architecture
        self._lock_fd = lock_fd
        self._configuration = place / "apt.conf"
        self._sources = place / "debian.sources"
        self._temporary = place / "tmp"

    def prepare(self, mirror: Mirror, suite: str, *, installed: Iterable[str]) -> None:
        """Write the configuration: `mirror` with `suite`; `installed` counts as there already."""
        for directory in (self._place, self.archives, self.archives / "partial", self._place / "lists" / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
            # A strict umask would shut out _apt, the account that root's apt downloads as.
            directory.chmod(0o755)
        # For root's apt too, which checks signatures as _apt.
        self._temporary.mkdir(exist_ok=True)
        self._temporary.chmod(0o1777)
        (self._place / "status").write_text(installed_status(installed, self._architecture), encoding="utf-8")
        self._sources.write_text(mirror.deb822(suite, self._architecture), encoding="utf-8")
        self._configuration.write_text(
            private_configuration(self._host_configuration(), self._place, self._architecture), encoding="utf-8"
        )

    def update(self) -> None:
        """Fetch the mirror's package list (about 10 MB) and check its signature."""
        self._run("apt-get", "update")

    def plan(self, packages: Sequence[str]) -> list[Package]:
        """The packages and everything that they depend on, with sizes and hashes."""
        empty = self._place / "empty"
        (empty / "partial").mkdir(parents=True, exist_ok=True)
        # From an empty archive directory: apt leaves out of the plan what it has already.
        options = ("-o", f"Dir::Cache::archives={empty}/", "-o", "Acquire::ForceHash=SHA256")
        output = self._run("apt-get", *options, "install", "--print-uris", "--yes", *packages)
        planned = [_PLANNED.fullmatch(line) for line in output.splitlines()]
        found = [Package(match["file"], int(match["size"]), match["sha256"]) for match in planned if match]
        if missing := set(packages) - {package.name for package in found}:
            raise MirrorError(f"apt did not plan to download {', '.join(sorted(missing))}", _mirror_remedy())
        return found

    def download(self, packages: Sequence[str], planned: Sequence[Package], say: Say) -> None:
        """Fetch what is missing of `planned`; an interrupted download goes on where it stopped."""
        total_bytes = sum(package.size_bytes for package in planned)
        arguments = ["apt-get", "install", "--download-only", "--yes", *packages]
        log = self._place / "download.log"
        with (
            Progress(say, "Downloading PostgreSQL and TimescaleDB", total_bytes) as progress,
            log.open("w", encoding="utf-8") as output,
            subprocess.Popen(
                arguments,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(self._lock_fd,),
            ) as process,
        ):
            try:
                while process.poll() is None:
                    progress.show(self._arrived_bytes(planned))
                    time.sleep(0.2)
            except BaseException:
                process.terminate()
                raise
            if process.returncode == 0:
                progress.show(total_bytes)
        if process.returncode != 0:
            raise failure("apt-get install --download-only", log.read_text(encoding="utf-8", errors="replace"))

    def forget(self, *, keep: Sequence[Package]) -> None:
        """Give back the 60 MB of package lists, which the next update fetches anyway, and older packages."""
        for directory in ("lists", "empty", "tmp"):
            shutil.rmtree(self._place / directory, ignore_errors=True)
        kept = {package.file for package in keep}
        for path in self.archives.glob("*.deb"):
            if path.name not in kept:
                path.unlink()

    def _arrived_bytes(self, planned: Sequence[Package]) -> int:
        arrived = 0
        for package in planned:
            for path in (self.archives / package.file, self.archives / "partial" / package.file):
                try:
                    arrived += path.stat().st_size
                except OSError:  # not begun, or moved from partial/ at this moment
                    continue
                break
        return arrived

    def _host_configuration(self) -> str:
        done = subprocess.run(
            ["apt-config", "dump", "--no-empty"], capture_output=True, text=True, errors="replace", check=False
        )
        if done.returncode != 0:
            raise UnsupportedHostError(
                f"apt cannot read the host's configuration: {_last_words(done.stderr)}",
                "Make /etc/apt readable for this user, or start once as root, " + _REMEDY_OTHERWISE,
            )
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """The caller's own, for its http_proxy, and what makes apt private.

        TMPDIR: where /tmp is closed or full, apt calls every release "not signed". LC_ALL:
        messages are searched for words.
        """
        private = {"APT_CONFIG": str(self._configuration), "TMPDIR": str(self._temporary), "LC_ALL": "C"}
        return {**os.environ, **private}

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            arguments,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=(self._lock_fd,),
        )
        if done.returncode != 0:
            raise failure(" ".join(arguments[:2]), done.stderr)
        return done.stdout


def private_configuration(host_dump: str, place: Path, architecture: str) -> str:
    """apt.conf for the private place: of the host's settings only those for fetching and trusting.

    host_dump   `apt-config dump`. Taken over line by line rather than included: an image's
                apt.conf.d empties caches after an update, which fails without root, and fetches
                indexes that nothing here reads.
    """
    kept = re.compile(r"(Acquire::(?!IndexTargets|Languages|GzipIndexes)|Dir::Etc::(netrc|trusted)|Dir::Bin::)")
    hosts = [line for line in host_dump.splitlines() if kept.match(line)]
    # Before the host's lines, which win: whoever tuned apt for a slow link knows better.
    patience = ['Acquire::Retries "3";', 'Acquire::http::Timeout "30";', 'Acquire::https::Timeout "30";']
    settings = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::sourcelist": place / "debian.sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": place,
        "Dir::State::lists": "lists/",
        "Dir::State::status": place / "status",
        "Dir::Cache": place,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Cache::archives": "archives/",
        "Dir::Log": place,
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        # Without it, an unreachable mirror leaves `apt-get update` with exit code 0.
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
    }
    ours = [f'{name} "{value}";' for name, value in settings.items()]
    return "\n".join(patience + hosts + ours) + "\n"


def installed_status(names: Iterable[str], architecture: str) -> str:
    """A dpkg status file in which `names` are installed, in a version newer than any demanded.

    So apt resolves the dependencies without them: what only maintainer scripts call (perl,
    debconf, adduser …) and LLVM, which is two thirds of the download and serves jit alone.
    """
    stanza = (
        "Package: {name}\nStatus: install ok installed\nMaintainer: none\n"
        "Architecture: {architecture}\nMulti-Arch: foreign\nVersion: 999:0\nDescription: left out\n\n"
    )
    return "".join(stanza.format(name=name, architecture=architecture) for name in names)


def failure(command: str, output: str) -> EmbeddedError:
    """What apt's messages mean for the person in front of it."""
    words = _last_words(output)
    if re.search(r"No space left|don't have enough free space", output):
        return NoSpaceError(
            f"{command} ran out of disk space: {words}", "Free 500 MB where the cache is, or set XDG_CACHE_HOME"
        )
    if re.search(r"NO_PUBKEY|is not signed|signatures? (were|was|couldn't be) |EXPKEYSIG|BADSIG", output):
        return MirrorError(
            f"apt does not trust the mirror's release: {words}",
            "Update the package debian-archive-keyring, " + _REMEDY_OTHERWISE,
        )
    if re.search(r"404|does not have a Release file|Unable to locate package|has no installation candidate", output):
        return MirrorError(
            f"The mirror of this machine does not provide Debian 13 with TimescaleDB: {words}", _mirror_remedy()
        )
    if re.search(r"resolv|connect|timed out|Timeout|unreachable|Failed to fetch|Proxy", output, re.IGNORECASE):
        return MirrorError(
            f"The Debian mirror of this machine cannot be reached: {words}",
            "Check the network and apt's proxy settings (`apt-get update` must work), " + _REMEDY_OTHERWISE,
        )
    return MirrorError(f"{command} failed: {words}", "Start again. " + _mirror_remedy())


def _mirror_remedy() -> str:
    return "Name a full Debian mirror in /etc/apt/sources.list.d, " + _REMEDY_OTHERWISE


def _last_words(output: str) -> str:
    """apt's own errors, or the end of what it said, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "Err:"))]
    return " / ".join((errors or lines)[-3:]) or "it said nothing"
