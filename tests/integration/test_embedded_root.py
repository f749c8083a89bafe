"""What the database's account, or any other, could gain from a root that starts the embedded database: nothing.

Each attack is carried out; needs root, as which continuous integration runs in a container.
"""

import contextlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.directories import default_cache_dir
from service.embedded import accounts, packages
from service.embedded.accounts import Account, account_of, own_account, require_roots_own, server_account
from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
from service.embedded.ownership import change_owner
from service.embedded.places import open_lock, reachable_directory
from service.embedded.problems import (
    ClusterError,
    EmbeddedError,
    MirrorError,
    UnreachableDirectoryError,
    UnsupportedHostError,
)
from service.serving.single import single_run
from service.settings import Settings
from tests.helpers.clusters import Copy, original_cluster
from tests.helpers.processes import free_port
from tests.helpers.rooted import act_as, acting_as, require_root

SECRET = "root's own text\n"
NOBODY = 65534


@pytest.fixture(scope="module", autouse=True)
def _as_root() -> None:
    require_root("showing that root cannot be tricked")


@pytest.fixture(scope="module")
def installation() -> Installation:
    try:
        return packages.prepare(default_cache_dir(), print)
    except (UnsupportedHostError, MirrorError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def original(installation: Installation) -> Iterator[Copy]:
    with original_cluster(installation) as copy:
        yield copy


@pytest.fixture
def directory() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory


@pytest.fixture
def victim() -> Iterator[Path]:
    """A file that only root may read or write, in a directory that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="linkbeat-root-") as name:
        Path(name).chmod(0o755)
        file = Path(name, "secret")
        file.touch(0o600)
        file.write_text(SECRET, encoding="ascii")
        yield file


def is_untouched(victim: Path) -> bool:
    found = victim.lstat()
    return (
        victim.read_text(encoding="ascii") == SECRET
        and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o600)
        and stat.S_ISREG(found.st_mode)
    )


def account_in(directory: Path) -> Account:
    account = server_account(directory / "postgres")
    assert account is not None
    return account


def test_the_database_has_an_account_of_its_own(installation: Installation, directory: Path) -> None:
    with Cluster(installation, directory / "postgres", print, durable=False):
        pass

    assert account_in(directory).name == "linkbeat-db"
    assert account_in(directory).uid not in (0, NOBODY)


def test_a_log_that_is_a_link_gives_no_line_to_a_file_of_roots(original: Copy, directory: Path, victim: Path) -> None:
    cluster = original(directory / "postgres")
    plant = """
        cd "$1" && rm -f log/startup.log && ln -s "$2" log/startup.log &&
        echo "logging_collector = off" >>local.conf &&
        printf "%s\\n" "log_line_prefix = '\\\\n* * * * * root touch /tmp/linkbeat-was-root #'" >>local.conf
    """
    assert act_as(account_in(directory), plant, cluster.data_dir, victim) == 0

    with cluster:
        assert cluster.pid is not None

    assert is_untouched(victim)
    assert "root touch" in (cluster.data_dir / "log" / "startup.log").read_text(encoding="utf-8")


# Whatever appears under these names becomes, within microseconds, a link to the victim.
RACE = """
    chdir $ARGV[0] or die;
    my @names = map { ("$_.tmp", $_) } qw(linkbeat.conf linkbeat.pgpass linkbeat.timescaledb);
    while (1) {
        for my $name (@names) {
            next if -l $name or not -f $name or ($name !~ /tmp$/ and rand() > 0.001);
            symlink $ARGV[1], "planted";
            rename "planted", $name;
        }
    }
"""


def careless_write(account: Account, path: Path, text: str) -> None:
    """As an earlier version wrote the database's settings: it gives away whatever has the name by then."""
    fresh = path.with_name(path.name + ".tmp")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.chown(fresh, account.uid, account.gid)
    fresh.replace(path)


def test_a_file_that_is_swapped_while_root_writes_gives_nothing_of_roots_away(
    installation: Installation, original: Copy, directory: Path, victim: Path
) -> None:
    if shutil.which("perl") is None:
        pytest.skip("the attacker is written in Perl; install perl-base")
    cluster = original(directory / "postgres")
    account = account_in(directory)
    outcomes = []
    with acting_as(account, 'exec perl -e "$1" "$2" "$3"', RACE, cluster.data_dir, victim):
        attempts = 0
        while is_untouched(victim):  # the attack is a real one: it succeeds against who is careless
            attempts += 1
            assert attempts < 10_000
            with contextlib.suppress(OSError):
                careless_write(account, cluster.data_dir / "linkbeat.conf", f"# {attempts}\n")
        os.chown(victim, 0, 0)
        assert is_untouched(victim)

        for _ in range(8):
            # Another port each time, so that there is something to write.
            racing = Cluster(installation, cluster.data_dir, print, durable=False, tcp_port=free_port())
            try:
                with racing:
                    outcomes.append("ready")
            except EmbeddedError:
                outcomes.append("failed")  # it may break its own database

    assert is_untouched(victim)
    ready, failed = outcomes.count("ready"), outcomes.count("failed")
    print(f"careless: lost at attempt {attempts}. Now: {ready} starts ready, {failed} failed")


@pytest.mark.parametrize("file", ["log/postgresql-Mon.log", "log/startup.log", "PG_VERSION", "linkbeat.timescaledb"])
def test_no_file_of_roots_is_shown_by_an_error(original: Copy, directory: Path, victim: Path, file: str) -> None:
    cluster = original(directory / "postgres")
    plant = 'cd "$1" && rm -f log/* && ln -sf "$2" "$3" && echo "shared_buffers = plenty" >>local.conf'
    assert act_as(account_in(directory), plant, cluster.data_dir, victim, file) == 0

    with pytest.raises(ClusterError) as raised:
        cluster.start()

    assert SECRET.strip() not in str(raised.value)
    assert is_untouched(victim)


def test_a_pid_in_its_files_does_not_make_root_kill_a_process_of_roots(original: Copy, directory: Path) -> None:
    cluster = original(directory / "postgres")
    with acting_as(Account("root", 0, 0), 'cd "$1" && exec sleep 600', cluster.data_dir) as roots:
        plant = 'cd "$1" && printf "%s\\n" "$2" "$1" 1 5432 "$1" "" 1 ready >postmaster.pid'
        assert act_as(account_in(directory), plant, cluster.data_dir, str(roots.pid)) == 0

        with cluster:
            assert cluster.pid not in (None, roots.pid)

        assert roots.poll() is None


def test_the_locks_are_closed_to_everybody_else(installation: Installation, directory: Path) -> None:
    (directory / "postgres.lock").touch(0o644)
    (directory / "postgres.lock").chmod(0o644)  # as an earlier version made it
    with Cluster(installation, directory / "postgres", print, durable=False):
        pass
    nobody = account_of(NOBODY)

    for lock in (directory / "postgres.lock", default_cache_dir() / "lock"):
        with os.fdopen(open_lock(lock)):
            pass
        assert act_as(nobody, 'exec 3<"$1"', lock) != 0
        assert act_as(nobody, 'exec 3>>"$1"', lock) != 0


@pytest.mark.parametrize("is_direct", [True, False])
def test_root_keeps_no_data_where_another_account_can_put_its_own(directory: Path, is_direct: bool) -> None:
    theirs = directory / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    data_dir = theirs if is_direct else theirs / "data"

    with pytest.raises(UnreachableDirectoryError, match=f"{theirs} belongs to nobody"):
        require_roots_own(data_dir)
    with (
        pytest.raises(UnreachableDirectoryError, match="belongs to nobody"),
        single_run(Settings(data_dir=str(data_dir), port=free_port()), print),
    ):
        pytest.fail("it may not run there")

    assert list(theirs.iterdir()) == []


def test_root_keeps_no_data_where_everybody_may_write(directory: Path) -> None:
    (directory / "open").mkdir()
    (directory / "open").chmod(0o777)

    with pytest.raises(UnreachableDirectoryError, match="Others than root may write into"):
        require_roots_own(directory / "open" / "data")
    (directory / "open").chmod(0o1777)
    require_roots_own(directory / "open" / "data")  # as below /tmp
    with pytest.raises(UnreachableDirectoryError, match="Others than root may write into"):
        require_roots_own(directory / "open")


@pytest.mark.parametrize("name", accounts.SHARED)
def test_a_cluster_of_an_account_that_others_share_gets_one_of_its_own(
    installation: Installation, original: Copy, directory: Path, name: str
) -> None:
    try:
        shared = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"there is no account {name} here; install postgresql-common to have one")
    cluster = original(directory / "postgres")
    change_owner(cluster.data_dir, account_in(directory), account_of(shared.pw_uid))  # as an earlier version left it
    said: list[str] = []

    with Cluster(installation, cluster.data_dir, said.append, durable=False) as again:
        owners = {path.lstat().st_uid for path in [again.data_dir, *again.data_dir.rglob("*")]}

    assert owners == {own_account().uid}
    assert f"belongs to the account {name}: giving it to linkbeat-db" in "\n".join(said)


