"""When windows are summarised: once each has ended, and what a process before this one left, soon after the start.

Nothing that is under way is kept on disk but what is done: a window's summaries and how far they reach are written in
one transaction (protocol/state/summaries/machine.py). Whoever is killed in between begins behind the newest.
"""

from __future__ import annotations

import logging

from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.state.summaries.commands import KeepWindow
from offgrid_node.protocol.state.summaries.machine import MOVED
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, Step, asked, run, ticket_of
from offgrid_node.services.memory.walking import KeysOf, Walk
from offgrid_node.services.sessions.vault import Vault

COMPACTION_INTERVAL_MS = 1_800_000
START_MS = 10_000  # after the start, when there is less to do
PAUSE_MS = 10  # between two portions
LANE = "memory"  # one at a time
CALLER = "compaction"

_log = logging.getLogger("offgrid.memory")


class Compacting:
    """`interval_ms` is a window's length."""

    def __init__(
        self, runtime: Runtime, vault: Vault, keys_of: KeysOf, bulk: Bulk, later: Later, interval_ms: int
    ) -> None:
        self._runtime, self._vault, self._keys_of = runtime, vault, keys_of
        self._bulk, self._later, self._interval_ms = bulk, later, interval_ms
        self.trouble = ""  # why what happened is not summarised

    def start(self) -> None:
        self._later(min(START_MS, self._interval_ms), self._on_time)

    def compact_now(self) -> Ticket:
        """What is under way as well, in a summary of its own. Ends with SummariesChanged once all that has happened by
        now is summarised."""
        return ticket_of(self._compact(under_way=True))

    def _on_time(self) -> None:
        run(self._compact(under_way=False), self._ended)

    def _ended(self, outcome: Message | Fault) -> None:
        """The next time is when the window of then ends, by the clock of now."""
        self.trouble = ""
        if isinstance(outcome, Fault):
            self.trouble = f"what happened is not summarised, and not dropped: {outcome.message}"
            _log.warning("what happened is not summarised", extra=fields("summaries_failing", why=self.trouble))
        now_ms = self._runtime.clock.now().utc_us // 1_000
        self._later(self._interval_ms - now_ms % self._interval_ms, self._on_time)

    def _compact(self, *, under_way: bool) -> Flow[Message]:
        """Begins anew, behind what there is then, where another one has summarised the same meanwhile."""
        told = state_pb2.SummariesChanged()
        while True:
            try:
                yield from self._walk(told, under_way=under_way)
            except FailedPrecondition as fault:
                if fault.reason != MOVED:
                    raise
            else:
                return told

    def _walk(self, told: state_pb2.SummariesChanged, *, under_way: bool) -> Flow[None]:
        over_us = None if under_way else self._runtime.clock.now().utc_us

        def walk_from_here() -> Walk:
            return Walk(self._runtime.store, self._vault, self._keys_of, self._interval_ms * 1_000, over_us)

        walk = yield self._bulk.run(walk_from_here, key=LANE)
        while found := (yield self._bulk.run(walk.portion, key=LANE)):
            if isinstance(found, KeepWindow):
                size = sum(len(placed.row.body) for placed in found.summaries)
                kept = yield asked(self._runtime.ask("memory", CALLER, found, size_bytes=size))
                told.kept += kept.kept
            yield self._pause
        if walk.passed_over:
            said = fields("blocks_unread", blocks=walk.passed_over)
            _log.warning("blocks of sessions could not be read, and are in no summary", extra=said)

    @property
    def _pause(self) -> Step[None]:
        return lambda done: self._later(PAUSE_MS, lambda: done(None))
