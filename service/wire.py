"""The wire format: heartbeats (decoded by service/ingest/heartbeat.py) and the configuration of agents.

Unknown fields of a heartbeat are skipped, so that newer agents, and other agents in the field that send more, can
report to an older service; a field added later has a default. If a key appears twice in an object, the last one counts.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_COUNTER = 2**64 - 1

# \Z and not $: msgspec searches, and $ lets a trailing newline through.
ServerId = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}\Z",
        description="1 to 100 letters, digits, '.', '_' and '-'; not '.' or '..', which clients resolve in a path.",
        examples=["mediaserver"],
    ),
]
InterfaceName = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f-\x9f/]{1,64}\Z",
        description="Name of the interface, as reported by the operating system; no '/' and no control characters.",
    ),
]
# There may be thousands of these names: the pattern is searched in all of them at once (ingest/heartbeat.py).
StackedName = Annotated[str, Meta(min_length=1, max_length=64)]
# At most 2**64 - 1, which Meta cannot express: its bounds end at 2**63 - 1. See service/ingest/heartbeat.py.
Counter = Annotated[int, Meta(ge=0, description="0 to 2**64 - 1.")]
Text = Annotated[str, Meta(max_length=255)]
Percent = Annotated[float, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Celsius = Annotated[float, Meta(gt=-50, lt=150)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Word = Annotated[str, Meta(max_length=32)]

# Limits on the work of one heartbeat; the agent's limit of interfaces is the same (agent/fitting.py). A server's row
# remembers twice as many interfaces as one heartbeat may contain: linkbeat.max_remembered().
MAX_INTERFACES = 2_000
MAX_STACKED_ON = 10_000  # of all interfaces together
MAX_FILESYSTEMS = 1_000
MAX_TAGS = 32
MAX_OS_INFO_BYTES = 16 << 10
MAX_NESTING = 8  # levels of os_info, itself the first


# The same as in agent/settings.py. A value has no characters of patterns, lists or SQL's LIKE.
Tag = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}(=[A-Za-z0-9._:/@+-]{1,63})?\Z",
        description="A word, or key=value: a key of 1 to 32 letters, digits, '.', '_' and '-' that begins with a "
        "letter or digit; a value of 1 to 63 of these, ':', '/', '@' and '+'.",
        examples=["role=web"],
    ),
]


def tag_problem(tags: Sequence[str]) -> tuple[str, str] | None:
    """The first tag whose key an earlier one has: its path, and the reason."""
    keys: dict[str, str] = {}
    for place, tag in enumerate(tags):
        key = tag.partition("=")[0]
        if key in keys:
            return f"tags[{place}]", f"{tag!r} has the same key as {keys[key]!r}; a key has one value"
        keys[key] = tag
    return None


class NetworkInterface(msgspec.Struct, frozen=True, gc=False):
    """One interface's counters since boot, as the kernel reports them.

    rx_bytes, tx_bytes      octets; wrap at 2**32 on some 32-bit drivers
    rx_packets, tx_packets  frames
    is_up                   operationally up (RFC 2863)
    kind                    physical, bridge, bond, vlan, tunnel, veth or other
    stacked_on              names of the interfaces that carry its traffic: a bond's members, a VLAN's parent
    speed_mbps              line rate; 0, -1: unknown
    operstate               operational state, as reported by the kernel
    ifindex                 the kernel's index of the device; it changes when the device is created again
    permanent_address       the address that hardware was made with, and `#` with the port of a card that has several
    bus_path                the slot or USB port of hardware, such as pci0000:00/0000:00:03.0
    alias                   the operator's own name for it (`ip link set … alias`)
    carrier_changes         how often its link came or went since the device appeared

    Those from kind on are hints: an invalid one is ignored (HINTS). The last four and ifindex tell the device from
    others, whatever its name (docs/names.md).
    """

    name: InterfaceName
    rx_bytes: Counter
    tx_bytes: Counter
    rx_packets: Counter
    tx_packets: Counter
    is_up: bool
    rx_errors: Counter | None = None
    tx_errors: Counter | None = None
    rx_dropped: Counter | None = None
    tx_dropped: Counter | None = None
    kind: Word | None = None
    stacked_on: Annotated[list[StackedName], Meta(max_length=MAX_INTERFACES)] | None = None
    speed_mbps: Annotated[int, Meta(ge=-1, le=1_600_000)] | None = None
    operstate: Word | None = None
    ifindex: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    permanent_address: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    bus_path: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    alias: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    carrier_changes: Annotated[int, Meta(ge=0, le=2**32 - 1)] | None = None


class Filesystem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A mounted filesystem; `percent` is used / (used + available), as shown by df."""

    mount_point: Annotated[str, Meta(min_length=1, max_length=4096)]
    device: Annotated[str, Meta(max_length=4096)] = ""
    fs_type: Text = ""
    total_bytes: Counter = 0
    used_bytes: Counter = 0
    available_bytes: Counter | None = 0
    percent: Percent | None = None
    state: Text | None = None


