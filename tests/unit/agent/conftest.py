"""What tests of the agent share."""

from collections.abc import Iterator

import pytest

from agent.spool import Spool


@pytest.fixture(autouse=True)
def _spools_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Those that a test leaves open: the next process would wait for their lock for as long as this one lives."""
    made: list[Spool] = []
    original = Spool.__init__

    def remember(self: Spool, *args: object, **more: object) -> None:
        original(self, *args, **more)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Spool, "__init__", remember)
    yield
    for spool in made:
        spool._directory.close()
