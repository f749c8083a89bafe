"""Where a cluster's Unix socket is: in a directory that nobody else can enter, so that nobody else can answer there.

While PostgreSQL is down, any user of the machine could listen on its TCP port in its stead and ask clients for their
password. A socket's file can only be made by the owner of its directory.
"""

import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from service.embedded.accounts import Account, account_name, give_to
from service.embedded.problems import UnreachableDirectoryError

PORT = 5432
"""Of a cluster that does not listen on TCP: then it is only a part of the socket's name."""

_SUN_PATH_BYTES = 107
_PLAIN = re.compile(r"[A-Za-z0-9/._+@-]+")
"""What means nothing else in a URL, in PostgreSQL's settings, or in a list of hosts."""

_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


def socket_path(directory: Path, port: int) -> Path:
    """The socket's file, as PostgreSQL names it."""
    return directory / f".s.PGSQL.{port}"


def fits(directory: Path, port: int) -> bool:
    """Whether a socket in that directory has an address that every client can write down."""
    path = socket_path(directory, port)
    return len(os.fsencode(path)) <= _SUN_PATH_BYTES and _PLAIN.fullmatch(str(path)) is not None


def socket_directory(data_dir: Path, account: Account | None, port: int) -> Path:
    """The cluster's own directory; where its path is too long or odd, a short one of the same owner, made if missing.

    Raises UnreachableDirectoryError where there is no such place.
    """
    if fits(data_dir, port):
        return data_dir
    refused = []
    for directory in _short_directories(data_dir):
        try:
            directory.mkdir(mode=0o700)
            give_to(account, directory)
        except FileExistsError:
            pass
        except OSError as error:
            refused.append(f"{directory}: {error.strerror}")
            continue
        # In /tmp another user can have been there first. It is sticky: what is right here now stays so.
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != (account.uid if account else os.geteuid()):
            refused.append(f"{directory} belongs to {account_name(found.st_uid)}")
        elif stat.S_IMODE(found.st_mode) != 0o700:
            refused.append(f"{directory} is accessible to other users")
        elif fits(directory, port):
            return directory
    raise UnreachableDirectoryError(
        f"{data_dir} is too long for a socket's address, or contains special characters, and no other directory is "
        "available: "
        f"{'; '.join(refused)}",
        "Set LINKBEAT_DATA_DIR to a shorter path of letters and digits",
    )


def _short_directories(data_dir: Path) -> Iterator[Path]:
    """Named after the cluster, so that two never meet, in places that are emptied when the machine boots."""
    name = f"linkbeat-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    if os.geteuid() == 0:
        yield Path("/run") / name
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / name
    yield Path("/tmp") / name  # noqa: S108  its owner and mode are checked


def answers(directory: Path, port: int) -> bool:
    """Whether a server process answers an SSLRequest (PostgreSQL's documentation, "Message Formats").

    Asked beside the pid file, which says "ready" some moments longer than a killed server lives,
    as does the kernel, which accepts connections in its stead.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            connection.connect(os.fsencode(socket_path(directory, port)))
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"S", b"N")
    except OSError:
        return False
