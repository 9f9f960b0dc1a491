"""What a command has been at for longer than a second, on standard error, where that is a terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

AFTER_S, EVERY_S = 1.0, 0.2
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ERASE_LINE = "\r\x1b[K"

Say = Callable[[str], None]
"""Prints a line on standard output, which what is drawn does not stand in the way of."""


@contextmanager
def working(doing: str, *, shown: bool = True) -> Iterator[Say]:
    """What is being done and since when, from the second second on, unless it is not to be `shown`."""
    if not shown or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield click.echo
        return
    over, one_writes = threading.Event(), threading.Lock()

    def show() -> None:
        began, frame = time.monotonic(), 0
        if over.wait(AFTER_S):
            return
        while not over.wait(EVERY_S):
            frame += 1
            with one_writes:
                _draw(f"{FRAMES[frame % len(FRAMES)]} {doing}, {time.monotonic() - began:.0f} s")
        _draw()

    def say(line: str) -> None:
        with one_writes:
            _draw()
            click.echo(line)

    drawing = threading.Thread(target=show, daemon=True)
    drawing.start()
    try:
        yield say
    finally:
        over.set()
        drawing.join()


def _draw(text: str = "") -> None:
    print(ERASE_LINE + text, end="", file=sys.stderr, flush=True)  # noqa: T201 - drawn over, so no line of ours
