"""Sessions of one node, without the rest of it: the real machine, runtime and handlers over a store in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, cast

import msgspec
from google.protobuf.message import Message

from offgrid.reducers import Reducer, SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Machine
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.sessions.machine import SessionsMachine
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, Ended, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.stream import Stream
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_session_keys import MemorySessionKeys

WRITER = b"writer-1"
START_US = 1_790_000_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_us = START_US

    def now(self) -> Now:
        return Now(self.now_us // 1_000, self.now_us)


class Desk:
    """What is asked is committed before it is answered."""

    def __init__(self) -> None:
        self.store, self.clock, self.keys = MemoryStore(), Clock(), MemorySessionKeys()
        self.reducers: dict[str, Reducer] = {"session": SessionReducer()}
        self.privacy = Privacy()
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.start()

    def start(self) -> None:
        """As a process does that was killed."""
        rng, outlet = Random(1), cast(Any, object())  # nothing leaves
        self.runtime = Runtime(self.machines, self.store, self.clock, rng, outlet)
        vault = SessionVault(self.keys, rng.randbytes)
        self.handlers = SessionHandlers(
            self.runtime, vault, rng, self.reducers, self.later, "node-1", self.privacy, Bulk(self.carry)
        )

    def carry(self, work: Callable[[], Any], ended: Ended) -> None:
        inline(work, ended)

    def machines(self) -> dict[str, Machine]:
        versions = {name: each.version for name, each in self.reducers.items()}
        return {"sessions": SessionsMachine(self.store, versions)}

    def ask(self, method: str, request: Message) -> Any:
        """Raises Fault."""
        outcome = getattr(self.handlers, method)(ADMIN, request)
        if isinstance(outcome, Ticket):
            self.runtime.turn()
            while outcome.outcome is None:
                self.wait(1)
            outcome = outcome.outcome
        if isinstance(outcome, Stream):
            return self.drain(outcome)
        if isinstance(outcome, Fault):
            raise outcome
        self.clock.now_us += 1_000
        return outcome

    def drain(self, stream: Stream) -> list[Any]:
        """All that it says, as fast as it can. Raises Fault."""
        found: list[Any] = []
        stream.when_ready(lambda: found.extend(stream.take()))
        self.runtime.turn()
        while not stream.ended:
            self.wait(1)
        if stream.fault is not None:
            raise stream.fault
        return found

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        self.timers.append((self.clock.now_us // 1_000 + delay_ms, callback))

    def wait(self, ms: int) -> None:
        self.clock.now_us += ms * 1_000
        due = [each for each in self.timers if each[0] <= self.clock.now_us // 1_000]
        self.timers = [each for each in self.timers if each not in due]
        for _, callback in due:
            callback()
        self.runtime.turn()

    def session(self, name: str = "run") -> str:
        started = self.ask("start_session", state_pb2.StartSessionRequest(name=name))
        return str(started.session.session_id)

    def record(self, session: str, *events: list[Any], sent: int = 0, writer: bytes = WRITER, **dropped: int) -> int:
        """Events as `event` makes them; the number of the first."""
        said = {kind.replace("_", "."): count for kind, count in dropped.items()}
        request = state_pb2.RecordEventsRequest(
            session=session, writer=writer, sent=sent, events=msgspec.msgpack.encode(events), dropped=said
        )
        return int(self.ask("record_events", request).first)

    def records(self, session: str, **asked: Any) -> list[state_pb2.Record]:
        """All pages."""
        found: list[state_pb2.Record] = []
        token = ""
        while True:
            request = state_pb2.ListRecordsRequest(session=session, page_token=token, **asked)
            page = self.ask("list_records", request)
            found += page.records
            token = page.next_page_token
            if not token:
                return found


def event(at_us: int = START_US, kind: str = "health.heartbeat", frame: int | None = None, **data: Any) -> list[Any]:
    return [at_us, kind, frame, None, json.dumps(data).encode()]
