"""Connections of channels: resolves a name, checks its addresses, and connects to a checked address.

Without LINKBEAT_ALERT_PRIVATE_ADDRESSES a channel can reach only public addresses. Otherwise every user who may set a
channel could make the service send requests to machines behind its firewall or to the metadata service of a cloud.
"""

import asyncio
import ipaddress
import socket
import ssl
from functools import cache

from service.settings import variable

CONNECT_SECONDS = 5.0

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class Unreachable(Exception):
    """The receiver cannot be reached, or must not be; the message gives the reason and contains no secret."""


def is_public(address: Address) -> bool:
    """Whether the address is public. For an IPv6 address that embeds an IPv4 address, whether that one is."""
    if isinstance(address, ipaddress.IPv6Address):
        held = _held(address)
        if held is not None:
            return is_public(held)
        if address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _held(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The embedded IPv4 address to which packets go: mapped, 6to4, NAT64 or the old compatible form."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or address in _COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def literal(host: str) -> Address | None:
    """A literal address, in any form that the C library accepts (127.1, 0x7f000001); None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def refusal(host: str) -> str:
    """The error for an address inside the network."""
    return f"{host} is an address inside the network; allow it with {variable('alert_private_addresses')}=true"


class Network:
    """Opens connections to receivers."""

    def __init__(self, *, allows_private: bool) -> None:
        self.allows_private = allows_private

    async def addresses(self, host: str, port: int) -> list[str]:
        """The allowed addresses of `host`, at least one. Raises Unreachable."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as raised:
            raise Unreachable(f"{host} cannot be resolved: {reason(raised)}") from None
        every = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        allowed = [one for one in every if self.allows_private or is_public(_parsed(one))]
        if not allowed:
            raise Unreachable(refusal(host))
        return allowed

    async def connect(self, host: str, port: int, *, is_tls: bool) -> Streams:
        """A connection to the first address that accepts one. Raises Unreachable."""
        context = tls_context() if is_tls else None
        failure = ""
        for address in await self.addresses(host, port):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    # To the address, not the name: a second lookup could return another address (DNS rebinding).
                    return await asyncio.open_connection(
                        address, port, ssl=context, server_hostname=host if context else None
                    )
            except (OSError, TimeoutError) as raised:
                failure = failure or f"{host} port {port}: {reason(raised)}"
        raise Unreachable(failure)


@cache
def tls_context() -> ssl.SSLContext:
    """Trusts the system's certificate authorities, or those in SSL_CERT_FILE."""
    return ssl.create_default_context()


def _parsed(address: str) -> Address:
    return ipaddress.ip_address(address.partition("%")[0])


def reason(raised: Exception) -> str:
    """Why a connection failed."""
    if isinstance(raised, TimeoutError):
        return "no response in time"
    if isinstance(raised, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {raised.verify_message}"
    if isinstance(raised, ssl.SSLError):
        return f"TLS: {raised.reason or type(raised).__name__}"
    if isinstance(raised, OSError) and raised.strerror:
        return raised.strerror
    return str(raised) or type(raised).__name__
