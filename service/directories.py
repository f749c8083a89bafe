"""Where Linkbeat keeps its files unless a setting says otherwise: XDG base directories; for root, the system's."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """What can be fetched again: packages and the prefixes unpacked from them.

    For root not root's own cache: PostgreSQL runs as another account, and /root is closed to it.
    """
    if os.geteuid() == 0:
        return Path("/var/cache/linkbeat")
    return _xdg("XDG_CACHE_HOME", ".cache") / "linkbeat"


def default_data_dir() -> Path:
    """What must survive: the cluster's data. The default of LINKBEAT_DATA_DIR."""
    if os.geteuid() == 0:
        return Path("/var/lib/linkbeat")
    return _xdg("XDG_DATA_HOME", ".local/share") / "linkbeat"


def _xdg(variable: str, below_home: str) -> Path:
    """The XDG base directory; a relative value is ignored, as the specification demands."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / below_home
