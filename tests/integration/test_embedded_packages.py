"""The prefix, really built from the packages in the cache (fetched once, if they are not there)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.directories import default_cache_dir
from service.embedded import elf, packages
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory
from service.embedded.problems import MirrorError, UnsupportedHostError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(str(error))


@pytest.fixture
def cache(installation: Installation) -> Iterator[Path]:
    """A second cache that has the downloaded packages and no prefix."""
    kept = default_cache_dir() / "packages"
    if not (kept / "download.json").exists():
        pytest.skip(f"{kept} was emptied after the prefix had been built")
    with reachable_directory() as directory:
        directory.chmod(0o755)
        archives = directory / "cache" / "packages" / "archives"
        archives.mkdir(parents=True)
        for package in (kept / "archives").glob("*.deb"):
            (archives / package.name).symlink_to(package)
        (archives.parent / "download.json").write_bytes((kept / "download.json").read_bytes())
        yield directory / "cache"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way of apt to the mirror leads nowhere, at once."""
    (tmp_path / "apt.conf").write_text('Acquire::Retries "0";\n', encoding="ascii")
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_a_complete_prefix_needs_no_program_and_no_network(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    assert packages.prepare(default_cache_dir(), print) == installation


def test_its_programs_load_nothing_of_the_host(installation: Installation) -> None:
    prefix = installation.bin_dir.parents[4]
    asked = [str(elf.find_patchelf()), "--print-interpreter", str(installation.program("postgres"))]
    loader = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())

    for name in ("postgres", "initdb", "psql", "pg_dump"):
        listing = subprocess.run(
            [loader, "--list", installation.program(name)], capture_output=True, text=True, check=True
        ).stdout
        loaded = [line.split("=>")[1].split()[0] for line in listing.splitlines() if "=>" in line]

        assert loader.is_relative_to(prefix)
        assert len(loaded) > 5
        assert all(Path(library).resolve().is_relative_to(prefix) for library in loaded), listing


@pytest.mark.usefixtures("no_network")
def test_from_kept_packages_it_is_built_without_network(cache: Path) -> None:
    # What an interrupted build and a moved prefix leave.
    (cache / "building" / "usr").mkdir(parents=True)
    (cache / "postgresql-17.1-timescaledb-2.1.0-amd64-00000000").mkdir()

    built = packages.prepare(cache, print)

    built.check_it_runs()
    assert [path.name for path in cache.glob("postgresql-*")] == [built.bin_dir.parents[4].name]
    assert not (cache / "building").exists()


@pytest.mark.usefixtures("no_network")
def test_two_builders_at_once_build_it_once(cache: Path) -> None:
    program = f"""
from pathlib import Path
from service.embedded import packages
print(packages.prepare(Path({str(cache)!r}), print).bin_dir)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    builders = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]

    said = [builder.communicate(timeout=60)[0].splitlines() for builder in builders]

    assert [builder.returncode for builder in builders] == [0, 0]
    assert said[0][-1] == said[1][-1]
    assert sum(line.startswith("Unpacking") for lines in said for line in lines) == 1


def test_a_prefix_that_was_moved_is_not_taken_for_a_complete_one(installation: Installation, tmp_path: Path) -> None:
    prefix = installation.bin_dir.parents[4]
    moved = tmp_path / prefix.name
    moved.mkdir()
    (moved / "complete").write_bytes((prefix / "complete").read_bytes())

    assert packages.find(tmp_path) is None


@pytest.mark.usefixtures("no_network")
def test_a_damaged_package_is_not_unpacked(cache: Path) -> None:
    package = next((cache / "packages" / "archives").glob("postgresql-17_*.deb"))
    package.unlink()
    package.write_bytes(b"not what the index promised")

    with pytest.raises(MirrorError, match="cannot be reached"):
        packages.prepare(cache, print)

    assert packages.find(cache) is None
