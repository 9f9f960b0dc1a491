"""An input is fed to a target, and judged: it raises nothing, leaves no traceback in a log, and is soon done."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from types import FrameType
from typing import Any

from offgrid_tools.fuzz.mutation import mutated
from offgrid_tools.fuzz.targets import TARGETS

CHECK_S_MAX = 2.0  # processor time; what is usual is a thousandth
SHORTER_TRIES = 2_000
SOURCES = "offgrid_transports"  # whose lines count


class Found(Exception):
    """An input that a target does not stand; says what came of it."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        super().__init__(f"{target} does not stand {data.hex()}: {what}")
        self.target, self.data, self.what = target, data, what


def feed(target: str, data: bytes) -> None:
    """Raises Found."""
    began = time.process_time()
    with _listening() as said:
        try:
            TARGETS[target].check(data)
        except Exception as error:
            raise Found(target, data, f"{type(error).__name__}: {error}") from error
    took = time.process_time() - began
    if said:
        raise Found(target, data, f"the log has {said[0]}")
    if took > CHECK_S_MAX:
        raise Found(target, data, f"it took {took:.1f} s")


def search(target: str, rng: Random, inputs: Sequence[bytes], tries: int) -> None:
    """Feeds as many mutations of `inputs`. Raises Found."""
    for _ in range(tries):
        feed(target, mutated(rng, inputs))


def reach(target: str, data: bytes) -> set[tuple[str, int]]:
    """The lines of the transports that it comes to: name of the code, and number."""
    lines: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if SOURCES not in frame.f_code.co_filename:
            return None
        lines.add((frame.f_code.co_qualname, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        TARGETS[target].check(data)
    finally:
        sys.settrace(None)
    return lines


def shorter(found: Found) -> bytes:
    """An input that is as bad in the same way, with what it does not need left out."""
    data, tries = found.data, 0
    size = max(1, len(data) // 2)
    while tries < SHORTER_TRIES:
        before = len(data)
        for at in range(0, len(data), size):
            less = data[:at] + data[at + size :]
            tries += 1
            if len(less) < len(data) and _kind(found.target, less) == found.what.partition(":")[0]:
                data = less
                break
        if len(data) == before:
            if size == 1:
                break
            size //= 2
    return data


def _kind(target: str, data: bytes) -> str:
    try:
        feed(target, data)
    except Found as found:
        return found.what.partition(":")[0]
    return ""


class _Tracebacks(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{record.name}: {record.getMessage()}")


@contextmanager
def _listening() -> Iterator[list[str]]:
    handler, root = _Tracebacks(), logging.getLogger()
    root.addHandler(handler)
    try:
        yield handler.said
    finally:
        root.removeHandler(handler)
