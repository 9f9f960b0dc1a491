"""What a bar says that it is doing, on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import click
import pytest

from offgrid_tools.cli import backups
from offgrid_tools.cli.bars import bar, counting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], str]:
    """What a command draws while it does that."""
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)

    def draw(work: Callable[[], object]) -> str:
        terminal = Terminal()
        with monkeypatch.context() as patched, click.Context(click.Command("offgrid")):
            patched.setattr(sys, "stderr", terminal)
            work()
        return terminal.getvalue()

    return draw


@pytest.mark.parametrize("begin", [bar, counting])
def test_it_says_what_from_the_first_moment_and_names_as_they_are(
    begin: Callable[[str], AbstractContextManager[Any]], drawn: Callable[[Callable[[], object]], str]
) -> None:
    def work() -> None:
        with begin("reading {a} [red]b.txt"):
            pass

    assert "reading {a} [red]b.txt" in drawn(work)


def test_work_on_the_store_is_named(drawn: Callable[[Callable[[], object]], str]) -> None:
    assert "compacting" in drawn(lambda: backups._followed("compacting", []))
