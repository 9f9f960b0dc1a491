"""What lies over a store's file, as readers in other threads see it at any moment of a commit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import Any, TypeVar

from offgrid_node.storage.overlay import Overlay
from offgrid_node.storage.rows import KeyRange
from offgrid_node.storage.store import Batch

T = TypeVar("T")
EVERY = KeyRange(b"", None)
STANDS_S = 0.02  # so long the writer stands still at each line for a reader, who may have to wait for it


def looks_at_each_line(step: Callable[[], None], look: Callable[[], T]) -> list[T]:
    """What another thread finds that looks wherever it might have its turn while `step` runs."""
    looks = list[Future[T]]()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_qualname.startswith(Overlay.__name__):
            looks.append(pool.submit(look))
            wait(looks[-1:], timeout=STANDS_S)
        return trace

    with ThreadPoolExecutor() as pool:
        sys.settrace(trace)
        try:
            step()
        finally:
            sys.settrace(None)
        return [each.result() for each in looks]


def test_whoever_has_found_one_row_of_a_batch_finds_the_others_by_range() -> None:
    overlay, batch = Overlay(0), Batch(writes={("sessions", b"s"): b"one event", ("blocks", b"s1"): b"the event"})

    def look() -> tuple[bool, list[tuple[bytes, bytes | None]]]:
        return ("sessions", b"s") in overlay.batch.writes, overlay.rows("blocks", EVERY, reverse=False)[1]

    looks = looks_at_each_line(lambda: overlay.lay(batch, 100), look)
    assert len(looks) > len(batch.writes)
    for is_known, blocks in looks:
        assert blocks == [(b"s1", b"the event")] or not (is_known or blocks)


def test_a_range_has_all_rows_of_a_batch_or_none() -> None:
    overlay = Overlay(0)
    overlay.lay(Batch(writes={("blocks", b"s1"): b"old"}), 10)
    batch = Batch(writes={("blocks", b"s1"): b"new", ("blocks", b"s2"): b"new"})
    for version, blocks in looks_at_each_line(
        lambda: overlay.lay(batch, 10), lambda: overlay.rows("blocks", EVERY, reverse=True)
    ):
        assert (version, blocks) in [(1, [(b"s1", b"old")]), (2, [(b"s2", b"new"), (b"s1", b"new")])]
