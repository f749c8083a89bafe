"""Which interfaces the default routes lead over."""

from .roots import Roots, read_text

# A router with the whole Internet's routes has hundreds of megabytes of them; the IPv4 default stands first.
ROUTES_LIMIT_BYTES = 256 * 1024
RTF_UP = 0x1
RTF_REJECT = 0x200


def read_default_routes(roots: Roots) -> list[str]:
    """Interfaces of the IPv4 default routes, the lowest metric first; of the IPv6 ones where there is no IPv4 one."""
    return default_routes(_text(roots, "route")) or default_routes_ipv6(_text(roots, "ipv6_route"))


def default_routes(text: str) -> list[str]:
    """Interfaces of the default routes in the text of /proc/net/route, the lowest metric first; never raises.

    Format (net/ipv4/fib_trie.c, fib_route_seq_show): Iface Destination Gateway Flags RefCnt Use Metric Mask …;
    addresses and flags in hexadecimal, the metric in decimal.
    """
    found = []
    for line in text.split("\n")[1:]:
        fields = line.split()
        if len(fields) >= 8 and fields[1] == fields[7] == "00000000":
            found.append((fields[0], fields[3], fields[6], 10))
    return _usable(found)


def default_routes_ipv6(text: str) -> list[str]:
    """The same for the text of /proc/net/ipv6_route.

    Format (net/ipv6/route.c, rt6_info_route): destination, its prefix length, source, its prefix length, next hop,
    metric, reference count, use, flags, interface; all numbers in hexadecimal.
    """
    found = []
    for line in text.split("\n"):
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == fields[3] == "00":
            found.append((fields[9], fields[8], fields[5], 16))
    return [name for name in _usable(found) if name != "lo"]


def _usable(routes: list[tuple[str, str, str, int]]) -> list[str]:
    """Names of (name, flags, metric, the metric's base) that are up and no reject, by metric, each once."""
    metrics: dict[str, int] = {}
    for name, flags_text, metric_text, base in routes:
        try:
            flags, metric = int(flags_text, 16), int(metric_text, base)
        except ValueError:
            continue
        if flags & RTF_UP and not flags & RTF_REJECT:
            metrics[name] = min(metric, metrics.get(name, metric))
    return sorted(metrics, key=metrics.__getitem__)


def _text(roots: Roots, name: str) -> str:
    try:
        return read_text(roots.net / name, limit_bytes=ROUTES_LIMIT_BYTES)
    except OSError:
        return ""
