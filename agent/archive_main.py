"""Start of the one-file agent: `python3 linkbeat-agent.pyz run`.

Python cannot load msgspec's compiled part from inside an archive. It is loaded from memory (memfd_create(2)): nothing
is unpacked, kept, trusted later or cleaned up, and a full or read-only disk, a /tmp without exec and a user without a
home do not matter. Where the kernel executes no memory (vm.memfd_noexec=2), a directory stands in, and goes at once.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from zipimport import zipimporter

if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this file may have any Python
    sys.exit("linkbeat-agent: Python 3.11 or newer is required, this is {}.{}".format(*sys.version_info))

CORE = "msgspec._core"


class _Finder:
    """Finds msgspec._core in a file of any name."""

    def __init__(self, path: str) -> None:
        self._path = path

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != CORE:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=ExtensionFileLoader(name, self._path))


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    descriptor = os.memfd_create("msgspec", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


@contextlib.contextmanager
def _in_directory(content: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="linkbeat-agent-") as directory:  # 0700
        path = Path(directory, "core.so")
        path.write_bytes(content)
        yield str(path)


def _load_core(archive: zipimporter) -> None:
    """Imports msgspec, its compiled part from this archive."""
    suffix = EXTENSION_SUFFIXES[0]
    try:
        content = archive.get_data(f"msgspec/_core{suffix}")
    except OSError:
        sys.exit(f"linkbeat-agent: this file does not support {suffix.strip('.')}; install the agent with pipx or pip")
    reasons = []
    for place in (_in_memory, _in_directory):
        try:
            with place(content) as path:
                finder = _Finder(path)
                sys.meta_path.insert(0, finder)
                try:
                    import msgspec  # noqa: F401, PLC0415
                finally:
                    sys.meta_path.remove(finder)
                return
        except (OSError, ImportError) as error:
            reasons.append(str(error))
    sys.exit(f"linkbeat-agent: msgspec cannot be loaded: {'; '.join(reasons)}")


_load_core(__loader__)  # type: ignore[name-defined]  # of an archive's module, this is

from agent.__main__ import main  # noqa: E402

sys.exit(main())
