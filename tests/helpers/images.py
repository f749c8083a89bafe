"""Dockerfiles where no Docker runs: their instructions are read, and carried out in directory trees by chroot(8).

What it is not: layers, and a builder's cache. RUN, COPY, ENV, WORKDIR and USER do what they do in Docker; a container
is a process with namespaces of its own, number 1 in them, without capabilities and on a root that is mounted read-only.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from service.embedded.sources import host_mirrors

ISOLATED = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c")
START = """
set -e
mount --make-rprivate /
for place in $MOUNTS; do
    mount --rbind "${place%%:*}" "$ROOT${place#*:}"
done
mount -t proc proc "$ROOT/proc"
mount --bind /dev "$ROOT/dev"
"""
READ_ONLY = """
mount --bind "$ROOT" "$ROOT"
mount -o remount,bind,ro "$ROOT"
"""


RELEASE = "trixie"  # of the Dockerfiles' BASE


def bootstrap(directory: Path) -> None:
    """What debian:trixie-slim is made of, less what only saves space; by debootstrap, from this machine's mirror.

    Raises OSError with debootstrap's last lines where it fails.
    """
    mirrors = host_mirrors(Path("/etc/apt"), RELEASE)
    command = ["debootstrap", "--variant=minbase", RELEASE, str(directory), *(mirror.uri for mirror in mirrors[:1])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise OSError("debootstrap failed:\n" + "\n".join(done.stdout.splitlines()[-5:]))
    # The authorities that this machine trusts beyond Debian's: its mirrors may have certificates of theirs.
    local = Path("/usr/local/share/ca-certificates")
    if local.is_dir():
        shutil.copytree(local, directory / local.relative_to("/"), dirs_exist_ok=True)


class Instruction(NamedTuple):
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value as a list: of the exec form its strings, else as a shell would split it."""
        return list(json.loads(self.value)) if self.value.startswith("[") else shlex.split(self.value)


def instructions(dockerfile: str) -> list[Instruction]:
    """What a Dockerfile says, without comments and with its lines joined. Raises ValueError for a here-document."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    found = [line.split(None, 1) for line in re.sub(r"\\\n", "", text).splitlines() if line.strip()]
    if "<<" in text:
        raise ValueError("a here-document")
    return [Instruction(name, value) for name, value in found]


@dataclass
class Stage:
    """A tree, and what is known of it beside its files."""

    root: Path
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    stop_signal: str = ""

    def copied(self, root: Path) -> "Stage":
        subprocess.run(["cp", "-a", "--reflink=auto", f"{self.root}/.", root], check=True)
        root.chmod(0o755)
        return replace(self, root=root, environ=dict(self.environ))

    @property
    def size_bytes(self) -> int:
        return int(subprocess.run(["du", "-sxb", self.root], capture_output=True, check=True).stdout.split()[0])


def build(dockerfile: Path, context: Path, base: Path, directory: Path, args: Mapping[str, str]) -> Stage:
    """The last stage of `dockerfile`, made of what .dockerignore leaves of `context`, in trees below `directory`."""
    sent = _context(context, directory / "context")
    stages: dict[str, Stage] = {"${BASE}": Stage(base)}
    stage: Stage | None = None
    build_args: dict[str, str] = {}
    for number, (name, value) in enumerate(instructions(dockerfile.read_text(encoding="utf-8"))):
        words = Instruction(name, value).words if name not in ("RUN", "HEALTHCHECK") else []
        if name == "FROM":
            stage = stages[words[0]].copied(_made(directory / f"stage-{number}"))
            stages[words[-1]] = stage
            build_args = {}
        elif name == "ARG":
            key, _, default = value.partition("=")
            build_args |= {key: args.get(key, default)} if args.get(key, default) else {}
        elif stage is None:
            raise ValueError(f"{name} before FROM")
        elif name == "RUN":
            _run(stage, value, build_args)
        elif name == "COPY":
            _copy(stage, words, sent, stages)
        else:
            _note(stage, Instruction(name, value))
    assert stage is not None
    return stage


@dataclass
class Container:
    """A running one: `process` is unshare(1), which ends as the container does."""

    process: "subprocess.Popen[str]"

    def signal(self, number: signal.Signals) -> None:
        """To the container's number 1, as `docker stop` sends it."""
        children = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii").split()
        )
        os.kill(int(children[0]), number)

    def finish(self, seconds: float) -> tuple[int, str]:
        """Exit status, and what was printed on both outputs."""
        output, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, output


