"""Progress for people on standard error: one line per step, rewritten in place on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

DETAIL_CHARS_MAX = 60  # of what a step is doing just now


class Step:
    """One running step; `detail` shows what it is doing, on terminals only."""

    def __init__(self, label: str, out: TextIO) -> None:
        self._label, self._out, self._live = label, out, out.isatty()
        if self._live:
            self._out.write(f"{label} …")
            self._out.flush()

    def detail(self, text: str) -> None:
        if self._live:
            self._out.write(f"\r\x1b[K{self._label} … {text[:DETAIL_CHARS_MAX]}")
            self._out.flush()

    def end(self, result: str) -> None:
        self._out.write(f"{chr(13) + chr(27) + '[K' if self._live else ''}{self._label} … {result}\n")
        self._out.flush()


class Progress:
    """Numbers the steps of one piece of work: "[2/3] installing 36 packages … 11.9 s"."""

    def __init__(self, steps: int, out: TextIO | None = None) -> None:
        self._total, self._number, self._out = steps, 0, out or sys.stderr

    @contextmanager
    def step(self, what: str) -> Iterator[Step]:
        self._number += 1
        step, began = Step(f"[{self._number}/{self._total}] {what}", self._out), time.monotonic()
        try:
            yield step
        except BaseException:
            step.end("failed")
            raise
        step.end(f"{time.monotonic() - began:.1f} s")
