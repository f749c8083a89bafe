"""Changes to the files of a machine, told as they are made, or only told."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path


class InstallError(Exception):
    """It cannot be installed; the message says why, and what to do."""


class Work:
    """Changes files below a root and says what it does; or, in a dry run, only says it."""

    def __init__(self, root: Path, *, dry_run: bool = False, say: Callable[[str], None] = print) -> None:
        self.root, self.dry_run, self.say = root, dry_run, say
        self.has_systemd = root == Path("/") and Path("/run/systemd/system").is_dir()

    def write(self, path: Path, content: bytes, mode: int) -> None:
        """A file with this content and mode, whole or not at all."""
        target = self.root / path
        if _holds(target, content, mode):
            self.say(f"unchanged  {target}")
            return
        self.say(f"write      {target}")
        if not self.dry_run:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            _write(target, content, mode)

    def write_tree(self, path: Path, files: Mapping[str, bytes]) -> None:
        """A directory with these files, and no others; the one before stays until the new one is whole."""
        target = self.root / path
        if target.is_dir() and _tree(target) == dict(files):
            self.say(f"unchanged  {target}")
            return
        self.say(f"write      {target} ({len(files)} files)")
        if self.dry_run:
            return
        new, old = target.with_name(f"{target.name}.new"), target.with_name(f"{target.name}.old")
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
        for name, content in files.items():
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, content, 0o644)
        for directory in (new, *(each for each in new.rglob("*") if each.is_dir())):
            directory.chmod(0o755)
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)

    def remove(self, path: Path) -> None:
        """A file or a directory with all that is in it, if it is there."""
        target = self.root / path
        if not target.exists() and not target.is_symlink():
            return
        self.say(f"remove     {target}")
        if not self.dry_run:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()

    def run(self, *command: str, must: bool = True) -> None:
        """A command on this machine. Raises InstallError where it `must` succeed and does not."""
        self.say(f"run        {' '.join(command)}")
        if self.dry_run:
            return
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if must and done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
            raise InstallError(f"{' '.join(command)}: {said}")


def _tree(directory: Path) -> dict[str, bytes]:
    """What `write_tree` wrote; without what Python makes of it."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def _holds(path: Path, content: bytes, mode: int) -> bool:
    try:
        return stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes, mode: int) -> None:
    """Closed to others from the first byte on: one of these files is the token."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
        file.flush()
        os.fsync(descriptor)
    new.replace(path)
