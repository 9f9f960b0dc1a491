"""A session on its way out: its head, then its events block by block, as fast as the reader takes them.

What is content is hashed here, unless it is asked for: what the reader does not get it cannot lose. What reducers of
the owner's made of it may say it as well, and goes only along with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.kinds import Kinds
from offgrid.reducers import SessionReducer
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault
from offgrid_node.protocol.state.sessions.blocks import BLOCK_BYTES_MAX, Entry, encode
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Later
from offgrid_node.services.sessions.auditing import Auditing
from offgrid_node.services.sessions.folding import Folding
from offgrid_node.services.sessions.lookup import Lookup
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.stream import Stream

TAKE_BYTES = 128 * 1024  # opened before others have their turn; one block at least
PAUSE_MS = 1
ENTRY_BYTES = 64  # of an event beside its kind and data

Read = Callable[[int], tuple[list[Message], int]]
"""What comes behind that number, some of it, and the number behind which to go on."""


class Exporting:
    """`content`: it is exported as it was recorded unless a request says otherwise."""

    def __init__(
        self,
        runtime: Runtime,
        lookup: Lookup,
        reading: Reading,
        folding: Folding,
        kinds: Kinds,
        auditing: Auditing,
        later: Later,
        *,
        node_id: str,
        content: bool,
    ) -> None:
        self._runtime, self._lookup, self._reading, self._kinds = runtime, lookup, reading, kinds
        self._folding = folding
        self._auditing, self._later, self._node_id, self._content = auditing, later, node_id, content

    def export_session(self, caller: Caller, request: state_pb2.ExportSessionRequest) -> Stream:
        session = self._lookup.readable(request.session)
        hashed = not (request.content if request.HasField("content") else self._content)
        head = state_pb2.ExportHead(
            node_id=self._node_id,
            session=session,
            hashed=hashed,
            first=session.recorded - session.kept + 1,
            events=session.kept,
        )
        for kind in sorted({*session.kinds, *session.dropped}):
            head.kinds.add(kind=kind, schema=msgspec.json.encode(self._schema(kind)))
        if head.first > 1:
            reducers = [SessionReducer.name] if hashed else self._folding.reducers
            head.bases.extend(self._folding.bases(session.session_id, head.first - 1, reducers))
        told = self._auditing.tell(caller, session, "exported", session.kept)
        return ExportStream(told, head, lambda at: self._read(session, at, hashed=hashed), self._later)

    def _read(self, session: state_pb2.Session, at: int, *, hashed: bool) -> tuple[list[Message], int]:
        self._lookup.readable(session.session_id)  # it may have been shredded meanwhile
        found, opened_bytes = list[Message](), 0
        for part in self._reading.after(session.session_id, at):
            if part.events[0][0] != at + 1:
                text = f"session {session.session_id}: event {at + 1} was dropped meanwhile: export it again"
                raise FailedPrecondition(text, reason="EventsGone", metadata={"session_id": session.session_id})
            entries = [entry for number, entry in part.events if number <= session.recorded]
            for group in _groups([self._hashed(entry) for entry in entries] if hashed else entries):
                found.append(state_pb2.ExportSessionResponse(first=at + 1, events=encode(group)))
                at += len(group)
            opened_bytes += part.bytes
            if opened_bytes >= TAKE_BYTES or at >= session.recorded:
                break
        if not found:
            text = f"session {session.session_id}: events {at + 1} to {session.recorded} are missing"
            raise Corrupt(text, reason="EventsMissing", metadata={"session_id": session.session_id})
        return found, at

    def _hashed(self, entry: Entry) -> Entry:
        if not self._kinds.content(entry.kind):
            return entry
        data = msgspec.json.decode(entry.data)
        self._kinds.hash_content(entry.kind, data)
        return entry._replace(data=msgspec.json.encode(data))

    def _schema(self, kind: str) -> object:
        try:
            return self._kinds.schema(kind)
        except KeyError as error:
            text = f"the kind {kind} of its events is not known any more: register it (`offgrid state register-kind`)"
            raise FailedPrecondition(text, reason="KindUnknown", metadata={"kind": kind}) from error


class ExportStream(Stream):
    """Nothing leaves before the journal has it that it does."""

    def __init__(self, told: Ticket, head: state_pb2.ExportHead, read: Read, later: Later) -> None:
        super().__init__()
        self._head, self._read, self._later = head, read, later
        self._at, self._last, self._due = head.first - 1, head.first + head.events - 1, False
        told.when_done(self._on_told)

    def take(self) -> list[Message]:
        found = super().take()
        if not self._due or self.ended:
            return found
        self._due = False
        if self._at >= self._last:
            self.end()
            return found
        try:
            more, self._at = self._read(self._at)
        except Fault as fault:
            self.end(fault)
            return found
        self._later(PAUSE_MS, self._go_on)
        return found + more

    def _on_told(self, outcome: Message | Fault) -> None:
        if isinstance(outcome, Fault):
            self.end(outcome)
        elif not self.ended:
            self.push(state_pb2.ExportSessionResponse(head=self._head))
            self._later(PAUSE_MS, self._go_on)

    def _go_on(self) -> None:
        if not self.ended:
            self._due = True
            self._on_ready()


def _groups(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Hashes may be longer than what they stand for: some for one message each."""
    began, size = 0, 0
    for place, entry in enumerate(entries):
        bytes_ = len(entry.data) + len(entry.kind) + ENTRY_BYTES
        if size + bytes_ > BLOCK_BYTES_MAX and place > began:
            yield entries[began:place]
            began, size = place, 0
        size += bytes_
    if began < len(entries):
        yield entries[began:]
