"""`run` shows a link that signs in, and only to a person."""

import os
import sys
from pathlib import Path

import pytest

from service import run
from service.access.keys import secret_key
from service.access.sessions import Sessions
from service.settings import Settings
from tests.helpers.support import KEY


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_code_is_shown_where_stderr_is_a_terminal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_terminal: bool
) -> None:
    settings = Settings(data_dir=str(tmp_path))
    ours, theirs = os.openpty() if is_terminal else os.pipe()
    with open(theirs, "w") as stderr, open(ours, "rb", buffering=0) as screen:  # noqa: PTH123 - descriptors
        monkeypatch.setattr(sys, "stderr", stderr)
        run._show(None, "http://127.0.0.1:8000", settings, run._code(settings, KEY))
        shown = screen.read(10_000).decode()
        monkeypatch.undo()

    assert "http://127.0.0.1:8000/" in shown
    assert ("/sign-in#code=" in shown) is is_terminal
    if is_terminal:
        sessions = Sessions(secret_key(settings), KEY)
        code = shown.partition("#code=")[2].split()[0]
        assert sessions.of_code(code)
        assert not sessions.of_code(f"{code}0")
