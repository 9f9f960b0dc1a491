"""A desk of sessions whose node keeps little, and looks each minute what is to go."""

from __future__ import annotations

from typing import Any

from session_desk import START_US, Desk, event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.retention import FIRST_MS, INTERVAL_MS, MIB, Budget, Retention, Surroundings
from offgrid_node.storage.store import Batch

BLOCK = 40_000  # bytes of data in what `fill` records at a time
SHARE = MIB * 40 // 100
LOOK_MS = 10  # that a look takes


class Kept(Desk):
    """A desk whose node keeps little. `safe`: what hosts have of its journal; None: it does not go to hosts."""

    def __init__(self, **budget: int) -> None:
        self.budget = Budget(**{"base_mb": 1, **budget})
        self.safe: int | None = None
        self.summed: int | None = None
        self.summing: int | None = None
        self.shrunk: list[str] = []
        super().__init__()

    def start(self) -> None:
        super().start()
        self.timers.clear()
        around = Surroundings(
            lambda: self.safe,
            lambda: self.store.journal_seq if self.summed is None else self.summed,
            self.compact,
            self.handlers.summing_up,
            lambda sessions: self.handlers.shredding.purge(sessions, "retention"),
            lambda: self.shrink("folded"),
            lambda: self.shrink("dropped"),
        )
        self.retention = Retention(self.runtime, self.budget, around, self.later)
        self.retention.start()
        self.wait(FIRST_MS)

    def compact(self) -> Ticket:
        """`summing`: up to where there are summaries then."""
        self.summed, ticket = self.summing, Ticket()
        ticket.resolve(state_pb2.SummariesChanged())
        return ticket

    def shrink(self, how: str) -> Ticket:
        """A summary; three are there to be put together, and one that they become."""
        said, ticket = len(self.shrunk), Ticket()
        self.shrunk.append(how)
        goes = (how == "folded" and said < 2) or (how == "dropped" and said == 3)
        if goes:
            key, _ = next(self.store.scan(SUMMARIES))
            self.store.commit(Batch(writes={(SUMMARIES, key): None}))
        ticket.resolve(state_pb2.SummariesChanged(folded=int(goes)))
        return ticket

    def look(self) -> state_pb2.GetRetentionResponse:
        self.wait(INTERVAL_MS)
        for _ in range(LOOK_MS):  # a long session is summed up in portions
            self.wait(1)
        return self.told()

    def told(self) -> state_pb2.GetRetentionResponse:
        told = self.retention.get_retention(ADMIN, state_pb2.GetRetentionRequest())
        assert isinstance(told, state_pb2.GetRetentionResponse)
        return told

    def fill(self, session: str, blocks: int, sent: int = 0) -> None:
        for at in range(sent, sent + blocks):
            data = {"note": f"{at}-".ljust(BLOCK, "x")}
            self.record(session, event(START_US + at, energy=1.0, **data), sent=at)

    def pin(self, session: str, *, pinned: bool = True) -> state_pb2.Session:
        request = state_pb2.PinSessionRequest(session=session, pinned=pinned)
        return self.ask("pin_session", request).session

    def get(self, session: str) -> state_pb2.Session:
        return self.ask("get_session", state_pb2.GetSessionRequest(session=session)).session

    def state(self, session: str, **asked: Any) -> tuple[int, bytes]:
        shown = self.ask("show_state", state_pb2.ShowStateRequest(session=session, **asked))
        return shown.number, shown.digest

    def numbers(self, session: str, **asked: Any) -> list[int]:
        return [record.number for record in self.records(session, **asked)]
