"""What the collector of cycles looks at: nothing twice that took long, and everything again when it is time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from offgrid_node import heap as heap_module
from offgrid_node.heap import Heap


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def gone(knot: Knot) -> Callable[[], bool]:
    known = weakref.ref(knot)
    return lambda: known() is None


def run(look_ms_max: float, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Heap], None]) -> None:
    async def live() -> None:
        heap = Heap(asyncio.get_running_loop())
        heap.start()
        try:
            scenario(heap)
        finally:
            heap.close()

    monkeypatch.setattr(heap_module, "LOOK_MS_MAX", look_ms_max)
    asyncio.run(live())


def test_what_is_there_at_the_start_is_looked_at_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_freeze_count()
    run(1e9, monkeypatch, lambda _: None)
    assert gc.get_freeze_count() > before + 1_000


def test_what_took_long_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(heap: Heap) -> None:
        knot = Knot()
        is_gone = gone(knot)
        gc.collect()  # takes longer than no time at all
        del knot
        gc.collect()
        assert not is_gone()
        heap.thaw()
        gc.collect()
        assert is_gone()

    run(-1, monkeypatch, scenario)


def test_short_looks_and_small_ones_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def scenario(heap: Heap) -> None:
        knot = Knot()
        is_gone = gone(knot)
        gc.collect()
        del knot
        gc.collect()
        assert is_gone()

    run(1e9, monkeypatch, scenario)

    def small(heap: Heap) -> None:
        frozen = gc.get_freeze_count()
        gc.collect(0)
        gc.collect(1)
        assert gc.get_freeze_count() == frozen

    run(-1, monkeypatch, small)


def test_everything_is_looked_at_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> None:
        heap = Heap(asyncio.get_running_loop())
        heap.start()
        thawed = asyncio.Event()
        monkeypatch.setattr(heap, "thaw", thawed.set)
        await asyncio.wait_for(thawed.wait(), 10)
        heap.close()
        assert heap._on_look not in gc.callbacks

    monkeypatch.setattr(heap_module, "THAW_S", 0.01)
    asyncio.run(live())