def test_a_change_of_the_account_that_was_interrupted_is_completed(
    installation: Installation, original: Copy, directory: Path
) -> None:
    cluster = original(directory / "postgres")
    ours, nobody = account_in(directory), account_of(NOBODY)
    change_owner(cluster.data_dir, ours, nobody)
    for done in ("base", "global", "linkbeat.pgpass"):
        os.chown(cluster.data_dir / done, ours.uid, ours.gid)

    with Cluster(installation, cluster.data_dir, print, durable=False) as again:
        assert {path.lstat().st_uid for path in [again.data_dir, *again.data_dir.rglob("*")]} == {ours.uid}


def test_a_cluster_with_a_link_in_it_is_given_to_nobody(original: Copy, directory: Path, victim: Path) -> None:
    cluster = original(directory / "postgres")
    before, nobody = account_in(directory), account_of(NOBODY)
    assert act_as(before, 'ln -s "$2" "$1/pg_tblspc/planted"', cluster.data_dir, victim) == 0

    with pytest.raises(UnreachableDirectoryError, match="pg_tblspc/planted is a link"):
        change_owner(cluster.data_dir, before, nobody)

    assert {path.lstat().st_uid for path in cluster.data_dir.rglob("*")} == {before.uid}
    assert is_untouched(victim)
