"""The address to listen on."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from service.settings import SettingsError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError where the address is not to be had."""
    with _refused(host, port):
        return _set_up(socket.create_server((host, port), family=_family(host, port), backlog=BACKLOG))


def bind_shared(host: str, port: int) -> socket.socket:
    """A socket on which nobody listens yet; others of this user may be bound and listen there too.

    The kernel gives each connection to one of those that listen. What listens there already is not noticed: ask
    `check_free` before the first. Raises SettingsError where the address is not to be had.
    """
    with _refused(host, port):
        bound = socket.socket(_family(host, port), socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if bound.family == socket.AF_INET6:  # as create_server has it
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((host, port))
        except BaseException:
            bound.close()
            raise
        return _set_up(bound)


def check_free(host: str, port: int) -> None:
    """Raises SettingsError where the address is not to be had; better before a database is started than after."""
    listen(host, port).close()


def _family(host: str, port: int) -> socket.AddressFamily:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


def _set_up(one: socket.socket) -> socket.socket:
    # Inherited by every connection. Event loops set it on sockets that name their protocol, which this one does not;
    # without it an answer in two writes waits 40 ms for the client's delayed acknowledgement.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


@contextmanager
def _refused(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as raised:
        if raised.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"LINKBEAT_PORT: {port} is in use on {host}; stop what uses it, or set another"
            ) from None
        raise SettingsError(f"LINKBEAT_HOST: cannot listen on {host}:{port}: {raised.strerror}") from None
