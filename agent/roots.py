"""Where the kernel's files are: /proc and /sys, or the host's when the agent runs in a container."""

import os
from pathlib import Path

import msgspec


class Roots(msgspec.Struct, frozen=True):
    """The roots that everything is read below.

    With a foreign `proc` (the host's, mounted at /host/proc), `<proc>/net` and `<proc>/mounts` would still be those of
    the reader: they are links to self. Process 1 is in the host's namespaces, so its directory is read instead.
    """

    proc: str = "/proc"
    sys: str = "/sys"
    root: str = "/"

    @property
    def is_foreign(self) -> bool:
        return self.proc.rstrip("/") != "/proc"

    @property
    def net(self) -> Path:
        return Path(self.proc, "1", "net") if self.is_foreign else Path(self.proc, "net")

    @property
    def mounts(self) -> Path:
        return Path(self.proc, "1", "mounts") if self.is_foreign else Path(self.proc, "mounts")

    @property
    def tree(self) -> Path:
        """The file tree whose mount points `mounts` lists.

        A foreign proc without LINKBEAT_ROOT: process 1's root. Where that may not be entered a mount is skipped, which
        is right; measuring the container's own directory of the same name would be a wrong number.
        """
        if self.is_foreign and self.root == "/":
            return Path(self.proc, "1", "root")
        return Path(self.root)


def read_text(path: Path, *, limit_bytes: int = -1) -> str:
    """A kernel file's text; bytes that are not UTF-8 become surrogates, so that a path made from it still opens.

    limit_bytes     read no more than these; -1: all.

    Raises OSError.
    """
    with path.open("rb", buffering=0) as file:
        return os.fsdecode(file.read(limit_bytes) or b"")


def wire_text(raw: str) -> str:
    """`raw` (from read_text) as it can travel: bytes that are not UTF-8 and control characters as `\\xff`.

    A lone surrogate cannot be encoded, and one odd name must not cost the heartbeat.
    """
    if raw.isascii() and raw.isprintable():
        return raw
    text = os.fsencode(raw).decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return (
        character.encode("ascii", "backslashreplace").decode() if ord(character) > 127 else f"\\x{ord(character):02x}"
    )
