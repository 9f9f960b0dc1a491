"""How far reading or writing has come, on standard error, where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from offgrid_tools.cli.settings import settings

if TYPE_CHECKING:
    from rich.progress import TextColumn

    from offgrid.command_line.working import Say

EVERY_S = 0.2
RATE_S = 10.0  # of which a rate is the mean, those among them in which nothing came

Advance = Callable[[int, int], None]
"""Bytes done, and of how many; 0 where that is not known."""


class Recent:
    """How fast it goes, by what was done when; what was there at the first word is no part of it. One thread may tell
    what is done, and another ask how fast."""

    def __init__(self) -> None:
        self._points = deque[tuple[float, int]]()

    def on_done(self, done: int, now_s: float) -> None:
        if len(self._points) > 1 and now_s - self._points[-1][0] < EVERY_S:
            now_s = self._points.pop()[0]
        self._points.append((now_s, done))
        while len(self._points) > 1 and self._points[1][0] <= now_s - RATE_S:
            self._points.popleft()

    def per_s(self, now_s: float) -> float | None:
        """Bytes a second; None in the first second, which tells nothing."""
        points = list(self._points)
        if not points or now_s - points[0][0] < 1:
            return None
        since_s, before = next((each for each in reversed(points) if each[0] <= now_s - RATE_S), points[0])
        return (points[-1][1] - before) / min(now_s - since_s, RATE_S)


@contextmanager
def bar(doing: str) -> Iterator[Advance]:
    if settings().json or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    from offgrid_tools.cli.output import size

    recent = Recent()

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            per_s = recent.per_s(time.monotonic())
            return Text("" if per_s is None else f"{size(round(per_s))}/s", style="progress.data.speed")

    def advance(done: int, total: int) -> None:
        recent.on_done(done, time.monotonic())
        progress.update(task, completed=done, total=total or None)

    with Progress(
        *(_label(), BarColumn(), DownloadColumn(), Rate()), console=Console(stderr=True), transient=True
    ) as progress:
        task = progress.add_task(doing, total=None)
        yield advance


@contextmanager
def counting(doing: str) -> Iterator[Callable[[str, int, int], None]]:
    """As `bar`, of events: what is being done, for how many, and of how many; `doing` until that is said."""
    if settings().json or not sys.stderr.isatty():
        yield lambda doing, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = _label(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(doing, total=None)
        yield lambda doing, done, total: progress.update(task, description=doing, completed=done, total=total or None)


def _label() -> TextColumn:
    """A bar's words as they are: a file's name may have braces and brackets in it."""
    from rich.progress import TextColumn

    return TextColumn("{task.description}", markup=False)


def working(doing: str) -> AbstractContextManager[Say]:
    """What is being done, of what cannot say how far it is; from the second second on."""
    from offgrid.command_line.working import working

    return working(doing, shown=not settings().json)
