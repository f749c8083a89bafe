"""The address to listen on."""

import errno
import socket

from service.settings import SettingsError

BACKLOG = 2048


def listen(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """A listening socket. Raises SettingsError where the address is not to be had.

    is_shared  other sockets of this user may listen there too: the kernel gives each connection to one of them. What
               listens there already is not noticed then: `check_free` is asked before the first.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=is_shared)
    except OSError as raised:
        if raised.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"LINKBEAT_PORT: {port} is in use on {host}; stop what uses it, or set another"
            ) from None
        raise SettingsError(f"LINKBEAT_HOST: cannot listen on {host}:{port}: {raised.strerror}") from None
    # Inherited by every connection. Event loops set it on sockets that name their protocol, which this one does not;
    # without it an answer in two writes waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def check_free(host: str, port: int) -> None:
    """Raises SettingsError where the address is not to be had; better before a database is started than after."""
    listen(host, port).close()
