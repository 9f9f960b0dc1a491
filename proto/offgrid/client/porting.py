"""A session as a file, and from a file into a node (offgrid.exports says what such a file is).

A file is read twice before it is a session: once to see that it is whole, and that each event keeps to its kind, before
the node hears of it; and once while its events are brought in, from where an import of it was cut off before. The node
takes them for a session only when the second reading came to the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.sessions import kinds_of
from offgrid.client.targets import Target, replaced
from offgrid.exports.document import FORMAT, BadExport, BasePart, Head, SessionPart, Tail, data_text, digest_bytes
from offgrid.exports.reading import Export
from offgrid.exports.writing import ExportWriter, check_form
from offgrid.kinds import Kinds, RejectedEvent
from offgrid.reducers import Recorded
from offgrid.v1 import state_pb2

OnEvents = Callable[[str, int, int], None]
"""What is being done, for how many events so far, and of how many."""

BATCH_EVENTS, BATCH_BYTES = 1_000, 512 * 1024
OWNERS_MODE = 0o600  # of a new file: what a session says is in it, in clear
TOLD_EVENTS = 1_000  # between two words on how far it has come


@dataclass(frozen=True, slots=True)
class Imported:
    """`known`: the same export had been imported before, as this session."""

    session: state_pb2.Session
    known: bool


def export_session(
    calls: Calls, session: str, target: Target | BinaryIO, form: str, content: bool | None, on_events: OnEvents
) -> tuple[Head, Tail]:
    """Raises OffgridError, OSError, ValueError for another form, NoPyarrow."""
    check_form(form)
    request = state_pb2.ExportSessionRequest(session=session, content=content)
    stream = calls.stream("SessionService/ExportSession", request, state_pb2.ExportSessionResponse)
    head = _head_of(next(stream).head)
    with _opened(target) as file:
        writer = ExportWriter(file, form, head)
        for event in _events(stream, head):
            writer.add(event)
            _tell(on_events, "exporting", event.number - head.first + 1, head.events)
        return head, writer.end()


def import_session(calls: Calls, file: Target | BinaryIO, on_events: OnEvents) -> Imported:
    """Raises BadExport for a file that is none, was cut or changed, or has an event that its kind does not let through;
    OffgridError, OSError, NoPyarrow."""
    told = calls.unary("SessionService/ListKinds", state_pb2.ListKindsRequest(), state_pb2.ListKindsResponse)
    bringing = _Bringing(calls, kinds_of(told), raw_content=told.store_raw_content, on_events=on_events)
    if not isinstance(file, str | PathLike):
        return bringing.bring(file)
    with Path(file).open("rb") as opened:
        return bringing.bring(opened)


class _Bringing:
    """One import."""

    def __init__(self, calls: Calls, kinds: Kinds, *, raw_content: bool, on_events: OnEvents) -> None:
        self._calls, self._kinds, self._raw_content, self._on_events = calls, kinds, raw_content, on_events

    def bring(self, file: BinaryIO) -> Imported:
        export = Export(file)
        head = export.head
        if head.first != 1 and not head.bases:
            text = f"it begins at event {head.first}, and does not say what came to be before: no node could fold it"
            raise BadExport(text)
        new = self._learn(head)
        hashed = head.content == "hashed"
        for event in self._checked(export, "checking"):
            hashed = event.changed or hashed
        digest = _tail(export).digest
        for kind in new:
            self._register(kind, head.kinds[kind])
        session = self._begin(head, digest_bytes(digest), hashed=hashed)
        if session.origin.imported_us:
            return Imported(session, known=True)
        file.seek(0)
        again = Export(file)
        self._send(session, (event for event in self._checked(again, "importing")))
        if _tail(again).digest != digest:
            raise BadExport("it was changed while it was read: import it again")
        request = state_pb2.EndImportRequest(session=session.session_id)
        ended = self._calls.unary("SessionService/EndImport", request, state_pb2.EndImportResponse)
        return Imported(ended.session, known=False)

    def _learn(self, head: Head) -> list[str]:
        """Kinds that the node does not know yet; from here on they count as the file has them."""
        known = {*self._kinds}
        new = [kind for kind in head.kinds if kind not in known]
        for kind in new:
            try:
                self._kinds.register(kind, head.kinds[kind])
            except ValueError as error:
                raise BadExport(str(error)) from error
        return new

    def _checked(self, export: Export, doing: str) -> Iterator[_Ready]:
        for event in export.events():
            before = event.data
            try:
                if self._raw_content:
                    self._kinds.check_recorded(event.kind, event.data)
                else:
                    if self._kinds.content(event.kind):
                        event = event._replace(data={**before})
                        self._kinds.hash_content(event.kind, event.data)
                    self._kinds.check(event.kind, event.data, hashed=True)
            except RejectedEvent as error:
                raise BadExport(f"event {event.number}: {error}") from error
            yield _Ready(event, event.data != before)
            _tell(self._on_events, doing, event.number - export.head.first + 1, export.head.events)

    def _register(self, kind: str, schema: object) -> None:
        request = state_pb2.RegisterKindRequest(kind=kind, schema=json.dumps(schema).encode())
        self._calls.unary("SessionService/RegisterKind", request, state_pb2.RegisterKindResponse)

    def _begin(self, head: Head, digest: bytes, *, hashed: bool) -> state_pb2.Session:
        said = head.session
        session = state_pb2.Session(
            name=said.name,
            started_us=said.started_us,
            ended_us=said.ended_us,
            dropped=said.dropped,
            lost=said.lost,
            origin=state_pb2.Origin(
                node_id=head.node_id,
                session_id=said.session_id,
                digest=digest,
                first=head.first,
                events=head.events,
                hashed=hashed,
            ),
        )
        request = state_pb2.BeginImportRequest(session=session)
        for base in head.bases:
            request.bases.add(
                reducer=base.reducer,
                version=base.version,
                number=base.number,
                state=msgspec.msgpack.encode(base.state),
            )
        return self._calls.unary("SessionService/BeginImport", request, state_pb2.BeginImportResponse).session

    def _send(self, session: state_pb2.Session, events: Iterator[_Ready]) -> None:
        """What is not there yet."""
        first, waiting, size = session.recorded + 1, list[tuple[object, ...]](), 0
        for ready in events:
            event = ready.event
            if event.number < first:
                continue
            text = data_text(event.data)
            if waiting and (len(waiting) == BATCH_EVENTS or size + len(text) > BATCH_BYTES):
                first = self._bring(session, first, waiting)
                waiting, size = [], 0
            waiting.append((event.timestamp_us, event.kind, event.frame_id, event.energy_delta, text))
            size += len(text)
        if waiting:
            self._bring(session, first, waiting)

    def _bring(self, session: state_pb2.Session, first: int, events: list[tuple[object, ...]]) -> int:
        request = state_pb2.ImportEventsRequest(
            session=session.session_id, first=first, events=msgspec.msgpack.encode(events)
        )
        answer = self._calls.unary("SessionService/ImportEvents", request, state_pb2.ImportEventsResponse)
        return answer.recorded + 1


@dataclass(frozen=True, slots=True)
class _Ready:
    """An event as this node may have it; `changed`: other than in the file, hashed."""

    event: Recorded
    changed: bool


def _tail(export: Export) -> Tail:
    assert export.tail is not None, "it was read to its end"
    return export.tail


def _head_of(told: state_pb2.ExportHead) -> Head:
    session = told.session
    return Head(
        offgrid_export=FORMAT,
        node_id=told.node_id,
        session=SessionPart(
            session.session_id,
            session.name,
            session.started_us,
            session.ended_us,
            dict(sorted(session.dropped.items())),
            session.lost,
        ),
        content="hashed" if told.hashed else "recorded",
        first=told.first,
        events=told.events,
        kinds={kind.kind: json.loads(kind.schema) for kind in told.kinds},
        bases=[*_bases(told)],
    )


def _bases(told: state_pb2.ExportHead) -> Iterator[BasePart]:
    """Those that JSON has words for: bytes are none."""
    for base in told.bases:
        state = msgspec.msgpack.decode(base.state)
        if msgspec.json.decode(msgspec.json.encode(state)) == state:
            yield BasePart(base.reducer, base.version, base.number, state)


def _events(stream: Iterator[state_pb2.ExportSessionResponse], head: Head) -> Iterator[Recorded]:
    following = head.first
    for message in stream:
        if message.first != following:
            break
        for at_us, kind, frame, delta, data in msgspec.msgpack.decode(message.events):
            yield Recorded(following, at_us, kind, frame, delta, msgspec.json.decode(data))
            following += 1
    if following != head.first + head.events:
        text = f"the node was to give {head.events} events, and came no further than {following - 1}"
        raise OffgridError("DATA_LOSS", "EventsMissing", text)


def _opened(target: Target | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if hasattr(target, "write"):
        return nullcontext(cast("BinaryIO", target))
    return replaced(target, OWNERS_MODE)


def _tell(on_events: OnEvents, doing: str, done: int, total: int) -> None:
    if done % TOLD_EVENTS == 0 or done == total:
        on_events(doing, done, total)
