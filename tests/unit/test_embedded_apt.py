"""The private apt's configuration, and what apt's messages mean."""

from pathlib import Path

import pytest

from service.embedded.apt import Package, failure, installed_status, private_configuration
from service.embedded.debian import numbers, os_release, upstream
from service.embedded.problems import EmbeddedError, MirrorError, NoSpaceError

HOST_DUMP = """APT::Architecture "amd64";
APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::https::CAInfo "/etc/ssl/own.pem";
Acquire::Languages "de";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "true";
Dir::Etc::netrcparts "auth.conf.d";
Dir::Etc::sourceparts "sources.list.d";
Dir::State "var/lib/apt";
"""


def test_the_hosts_proxy_certificates_and_passwords_are_kept() -> None:
    text = private_configuration(HOST_DUMP, Path("/private"), "amd64")

    assert 'Acquire::http::Proxy "http://proxy.example:3142";' in text
    assert 'Acquire::https::CAInfo "/etc/ssl/own.pem";' in text
    assert 'Dir::Etc::netrcparts "auth.conf.d";' in text


def test_the_hosts_hooks_lists_and_state_are_not() -> None:
    text = private_configuration(HOST_DUMP, Path("/private"), "amd64")

    assert "Post-Invoke" not in text
    assert "DEP-11" not in text
    assert '"sources.list.d"' not in text
    assert 'Dir::State "/private";' in text
    assert 'Dir::Etc::parts "/dev/null";' in text


def test_what_is_left_out_counts_as_installed() -> None:
    stanzas = installed_status(["perl", "libllvm19"], "arm64").strip().split("\n\n")

    assert [stanza.splitlines()[0] for stanza in stanzas] == ["Package: perl", "Package: libllvm19"]
    assert all("Status: install ok installed" in stanza and "Architecture: arm64" in stanza for stanza in stanzas)


def test_a_package_tells_its_name_and_version_without_epoch() -> None:
    package = Package("zlib1g_1%3a1.3.dfsg+really1.3.1-1+b1_amd64.deb", 88892, "0" * 64)

    assert (package.name, package.version) == ("zlib1g", "1.3.dfsg+really1.3.1-1+b1")


@pytest.mark.parametrize(
    ("output", "kind", "hint"),
    [
        ("E: Failed to fetch http://m/ Temporary failure resolving 'm'", MirrorError, "proxy"),
        ("E: Failed to fetch http://m/ Could not connect to m:80. - connect (111: refused)", MirrorError, "proxy"),
        (
            "E: The repository 'http://m trixie Release' does not have a Release file.",
            MirrorError,
            "full Debian mirror",
        ),
        ("E: Unable to locate package postgresql-17-timescaledb", MirrorError, "full Debian mirror"),
        ("E: The repository 'http://m trixie InRelease' is not signed.", MirrorError, "debian-archive-keyring"),
        ("E: Write error - write (28: No space left on device)", NoSpaceError, "XDG_CACHE_HOME"),
        ("E: something nobody thought of", MirrorError, "LINKBEAT_DATABASE_URL"),
    ],
)
def test_every_failure_of_apt_comes_with_its_remedy(output: str, kind: type[EmbeddedError], hint: str) -> None:
    error = failure("apt-get update", "Reading package lists...\n" + output)

    assert type(error) is kind
    assert hint in error.remedy
    assert output.removesuffix(".") in str(error)


@pytest.mark.parametrize(
    ("debian", "expected"),
    [("2.19.3+dfsg-1+deb13u1", "2.19.3"), ("17.11-0+deb13u1", "17.11"), ("1.0-rc1-2", "1.0-rc1")],
)
def test_the_upstream_version_is_cut_out_of_debians(debian: str, expected: str) -> None:
    assert upstream(debian) == expected


def test_versions_compare_as_numbers() -> None:
    assert numbers("2.9.1") < numbers("2.19.3") < numbers("2.19.10")
    assert numbers("") < numbers("2.19.3")


def test_os_release_is_read_with_and_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text('# comment\nID=raspbian\nID_LIKE="debian other"\n\nVERSION_CODENAME=trixie\n', encoding="utf-8")

    assert os_release(path) == {"ID": "raspbian", "ID_LIKE": "debian other", "VERSION_CODENAME": "trixie"}
    assert os_release(tmp_path / "missing") == {}
