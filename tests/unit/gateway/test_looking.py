"""Who has a feed open is looked for; nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from offgrid_node.gateway import looking
from offgrid_node.gateway.looking import Looking
from offgrid_node.gateway.picture import Picture
from offgrid_node.protocol.effects import Record
from offgrid_node.runtime import Runtime
from offgrid_node.services.router import Router


class Still:
    """A node of which nothing is heard."""

    watched = 0

    class store:  # noqa: N801 - as the runtime has it
        journal_seq = 0

    def watch(self, on_events: Callable[[Sequence[Record]], None]) -> Callable[[], None]:
        self.watched += 1
        self.on_events = on_events

        def unwatch() -> None:
            self.watched -= 1

        return unwatch


def test_it_looks_while_anybody_reads_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(router: Router, seq: int, last: Picture) -> Picture:
        return last

    async def scenario() -> None:
        node, told, heard = Still(), dict.fromkeys("ab", 0), asyncio.Event()
        it = Looking(cast(Router, None), cast(Runtime, node))

        def count(name: str) -> None:
            told[name] += 1
            heard.set()

        async def looked(times: int) -> None:
            async with asyncio.timeout(10):
                while told["b"] < times:
                    heard.clear()
                    await heard.wait()

        ends = [it.add(lambda: count("a")), it.add(lambda: count("b"))]
        await looked(2)
        assert node.watched == 1, "one look for all"
        ends[0]()
        before = told["a"]
        await looked(told["b"] + 2)
        assert told["a"] == before, "whoever has gone is told nothing, and the others go on"
        ends[1]()
        await asyncio.sleep(0)
        assert node.watched == 0
        it.add(lambda: count("b"))
        await looked(told["b"] + 1)

    for name in ("LOOK_S", "LOOK_LEAST_S", "SETTLE_S"):
        monkeypatch.setattr(looking, name, 0.002 if name == "LOOK_S" else 0.001)
    monkeypatch.setattr(looking, "look", look)
    asyncio.run(scenario())


@pytest.mark.parametrize("turns", range(5))
def test_it_ends_with_its_last_reader_in_whatever_turn_after_an_event(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(router: Router, seq: int, last: Picture) -> Picture:
        return last

    async def scenario() -> None:
        node = Still()
        remove = Looking(cast(Router, None), cast(Runtime, node)).add(lambda: None)
        await asyncio.sleep(0.01)  # it waits for an event now
        node.on_events(())
        for _ in range(turns):
            await asyncio.sleep(0)
        remove()
        for _ in range(10):
            await asyncio.sleep(0)
        assert node.watched == 0

    for name, value in (("LOOK_S", 10.0), ("LOOK_LEAST_S", 0.0), ("SETTLE_S", 1.0)):
        monkeypatch.setattr(looking, name, value)
    monkeypatch.setattr(looking, "look", look)
    asyncio.run(scenario())
