"""Which acknowledged heartbeats are kept, for how long, and which of them another database has to be sent.

The service's answers carry an epoch, which names its database. Another epoch means a standby that took over, or a
restored backup: heartbeats that were acknowledged before may not be in it. Those that are kept are sent again, each at
most once an epoch and in MOST_EPOCHS epochs at most, so that a service that answers with several epochs by turns, or
with another one every time, does not get the same heartbeats for ever.
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
    """The file `epoch` of the spool. "" stands for none.

    first           the first that was ever in an answer: what was acknowledged before belongs to it.
    current         the one of the last answer.
    """

    first: str = ""
    current: str = ""


def read_epochs(path: Path) -> Epochs:
    """What the file says; where there is none, or nothing to be read in it, nothing."""
    try:
        return msgspec.json.decode(read_regular(path), type=Epochs)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Epochs()


class Keeping:
    """The epochs of the answers, and a clock of acknowledgements.

    Nothing sets that clock, it goes on from the last acknowledgement when the agent starts again, and heartbeats grow
    too old by it only when another one is acknowledged: neither a wrong wall clock nor a long outage before the
    failover costs what was acknowledged just before it.
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
        """The epoch of the last answer, "" before the first that had one."""
        return self._epochs.current

    def resume(self, newest_ms: int) -> None:
        """Goes on from the disk: its epochs, where no answer has said more, and its newest acknowledgement."""
        self._saved = read_epochs(self._path)
        self._epochs = Epochs(self._saved.first or self._epochs.first, self._epochs.current or self._saved.current)
        if newest_ms:
            self._origin_ms += max(0, newest_ms - self._now_ms())
            self._oldest_ms = newest_ms - self._keep_ms
        self.save()

    def answered(self, epoch: str) -> None:
        """An answer carried this epoch."""
        self._epochs = Epochs(self._epochs.first or epoch, epoch)
        self.save()

    def save(self) -> None:
        """Best effort and not flushed: the notes of acknowledgements have the epochs too."""
        if self._epochs == self._saved:
            return
        with suppress(OSError):
            unfinished = self._path.with_suffix(".tmp")
            with opened(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as file:
                write(file, msgspec.json.encode(self._epochs))
            unfinished.replace(self._path)
            self._saved = self._epochs

    def acknowledgement(self, epoch: str, asked: str) -> Acknowledged:
        """Of heartbeats that an answer with `epoch` acknowledges now, and that were sent again for `asked`, if any.

        For `asked` too when the answer is of another epoch: else two databases that answer by turns could have the
        same heartbeats sent without end.
        """
        if not self._keep_ms:
            return NOT_KEPT
        now_ms = self._now_ms()
        self._oldest_ms = now_ms - self._keep_ms
        # An answer without an epoch comes from an older service, and tells nothing of the database.
        known = {fingerprint(each) for each in (epoch or self.epoch, asked) if each}
        return Acknowledged(now_ms, frozenset(known or {UNKNOWN_EPOCH}))

    def is_due(self, epochs: frozenset[int]) -> bool:
        """Whether the database of today has to be sent what was acknowledged in these epochs."""
        if not self._keep_ms or not self.epoch or fingerprint(self.epoch) in epochs or len(epochs) > MOST_EPOCHS:
            return False
        return UNKNOWN_EPOCH not in epochs or self.epoch != self._epochs.first

    def is_over(self, how: Acknowledged) -> bool:
        """Whether a heartbeat need not be kept any longer."""
        return not self.is_recent(how.at_ms) and not self.is_due(how.epochs)

    def is_recent(self, at_ms: int) -> bool:
        """Whether a heartbeat that was acknowledged then is kept in any case."""
        return self._keep_ms > 0 and at_ms >= self._oldest_ms

    def _now_ms(self) -> int:
        return max(1, self._origin_ms + round(self._monotonic() * 1000))
