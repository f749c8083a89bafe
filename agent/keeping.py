"""Which acknowledged heartbeats are kept, for how long, and which of them must be sent to a new database.

The service's responses carry an epoch, which identifies its database. A new epoch means that a standby took over or a
backup was restored: the database may lack heartbeats that were acknowledged before. The kept ones are sent again, each
at most once per epoch and in at most MOST_EPOCHS epochs. So a service whose epoch alternates between several values, or
differs in every response, does not receive the same heartbeats endlessly.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from .acknowledged import NOT_KEPT, UNKNOWN_EPOCH, Acknowledged, fingerprint
from .files import opened, read_regular, write

MOST_EPOCHS = 8


class Epochs(msgspec.Struct, frozen=True):
    """The file `epoch` of the spool. "" means no epoch.

    first           the first epoch ever received; heartbeats acknowledged before it belong to it.
    current         the epoch of the last response that had one.
    """

    first: str = ""
    current: str = ""


def read_epochs(path: Path) -> Epochs:
    """The epochs in the file; empty ones if the file is missing or unreadable."""
    try:
        return msgspec.json.decode(read_regular(path), type=Epochs)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Epochs()


class Keeping:
    """The epochs of the responses, and a clock for acknowledgements.

    This clock is never adjusted. After a restart of the agent it continues from the last acknowledgement, and
    heartbeats expire by it only when another one is acknowledged. So neither a wrong wall clock nor a long outage
    before a failover drops the heartbeats that were acknowledged just before it.
    """

    def __init__(
        self, path: Path, keep_seconds: float, *, now_ms: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self._path, self._keep_ms, self._monotonic = path, round(keep_seconds * 1000), monotonic
        self._origin_ms = now_ms() - round(monotonic() * 1000)
        self._oldest_ms = 0
        self._epochs = self._saved = Epochs()

    @property
    def epoch(self) -> str:
        """The epoch of the last response that had one, "" before the first."""
        return self._epochs.current

    def resume(self, newest_ms: int) -> None:
        """Loads the epochs from the disk, unless a response was newer, and sets the clock to at least `newest_ms`, the
        time of the newest acknowledgement there.
        """
        self._saved = read_epochs(self._path)
        self._epochs = Epochs(self._saved.first or self._epochs.first, self._epochs.current or self._saved.current)
        if newest_ms:
            self._origin_ms += max(0, newest_ms - self._now_ms())
            self._oldest_ms = newest_ms - self._keep_ms
        self.save()

    def answered(self, epoch: str) -> None:
        """Records the epoch of a response."""
        self._epochs = Epochs(self._epochs.first or epoch, epoch)
        self.save()

    def save(self) -> None:
        """Best effort and not flushed: the acknowledgement files have the epochs too."""
        if self._epochs == self._saved:
            return
        with suppress(OSError):
            unfinished = self._path.with_suffix(".tmp")
            with opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
                write(file, msgspec.json.encode(self._epochs))
            unfinished.replace(self._path)
            self._saved = self._epochs

    def acknowledgement(self, epoch: str, asked: str) -> Acknowledged:
        """The acknowledgement, made now, of heartbeats by a response with `epoch`. `asked` is the epoch for which they
        were sent again, "" if they were not.

        It covers `asked` even if the response has another epoch: otherwise two databases that respond in turn could
        make the agent send the same heartbeats endlessly.
        """
        if not self._keep_ms:
            return NOT_KEPT
        now_ms = self._now_ms()
        self._oldest_ms = now_ms - self._keep_ms
        # A response without an epoch comes from an older service and does not identify the database.
        known = {fingerprint(each) for each in (epoch or self.epoch, asked) if each}
        return Acknowledged(now_ms, frozenset(known or {UNKNOWN_EPOCH}))

    def is_due(self, epochs: frozenset[int]) -> bool:
        """Whether heartbeats acknowledged in these epochs must be sent to the current database."""
        if not self._keep_ms or not self.epoch or fingerprint(self.epoch) in epochs or len(epochs) > MOST_EPOCHS:
            return False
        return UNKNOWN_EPOCH not in epochs or self.epoch != self._epochs.first

    def is_over(self, how: Acknowledged) -> bool:
        """Whether a heartbeat with this acknowledgement need not be kept any longer."""
        return not self.is_recent(how.at_ms) and not self.is_due(how.epochs)

    def is_recent(self, at_ms: int) -> bool:
        """Whether a heartbeat acknowledged at this time is still within the keep time."""
        return self._keep_ms > 0 and at_ms >= self._oldest_ms

    def _now_ms(self) -> int:
        return max(1, self._origin_ms + round(self._monotonic() * 1000))
