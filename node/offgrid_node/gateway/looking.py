"""One look at the node at a time, for all who have a feed open; none while nobody has.

It looks every LOOK_S, and sooner after something happened, though not more often than every LOOK_LEAST_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from offgrid_node.gateway.picture import Picture, look
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Record
from offgrid_node.runtime import Runtime
from offgrid_node.services.router import Router

LOOK_S, LOOK_LEAST_S = 0.5, 0.25
SETTLE_S = 0.05  # after an event, for what follows from it

_log = logging.getLogger(__name__)


class Looking:
    """`now` is the newest picture, empty until there is one. Belongs to the loop's thread."""

    def __init__(self, router: Router, runtime: Runtime) -> None:
        self._router, self._runtime = router, runtime
        self._readers: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self.now = Picture()

    async def fresh(self) -> Picture:
        """A picture of this moment, for one reader."""
        return await look(self._router, self._runtime.store.journal_seq, Picture())

    def add(self, on_look: Callable[[], None]) -> Callable[[], None]:
        """`on_look` is called after each look; returns what ends that."""
        self._readers.append(on_look)
        if self._task is None:
            self.now = Picture()
            self._task = asyncio.create_task(self._run(), name="gateway looks")

        def remove() -> None:
            self._readers.remove(on_look)
            if not self._readers and self._task is not None:
                self._task.cancel()
                self._task = None

        return remove

    async def _run(self) -> None:
        unwatch = self._runtime.watch(self._on_events)
        try:
            while True:
                await asyncio.sleep(LOOK_LEAST_S)
                try:
                    async with asyncio.timeout(LOOK_S - LOOK_LEAST_S):
                        await self._stirred.wait()
                    await asyncio.sleep(SETTLE_S)
                except TimeoutError:
                    pass
                self._stirred.clear()
                try:
                    self.now = await look(self._router, self._runtime.store.journal_seq, self.now)
                except Exception:  # noqa: BLE001 - a look that fails must not be the last one
                    _log.exception("the page is not told what changes", extra=fields("feed_failed"))
                for tell in tuple(self._readers):
                    tell()
        finally:
            unwatch()

    def _on_events(self, events: Sequence[Record]) -> None:
        self._stirred.set()
