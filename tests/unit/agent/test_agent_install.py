"""install and uninstall below a root of their own, and what systemd says of the unit."""

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import install
from agent.__main__ import main
from agent.settings import Settings, load
from agent.work import InstallError, Work

REPOSITORY = Path(__file__).parents[3]
PYTHON = str(Path(sys.executable).resolve())
Run = Callable[..., list[str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A command below tmp_path/root, without LINKBEAT_ variables but those of the call; the lines that it says."""
    for name in list(os.environ):
        if name.startswith("LINKBEAT_"):
            monkeypatch.delenv(name)
    before = os.umask(0o077)  # root's own, on a careful machine

    def call(command: str, *arguments: str, status: int = 0, **settings: str) -> list[str]:
        with monkeypatch.context() as environment:
            for name, value in settings.items():
                environment.setenv(f"LINKBEAT_{name}", value)
            python = ["--python", PYTHON] if command == "install" else []
            assert main([command, "--root", str(tmp_path / "root"), *python, *arguments]) == status
        said = capsys.readouterr()
        return (said.err if status else said.out).splitlines()

    try:
        yield call
    finally:
        os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def test_what_is_installed_runs_alone(run: Run, root: Path) -> None:
    run("install", "--url", "https://beat.example.net", API_KEY="the-token", SERVER_ID="nas")

    library = root / install.LIBRARY
    done = subprocess.run(
        [PYTHON, "-I", "-S", str(library), "--config", str(root / install.CONFIG), "print"],
        capture_output=True, text=True, env={}, cwd="/", timeout=20, check=True,
    )  # fmt: skip

    assert '"server_id": "nas"' in done.stdout
    assert mode(root / install.COMMAND) == 0o755
    assert (root / install.COMMAND).read_text() == f'#!/bin/sh\nexec {PYTHON} -I -S /{install.LIBRARY} "$@"\n'
    assert f"ExecStart={PYTHON} -I -S /{install.LIBRARY} run\n" in (root / install.UNIT).read_text()
    assert list(library.rglob("*.pyc")), "no start has to compile it"
    for path in (library, *library.rglob("*"), (root / install.CONFIG).parent, root / install.CONFIG):
        assert mode(path) & 0o044 == 0o044, f"{path} cannot be read by the agent's user"


def test_the_token_is_in_a_file_of_its_own_that_root_alone_can_read(run: Run, root: Path, tmp_path: Path) -> None:
    token = tmp_path / "given"
    token.write_text(" the-token \n")

    said = run("install", "--url", "http://h", "--token-file", str(token))

    assert (root / install.TOKEN).read_text() == "the-token\n"
    assert mode(root / install.TOKEN) == 0o600
    assert "the-token" not in "\n".join(said)
    assert [name for name, content in tree(root).items() if b"the-token" in content] == [str(install.TOKEN)]
    found = load({}, str(root / install.CONFIG))
    assert (found.url, found.api_key_file) == ("http://h", str(root / install.TOKEN))


def test_without_a_token_it_says_where_to_put_it(run: Run, root: Path) -> None:
    said = run("install")

    assert (root / install.TOKEN).read_bytes() == b""
    assert any("There is no token yet" in line for line in said)


def test_the_configuration_holds_every_setting_and_those_of_the_call(run: Run, root: Path) -> None:
    run("install", INTERVAL_SECONDS="45", EXCLUDE_INTERFACES='veth*,we"ird', HOSTNAME="ü\\n", REMOTE_CONFIG="false")

    text = (root / install.CONFIG).read_text()
    assert tomllib.loads(text) == {
        "interval_seconds": 45, "exclude_interfaces": ["veth*", 'we"ird'], "hostname": "ü\\n", "remote_config": False
    }  # fmt: skip
    keys = re.findall(r"^#?([a-z_]+) = ", text, re.MULTILINE)
    assert keys == [name for name in Settings.__struct_fields__ if name not in ("config", "api_key", "api_key_file")]
    as_set = re.sub(r"^#([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    (root / install.CONFIG).write_text(as_set)
    assert load({}, str(root / install.CONFIG)).interval_seconds == 45, "a comment's mark taken away is all it needs"


def test_a_second_install_upgrades_and_keeps_settings_and_token(run: Run, root: Path) -> None:
    run("install", "--url", "http://first", API_KEY="first")
    config = root / install.CONFIG
    config.write_text(config.read_text() + "timeout_seconds = 7\n")
    stale = root / install.LIBRARY / "agent" / "stale.py"
    stale.write_text("")
    before = tree(root)

    said = run("install", "--url", "http://second")

    del before[str(stale.relative_to(root))]
    assert tree(root) == before
    assert any("keep" in line and "url of this call is not applied" in line for line in said)


def test_a_second_install_of_the_same_changes_nothing(run: Run, root: Path) -> None:
    run("install", API_KEY="t")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.suffix != ".pyc" and path.is_file()}

    said = run("install")

    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not any(line.startswith("write") for line in said)


def test_a_dry_run_says_it_and_does_nothing(run: Run, root: Path) -> None:
    said = run("install", "--dry-run", API_KEY="the-token")

    assert not root.exists()
    assert sum(line.startswith("write") for line in said) == 5
    assert "the-token" not in "\n".join(said)


def test_uninstall_keeps_settings_token_and_spool(run: Run, root: Path) -> None:
    run("install", API_KEY="t")
    spool = root / install.STATE[0]
    spool.mkdir(parents=True)
    (spool / "segment").touch()

    run("uninstall")

    assert set(tree(root)) == {str(install.CONFIG), str(install.TOKEN), str(install.STATE[0] / "segment")}


def test_a_purge_leaves_nothing_and_a_second_one_has_nothing_to_do(run: Run, root: Path) -> None:
    run("install", API_KEY="t")
    private = root / install.STATE[1]
    private.mkdir(parents=True)
    (private / "segment").touch()
    (root / install.STATE[0]).symlink_to("private/linkbeat-agent")

    run("uninstall", "--purge")

    assert tree(root) == {}
    assert not (root / install.STATE[0]).is_symlink()
    assert not (root / install.CONFIG).parent.exists()
    assert run("uninstall", "--purge") == []


def test_other_files_beside_the_configuration_stay(run: Run, root: Path) -> None:
    run("install")
    other = (root / install.CONFIG).with_name("other")
    other.touch()

    run("uninstall", "--purge")

    assert other.exists()


def test_a_wrong_setting_or_token_installs_nothing(run: Run, root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert run("install", status=1, URL="nowhere")[0].startswith('linkbeat-agent: LINKBEAT_URL: "nowhere" is not')
    assert "is empty" in run("install", "--token-file", str(tmp_path / "empty"), status=1)[0]
    assert "No such file" in run("install", "--token-file", str(tmp_path / "none"), status=1)[0]
    assert "two words" not in run("install", status=1, API_KEY="two words")[0]
    assert not root.exists()


def test_what_cannot_be_written_is_named(run: Run, root: Path) -> None:
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where a directory should be")

    (said,) = run("install", status=1)

    assert said.endswith("Not a directory")


def test_an_interpreter_that_cannot_start_it_is_found_before_the_service_does(run: Run, root: Path) -> None:
    said = run("install", "--python", "/bin/false", status=1)

    assert "/bin/false" in said[0]
    assert not (root / install.UNIT).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run the tests as root for it")
def test_a_user_without_any_rights_sees_what_the_agent_needs(run: Run, root: Path) -> None:
    """As the unit runs it, as far as that goes without systemd: no capability, no new one, no own files."""
    system, setpriv = shutil.which("python3", path="/usr/bin:/usr/local/bin"), shutil.which("setpriv")
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not system or not setpriv or version not in str(subprocess.check_output([system, "-V"])):
        pytest.skip(f"no setpriv, or no Python {version} of the system: apt install util-linux python3")
    run("install")
    # pytest's own directories are closed to others.
    copy = Path(tempfile.mkdtemp(prefix="linkbeat-agent-"), "agent")
    copy.parent.chmod(0o755)
    shutil.copytree(root / install.LIBRARY, copy)
    try:
        drop = "--reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
        done = subprocess.run(
            [setpriv, *drop.split(), system, "-I", "-S", str(copy), "doctor", "--json"],
            capture_output=True, text=True, env={"LINKBEAT_CONFIG": "/dev/null"}, cwd="/", timeout=30, check=False,
        )  # fmt: skip
    finally:
        shutil.rmtree(copy.parent)

    assert done.stderr == ""
    assert not re.search(r'"name": "kernel"', done.stdout)
    assert re.search(r'"name": "interfaces",\s+"state": "ok"', done.stdout)


def test_the_unit_is_hardened(run: Run, root: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here to judge the unit: apt install systemd")
    run("install")

    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", "--threshold=30", str(root / install.UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    score = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score is not None, done.stderr
    assert float(score[1]) <= 3
    assert done.returncode == 0


def test_systemd_knows_every_word_of_the_unit(run: Run, root: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here to read the unit: apt install systemd")
    run("install")

    done = subprocess.run([analyze, "verify", str(root / install.UNIT)], capture_output=True, text=True, check=False)

    assert not [line for line in done.stderr.splitlines() if install.UNIT.name in line and "sysinit" not in line]


def test_systemd_is_told_in_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a systemctl that only notes what it is told: a test must start no service of the machine."""
    noted, systemctl = tmp_path / "noted", tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    unit = root / install.UNIT
    systemctl.write_text(f'#!/bin/sh\n[ -e {unit} ] && there=with || there=without\necho "$1 $there" >> {noted}\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", str(systemctl.parent), prepend=":")
    work = Work(root, say=lambda _: None)
    work.has_systemd = True
    options = argparse.Namespace(url=None, token_file=None, python=PYTHON)

    install.install(work, options, {})
    install.uninstall(work, purge=False)
    install.uninstall(work, purge=False)

    assert noted.read_text().splitlines() == [
        "daemon-reload with", "enable with", "restart with", "disable with", "daemon-reload without",
        "daemon-reload without",
    ]  # fmt: skip


def test_a_service_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    work = Work(tmp_path, say=lambda _: None)

    with pytest.raises(InstallError, match=r"sh -c .*: no such unit$"):
        work.run("sh", "-c", "echo first >&2; echo no such unit >&2; exit 5")


@pytest.mark.parametrize(
    ("started_as", "named"),
    [
        (str(REPOSITORY / "agent/__main__.py"), "-m agent …"),
        ("linkbeat-agent.pyz", "linkbeat-agent.pyz …"),
        ("/opt/linkbeat/bin/linkbeat-agent", "/opt/linkbeat/bin/linkbeat-agent …"),
    ],
)
def test_without_root_it_names_a_command_that_starts_it_again(
    started_as: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    monkeypatch.setattr(sys, "argv", [started_as])

    assert main(["uninstall"]) == 1

    said = capsys.readouterr().err
    assert said == f"linkbeat-agent: uninstall needs root; run: sudo {sys.executable} {named}\n"


def test_every_program_file_is_installed() -> None:
    names = set(install.program())

    assert {f"agent/{path.name}" for path in (REPOSITORY / "agent").glob("*.py")} <= names
    assert "agent/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyi", ".toml"))]
    assert sum(name.endswith(".so") for name in names) >= 1
