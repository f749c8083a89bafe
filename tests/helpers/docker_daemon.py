"""A Docker daemon of a drill's own: its images, volumes, socket and bridge touch nobody's, and go with it."""

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.images import RELEASE, bootstrap
from tests.helpers.processes import stop

BASE = f"debian:{RELEASE}-slim"  # of the Dockerfiles
REMEDY = "apt-get install docker.io debootstrap iproute2"
START_SECONDS = 60.0
STOP_SECONDS = 60.0
BUILD_SECONDS = 1800.0
_BRIDGE = "linkbeat-drill"
# Private, as Docker's own are: with an address from elsewhere, a mirror or name server there would be out of reach.
_NETWORKS = ("172.31.213.0/28", "192.168.213.0/28", "10.213.213.0/28")


class NoDaemon(Exception):
    """Why no daemon can run here, and what helps."""


class Docker:
    """The docker command, on that daemon."""

    def __init__(self, socket: Path) -> None:
        # BuildKit's plugin comes in a package of its own with newer versions; the daemon's own builder is always there.
        self.environ = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0"}

    def __call__(self, *arguments: str | Path, timeout: float = 120) -> str:
        """Standard output; raises AssertionError with all output where the command fails."""
        done = self._run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def succeeds(self, *arguments: str | Path, timeout: float = 120) -> bool:
        return self._run(*arguments, timeout=timeout).returncode == 0

    def build(self, dockerfile: Path, context: Path, tag: str) -> None:
        """On the host's network: the daemon's bridge leads nowhere."""
        index = os.environ.get("PIP_INDEX_URL")
        arguments = ("--build-arg", f"PIP_INDEX_URL={index}") if index else ()
        self(
            "build", "--network", "host", "--file", dockerfile, "--tag", tag, *arguments, context, timeout=BUILD_SECONDS
        )

    def base(self, directory: Path) -> None:
        """Debian's slim image by its name: pulled, or else made by debootstrap. Raises NoDaemon."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.succeeds("pull", "--quiet", BASE, timeout=120):
                return
        if shutil.which("debootstrap") is None:
            raise NoDaemon(f"{BASE} cannot be pulled, and there is no debootstrap to make it: {REMEDY}")
        print(f"{BASE} cannot be pulled; debootstrap makes it")
        bootstrap(directory)
        packed = directory.with_suffix(".tar")
        subprocess.run(["tar", "--numeric-owner", "-cf", packed, "-C", directory, "."], check=True)
        shutil.rmtree(directory)
        self("import", packed, BASE, timeout=600)
        packed.unlink()

    def remove_all(self) -> None:
        if containers := self("ps", "--all", "--quiet").split():
            self("rm", "--force", "--volumes", *containers)
        self("network", "prune", "--force")

    def _run(self, *arguments: str | Path, timeout: float) -> "subprocess.CompletedProcess[str]":
        command = ["docker", *map(str, arguments)]
        environ = os.environ | self.environ
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=timeout, check=False)


@contextlib.contextmanager
def daemon() -> Iterator[Docker]:
    """A daemon, for as long as the block runs. Raises NoDaemon where none can start."""
    if missing := [program for program in ("docker", "dockerd", "ip") if shutil.which(program) is None]:
        raise NoDaemon(f"no {' and no '.join(missing)} on this machine: {REMEDY}")
    if os.geteuid() != 0:
        raise NoDaemon("dockerd needs root: run the drill as root")
    with contextlib.ExitStack() as stack:
        # Short: the path of a socket has 107 characters at most.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkbeat-docker-")))
        stack.enter_context(_bridge())
        docker = Docker(directory / "socket")
        process = stack.enter_context(_started(directory))
        deadline = time.monotonic() + START_SECONDS
        while not docker.succeeds("info"):
            if process.poll() is not None or time.monotonic() > deadline:
                lines = (directory / "log").read_text(errors="replace").splitlines()
                raise NoDaemon(f"dockerd does not start on this machine: {lines[-1] if lines else 'it says nothing'}")
            time.sleep(0.2)
        stack.callback(docker.remove_all)
        yield docker


@contextlib.contextmanager
def _started(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [
        # With mounts of its own, which end with it. Shared among themselves: compose.yaml mounts / as rslave.
        *("unshare", "--mount", "--propagation", "shared"),
        *("dockerd", "--host", f"unix://{directory}/socket", "--pidfile", f"{directory}/pid"),
        *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec", "--bridge", _BRIDGE),
        # The host's firewall stays as it is: with one machine, nothing has to be forwarded.
        *("--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"),
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        stop(process, STOP_SECONDS)


@contextlib.contextmanager
def _bridge() -> Iterator[None]:
    """A bridge with a network that this machine is not in."""
    subprocess.run(["ip", "link", "delete", _BRIDGE], capture_output=True, check=False)  # of a run that was killed
    ours = next((network for network in map(ipaddress.ip_network, _NETWORKS) if not _is_used(network)), None)
    if ours is None:
        raise NoDaemon(f"this machine has routes to all of {', '.join(_NETWORKS)}, of which the drill needs one")
    address = f"{next(ours.hosts())}/{ours.prefixlen}"
    made = subprocess.run(["ip", "link", "add", _BRIDGE, "type", "bridge"], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NoDaemon(f"no bridge can be made on this machine: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "address", "add", address, "dev", _BRIDGE], check=True)
        subprocess.run(["ip", "link", "set", _BRIDGE, "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "delete", _BRIDGE], check=True)


def _is_used(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    routes = json.loads(subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, check=True).stdout)
    return any(network.overlaps(ipaddress.ip_network(route["dst"])) for route in routes if route["dst"] != "default")
