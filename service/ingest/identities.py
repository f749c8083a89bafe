"""The series of the interfaces of heartbeats: a cache of the results of linkbeat.resolve_interfaces.

A usual heartbeat has the evidence of the one before it and costs one look-up here; the database then compares its
version (servers.identity_version) under the server's lock. docs/names.md has the rules.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import asyncpg
import msgspec

from service.ingest.batch import Pending, Resolved, boot_fingerprint
from service.wire import Heartbeat

RESOLVE = (
    "SELECT place, version, since, until, names::text FROM "
    "linkbeat.resolve_interfaces(of_servers => $1, times => $2, boots => $3, evidence => $4::jsonb[])"
)
SERVERS = 1_000_000  # cached at most; the cache is emptied beyond that
SPANS = 8  # of a server: two machines under one id alternate, and a backlog is of an earlier boot
# Beyond this, hardware alone is followed: a router of thousands of VLANs would be matched with thousands.
MOST_FOLLOWED = 256

# Names of short-lived interfaces, which are counted by kind; the same as in linkbeat.fold_series.
FOLDED = re.compile(r"veth|cali|lxc(?!br)|tap|vnet|fwbr|fwln|fwpr|ve-|vb-")
_evidence = attrgetter("name", "kind", "ifindex", "permanent_address", "bus_path", "alias")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str]).decode
_NAMES_ARE_SERIES = Resolved()


class _Span(NamedTuple):
    """In [since, until), this evidence resolves to the same series."""

    evidence: int
    since: datetime
    until: datetime | None
    resolved: Resolved


class Identities:
    """The cache of one process."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Span, ...]] = {}

    def unresolved(self, batch: Iterable[Pending], *, everything: bool) -> list[Pending]:
        """Resolves heartbeats from the cache, and returns those that the database has to resolve.

        everything  returns all: the cache has just been found to be outdated
        """
        found = []
        for pending in batch:
            beat = pending.heartbeat
            if everything:
                found.append(pending)
                continue
            evidence = evidence_of(beat)
            spans = self._known.get(beat.server_id)
            if evidence is None and spans is None:
                pending.resolved = _NAMES_ARE_SERIES
                continue
            pending.resolved = None
            key = hash((beat.boot_id, evidence or names_of(beat)))
            for span in spans or ():
                if (
                    span.evidence == key
                    and span.since <= pending.time
                    and (not span.until or pending.time < span.until)
                ):
                    pending.resolved = span.resolved
                    break
            else:
                found.append(pending)
        return found

    def learn(self, asked: Sequence[Pending], rows: Iterable[asyncpg.Record]) -> None:
        """Adds the result of RESOLVE for these heartbeats."""
        for row in rows:
            pending = asked[row["place"] - 1]
            resolved = Resolved(row["version"], _decode(row["names"]))
            pending.resolved = resolved
            server_id = pending.heartbeat.server_id
            if resolved.version is None:
                self._known.pop(server_id, None)
                continue
            if row["since"] is None or row["since"] == row["until"]:
                continue
            beat = pending.heartbeat
            key = hash((beat.boot_id, evidence_of(beat) or names_of(beat)))
            span = _Span(key, row["since"], row["until"], resolved)
            others = [
                other
                for other in self._known.get(server_id, ())
                if other.resolved.version == resolved.version and (other.evidence, other.since) != span[:2]
            ]
            self._known[server_id] = (span, *others[: SPANS - 1])
        if len(self._known) > SERVERS:
            self._known.clear()

    def forget(self, servers: Iterable[str] | None = None) -> None:
        """Removes these servers from the cache; None: all of them."""
        if servers is None:
            self._known.clear()
            return
        for server_id in servers:
            self._known.pop(server_id, None)


def evidence_of(beat: Heartbeat) -> tuple[Any, ...] | None:
    """The evidence of all interfaces of a heartbeat; None if it has nothing but names."""
    interfaces = beat.network_interfaces
    if not interfaces:
        return None
    seen = tuple(
        [
            _evidence(one)
            for one in interfaces
            if not _is_short_lived(one.name) and (one.kind != "veth" or not one.stacked_on)
        ]
    )
    if len(seen) > MOST_FOLLOWED:
        seen = tuple([one for one in seen if one[1] == "physical"][:MOST_FOLLOWED])
    for _, _, ifindex, address, bus_path, alias in seen:
        if ifindex is not None or address is not None or bus_path is not None or alias is not None:
            return seen
    return None


def arguments(asked: Sequence[Pending]) -> list[Any]:
    """The arguments of RESOLVE."""
    beats = [pending.heartbeat for pending in asked]
    return [
        [beat.server_id for beat in beats],
        [pending.time for pending in asked],
        [boot_fingerprint(beat.boot_id) if beat.boot_id else None for beat in beats],
        [_encode([_described(one) for one in evidence_of(beat) or names_of(beat)]).decode() for beat in beats],
    ]


def names_of(beat: Heartbeat) -> tuple[tuple[Any, ...], ...]:
    """The names alone, as evidence: for a heartbeat without evidence of a server that sent some before."""
    named = [one for one in beat.network_interfaces or () if not _is_short_lived(one.name)]
    return tuple([(one.name, one.kind, None, None, None, None) for one in named[:MOST_FOLLOWED]])


def _described(one: tuple[Any, ...]) -> dict[str, Any]:
    name, kind, ifindex, address, bus_path, alias = one
    return {
        "os_name": name, "kind": kind, "ifindex": ifindex, "permanent_address": address and address.lower(),
        "bus_path": bus_path, "alias": alias,
    }  # fmt: skip


@lru_cache(maxsize=65_536)
def _is_short_lived(name: str) -> bool:
    return FOLDED.match(name) is not None
