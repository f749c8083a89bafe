"""The acknowledgement file of a segment: which of its records were acknowledged, when, and in which epochs.

A sequence of 12-byte entries, big-endian: 8 bytes of content and a CRC-32. The initial value of the CRC tells the three
kinds of entries apart: a sequence number (0), a time in milliseconds (the CRC of "time"), the fingerprint of an epoch
(the CRC of "epoch"). A time and the epochs after it apply to the sequence numbers that follow, up to the next time. An
older agent, which reads only sequence numbers, skips the other entries; the sequence numbers that it writes have no
time, and their heartbeats are not kept.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .files import opened, read_regular, write

_ENTRY = struct.Struct(">QI")
_SEQUENCE, _TIME, _EPOCH = 0, zlib.crc32(b"time"), zlib.crc32(b"epoch")

LATEST_MS = 2**53  # a file may hold anything
UNKNOWN_EPOCH = 0  # for heartbeats acknowledged before any response had an epoch


class Acknowledged(NamedTuple):
    """How a heartbeat was acknowledged.

    at_ms           by the clock of agent/keeping.py; 0: the heartbeat is not kept.
    epochs          fingerprints of the epochs that have the heartbeat; empty: their entries are damaged.
    """

    at_ms: int
    epochs: frozenset[int]

    def and_again(self, later: "Acknowledged") -> "Acknowledged":
        """This acknowledgement combined with a later one of the same heartbeat."""
        return Acknowledged(max(self.at_ms, later.at_ms), self.epochs | later.epochs)


NOT_KEPT = Acknowledged(0, frozenset())


@lru_cache(maxsize=64)
def fingerprint(epoch: str) -> int:
    """A 64-bit hash of an epoch; never UNKNOWN_EPOCH."""
    return int.from_bytes(hashlib.blake2b(epoch.encode(), digest_size=8).digest()) or 1


def path_of(segment: Path) -> Path:
    return segment.with_suffix(".ack")


def note(segment: Path, sequences: Iterable[int], how: Acknowledged) -> None:
    """Appends an acknowledgement of these heartbeats to the file. Raises OSError.

    Not flushed: if a power failure loses the entries, the heartbeats are sent again and are duplicates.
    """
    entries = [_entry(_TIME, how.at_ms), *(_entry(_EPOCH, epoch) for epoch in sorted(how.epochs))]
    entries += [_entry(_SEQUENCE, sequence) for sequence in sequences]
    with opened(path_of(segment), os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
        write(file, b"".join(entries))


def read(segment: Path, *, mend: bool = True) -> dict[int, Acknowledged]:
    """The acknowledged sequence numbers of `segment`. A damaged entry does not affect the others.

    With `mend`, an incomplete entry at the end of the file is truncated.
    """
    try:
        data = read_regular(path_of(segment))
    except OSError:
        return {}
    whole = len(data) - len(data) % _ENTRY.size
    if mend and len(data) > whole:
        with suppress(OSError):  # otherwise entries appended later would be misaligned
            os.truncate(path_of(segment), whole)
    found: dict[int, Acknowledged] = {}
    alike: dict[frozenset[int], frozenset[int]] = {}  # shares one set between thousands of equal ones
    how = NOT_KEPT
    for content, crc in _ENTRY.iter_unpack(data[:whole]):
        if crc == _crc(_SEQUENCE, content):
            found[content] = found[content].and_again(how) if content in found else how
        elif crc == _crc(_TIME, content) and content <= LATEST_MS:
            how = Acknowledged(content, frozenset())
        elif crc == _crc(_EPOCH, content):
            epochs = how.epochs | {content}
            how = how._replace(epochs=alike.setdefault(epochs, epochs))
        else:
            # It may have been an epoch. If the database may lack a heartbeat, send it again rather than lose it.
            how = Acknowledged(max(1, how.at_ms), frozenset())
    return found


def _entry(kind: int, content: int) -> bytes:
    return _ENTRY.pack(content, _crc(kind, content))


def _crc(kind: int, content: int) -> int:
    return zlib.crc32(content.to_bytes(8, "big"), kind)
