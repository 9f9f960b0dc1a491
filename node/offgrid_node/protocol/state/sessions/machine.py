"""The sessions machine: which sessions there are, and which block of events comes where in each.

What is in a block it never sees: that is sealed before it comes here (services/sessions). It gives events their
numbers, and takes what a writer sends again for what it is.

    none ── StartSession ──▶ open ── EndSession ──▶ ended
                              │ ▲                     │
                              └─┘ AddBlock            │
                     open or ended ── BeginPurge ──▶ purged ── ForgetSessions ──▶ none

Those that come from another node: imports.py.
How they are shredded: purging.py; what keeps their events: pinning.py; how those go: dropping.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    Internal,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import keys, sound
from offgrid_node.protocol.state.sessions.blocks import digest_of
from offgrid_node.protocol.state.sessions.commands import (
    AddBlock,
    BeginImport,
    BeginPurge,
    DropOldest,
    EndImport,
    EndPurge,
    EndSession,
    ForgetSessions,
    KeepSnapshot,
    PinSession,
    RegisterKind,
    StartSession,
    TellOf,
    ThinSnapshots,
)
from offgrid_node.protocol.state.sessions.dropping import Dropping, Journal
from offgrid_node.protocol.state.sessions.imports import check_next, importing, is_importing, last_of, writer_of
from offgrid_node.protocol.state.sessions.keeping import Keeping
from offgrid_node.protocol.state.sessions.pinning import PINNED_BYTES_MAX, Pinning
from offgrid_node.protocol.state.sessions.purging import Purging
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    IMPORTS,
    KINDS,
    NAMES,
    OPEN_SESSIONS,
    SESSIONS,
    SNAPSHOTS,
    block_key,
    snapshots_of,
)
from offgrid_node.protocol.state.sessions.writers import COUNT_MAX, count, writer_for
from offgrid_node.protocol.state.tables import number_key

OPEN_MAX = 1_024
KINDS_MAX = 256  # registered


class SessionsMachine:
    """All is in rows; nothing waits."""

    def __init__(
        self, journal: Journal, reducers: Mapping[str, int], *, pinned_bytes_max: int = PINNED_BYTES_MAX
    ) -> None:
        """`reducers` of this node: by name, the version."""
        self._draft = Draft()
        self._keeping = Keeping(self._draft, reducers)
        self._dropping = Dropping(self._draft, journal, reducers)
        self._pinning = Pinning(self._draft, pinned_bytes_max)
        self._purging = Purging(self._draft, self._pinning, self._tell)
        self._open = 0

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._open = sum(1 for _ in sound(rows.scan, OPEN_SESSIONS))
        self._pinning.load(rows)
        self._purging.load(rows)

    def deadline_ms(self) -> int | None:
        return 0 if self._purging.is_sweeping else None

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        for event in inputs:
            match event:
                case Asked(ticket, caller, command):
                    try:
                        self._ask(ticket, caller, command, now)
                    except Internal:
                        raise
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case Woke():
                    pass  # what is to be swept is swept when the step closes
                case _:
                    raise Internal(f"the sessions machine does not know {type(event).__name__}")
        self._purging.sweep()
        return self._draft.take()

    def _ask(self, ticket: int, caller: str, command: object, now: Now) -> None:
        match command:
            case StartSession():
                self._start(ticket, command, now)
            case EndSession():
                self._end(ticket, command, now)
            case AddBlock():
                self._add(ticket, command, now)
            case KeepSnapshot():
                self._draft.reply(ticket, self._keeping.keep(command, self._unshredded(command.session_id)))
            case ThinSnapshots():
                self._draft.reply(ticket, self._keeping.thin(command))
            case RegisterKind():
                self._register(ticket, command, now)
            case BeginPurge():
                self._begin_purge(ticket, caller, command, now)
            case EndPurge():
                self._purging.end(command.session_ids)
                self._draft.reply(ticket, state_pb2.PurgeSessionsResponse())
            case PinSession():
                self._pin(ticket, command)
            case DropOldest():
                self._draft.reply(ticket, self._dropping.drop(command, now))
            case ForgetSessions():
                self._purging.forget(command.session_ids)
                self._draft.reply(ticket, state_pb2.Dropped())
            case BeginImport():
                self._begin_import(ticket, caller, command, now)
            case EndImport():
                self._end_import(ticket, caller, command, now)
            case TellOf(session_id, name, outcome, events):
                session = state_pb2.Session(session_id=session_id, name=name)
                self._draft.reply(ticket, self._tell(session, outcome, caller, events))
            case _:
                raise Internal(f"the sessions machine does not know {type(command).__name__}")

    # ---- beginning and end

    def _start(self, ticket: int, command: StartSession, now: Now) -> None:
        newest = self._draft.get(NAMES, command.name.encode())
        if newest is not None and self._draft.get(OPEN_SESSIONS, newest) is not None:
            row = self._row(newest.decode())
            if row.session.session_id != command.keyless:
                self._draft.reply(ticket, state_pb2.StartSessionResponse(session=row.session, resumed=True))
                return
            self._close(row, now)
        if not command.has_key:
            text = f"the session {command.name!r} has just ended: start it again"
            raise Unavailable(text, reason="SessionEnded", retry_ms=0)
        self._check_room()
        session = state_pb2.Session(session_id=command.session_id, name=command.name, started_us=now.utc_us)
        key = command.session_id.encode()
        self._open += 1
        self._draft.put_bytes(NAMES, command.name.encode(), key)
        self._draft.put_bytes(OPEN_SESSIONS, key, b"")
        self._draft.put(SESSIONS, key, state_pb2.SessionRow(session=session))
        self._tell(session, "started")
        self._draft.reply(ticket, state_pb2.StartSessionResponse(session=session))

    def _end(self, ticket: int, command: EndSession, now: Now) -> None:
        row = self._row(command.session_id)
        if is_importing(row.session):
            raise importing(row.session)
        if not row.session.ended_us:
            self._close(row, now)
        self._draft.reply(ticket, state_pb2.EndSessionResponse(session=row.session))

    def _close(self, row: state_pb2.SessionRow, now: Now) -> None:
        """Its writers stay: what they send again is still answered as before."""
        session, key = row.session, row.session.session_id.encode()
        session.ended_us = max(now.utc_us, session.started_us, 1)
        self._open -= 1
        self._draft.delete(OPEN_SESSIONS, key)
        self._draft.put(SESSIONS, key, row)
        self._tell(session, "ended")

    def _tell(self, session: state_pb2.Session, outcome: str, by: str = "", events: int = 0) -> state_pb2.SessionEvent:
        told = state_pb2.SessionEvent(
            session_id=session.session_id, name=session.name, outcome=outcome, by=by, events=events
        )
        self._draft.record(EventType.SESSION_CHANGED, session.session_id, session=told)
        return told

    # ---- from another node

    def _begin_import(self, ticket: int, caller: str, command: BeginImport, now: Now) -> None:
        session = command.session
        digest, key = session.origin.digest, session.session_id.encode()
        known = self._draft.get(IMPORTS, digest)
        row = self._row(known.decode()) if known is not None else None
        if row is not None and not row.session.purged_us:
            if row.session.session_id != command.keyless:
                self._draft.reply(ticket, state_pb2.BeginImportResponse(session=row.session))
                return
            if not row.session.ended_us:
                self._close(row, now)
        if not command.has_key:
            text = f"the session {session.name!r} has just been purged: import it again"
            raise Unavailable(text, reason="SessionShredded", retry_ms=0)
        self._check_room()
        new = state_pb2.SessionRow(session=session, said_ended_us=session.ended_us)
        new.session.ended_us, new.session.recorded = 0, session.origin.first - 1
        new.writers.add(writer=writer_of(session), sent=new.session.recorded)
        for base in command.bases:
            row_of = state_pb2.SnapshotRow(version=base.version, sealed=base.sealed)
            self._draft.put(SNAPSHOTS, snapshots_of(base.session_id, base.reducer) + number_key(base.number), row_of)
        self._open += 1
        self._draft.put_bytes(OPEN_SESSIONS, key, b"")
        self._draft.put_bytes(IMPORTS, digest, key)
        self._draft.put(SESSIONS, key, new)
        self._tell(session, "importing", caller, session.origin.events)
        self._draft.reply(ticket, state_pb2.BeginImportResponse(session=new.session))

    def _end_import(self, ticket: int, caller: str, command: EndImport, now: Now) -> None:
        """It has its name, unless a session that is open has it: whoever records there is to find it again."""
        row = self._row(command.session_id)
        session, key, name = row.session, row.session.session_id.encode(), row.session.name.encode()
        writer_of(session)
        if session.purged_us:
            raise shredded(session.session_id)
        if is_importing(session):
            if session.recorded != last_of(session):
                raise importing(session)
            session.origin.imported_us = max(now.utc_us, 1)
            session.ended_us = row.said_ended_us or max(session.newest_us, session.started_us, 1)
            self._open -= 1
            newest = self._draft.get(NAMES, name)
            if newest is None or self._draft.get(OPEN_SESSIONS, newest) is None:
                self._draft.put_bytes(NAMES, name, key)
            self._draft.delete(OPEN_SESSIONS, key)
            self._draft.put(SESSIONS, key, row)
            self._tell(session, "imported", caller, session.origin.events)
        self._draft.reply(ticket, state_pb2.EndImportResponse(session=session))

    def _check_room(self) -> None:
        if self._open >= OPEN_MAX:
            raise Exhausted(f"{self._open} sessions are open: end one first", reason="SessionsFull")

    def _pin(self, ticket: int, command: PinSession) -> None:
        row = self._row(command.session_id)
        if command.pinned and row.session.purged_us:
            raise shredded(command.session_id)
        if row.session.pinned != command.pinned:
            if command.pinned:
                self._pinning.pin(row.session)
            else:
                self._pinning.unpin(row.session)
            self._draft.put(SESSIONS, command.session_id.encode(), row)
            self._tell(row.session, "pinned" if command.pinned else "unpinned")
        self._draft.reply(ticket, state_pb2.PinSessionResponse(session=row.session))

    # ---- kinds

    def _register(self, ticket: int, command: RegisterKind, now: Now) -> None:
        key = command.kind.encode()
        known = {*keys(self._draft.committed, KINDS)}
        if key not in known and len(known) >= KINDS_MAX:
            raise Exhausted(f"{KINDS_MAX} kinds are registered, and no more are taken", reason="TooManyKinds")
        kind = state_pb2.Kind(kind=command.kind, schema=command.schema, registered_us=max(now.utc_us, 1))
        self._draft.put(KINDS, key, kind)
        told = state_pb2.SessionEvent(name=command.kind, outcome="kind registered")
        self._draft.record(EventType.SESSION_CHANGED, command.kind, session=told)
        self._draft.reply(ticket, state_pb2.RegisterKindResponse(kind=kind))

    # ---- shredding

    def _begin_purge(self, ticket: int, caller: str, command: BeginPurge, now: Now) -> None:
        rows = [self._row(session_id) for session_id in command.session_ids]
        for row in rows:
            if not row.session.ended_us:
                self._close(row, now)
        self._draft.reply(ticket, self._purging.begin(rows, caller, now))

    # ---- events

    def _add(self, ticket: int, command: AddBlock, now: Now) -> None:
        row = self._row(command.session_id)
        session, writer = row.session, writer_for(row, command)
        if command.sent < writer.sent:
            if (command.sent, command.sent + command.count) != (writer.before, writer.sent):
                known = f"{writer.sent} of this writer's are recorded, the newest of them behind {writer.before}"
                raise InvalidRequest.field("sent", f"{command.sent} and {command.count} events: {known}")
            self._draft.reply(ticket, state_pb2.RecordEventsResponse(first=writer.first))
            return
        _check_takes(session, imported=command.imported)
        if command.imported:
            check_next(session, command.sent, command.count)
        first = session.recorded + 1
        session.lost = min(session.lost + command.sent - writer.sent, COUNT_MAX)
        writer.first, writer.before, writer.sent = first, command.sent, command.sent + command.count
        count(session.dropped, {kind: n - writer.dropped[kind] for kind, n in command.dropped.items()})
        for kind, n in command.dropped.items():
            writer.dropped[kind] = n
        count(session.kinds, command.kinds)
        session.recorded += command.count
        session.kept += command.count
        session.bytes += len(command.sealed)
        session.newest_us = max(session.newest_us, command.last_us)
        row.had_us = max(row.had_us + 1, now.utc_us)
        block = state_pb2.BlockRow(
            first=first,
            count=command.count,
            first_us=command.first_us,
            last_us=command.last_us,
            sealed=command.sealed,
            had_us=row.had_us,
        )
        self._draft.put(BLOCKS, block_key(command.session_id, first), block)
        self._draft.put(SESSIONS, command.session_id.encode(), row)
        told = state_pb2.BlockEvent(
            session_id=session.session_id, first=first, count=command.count, digest=digest_of(command.sealed)
        )
        self._draft.record(EventType.SESSION_CHANGED, session.session_id, block=told)
        self._draft.reply(ticket, state_pb2.RecordEventsResponse(first=first))

    def _unshredded(self, session_id: str) -> state_pb2.Session:
        session = self._row(session_id).session
        if session.purged_us:
            raise shredded(session_id)
        return session

    def _row(self, session_id: str) -> state_pb2.SessionRow:
        row = self._draft.row(SESSIONS, session_id.encode(), state_pb2.SessionRow)
        if row is None:
            raise unknown_session(session_id)
        return row


def _check_takes(session: state_pb2.Session, *, imported: bool) -> None:
    if session.purged_us:
        raise shredded(session.session_id)
    if is_importing(session) and not imported:
        raise importing(session)
    if session.ended_us:
        text = f"the session {session.session_id} ({session.name!r}) has ended: start another one"
        raise FailedPrecondition(text, reason="SessionEnded", metadata={"session_id": session.session_id})


def shredded(session_id: str) -> FailedPrecondition:
    text = f"what the session {session_id} said was shredded"
    return FailedPrecondition(text, reason="SessionShredded", metadata={"session_id": session_id})


def unknown_session(session: str) -> NotFound:
    text = f"there is no session {session!r}: `offgrid state sessions` lists them"
    return NotFound(text, reason="SessionNotFound", metadata={"session": session})