class HostMetrics(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Metrics of the machine; network_rx_bytes and network_tx_bytes are sums over the reported interfaces.

    temperature_celsius  of the hottest sensor
    """

    cpu_percent: Percent | None = None
    memory_percent: Percent | None = None
    memory_total_mb: Amount | None = None
    memory_used_mb: Amount | None = None
    disk_percent: Percent | None = None
    disk_total_gb: Amount | None = None
    disk_used_gb: Amount | None = None
    network_rx_bytes: Counter | None = None
    network_tx_bytes: Counter | None = None
    load_1m: Amount | None = None
    load_5m: Amount | None = None
    load_15m: Amount | None = None
    uptime_seconds: Amount | None = None
    temperature_celsius: Celsius | None = None


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The state of the agent's delivery.

    queued          heartbeats that are not acknowledged yet
    oldest_seconds  age of the oldest of them
    spool_bytes     size of the spool, including heartbeats kept after their acknowledgement
    dropped         heartbeats dropped for lack of room, since the agent's start
    rejected        heartbeats that the service rejected permanently, since the agent's start
    spool           where they are kept; those in memory are lost when the agent ends
    """

    queued: Count | None = None
    oldest_seconds: Annotated[float, Meta(ge=0, le=1e10)] | None = None
    spool_bytes: Count | None = None
    dropped: Count | None = None
    rejected: Count | None = None
    spool: Literal["disk", "memory"] | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """A report of an agent at one time.

    timestamp         when the counters were read; default: the time of arrival, by the service's clock
    boot_id           a UUID that changes with every boot, such as /proc/sys/kernel/random/boot_id; an id of another
                      form does not prove a reboot (docs/counters.md)
    interval_seconds  the agent's interval between heartbeats; a hint, like agent_version and primary_interface: an
                      invalid one is ignored
    os_info           an object with information about the system: at most 16 KiB and 8 levels. Decoded separately,
                      because the sender controls the cost of decoding it; None: absent or null
    truncated         interfaces were left out because the heartbeat was too large
    tags              of the machine, as its agent is set; a hint too
    """

    server_id: ServerId
    hostname: Annotated[str, Meta(min_length=1, max_length=255)]
    server_guid: Text | None = None
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    status: Text | None = None
    boot_id: Text | None = None
    agent_version: Text | None = None
    interval_seconds: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    primary_interface: InterfaceName | None = None
    os_info: msgspec.Raw = None  # type: ignore[assignment]  # msgspec knows no Raw | None
    metrics: HostMetrics | None = None
    network_interfaces: Annotated[list[NetworkInterface], Meta(max_length=MAX_INTERFACES)] | None = None
    filesystems: Annotated[list[Filesystem], Meta(max_length=MAX_FILESYSTEMS)] | None = None
    delivery: Delivery | None = None
    truncated: bool | None = None
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] | None = None


# Fields that describe how to interpret the others. Drivers, kernels and agents send invalid ones (a speed of 4294967295
# is the kernel's -1), which must not lose measurements: service/ingest/hints.py removes them.
HINTS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Heartbeat: ("agent_version", "interval_seconds", "primary_interface", "tags"),
    NetworkInterface: (
        "kind",
        "stacked_on",
        "speed_mbps",
        "operstate",
        "ifindex",
        "permanent_address",
        "bus_path",
        "alias",
        "carrier_changes",
    ),
}


# A pattern, as in LINKBEAT_INCLUDE_INTERFACES.
InterfacePattern = Annotated[
    str,
    Meta(
        pattern=r"^(?! )[^\x00-\x1f\x7f-\x9f,/]{1,64}(?<! )\Z",
        description="1 to 64 characters, with the wildcards `*`, `?` and `[…]`; no comma, no '/'.",
        examples=["veth*"],
    ),
]
InterfacePatterns = Annotated[list[InterfacePattern], Meta(max_length=100)]


class AgentConfig(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The remote configuration of an agent; for missing and null keys, its own settings apply.

    interval_seconds    interval between heartbeats
    include_interfaces  interfaces to report; []: all but lo
    exclude_interfaces  interfaces to leave out; takes precedence over include_interfaces; []: none
    paused              send heartbeats without measurements
    """

    interval_seconds: Annotated[float, Meta(ge=1, le=3600)] | None = None
    include_interfaces: InterfacePatterns | None = None
    exclude_interfaces: InterfacePatterns | None = None
    paused: bool | None = None


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The traffic quota of a server for a billing month.

    bytes         octets per month
    direction     traffic that counts: `in`, `out`, their `sum`, or the greater of the two (`max`)
    billing_day   day on which the month begins, at midnight in time_zone; in shorter months, the last day
    time_zone     IANA name
    interface     the interface that counts; null: the whole server, each byte once
    near_percent  share of the quota from which on its state is `near`
    """

    bytes: Annotated[int, Meta(ge=1, le=2**63 - 1, examples=[20_000_000_000_000])]
    direction: Literal["in", "out", "sum", "max"] = "sum"
    billing_day: Annotated[int, Meta(ge=1, le=31)] = 1
    time_zone: Annotated[str, Meta(max_length=100, examples=["Europe/Berlin"])] = "UTC"
    interface: Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,255}\Z")] | None = None
    near_percent: Annotated[float, Meta(gt=0, le=100)] = 80.0
