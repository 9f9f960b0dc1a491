"""A desk of sessions that also remembers: the memory machine, and all that makes, joins and asks summaries."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

from google.protobuf.message import Message
from session_desk import Desk

from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Machine
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.summaries.machine import MemoryMachine
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.memory.compacting import START_MS
from offgrid_node.services.memory.room import MemoryRoom
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.session_vault import SessionVault

HOUR_US = 3_600_000_000
WINDOW_MS = 1_800_000


class MemoryDesk(Desk):
    elapsed_ms = 0

    def start(self) -> None:
        rng, outlet = Random(1), cast(Any, object())  # nothing leaves
        self.runtime = Runtime(self.machines, self.store, self.clock, rng, outlet)
        self.timers.clear()
        self.vault = SessionVault(self.keys, rng.randbytes)
        self.handlers = SessionHandlers(
            self.runtime, self.vault, rng, self.reducers, self.later, "node-1", self.privacy, Bulk(inline)
        )
        self.memory = MemoryRoom(self.runtime, self.vault, self.handlers, Bulk(inline), self.later, WINDOW_MS)
        self.memory.compacting.start()

    def machines(self) -> dict[str, Machine]:
        return super().machines() | {"memory": MemoryMachine()}

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        """By a clock that nobody sets."""
        self.timers.append((self.elapsed_ms + delay_ms, callback))

    def wait(self, ms: int) -> None:
        """Each timer when it is due."""
        end_ms = self.elapsed_ms + ms
        self.runtime.turn()
        while self.timers and (first := min(self.timers, key=lambda each: each[0]))[0] <= end_ms:
            self.timers.remove(first)
            self._pass(first[0] - self.elapsed_ms)
            first[1]()
            self.runtime.turn()
        self._pass(end_ms - self.elapsed_ms)
        self.runtime.turn()

    def _pass(self, ms: int) -> None:
        self.elapsed_ms += ms
        self.clock.now_us += ms * 1_000

    def compact(self) -> None:
        """What is over is summarised, also by a process that has only just started."""
        self.wait(START_MS + 5_000)

    def settle(self, ticket: Ticket) -> Any:
        for _ in range(100):
            self.runtime.turn()
        outcome = ticket.outcome
        if isinstance(outcome, Fault):
            raise outcome
        assert outcome is not None
        return outcome

    def remembered(self, method: str, request: Message) -> Any:
        found = self.settle(getattr(self.memory.handlers, method)(ADMIN, request))
        self.runtime.turn()
        return found

    def seen(self, key: str, **scope: Any) -> state_pb2.AskKeyResponse:
        """All pages."""
        whole, token = state_pb2.AskKeyResponse(), ""
        while True:
            asked = state_pb2.AskScope(page_token=token, **scope)
            page = self.remembered("ask_key", state_pb2.AskKeyRequest(scope=asked, key=key))
            whole.sightings.extend(page.sightings)
            whole.false_positive += page.false_positive
            _add(whole.basis, page.basis)
            token = page.next_page_token
            if not token:
                return whole

    def count(self, what: int | str, **scope: Any) -> state_pb2.AskCountResponse:
        whole, token = state_pb2.AskCountResponse(), ""
        named: dict[str, Any] = {"kind": what} if isinstance(what, str) else {"etype": what}
        while True:
            asked = state_pb2.AskScope(page_token=token, **scope)
            page = self.remembered("ask_count", state_pb2.AskCountRequest(scope=asked, **named))
            whole.at_least += page.at_least
            whole.at_most += page.at_most
            whole.cut += page.cut
            _add(whole.basis, page.basis)
            token = page.next_page_token
            if not token:
                return whole

    def summaries(self, session: str = "") -> list[state_pb2.Summary]:
        found: list[state_pb2.Summary] = []
        token = ""
        while True:
            request = state_pb2.ListSummariesRequest(session=session, page_token=token)
            page = self.remembered("list_summaries", request)
            found += page.summaries
            token = page.next_page_token
            if not token:
                return found


def _add(whole: state_pb2.AskBasis, basis: state_pb2.AskBasis) -> None:
    whole.events += basis.events
    whole.summarised += basis.summarised
    whole.recorded += basis.recorded
    whole.unreadable += basis.unreadable
