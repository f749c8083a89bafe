"""The address to listen on."""

import errno
import socket

from service.settings import SettingsError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError if the address cannot be bound."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as raised:
        if raised.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"LINKBEAT_PORT: {port} is already in use on {host}; stop the program that uses it, or set another port"
            ) from None
        raise SettingsError(f"LINKBEAT_HOST: cannot listen on {host}:{port}: {raised.strerror}") from None
    # Every connection inherits it. Event loops set it only on sockets that name their protocol, and this one does not;
    # without it, a response in two writes waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def check_free(host: str, port: int) -> None:
    """Raises SettingsError if the address cannot be bound, before a database is started for nothing."""
    listen(host, port).close()
