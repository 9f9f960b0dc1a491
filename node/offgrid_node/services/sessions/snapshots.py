"""When what a session's events come to is kept: after SNAPSHOT_EVENTS more, or SNAPSHOT_MS after the first of fewer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import msgspec
from google.protobuf.message import Message

from offgrid.reducers import Reducer
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.sessions.blocks import Entry
from offgrid_node.protocol.state.sessions.commands import KeepSnapshot
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.flow import Flow, Later, ticket_of
from offgrid_node.services.sessions.folding import Folding, loggable

SNAPSHOT_EVENTS, SNAPSHOT_MS = 1_000, 60_000
CALLER = "snapshots"
SESSIONS_MAX = 4_096  # of which it is remembered what has come

_log = logging.getLogger("offgrid.sessions")


class _Since(msgspec.Struct):
    """Of one session: how many events have come since its last snapshots, and whether a timer runs for them."""

    events: int = 0
    timed: bool = False


class Snapshots:
    """By every reducer that the node knows."""

    def __init__(self, runtime: Runtime, folding: Folding, later: Later) -> None:
        self._runtime, self._folding, self._later = runtime, folding, later
        self._since: dict[str, _Since] = {}

    def on_events(self, session_id: str, first: int, entries: Sequence[Entry]) -> None:
        """They have just become durable; whatever comes of it here, whoever recorded them is answered."""
        self._folding.on_events(session_id, first, entries)
        since = self._since.get(session_id)
        if since is None:
            if len(self._since) >= SESSIONS_MAX:
                self._since.pop(next(iter(self._since)))
            since = self._since[session_id] = _Since()
        since.events += len(entries)
        if since.events >= SNAPSHOT_EVENTS:
            self._take_all(session_id, since)
        elif not since.timed:
            since.timed = True
            self._later(SNAPSHOT_MS, lambda: self._on_time(session_id))

    def forget(self, session_id: str) -> None:
        self._since.pop(session_id, None)

    def take(self, session_id: str, reducer: Reducer) -> Ticket:
        """Fails as `Folding.state`."""
        return ticket_of(self._take(session_id, reducer))

    def _take(self, session_id: str, reducer: Reducer) -> Flow[Message]:
        folded = yield from self._folding.state(session_id, reducer)
        sealed = self._folding.sealed(session_id, reducer, folded)
        command = KeepSnapshot(session_id, reducer.name, reducer.version, folded.number, sealed)
        kept: Message = yield self._runtime.ask("sessions", CALLER, command, size_bytes=len(sealed)).when_done
        return kept

    def _on_time(self, session_id: str) -> None:
        since = self._since.get(session_id)
        if since is not None:
            since.timed = False
            if since.events:
                self._take_all(session_id, since)

    def _take_all(self, session_id: str, since: _Since) -> None:
        since.events = 0
        for reducer in self._folding.reducers.values():
            self.take(session_id, reducer).when_done(partial(_tell, session_id, reducer.name))


def _tell(session_id: str, reducer: str, outcome: Message | Fault) -> None:
    if isinstance(outcome, Fault):
        said = fields("snapshot_failed", session=session_id, reducer=reducer, why=loggable(outcome))
        _log.warning("no snapshot of a session is made", extra=said)
