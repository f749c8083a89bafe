"""The default directories of Linkbeat: XDG base directories, and for root those of the system."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """Files that can be downloaded again: packages and the prefixes unpacked from them.

    For root not root's own cache: PostgreSQL runs as another account, and /root is closed to it.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/linkbeat")
    return _xdg("XDG_CACHE_HOME", ".cache") / "linkbeat"


def default_data_dir() -> Path:
    """Persistent files, such as the data of the cluster. The default of LINKBEAT_DATA_DIR."""
    if os.geteuid() == 0:
        return Path("/var/lib/linkbeat")
    return _xdg("XDG_DATA_HOME", ".local/share") / "linkbeat"


def _xdg(variable: str, below_home: str) -> Path:
    """The XDG base directory; a relative value is ignored, as the specification demands."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / below_home
