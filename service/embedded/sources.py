"""Which Debian mirror this machine uses: read from its own apt configuration.

Formats: sources.list(5), one-line (`deb [options] uri suite component…`) and deb822 (`.sources`).
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ARCHIVE_SUITES = frozenset(
    {"oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"}
    | {"bullseye", "bookworm", "trixie", "forky", "duke"}
)
"""Suites of the main archive. Not `-security` and `-backports`, which other URIs may serve."""


@dataclass(frozen=True)
class Mirror:
    """A place that serves Debian's main archive.

    uri        as apt takes it; may be mirror+file:, cdrom: and others are left out.
    signed_by  keyring file or an inline key block with its line breaks; "" for the trusted default.
    """

    uri: str
    signed_by: str

    def deb822(self, suite: str, architecture: str) -> str:
        """One stanza that names this mirror with `suite`, component main."""
        stanza = f"Types: deb\nURIs: {self.uri}\nSuites: {suite}\nComponents: main\nArchitectures: {architecture}\n"
        return stanza + (f"Signed-By: {self.signed_by}\n" if self.signed_by else "")


@dataclass(frozen=True)
class _Entry:
    """One enabled `deb` entry of the host, in either format."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str


def host_mirrors(etc_apt: Path, codename: str) -> list[Mirror]:
    """The mirrors of Debian's own archive that the host's apt uses, likeliest first, each once.

    codename    VERSION_CODENAME of the host, a suite of its archive on a derivative.
    """
    suites = ARCHIVE_SUITES | {codename}
    found = [
        Mirror(uri, entry.signed_by)
        for entry in _entries(etc_apt)
        if suites.intersection(entry.suites) and "main" in entry.components and _is_archive_key(entry.signed_by)
        for uri in entry.uris
        if not uri.startswith(("cdrom:", "file:", "copy:"))
    ]
    # Without the archive's keyring an entry may be a third party that reuses the suite's name: asked last.
    return list(dict.fromkeys(sorted(found, key=lambda mirror: "debian-archive" not in mirror.signed_by)))


def _is_archive_key(signed_by: str) -> bool:
    """Whether the entry is Debian's own: a third party with suite `bookworm main` has its own key."""
    return not signed_by or "debian-archive" in signed_by or signed_by.startswith("\n")


def _entries(etc_apt: Path) -> Iterator[_Entry]:
    parts = etc_apt / "sources.list.d"
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list"))]:
        yield from one_line_entries(_text(path))
    for path in sorted(parts.glob("*.sources")):
        yield from deb822_entries(_text(path))


def _text(path: Path) -> str:
    """The file's text; "" if it is missing or closed to us: apt too goes on with the others."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)")


def one_line_entries(text: str) -> Iterator[_Entry]:
    """Entries of a sources.list: `deb [signed-by=…] uri suite component…`, `#` comments."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(option.split("=", 1) for option in shlex.split(match["options"] or "") if "=" in option)
        yield _Entry(
            (match["uri"],), (match["suite"],), tuple(match["components"].split()), options.get("signed-by", "")
        )


def deb822_entries(text: str) -> Iterator[_Entry]:
    """Entries of a .sources file: stanzas of fields; continuation lines belong to the field above."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[name] = f"{fields.get(name, '')}\n{line}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() != "no":
            yield _Entry(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
            )
