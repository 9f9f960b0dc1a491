"""How far reading or writing has come, on standard error, where that is a terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from offgrid_tools.cli.settings import settings

AFTER_S, EVERY_S = 1.0, 0.2
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ERASE_LINE = "\r\x1b[K"

Advance = Callable[[int, int], None]
"""Bytes done, and of how many; 0 where that is not known."""


@contextmanager
def bar(doing: str) -> Iterator[Advance]:
    if settings().json or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn(doing), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """As `bar`, of events: what is being done, for how many, and of how many."""
    if settings().json or not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda doing, done, total: progress.update(task, description=doing, completed=done, total=total or None)


@contextmanager
def working(doing: str) -> Iterator[None]:
    """What is being done and since when, of what cannot say how far it is; from the second second on."""
    if settings().json or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    over = threading.Event()

    def show() -> None:
        began, frame = time.monotonic(), 0
        if over.wait(AFTER_S):
            return
        while not over.wait(EVERY_S):
            frame += 1
            text = f"{FRAMES[frame % len(FRAMES)]} {doing}, {time.monotonic() - began:.0f} s"
            print(ERASE_LINE + text, end="", file=sys.stderr, flush=True)  # noqa: T201 - drawn over, so no line of ours
        print(ERASE_LINE, end="", file=sys.stderr, flush=True)  # noqa: T201

    drawing = threading.Thread(target=show, daemon=True)
    drawing.start()
    try:
        yield
    finally:
        over.set()
        drawing.join()
