"""The address to listen on."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from service.settings import SettingsError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError if the address cannot be bound."""
    with _refused(host, port):
        return _set_up(socket.create_server((host, port), family=_family(host, port), backlog=BACKLOG))


def bind_shared(host: str, port: int) -> socket.socket:
    """A socket on which nobody listens yet; others of this user may be bound and listen there too.

    The kernel gives each connection to one of those that listen. A program that listens there already is not
    noticed: ask `check_free` before the first. Raises SettingsError if the address cannot be bound.
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
    """Raises SettingsError if the address cannot be bound, before a database is started for nothing."""
    listen(host, port).close()


def _family(host: str, port: int) -> socket.AddressFamily:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]


def _set_up(one: socket.socket) -> socket.socket:
    # Every connection inherits it. Event loops set it only on sockets that name their protocol, and this one does not;
    # without it, a response in two writes waits 40 ms for the client's delayed acknowledgement.
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return one


@contextmanager
def _refused(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as raised:
        if raised.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"LINKBEAT_PORT: {port} is already in use on {host}; stop the program that uses it, or set another port"
            ) from None
        raise SettingsError(f"LINKBEAT_HOST: cannot listen on {host}:{port}: {raised.strerror}") from None