@contextlib.contextmanager
def container(
    stage: Stage,
    *command: str,
    entrypoint: list[str] | None = None,
    mounts: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    own_network: bool = False,
) -> Iterator[Container]:
    """`docker run --read-only --cap-drop ALL --security-opt no-new-privileges`, on the host's network if on no other.

    mounts       from places here to places there, which docker would make
    own_network  of which nothing leads out
    """
    mounts = mounts or {}
    for place in mounts.values():
        (stage.root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    uid, _, gid = stage.user.partition(":")
    started = [
        *("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"),
        *("--no-new-privs", "--", "env", "-i", f"--chdir={stage.workdir}"),
        *(f"{key}={value}" for key, value in (stage.environ | dict(environ or {})).items()),
        *(stage.entrypoint if entrypoint is None else entrypoint),
        *(command or (stage.command if entrypoint is None else ())),
    ]
    isolated = ("unshare", "--net", *ISOLATED[1:]) if own_network else ISOLATED
    process = subprocess.Popen(
        [*isolated, READ_ONLY + START + 'exec chroot "$ROOT" "$@"', "sh", *started],
        env=os.environ | {"ROOT": str(stage.root), "MOUNTS": " ".join(f"{a}:{b}" for a, b in mounts.items())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Container(process)
    finally:
        process.kill()
        process.communicate()


def _context(context: Path, sent: Path) -> Path:
    """What .dockerignore leaves: it begins with `*`, and names what stays."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").split("\n")
    assert "*" in lines
    ignored = shutil.ignore_patterns(*(line.removeprefix("**/") for line in lines if line.startswith("**/")))
    for kept in (line[1:] for line in lines if line.startswith("!")):
        (sent / kept).parent.mkdir(parents=True, exist_ok=True)
        if (context / kept).is_dir():
            shutil.copytree(context / kept, sent / kept, ignore=ignored)
        else:
            shutil.copy(context / kept, sent / kept)
    return sent


def _run(stage: Stage, script: str, args: Mapping[str, str]) -> None:
    with _resolver(stage.root):
        subprocess.run(
            [
                *(*ISOLATED, START + 'exec chroot "$ROOT" env -i --chdir="$WORKDIR" "$@"', "sh"),
                *(f"{key}={value}" for key, value in {**args, **stage.environ}.items()),
                *("/bin/sh", "-c", script),
            ],
            env=os.environ | {"ROOT": str(stage.root), "WORKDIR": stage.workdir, "MOUNTS": ""},
            check=True,
        )


@contextlib.contextmanager
def _resolver(root: Path) -> Iterator[None]:
    """This machine's names, as Docker lends them to a container; not kept in the tree."""
    with tempfile.TemporaryDirectory() as kept:
        names = [name for name in ("etc/resolv.conf", "etc/hosts") if Path("/", name).exists()]
        for name in names:
            if (root / name).exists():
                shutil.copy2(root / name, Path(kept, Path(name).name))
            shutil.copy(Path("/", name), root / name)
        yield
        for name in names:
            (root / name).unlink()
            if Path(kept, Path(name).name).exists():
                shutil.copy2(Path(kept, Path(name).name), root / name)


def _copy(stage: Stage, words: list[str], context: Path, stages: Mapping[str, Stage]) -> None:
    source = context
    if words[0].startswith("--from="):
        source = stages[words[0].removeprefix("--from=")].root
        words = words[1:]
    target = stage.root / os.path.join(stage.workdir, words[-1]).lstrip("/")  # noqa: PTH118 - an absolute one stands
    for word in words[:-1]:
        path = source / word.lstrip("/")
        # Of a directory its content, and a file under its name where the target is a directory.
        into = target if path.is_dir() or not words[-1].endswith("/") else target / path.name
        (into if path.is_dir() else into.parent).mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", f"{path}/." if path.is_dir() else path, into], check=True)
    subprocess.run(["chown", "-R", "0:0", target], check=True)


def _note(stage: Stage, instruction: Instruction) -> None:
    name, value = instruction
    if name == "ENV":
        for pair in instruction.words:
            key, _, content = pair.partition("=")
            stage.environ[key] = content
    elif name == "WORKDIR":
        stage.workdir = value
        (stage.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif name == "USER":
        stage.user = value
    elif name == "ENTRYPOINT":
        stage.entrypoint = instruction.words
    elif name == "CMD":
        stage.command = instruction.words
    elif name == "HEALTHCHECK":
        stage.health = Instruction("CMD", value.partition("CMD ")[2]).words
    elif name == "VOLUME":
        stage.volumes.append(value)
    elif name == "STOPSIGNAL":
        stage.stop_signal = value
    elif name not in ("LABEL", "EXPOSE"):
        raise ValueError(f"{name}: not known here")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory
