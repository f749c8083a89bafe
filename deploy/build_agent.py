"""Builds the one-file agent: `make agent`, which is python -m deploy.build_agent dist/linkbeat-agent.pyz.

One archive for every Python and machine below: msgspec's compiled parts have names of their own for each. The wheels
are those whose hashes requirements.lock holds.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from service.web.agent_file import packed

REPOSITORY = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("manylinux2014_x86_64", "manylinux2014_aarch64", "musllinux_1_2_x86_64", "musllinux_1_2_aarch64")


def build(output: Path, wheels: list[Path]) -> None:
    """Writes the archive of the agent and of msgspec's `wheels`."""
    files = {}
    for path in sorted((REPOSITORY / "agent").iterdir()):
        if path.suffix in (".py", ".service") or path.name == "LICENSE":
            files[f"agent/{path.name}"] = path.read_bytes()
    for wheel in wheels:
        files.update(_of_wheel(wheel))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(packed(files))
    output.chmod(0o755)


def _of_wheel(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """msgspec's modules, its compiled part and its licence."""
    with zipfile.ZipFile(wheel) as zipped:
        for name in zipped.namelist():
            if name.startswith("msgspec/") and name.endswith((".py", ".so")):
                yield name, zipped.read(name)
            elif name.endswith("/LICENSE"):
                yield "msgspec/LICENSE", zipped.read(name)


def download(directory: Path, pythons: tuple[str, ...] = PYTHONS, platforms: tuple[str, ...] = PLATFORMS) -> list[Path]:
    """msgspec's wheels in the version, and with the hashes, of requirements.lock."""
    locked = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    block = re.search(r"^msgspec==(?:.*\\\n)*.*\n", locked, re.MULTILINE)
    assert block is not None, "requirements.lock has no msgspec"
    requirements = directory / "requirements.txt"
    requirements.write_text(block[0], encoding="utf-8")
    for python in pythons:
        for platform in platforms:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--require-hashes", "--only-binary", ":all:", "--dest", str(directory)]
            command += ["--python-version", python, "--platform", platform, "-r", str(requirements)]
            subprocess.run(command, check=True)
    return sorted(directory.glob("*.whl"))


def main() -> None:
    output = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        wheels = download(Path(directory))
        build(output, wheels)
    size = output.stat().st_size
    print(f"{output}: {size:,} bytes; {len(wheels)} kinds of machine and Python: {', '.join(PYTHONS)}")


if __name__ == "__main__":
    main()
