"""A session that comes from another node: begun, brought in block by block, and ended.

Its digest is its name for whoever brings it. Until it is ended it is noted as half: nobody reads it, nobody else writes
in it, and whoever begins again with the same digest goes on behind what is here. So a kill at any moment leaves a
session that is whole, one that goes on, or, before its first row, a key that nobody needs (shredding.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.kinds import FRAME_MAX, TIME_MAX_US
from offgrid.reducers import STATE_BYTES_MAX
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest
from offgrid_node.protocol.state.sessions.blocks import BLOCK, Entry
from offgrid_node.protocol.state.sessions.commands import AddBlock, BeginImport, EndImport, KeepSnapshot
from offgrid_node.protocol.state.sessions.imports import writer_of
from offgrid_node.protocol.state.sessions.tables import IMPORTS, SESSIONS
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.sessions.checking import Checking
from offgrid_node.services.sessions.folding import snapshot_word
from offgrid_node.services.sessions.lookup import Lookup, name_of
from offgrid_node.services.sessions.vault import Vault

DIGEST_BYTES = 32
BASES_MAX = 64
NAME_CHARS_MAX = 64  # of a reducer

OnEvents = Callable[[str, int, Sequence[Entry]], None]


class Importing:
    """`fresh_id` makes an id for a session, `drop_unused` a key's end that no session came to have; `on_events` is told
    of those that have become durable."""

    def __init__(
        self,
        runtime: Runtime,
        vault: Vault,
        lookup: Lookup,
        checking: Checking,
        fresh_id: Callable[[], str],
        drop_unused: Callable[[str], None],
        on_events: OnEvents,
    ) -> None:
        self._runtime, self._vault, self._lookup, self._checking = runtime, vault, lookup, checking
        self._fresh_id, self._drop_unused, self._on_events = fresh_id, drop_unused, on_events

    def begin_import(self, caller: Caller, request: state_pb2.BeginImportRequest) -> Ticket:
        """As with any session, its key is durable before it is."""
        session, bases = self._checked(request.session), _checked_bases(request)
        known = self._known(session.origin.digest)
        keyless = known is not None and not known.purged_us and not self._vault.has(known.session_id)
        makes = known is None or bool(known.purged_us) or keyless
        session.session_id = fresh_id = self._fresh_id()
        if makes:
            self._vault.create(fresh_id)

        def begun(outcome: Message | Fault) -> None:
            known = isinstance(outcome, state_pb2.BeginImportResponse) and outcome.session.session_id != fresh_id
            if makes and (known or isinstance(outcome, Exhausted)):
                self._drop_unused(fresh_id)

        sealed = tuple(self._sealed(fresh_id, base) for base in bases) if makes else ()
        command = BeginImport(session, makes, known.session_id if keyless and known is not None else "", sealed)
        try:
            ticket = self._runtime.ask("sessions", str(caller), command)
        except Fault:
            if makes:
                self._drop_unused(fresh_id)
            raise
        ticket.when_done(begun)
        return ticket

    def import_events(self, caller: Caller, request: state_pb2.ImportEventsRequest) -> Ticket:
        session = self._lookup.session(request.session)
        self._lookup.check_key(session)
        if not 0 < request.first <= FRAME_MAX:
            raise InvalidRequest.field("first", f"{request.first}; 1 to {FRAME_MAX} is allowed")
        entries = self._checking.entries(request.events, imported=True)
        times = [entry.timestamp_us for entry in entries]
        command = AddBlock(
            session.session_id,
            writer_of(session),
            request.first - 1,
            len(entries),
            min(times),
            max(times),
            self._vault.seal(session.session_id, BLOCK, request.events),
            Counter(entry.kind for entry in entries),
            {},
            imported=True,
        )
        ticket = self._runtime.ask("sessions", str(caller), command, size_bytes=len(request.events))

        def durable(outcome: Message | Fault) -> None:
            if isinstance(outcome, state_pb2.RecordEventsResponse):
                self._on_events(session.session_id, outcome.first, entries)

        ticket.when_done(durable)
        return ticket.map(lambda _: state_pb2.ImportEventsResponse(recorded=request.first + len(entries) - 1))

    def end_import(self, caller: Caller, request: state_pb2.EndImportRequest) -> Ticket:
        session = self._lookup.session(request.session)
        return self._runtime.ask("sessions", str(caller), EndImport(session.session_id))

    # ---- inside

    def _sealed(self, session_id: str, base: state_pb2.Base) -> KeepSnapshot:
        word = snapshot_word(base.reducer, base.version, base.number)
        sealed = self._vault.seal(session_id, word, base.state)
        return KeepSnapshot(session_id, base.reducer, base.version, base.number, sealed)

    def _known(self, digest: bytes) -> state_pb2.Session | None:
        key = self._runtime.store.get(IMPORTS, digest)
        row = self._runtime.store.get(SESSIONS, key) if key is not None else None
        return state_pb2.SessionRow.FromString(row).session if row is not None else None

    def _checked(self, said: state_pb2.Session) -> state_pb2.Session:
        """What of it is taken over. Raises InvalidRequest."""
        origin = said.origin
        name_of(said.name, "session.name")
        for field, text in (("node_id", origin.node_id), ("session_id", origin.session_id)):
            name_of(text, f"session.origin.{field}", ids=True)
        if len(origin.digest) != DIGEST_BYTES:
            text = f"{len(origin.digest)} bytes; {DIGEST_BYTES} are needed"
            raise InvalidRequest.field("session.origin.digest", text)
        for field, number in (("started_us", said.started_us), ("ended_us", said.ended_us)):
            if not 0 <= number < TIME_MAX_US:
                raise InvalidRequest.field(f"session.{field}", f"{number}; 0 to {TIME_MAX_US - 1} is allowed")
        for field, number in (("lost", said.lost), ("origin.events", origin.events)):
            if number > FRAME_MAX:
                raise InvalidRequest.field(f"session.{field}", f"{number}; at most {FRAME_MAX} is allowed")
        if not 0 < origin.first <= FRAME_MAX:
            raise InvalidRequest.field("session.origin.first", f"{origin.first}; 1 to {FRAME_MAX} is allowed")
        return state_pb2.Session(
            name=said.name,
            started_us=said.started_us,
            ended_us=said.ended_us,
            dropped=self._checking.dropped(said.dropped),
            lost=said.lost,
            origin=state_pb2.Origin(
                node_id=origin.node_id,
                session_id=origin.session_id,
                digest=origin.digest,
                first=origin.first,
                events=origin.events,
                hashed=origin.hashed,
            ),
        )


def _checked_bases(request: state_pb2.BeginImportRequest) -> Sequence[state_pb2.Base]:
    """Raises InvalidRequest. One is needed, by some reducer, where the first events are not in the export."""
    first, events = request.session.origin.first, request.session.origin.events
    if len(request.bases) > BASES_MAX:
        raise InvalidRequest.field("bases", f"{len(request.bases)}; at most {BASES_MAX} are allowed")
    for place, base in enumerate(request.bases):
        field = f"bases[{place}]"
        if not 0 < len(base.reducer) <= NAME_CHARS_MAX or not base.reducer.isprintable():
            raise InvalidRequest.field(f"{field}.reducer", f"1 to {NAME_CHARS_MAX} printable characters are allowed")
        if not 0 < first - 1 <= base.number < first + events:
            text = f"{base.number}; {first - 1} to {first - 1 + events} is allowed, and none where nothing is missing"
            raise InvalidRequest.field(f"{field}.number", text)
        if len(base.state) > STATE_BYTES_MAX:
            text = f"{len(base.state)} bytes; {STATE_BYTES_MAX} at most are kept"
            raise InvalidRequest.field(f"{field}.state", text)
        try:
            msgspec.msgpack.decode(base.state)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest.field(f"{field}.state", f"no MessagePack: {error}") from error
    return request.bases
