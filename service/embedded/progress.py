"""Progress of a long step: one line that renews itself on a terminal, a few plain lines elsewhere."""

import sys
from collections.abc import Callable
from typing import Self

Say = Callable[[str], None]
"""Prints one line for the person who started the program."""


class Progress:
    """How far a download is. Use as a context manager: the terminal's line is ended either way."""

    def __init__(self, say: Say, label: str, total_bytes: int) -> None:
        self._say = say
        self._label = label
        self._total_bytes = max(total_bytes, 1)
        self._on_terminal = sys.stderr.isatty()
        self._next_percent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on_terminal:
            sys.stderr.write("\n")
            sys.stderr.flush()

    def show(self, done_bytes: int) -> None:
        """Tell that `done_bytes` have arrived."""
        percent = min(100, done_bytes * 100 // self._total_bytes)
        line = f"{self._label}: {megabytes(done_bytes)} of {megabytes(self._total_bytes)} ({percent} %)"
        if self._on_terminal:
            sys.stderr.write(f"\r{line}")
            sys.stderr.flush()
        elif percent >= self._next_percent:
            # A log file gets five lines, not one every poll.
            self._say(line)
            self._next_percent = percent // 25 * 25 + 25


def megabytes(size_bytes: int) -> str:
    """A size as people read it: decimal, as apt and disks count."""
    return f"{size_bytes / 1e6:.1f} MB"
