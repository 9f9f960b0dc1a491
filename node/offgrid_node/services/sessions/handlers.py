"""Handlers of SessionService: an application's events, checked, sealed and numbered; and read back.

Events come and lie as one MessagePack text per block (protocol/state/sessions/blocks.py). They are checked one by one
and sealed as they came, under the session's own key, before the machine sees them: what they say is in no row, no
segment and no backup in clear.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec
from google.protobuf.message import Message

from offgrid.kinds import KIND, KIND_CHARS_MAX, KIND_RULE, KNOWN, TIME_MAX_US, Kinds
from offgrid.reducers import Reducer
from offgrid.v1 import state_pb2
from offgrid_node.meters.writers import WriterMeters
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.protocol.ids import fresh_timely_id
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.blocks import (
    BLOCK,
    Entry,
)
from offgrid_node.protocol.state.sessions.commands import AddBlock, EndSession, PinSession, RegisterKind, StartSession
from offgrid_node.protocol.state.sessions.machine import KINDS_MAX
from offgrid_node.protocol.state.sessions.tables import ID_PREFIX, KINDS, NAMES, OPEN_SESSIONS, SESSIONS
from offgrid_node.protocol.state.sessions.writers import COUNT_MAX
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key, number_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Later, ticket_of
from offgrid_node.services.health.heartbeats import Heartbeats
from offgrid_node.services.paging import PAGE_BYTES_MAX, decode_token, encode_token, page_bounds, take_page
from offgrid_node.services.sessions.auditing import Auditing
from offgrid_node.services.sessions.checking import Checking
from offgrid_node.services.sessions.exporting import Exporting
from offgrid_node.services.sessions.folding import Folding
from offgrid_node.services.sessions.importing import Importing
from offgrid_node.services.sessions.lookup import Lookup, name_of
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.sessions.shredding import Shredding
from offgrid_node.services.sessions.snapshots import Snapshots
from offgrid_node.services.sessions.vault import Vault
from offgrid_node.services.sessions.watching import Watching
from offgrid_node.services.stream import Stream

SESSION = "session"  # the reducer that is meant when none is named
WRITER_BYTES = 8
SCAN_BLOCKS_MAX = 4_096  # looked at for one page, so that a rare filter never holds the node up; and opened, some 15 ms
SCAN_BYTES_MAX = 1024 * 1024

_TIME, _KIND = itemgetter(0), itemgetter(1)  # of an Entry


class SessionHandlers:
    """One method per RPC."""

    def __init__(
        self,
        runtime: Runtime,
        vault: Vault,
        rng: Rng,
        reducers: Mapping[str, Reducer],
        later: Later,
        node_id: str,
        privacy: Privacy,
        bulk: Bulk,
        writers: WriterMeters | None = None,
    ) -> None:
        self._writers = writers
        self._runtime, self._vault, self._rng, self._privacy = runtime, vault, rng, privacy
        self._kinds, self.heartbeats = Kinds(), Heartbeats()
        for _, row in sound(runtime.store.scan, KINDS):  # one that is damaged is to be registered anew
            kind = state_pb2.Kind.FromString(row)
            self._kinds.register(kind.kind, msgspec.json.decode(kind.schema))
        self._reading = Reading(runtime.store, vault)
        self._folding = Folding(runtime.store, vault, self._reading, reducers, later)
        self._snapshots = Snapshots(runtime, self._folding, later)
        self.shredding = Shredding(runtime, vault, self._forget, bulk, later)
        self._lookup, self._auditing = Lookup(runtime.store, vault), Auditing(runtime, readings=privacy.audit)
        self._checking = Checking(self._kinds, raw_content=privacy.raw_content)
        exporting = Exporting(
            runtime,
            self._lookup,
            self._reading,
            self._folding,
            self._kinds,
            self._auditing,
            later,
            node_id=node_id,
            content=privacy.export_content,
        )
        importing = Importing(
            runtime,
            vault,
            self._lookup,
            self._checking,
            self._fresh_id,
            self.shredding.drop_unused,
            self._snapshots.on_events,
        )
        self._watching = Watching(
            runtime, self._lookup, self._reading, self._folding, self._auditing, later, lambda each: _record(*each)
        )
        self.export_session = exporting.export_session
        self.begin_import, self.end_import = importing.begin_import, importing.end_import
        self.import_events = importing.import_events

    # ---- sessions

    def start_session(self, caller: Caller, request: state_pb2.StartSessionRequest) -> Ticket:
        """Its key is durable before it is: nothing was ever sealed without one. Where nobody knows whether it came to
        be its key stays (shredding.py)."""
        name = name_of(request.name)
        session_id = self._fresh_id()
        newest = self._runtime.store.get(NAMES, name.encode())
        is_open = newest is not None and self._runtime.store.get(OPEN_SESSIONS, newest) is not None
        keyless = newest.decode() if newest is not None and is_open and not self._vault.has(newest.decode()) else ""
        makes = not is_open or bool(keyless)
        if makes:
            self._vault.create(session_id)

        def started(outcome: Message | Fault) -> None:
            found_open = isinstance(outcome, state_pb2.StartSessionResponse) and outcome.resumed
            if makes and (found_open or isinstance(outcome, Exhausted)):
                self.shredding.drop_unused(session_id)

        try:
            command = StartSession(session_id, name, makes, keyless)
            ticket = self._runtime.ask("sessions", str(caller), command)
        except Fault:
            if makes:
                self.shredding.drop_unused(session_id)
            raise
        ticket.when_done(started)
        return ticket

    def end_session(self, caller: Caller, request: state_pb2.EndSessionRequest) -> Ticket:
        session_id = self._lookup.session(request.session).session_id
        if self._writers is not None:
            self._writers.on_ended(session_id)
        return self._runtime.ask("sessions", str(caller), EndSession(session_id))

    def get_session(self, caller: Caller, request: state_pb2.GetSessionRequest) -> Message:
        return state_pb2.GetSessionResponse(session=self._lookup.session(request.session))

    def list_sessions(self, caller: Caller, request: state_pb2.ListSessionsRequest) -> Message:
        """Newest first."""
        start = decode_token(request.page_token)

        def rows() -> Iterator[tuple[bytes, state_pb2.Session | None]]:
            for key, value in self._runtime.store.scan(SESSIONS, end=start + b"\0" if start else b"", reverse=True):
                session = state_pb2.SessionRow.FromString(value).session
                wanted = request.name in ("", session.name) and not (request.open_only and session.ended_us)
                yield key, session if wanted else None

        sessions, token = take_page(rows(), request.page_size)
        return state_pb2.ListSessionsResponse(sessions=sessions, next_page_token=token)

    # ---- events

    def record_events(self, caller: Caller, request: state_pb2.RecordEventsRequest) -> Ticket:
        session = self._lookup.session(request.session)
        if len(request.writer) != WRITER_BYTES:
            raise InvalidRequest.field("writer", f"{len(request.writer)} bytes; {WRITER_BYTES} are needed")
        if request.sent > COUNT_MAX:
            raise InvalidRequest.field("sent", f"{request.sent}; at most {COUNT_MAX} is allowed")
        if (refused := len(request.figures.refused)) > KINDS_MAX:
            raise InvalidRequest.field("figures.refused", f"{refused} kinds; at most {KINDS_MAX} are allowed")
        entries = self._checking.entries(request.events)
        kinds, times = Counter(map(_KIND, entries)), [*map(_TIME, entries)]
        self._lookup.check_key(session)
        command = AddBlock(
            session.session_id,
            request.writer,
            request.sent,
            len(entries),
            min(times),
            max(times),
            self._vault.seal(session.session_id, BLOCK, request.events),
            kinds,
            self._checking.dropped(request.dropped),
        )
        ticket = self._runtime.ask("sessions", str(caller), command, size_bytes=len(request.events))

        def durable(outcome: Message | Fault) -> None:
            if isinstance(outcome, state_pb2.RecordEventsResponse):
                self._snapshots.on_events(session.session_id, outcome.first, entries)
                self.heartbeats.on_events(session.session_id, kinds, entries)
                if self._writers is not None:
                    self._writers.on_recorded(session.session_id, request, kinds)

        ticket.when_done(durable)
        return ticket

    def list_records(self, caller: Caller, request: state_pb2.ListRecordsRequest) -> Message | Ticket:
        """One page. A page may be short, even empty, and still name a next one: how much is looked at is bounded."""
        session = self._lookup.readable(request.session)
        return self._auditing.listed(caller, session, request.page_token, self._page(session, request))

    def _page(self, session: state_pb2.Session, request: state_pb2.ListRecordsRequest) -> state_pb2.ListRecordsResponse:
        limit, wanted = page_bounds(request.page_size), _Wanted.of(request)
        position = decode_token(request.page_token)
        if position and position[NUMBER_BYTES:] != _filter_of(request):
            raise InvalidRequest.field("page_token", "it belongs to a list with other filters; begin again without it")
        backwards, last = request.newest_first, min(session.recorded, request.until_number or session.recorded)
        at = number_of(position[:NUMBER_BYTES]) if position else last + 1 if backwards else 0
        walk = self._reading.before if backwards else self._reading.after
        page, page_bytes, cost_bytes = state_pb2.ListRecordsResponse(), 0, 0
        for looked, part in enumerate(walk(session.session_id, min(at, session.recorded + 1), wanted.may_be_in), 1):
            for number, entry in part.events:
                if number > last:
                    return page
                if wanted.has(entry):
                    page_bytes += len(entry.data)
                    if len(page.records) == limit or (page.records and page_bytes > PAGE_BYTES_MAX):
                        page.next_page_token = encode_token(number_key(at) + _filter_of(request))
                        return page
                    page.records.append(_record(number, entry))
                at = number
            at, cost_bytes = part.looked, cost_bytes + part.bytes
            if looked == SCAN_BLOCKS_MAX or cost_bytes >= SCAN_BYTES_MAX:
                page.next_page_token = encode_token(number_key(at) + _filter_of(request))
                break
        return page

    def watch_session(self, caller: Caller, request: state_pb2.WatchSessionRequest) -> Stream:
        for place, kind in enumerate(request.kinds):
            _check_kind(f"kinds[{place}]", kind)
        return self._watching.watch(caller, request, frozenset(request.kinds), request.reducer or SESSION)

    # ---- what they come to

    def show_state(self, caller: Caller, request: state_pb2.ShowStateRequest) -> Ticket:
        session, reducer = self._lookup.readable(request.session), self._folding.reducer(request.reducer or SESSION)
        upto: int | None = None
        if request.number and request.at_us:
            raise InvalidRequest.field("at_us", "a number is given already; one of the two is allowed")
        if request.number:
            upto = min(request.number, session.recorded)
        elif request.at_us:
            upto = self._reading.number_at(session.session_id, session.recorded, request.at_us)
        return ticket_of(self._shown(caller, session, reducer, upto))

    def _shown(self, caller: Caller, session: state_pb2.Session, reducer: Reducer, upto: int | None) -> Flow[Message]:
        folded = yield from self._folding.state(session.session_id, reducer, upto)
        state, digest = self._folding.shown(reducer, folded)
        answer = state_pb2.ShowStateResponse(
            reducer=reducer.name,
            version=reducer.version,
            number=folded.number,
            state=state,
            digest=digest,
            snapshot=folded.snapshot,
        )
        told = self._auditing.shown(caller, session, answer)
        return (yield told.when_done) if isinstance(told, Ticket) else told

    def take_snapshot(self, caller: Caller, request: state_pb2.TakeSnapshotRequest) -> Ticket:
        session, reducer = self._lookup.readable(request.session), self._folding.reducer(request.reducer or SESSION)
        if not session.recorded:
            raise FailedPrecondition(f"nothing is recorded in {session.session_id}", reason="SessionEmpty")
        return self._snapshots.take(session.session_id, reducer)

    # ---- kinds

    def register_kind(self, caller: Caller, request: state_pb2.RegisterKindRequest) -> Ticket:
        _check_kind("kind", request.kind)
        if request.kind in KNOWN:
            raise InvalidRequest.field("kind", f"{request.kind} is known everywhere, and cannot be another here")
        try:
            schema = msgspec.json.decode(request.schema)
            Kinds().register(request.kind, schema)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest.field("schema", str(error)) from error

        def registered(outcome: Message | Fault) -> None:
            if isinstance(outcome, state_pb2.RegisterKindResponse):
                self._kinds.register(request.kind, schema)

        ticket = self._runtime.ask("sessions", str(caller), RegisterKind(request.kind, msgspec.json.encode(schema)))
        ticket.when_done(registered)
        return ticket

    def list_kinds(self, caller: Caller, request: state_pb2.ListKindsRequest) -> Message:
        """Those that are known everywhere first."""
        found = state_pb2.ListKindsResponse(store_raw_content=self._privacy.raw_content)
        for kind in KNOWN:
            found.kinds.add(kind=kind, schema=msgspec.json.encode(self._kinds.schema(kind)))
        for _, row in sound(self._runtime.store.scan, KINDS):
            found.kinds.add().ParseFromString(row)
        return found

    # ---- shredding

    def pin_session(self, caller: Caller, request: state_pb2.PinSessionRequest) -> Ticket:
        session = self._lookup.session(request.session)
        return self._runtime.ask("sessions", str(caller), PinSession(session.session_id, request.pinned))

    def purge_sessions(self, caller: Caller, request: state_pb2.PurgeSessionsRequest) -> Ticket:
        if request.all == bool(request.sessions):
            raise InvalidRequest.field("sessions", "either some are named, or `all` is set")
        if request.all:
            named = [key.decode() for key, _ in self._runtime.store.scan(SESSIONS)]
        else:
            named = [self._lookup.session(text).session_id for text in request.sessions]
        return self.shredding.purge([*dict.fromkeys(named)], str(caller), forget=request.forget)

    # ---- for what else reads sessions

    def readable(self, text: str) -> state_pb2.Session:
        """See lookup.py."""
        return self._lookup.readable(text)

    def asked(self, caller: Caller, session: state_pb2.Session) -> Ticket | None:
        """See auditing.py."""
        return self._auditing.asked(caller, session)

    def keys_of(self, kind: str) -> Sequence[str]:
        """Which properties of its events are keys."""
        return self._kinds.keys(kind)

    def summing_up(self, session_id: str) -> Iterator[Ticket]:
        """Snapshots of all that it says, by each reducer."""
        for reducer in self._folding.reducers.values():
            yield self._snapshots.take(session_id, reducer)

    # ---- inside

    def _fresh_id(self) -> str:
        return fresh_timely_id(ID_PREFIX, max(0, self._runtime.clock.now().utc_us), self._rng)

    def _forget(self, session_id: str) -> None:
        self._folding.forget(session_id)
        self._snapshots.forget(session_id)


class _Wanted(NamedTuple):
    """What of a session's events is asked for."""

    kinds: Collection[str]
    since_us: int
    until_us: int
    frame_id: int | None

    @classmethod
    def of(cls, request: state_pb2.ListRecordsRequest) -> _Wanted:
        for place, kind in enumerate(request.kinds):
            _check_kind(f"kinds[{place}]", kind)
        frame_id = request.frame_id if request.HasField("frame_id") else None
        return cls(frozenset(request.kinds), request.since_us, request.until_us or TIME_MAX_US, frame_id)

    def may_be_in(self, block: state_pb2.BlockRow) -> bool:
        return self.since_us <= block.last_us and block.first_us <= self.until_us

    def has(self, entry: Entry) -> bool:
        return (
            (not self.kinds or entry.kind in self.kinds)
            and self.since_us <= entry.timestamp_us <= self.until_us
            and (self.frame_id is None or entry.frame_id == self.frame_id)
        )


def _record(number: int, entry: Entry) -> state_pb2.Record:
    return state_pb2.Record(
        number=number,
        kind=entry.kind,
        timestamp_us=entry.timestamp_us,
        frame_id=entry.frame_id,
        energy_delta=entry.energy_delta,
        data=entry.data,
    )


def _check_kind(field: str, kind: str) -> None:
    if len(kind) > KIND_CHARS_MAX or not KIND.match(kind):
        raise InvalidRequest.field(field, f"{kind!r} is no name of a kind: {KIND_RULE}")


def _filter_of(request: state_pb2.ListRecordsRequest) -> bytes:
    frame = request.frame_id if request.HasField("frame_id") else None
    times = request.since_us, request.until_us, request.until_number
    said = (request.session, sorted(request.kinds), *times, frame, request.newest_first)
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=4).digest()
