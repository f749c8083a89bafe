"""Which mirror the machine's apt uses, from both of its file formats."""

from pathlib import Path

import pytest

from service.embedded.sources import Mirror, deb822_entries, host_mirrors, one_line_entries

ARCHIVE_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def write(etc_apt: Path, name: str, text: str) -> None:
    (etc_apt / name).write_text(text, encoding="utf-8")


def test_the_mirror_of_a_fresh_debian_13_is_found(etc_apt: Path) -> None:
    write(
        etc_apt,
        "sources.list.d/debian.sources",
        f"""Types: deb
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: {ARCHIVE_KEY}

Types: deb
URIs: http://mirror.example/debian-security
Suites: trixie-security
Components: main
Signed-By: {ARCHIVE_KEY}
""",
    )

    assert host_mirrors(etc_apt, "trixie") == [Mirror("http://mirror.example/debian", ARCHIVE_KEY)]


def test_the_one_line_format_of_a_debian_12_is_read(etc_apt: Path) -> None:
    write(
        etc_apt,
        "sources.list",
        """# deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb http://mirror.example/debian bookworm main non-free-firmware  # the archive
deb-src http://mirror.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb http://mirror.example/debian bookworm-backports main
""",
    )

    assert host_mirrors(etc_apt, "bookworm") == [Mirror("http://mirror.example/debian", "")]


def test_third_parties_that_reuse_the_suites_name_are_skipped(etc_apt: Path) -> None:
    write(
        etc_apt,
        "sources.list.d/vpn.list",
        "deb [arch=amd64 signed-by=/usr/share/keyrings/vpn.gpg] https://vpn.example/debian bookworm main\n",
    )
    write(etc_apt, "sources.list.d/docker.list", "deb https://docker.example/debian bookworm stable\n")
    write(
        etc_apt,
        "sources.list.d/node.sources",
        "Types: deb\nURIs: https://node.example\nSuites: nodistro\nComponents: main\n",
    )

    assert host_mirrors(etc_apt, "bookworm") == []


def test_a_mirror_signed_by_the_archive_is_asked_first_and_once(etc_apt: Path) -> None:
    write(etc_apt, "sources.list", "deb http://a.example/debian bookworm main\ndeb http://a.example/debian sid main\n")
    write(etc_apt, "sources.list.d/b.list", f"deb [signed-by={ARCHIVE_KEY}] http://b.example/debian bookworm main\n")

    assert [mirror.uri for mirror in host_mirrors(etc_apt, "bookworm")] == [
        "http://b.example/debian",
        "http://a.example/debian",
    ]


def test_a_disabled_stanza_is_no_mirror(etc_apt: Path) -> None:
    write(
        etc_apt,
        "sources.list.d/off.sources",
        "Enabled: no\nTypes: deb\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n",
    )

    assert host_mirrors(etc_apt, "trixie") == []


def test_a_machine_without_sources_has_no_mirror(tmp_path: Path) -> None:
    assert host_mirrors(tmp_path, "trixie") == []


def test_the_suite_of_a_derivative_counts_as_its_archive(etc_apt: Path) -> None:
    write(etc_apt, "sources.list", "deb http://mirror.example/other noble main universe\n")

    assert host_mirrors(etc_apt, "noble") == [Mirror("http://mirror.example/other", "")]


def test_options_of_a_line_are_not_taken_for_its_uri() -> None:
    (entry,) = one_line_entries("deb [ arch=amd64,arm64 trusted=no ] http://mirror.example/debian trixie main contrib")

    assert entry.uris == ("http://mirror.example/debian",)
    assert entry.components == ("main", "contrib")


def test_an_inline_key_keeps_its_lines_on_the_way_through() -> None:
    text = """Types: deb deb-src
URIs: http://one.example/debian
 http://two.example/debian
# a comment within the stanza
Suites: trixie
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEZ
 -----END PGP PUBLIC KEY BLOCK-----
"""

    (entry,) = deb822_entries(text)
    (again,) = deb822_entries(Mirror(entry.uris[1], entry.signed_by).deb822("trixie", "arm64"))

    assert entry.uris == ("http://one.example/debian", "http://two.example/debian")
    assert again.uris == ("http://two.example/debian",)
    assert again.signed_by == entry.signed_by
    assert " .\n mDMEZ\n" in entry.signed_by
