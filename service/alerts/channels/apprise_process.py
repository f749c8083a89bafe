"""`python -m service.alerts.channels.apprise_process`: sends one message through Apprise, and exits.

Apprise resolves names and follows redirects itself. So an audit hook refuses addresses inside the network: every
connection of this process raises an audit event, whichever library opens it.
"""

import contextlib
import io
import ipaddress
import logging
import os
import sys
from typing import Any

import msgspec

from service.alerts.channels.apprise import NOT_INSTALLED, Job, Result
from service.alerts.channels.network import is_public, refusal

_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn")


class Refused(OSError):
    """A channel tried to open a connection or start a program that is not allowed."""


class Guard:
    """An audit hook that raises Refused before a connection to an address inside the network, or a new program."""

    def __init__(self, *, allows_private: bool) -> None:
        self._allows_private = allows_private
        self.refused = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            self._check(arguments[-1])
        elif event in _PROGRAMS:
            self._refuse("a channel may not start programs")

    def _check(self, address: Any) -> None:
        if self._allows_private or address is None:
            return
        if not isinstance(address, tuple):
            self._refuse("a channel may not use local sockets")
        host = str(address[0]).partition("%")[0]
        try:
            found = ipaddress.ip_address(host)
        except ValueError:
            self._refuse("a channel may not connect by name here")
        else:
            if not is_public(found):
                self._refuse(refusal(host))

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        raise Refused(reason)


def main() -> None:
    """Reads a Job, writes a Result."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    with contextlib.redirect_stdout(io.StringIO()):
        result = Result(send(job))
    sys.stdout.buffer.write(msgspec.json.encode(result))
    sys.stdout.flush()
    os._exit(0)  # does not wait for threads of libraries


def send(job: Job) -> str:
    """Returns "", or the reasons if a service did not accept the message."""
    try:
        import apprise  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - the extra
    except ImportError:
        return NOT_INSTALLED
    logging.disable()  # it logs URLs
    guard = Guard(allows_private=job.allows_private)
    sys.addaudithook(guard)
    failed = []
    for place, url in enumerate(job.urls):
        scheme = url.partition("://")[0]
        service = apprise.Apprise()
        if not service.add(url):
            failed.append(f"urls[{place}]: Apprise does not understand this {scheme}:// URL")
        elif not service.notify(title=job.title, body=job.body):
            failed.append(f"urls[{place}] ({scheme}): {guard.refused or 'it did not accept the message'}")
        guard.refused = ""
    return "; ".join(failed)


if __name__ == "__main__":
    main()
