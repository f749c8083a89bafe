"""Rate limits by address or token. Their memory is bounded, however many clients there are."""

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from functools import lru_cache
from time import monotonic

from litestar.types import Scope

REMEMBERED = 65_536
MAX_FORWARDED = 32  # addresses of X-Forwarded-For that are examined

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RateLimiter:
    """A token bucket for each key: a burst of `per_minute`, refilled at `per_minute` per minute.

    The bucket of a key that is not remembered is full. The least recently used key is dropped first.
    """

    def __init__(self, per_minute: float, remembered: int = REMEMBERED) -> None:
        self._size = per_minute
        self._rate = per_minute / 60
        self._remembered = remembered
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # level, and when it was measured

    def wait_seconds(self, key: Hashable) -> float:
        """Seconds until the key is allowed; 0: it is allowed now."""
        found = self._levels.get(key)
        if found is None:
            return 0.0
        level, at = found
        return max(0.0, (1 - level) / self._rate - (monotonic() - at))

    def take(self, key: Hashable, cost: float = 1.0) -> float:
        """Takes `cost` from the bucket and returns 0; if the bucket is empty, returns the seconds until it is not.

        A cost above the level is taken as well; the key then waits until the debt is paid off.
        """
        now = monotonic()
        level, at = self._levels.get(key, (self._size, now))
        level = min(self._size, level + (now - at) * self._rate)
        if level < 1:
            return (1 - level) / self._rate
        self._levels[key] = (level - cost, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._remembered:
            self._levels.popitem(last=False)
        return 0.0


class Recent:
    """The most recently added keys."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._keys: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self._keys

    def add(self, key: int) -> None:
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._remembered:
            self._keys.popitem(last=False)


class ClientAddress:
    """The address of a client: the address that connected, or the one that a trusted proxy names."""

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        """`trusted_proxies`: networks such as 192.0.2.0/24, or single addresses."""
        self._trusted = tuple(ipaddress.ip_network(one, strict=False) for one in trusted_proxies)

    def of(self, scope: Scope) -> str:
        """The address; for IPv6 its /64, which belongs to one customer; "" for a Unix socket."""
        client = scope.get("client")
        if not client:
            return ""
        if self._trusted and _is_in(client[0], self._trusted):
            return _limited(self._forwarded_for(scope, client[0]))
        return _limited(client[0])

    def connected(self, host: str) -> tuple[str, bool]:
        """The address that connected, in the form of `of`, and whether it is a trusted proxy."""
        return _limited(host), bool(self._trusted) and _is_in(host, self._trusted)

    def _forwarded_for(self, scope: Scope, proxy: str) -> str:
        """The right-most address that is not a trusted proxy: the client may have forged everything to its left."""
        named = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        last = proxy
        for one in reversed(named.decode("latin-1").rsplit(",", MAX_FORWARDED)[-MAX_FORWARDED:]):
            address = _bare(one)
            if address is None:
                break  # not an address: no trusted proxy wrote it
            last = address
            if not _is_in(address, self._trusted):
                break
        return last


@lru_cache(maxsize=4096)
def _bare(text: str) -> str | None:
    """An address without its port: 192.0.2.1:80, [2001:db8::1]:80."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)


@lru_cache(maxsize=4096)
def _limited(address: str) -> str:
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
