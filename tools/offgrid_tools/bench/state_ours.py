"""The sessions of a node in this process, without the rest of it: real handlers, machine, runtime, keys and store."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import cast

from google.protobuf.message import Message

from offgrid.reducers import SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.outlet import Outlet
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.sessions.machine import SessionsMachine
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_tools.bench.state_events import block

STORE_BYTES_MAX = 2 * 1024**3
NAME = "bench"
WRITER = b"bench   "
KEPT_BLOCKS = 64  # that were made before, so that making them is not measured


class OurStore:
    """What was recorded in its one session before goes on. Close it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._store = LoggedStore.open(folder / "store", limit_bytes=STORE_BYTES_MAX)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        reducer, rng = SessionReducer(), Random(0)  # noqa: S311 - ids need not be secret here
        machine = SessionsMachine(self._store, {reducer.name: reducer.version})
        outlet = cast("Outlet", object())  # the machine asks for nothing that leaves the node
        self._runtime = Runtime(lambda: {"sessions": machine}, self._store, SystemClock(), rng, outlet)
        vault = SessionVault(SessionKeys(folder / SESSION_KEYS))
        self._handlers = SessionHandlers(
            self._runtime, vault, rng, {reducer.name: reducer}, self._later, NAME, Privacy(), Bulk(inline)
        )
        started = self._answer(self._handlers.start_session(ADMIN, state_pb2.StartSessionRequest(name=NAME)))
        assert isinstance(started, state_pb2.StartSessionResponse)
        self._session, self._sent = started.session.session_id, started.session.recorded
        self._blocks: dict[int, list[bytes]] = {}

    @property
    def recorded(self) -> int:
        return self._sent

    def append(self, count: int) -> None:
        """So many events, as one request from the client's hand; returns once they are durable."""
        if count not in self._blocks:
            self._blocks[count] = [block(place * count, count) for place in range(KEPT_BLOCKS)]
        events = self._blocks[count][self._sent // count % KEPT_BLOCKS]
        request = state_pb2.RecordEventsRequest(session=self._session, writer=WRITER, sent=self._sent, events=events)
        self._answer(self._handlers.record_events(ADMIN, request))
        self._sent += count

    def show(self, number: int = 0) -> state_pb2.ShowStateResponse:
        """The session's state; as it was at that event, where one is named."""
        request = state_pb2.ShowStateRequest(session=self._session, number=number)
        shown = self._answer(self._handlers.show_state(ADMIN, request))
        assert isinstance(shown, state_pb2.ShowStateResponse)
        return shown

    def close(self) -> None:
        self._store.close()

    # ---- inside

    def _answer(self, ticket: Ticket) -> Message:
        self._runtime.turn()
        while ticket.outcome is None:
            due_s, _, callback = heapq.heappop(self._timers)
            time.sleep(max(0.0, due_s - time.monotonic()))
            callback()
            self._runtime.turn()
        if isinstance(ticket.outcome, Fault):
            raise ticket.outcome
        return ticket.outcome

    def _later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_ms / 1000, next(self._count), callback))


class SystemClock:
    """As the daemon's."""

    def now(self) -> Now:
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000)
