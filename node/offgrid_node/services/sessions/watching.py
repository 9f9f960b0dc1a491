"""A session as it goes on: first what its events came to, then each event once it is durable, or those behind a cursor.

Nothing waits here for a slow reader: what it lacks is read from the store when it takes it, in short reads. So it
misses nothing and holds nobody up, and is cut off only where retention has overtaken it (EventsGone). What others hear
of the journal says when there is more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from google.protobuf.message import Message

from offgrid.reducers import Reducer
from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.sessions.auditing import Auditing
from offgrid_node.services.sessions.folding import Folding
from offgrid_node.services.sessions.lookup import Lookup
from offgrid_node.services.sessions.reading import Numbered, Reading
from offgrid_node.services.stream import Stream

TAKE_EVENTS, TAKE_BYTES = 256, 128 * 1024  # handed over, or opened, before others have their turn; one block at least
PAUSE_MS = 1

ToRecord = Callable[[Numbered], state_pb2.Record]


class Watching:
    """`to_record`: an event as callers see it."""

    def __init__(
        self,
        runtime: Runtime,
        lookup: Lookup,
        reading: Reading,
        folding: Folding,
        auditing: Auditing,
        later: Later,
        to_record: ToRecord,
    ) -> None:
        self._runtime, self._lookup, self._reading, self._folding = runtime, lookup, reading, folding
        self._auditing, self._later, self._to_record = auditing, later, to_record

    def watch(
        self, caller: Caller, request: state_pb2.WatchSessionRequest, kinds: Collection[str], reducer: str
    ) -> Stream:
        session = self._lookup.readable(request.session)
        told = self._auditing.watched(caller, session)
        if request.HasField("after"):
            if request.after > session.recorded:
                text = f"{request.after}; the session has {session.recorded} events"
                raise InvalidRequest.field("after", text)
            return RecordStream(self, session.session_id, kinds, told, request.after)
        return RecordStream(self, session.session_id, kinds, told, self._sync(session, self._folding.reducer(reducer)))

    def _sync(self, session: state_pb2.Session, reducer: Reducer) -> Flow[state_pb2.SessionSync]:
        folded = yield from self._folding.state(session.session_id, reducer)
        state, digest = self._folding.shown(reducer, folded)
        return state_pb2.SessionSync(
            session=session,
            number=folded.number,
            reducer=reducer.name,
            version=reducer.version,
            state=state,
            digest=digest,
        )

    # ---- for streams

    def read(self, session_id: str, at: int, kinds: Collection[str]) -> tuple[list[Message], int, bool]:
        """What comes behind that number, some of it; the number behind which to go on, and whether there is more: for
        good, where the session has ended. Raises Fault."""
        session = self._lookup.readable(session_id)  # it may have been shredded meanwhile
        if at < (gone := self._reading.gone(session_id)):
            text = f"events up to {gone} are kept no more, and {at + 1} was to come next: begin without a number"
            raise FailedPrecondition(text, reason="EventsGone", metadata={"number": str(gone)})
        found, looked, opened_bytes = list[Message](), 0, 0
        for part in self._reading.after(session_id, at):
            wanted = [each for each in part.events if not kinds or each[1].kind in kinds]
            found += [state_pb2.WatchSessionResponse(record=self._to_record(each)) for each in wanted]
            at, looked, opened_bytes = part.looked, looked + len(part.events), opened_bytes + part.bytes
            if looked >= TAKE_EVENTS or opened_bytes >= TAKE_BYTES:
                break
        return found, at, at < session.recorded or not session.ended_us

    def when_told(self, session_id: str, callback: Callable[[], None]) -> Callable[[], None]:
        """It runs whenever the journal tells of the session; returns what ends that."""

        def on_events(events: Sequence[Record]) -> None:
            if any(event.subject == session_id for event in events):
                callback()

        return self._runtime.watch(on_events)

    def soon(self, callback: Callable[[], None]) -> None:
        self._later(PAUSE_MS, callback)


class RecordStream(Stream):
    """Of one reader; nothing leaves before the journal has it that it does, where readings are told of."""

    def __init__(
        self,
        watching: Watching,
        session_id: str,
        kinds: Collection[str],
        told: Ticket | None,
        begin: int | Flow[state_pb2.SessionSync],
    ) -> None:
        """`begin`: behind that number, or with what that comes to."""
        super().__init__()
        self._watching, self._session_id, self._kinds, self._at = watching, session_id, kinds, 0
        self._due = self._begun = False
        self.when_closed(watching.when_told(session_id, self._go_on))

        def start(outcome: Message | Fault | None) -> None:
            if isinstance(outcome, Fault):
                self.end(outcome)
            elif isinstance(begin, int):
                self._begin(begin)
            else:
                run(begin, self._on_sync)

        if told is None:
            start(None)
        else:
            told.when_done(start)

    def take(self) -> list[Message]:
        found = super().take()
        if not self._due or self.ended:
            return found
        self._due = False
        before = self._at
        try:
            more, self._at, goes_on = self._watching.read(self._session_id, self._at, self._kinds)
        except Fault as fault:
            self.end(fault)
            return found
        if not goes_on:
            self.end()
        elif self._at > before:
            self._watching.soon(self._go_on)
        return found + more

    def _on_sync(self, outcome: state_pb2.SessionSync | Fault) -> None:
        if isinstance(outcome, Fault):
            self.end(outcome)
        elif not self.ended:
            self.push(state_pb2.WatchSessionResponse(sync=outcome))
            self._begin(outcome.number)

    def _begin(self, after: int) -> None:
        if not self.ended:
            self._at, self._begun = after, True
            self._go_on()

    def _go_on(self) -> None:
        """There may be more to take."""
        if self._begun and not self.ended:
            self._due = True
            self._on_ready()

    def when_ready(self, callback: Callable[[], None]) -> None:
        super().when_ready(callback)
        if self._due and not self._messages:
            callback()
