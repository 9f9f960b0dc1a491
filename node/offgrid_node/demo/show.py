"""Lines for a person, with the time since the start."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

MICRO = 1_000_000


class Show:
    """Prints at once, whoever reads."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def line(self, text: str = "") -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def title(self, text: str) -> None:
        self.line(f"\n[{time.monotonic() - self._began:5.1f} s] {text}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        self.title(f"{text} …")
        began = time.monotonic()
        yield
        self.line(f"    {time.monotonic() - began:.1f} s")


def in_credits(micro: int) -> str:
    """Exactly: 1234500 micro is "1.2345"."""
    whole, rest = divmod(micro, MICRO)
    return f"{whole:,}.{rest:06d}".rstrip("0").rstrip(".")
