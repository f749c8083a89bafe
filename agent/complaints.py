"""Says that something is wrong once, and that it is right again once: a log that tells changes of state."""

import logging
from collections.abc import Collection, Hashable


class Complaints:
    """What is wrong at present, by subject. A heartbeat every 30 s must not mean a warning every 30 s."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._open: set[Hashable] = set()

    def about(self, subject: Hashable, message: str, *args: object) -> None:
        """Warns, unless `subject` is complained about already."""
        if subject not in self._open:
            self._open.add(subject)
            self._log.warning(message, *args)

    def settled(self, subject: Hashable, message: str = "", *args: object) -> None:
        """Says so, if `subject` was complained about."""
        if subject in self._open:
            self._open.discard(subject)
            if message:
                self._log.info(message, *args)

    def keep_only(self, subjects: Collection[Hashable]) -> None:
        """Forgets subjects that no longer exist, such as mounts that went away."""
        self._open.intersection_update(subjects)
