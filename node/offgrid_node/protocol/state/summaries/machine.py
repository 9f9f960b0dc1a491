"""The memory machine: which summaries there are, and up to where.

All is in rows. A window's summaries come together, and with them how far the journal is summarised: whoever is killed
before has summarised nothing of it, and does it again. What was already summarised, by a walk that began before another
one ended, is refused: no event is in two summaries. Likewise a fold, of which all parts must be there as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, Internal
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.state.sessions.tables import SESSIONS
from offgrid_node.protocol.state.summaries.commands import DropSummaries, FoldSummaries, KeepWindow, Placed
from offgrid_node.protocol.state.summaries.tables import (
    JOURNAL,
    MEMORY,
    SUMMARIES,
    UPTO_KEY,
    summary_key,
)
from offgrid_node.protocol.state.tables import number_key, number_of

DROPPED_MAX = 4_096  # in one step
MOVED = "SummariesMoved"  # they are not what whoever asks has seen


class MemoryMachine:
    """Nothing waits in it."""

    def __init__(self) -> None:
        self._draft = Draft()

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)

    def deadline_ms(self) -> int | None:
        return None

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    try:
                        self._draft.reply(ticket, self._ask(command))
                    except Internal:
                        raise
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case Woke():
                    pass
                case _:
                    raise Internal(f"the memory machine does not know {type(event).__name__}")
        return self._draft.take()

    def _ask(self, command: object) -> state_pb2.SummariesChanged:
        match command:
            case KeepWindow():
                return self._keep(command)
            case FoldSummaries():
                return self._fold(command)
            case DropSummaries():
                return self._drop(command)
            case _:
                raise Internal(f"the memory machine does not know {type(command).__name__}")

    def _keep(self, command: KeepWindow) -> state_pb2.SummariesChanged:
        row = self._draft.get(MEMORY, UPTO_KEY)
        upto = number_of(row) if row is not None else 0
        if command.after != upto or command.upto <= upto:
            text = f"events up to {upto} are summarised, and those from {command.after + 1} on were to be"
            raise FailedPrecondition(text, reason=MOVED)
        wanted = [placed for placed in command.summaries if self._is_wanted(placed.scope)]
        for placed in wanted:
            self._put(placed)
        self._draft.put_bytes(MEMORY, UPTO_KEY, number_key(command.upto))
        return state_pb2.SummariesChanged(kept=len(wanted))

    def _fold(self, command: FoldSummaries) -> state_pb2.SummariesChanged:
        placed = command.placed
        at, keys = placed.row.first, [summary_key(placed.scope, first) for first in command.first]
        for key in keys:
            row = self._draft.row(SUMMARIES, key, state_pb2.SummaryRow)
            if row is None or row.first < at or row.last > placed.row.last:
                text = f"summaries of {placed.scope} from {placed.row.first} on are not what they were"
                raise FailedPrecondition(text, reason=MOVED)
            at = row.last + 1
        if not self._is_wanted(placed.scope):
            raise FailedPrecondition(f"what {placed.scope} said was shredded", reason=MOVED)
        for key in keys:
            self._draft.delete(SUMMARIES, key)
        self._put(placed)
        return state_pb2.SummariesChanged(folded=len(keys), kept=1)

    def _drop(self, command: DropSummaries) -> state_pb2.SummariesChanged:
        there = [key for key in command.keys[:DROPPED_MAX] if self._draft.get(SUMMARIES, key) is not None]
        for key in there:
            self._draft.delete(SUMMARIES, key)
        return state_pb2.SummariesChanged(folded=len(there))

    def _put(self, placed: Placed) -> None:
        self._draft.put(SUMMARIES, summary_key(placed.scope, placed.row.first), placed.row)

    def _is_wanted(self, scope: str) -> bool:
        """Not of a session that was shredded meanwhile: its rows go, and nobody would open this one."""
        if scope == JOURNAL:
            return True
        try:
            session = self._draft.row(SESSIONS, scope.encode(), state_pb2.SessionRow)
        except Corrupt:
            return True  # nobody can say
        return session is not None and not session.session.purged_us
