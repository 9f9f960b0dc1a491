"""sessions: streams of an application's own events, sealed and kept by its node.

    with client.session("flight 7") as flight:
        flight.record("energy.update", {"energy": 1.5, "accumulator": 80.25}, frame=17)

`record` checks the event against its kind's schema and returns: it never waits for the node or its disk.
"""

from __future__ import annotations

import atexit
import json
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from weakref import WeakSet

import msgspec

from offgrid.client.backlog import Waiting
from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.paging import pages
from offgrid.client.recording import Figures, Recorder
from offgrid.client.targets import Target
from offgrid.kinds import DATA_BYTES_MAX, ENERGY_MAX, FRAME_MAX, TIME_MAX_US, Kinds
from offgrid.v1 import state_pb2

if TYPE_CHECKING:
    from offgrid.client.porting import Imported, OnEvents
    from offgrid.client.replaying import Replayed
    from offgrid.exports.document import Head, Tail
    from offgrid.reducers import Recorded

CLOSE_S = 10.0
RECORDS_PAGE = 1_000  # as many as a block may have
EXIT_S = 2.0  # for what waits when the program ends without closing the session
_encode = msgspec.msgpack.Encoder().encode
_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class NotDurable(Exception):
    """Not all that was accepted is on the node's disk; the session stays open. `figures` say more."""

    def __init__(self, figures: Figures) -> None:
        missing = figures.accepted - figures.durable
        super().__init__(f"{missing} of {figures.accepted} events that were accepted are not durable: {figures}")
        self.figures = figures


class Session:
    """A session that this process records in; `Sessions.open` makes it. Thread-safe."""

    def __init__(self, calls: Calls, told: state_pb2.Session, kinds: Kinds, *, raw_content: bool) -> None:
        self._calls, self._kinds, self.session_id, self.name = calls, kinds, told.session_id, told.name
        self._raw_content = raw_content
        self._recorder = Recorder(self._send, kinds.expendable)
        atexit.register(self._at_exit)

    def record(
        self,
        kind: str,
        data: Mapping[str, Any],
        *,
        frame: int | None = None,
        energy_delta: float | None = None,
        timestamp_us: int | None = None,
    ) -> None:
        """Accepts an event; `figures` and `flush` tell what is durable. `timestamp_us`: now, unless given. What its
        schema says is content leaves this process as its hash, unless the node stores it as it is.

        Raises RejectedEvent for what breaks its kind's schema, TypeError and ValueError for what is no JSON object or
        beyond what an event may have, BacklogFull, and OffgridError once the session takes no more.
        """
        event = dict(data)
        self._kinds.check(kind, event)
        if not self._raw_content:
            self._kinds.hash_content(kind, event)
        text = _to_json(event).encode()
        if len(text) > DATA_BYTES_MAX:
            raise ValueError(f"data: {len(text)} bytes of JSON; {DATA_BYTES_MAX} at most are allowed")
        at_us = time.time_ns() // 1_000 if timestamp_us is None else _within("timestamp_us", timestamp_us, TIME_MAX_US)
        frame = None if frame is None else _within("frame", frame, FRAME_MAX)
        if energy_delta is not None:
            energy_delta = float(energy_delta)
            if not -ENERGY_MAX <= energy_delta <= ENERGY_MAX:
                raise ValueError(f"energy_delta: {energy_delta}; {-ENERGY_MAX:g} to {ENERGY_MAX:g} is allowed")
        self._recorder.add(Waiting(at_us, kind, frame, energy_delta, text))

    def flush(self, timeout_s: float = CLOSE_S) -> bool:
        """Waits for what was accepted before now. True: it is durable. False: it is not, in time, or some of what came
        since the last flush was dropped or refused."""
        return self._recorder.flush(timeout_s)

    @property
    def figures(self) -> Figures:
        return self._recorder.figures()

    def end(self, timeout_s: float = CLOSE_S) -> state_pb2.Session:
        """Flushes; then nothing is recorded in the session any more. Raises NotDurable where something still waits: the
        session stays open then, and can be opened again by its name; and OffgridError."""
        self.close(timeout_s)
        if self.figures.waiting:
            raise NotDurable(self.figures)
        request = state_pb2.EndSessionRequest(session=self.session_id)
        return self._calls.unary("SessionService/EndSession", request, state_pb2.EndSessionResponse).session

    def close(self, timeout_s: float = CLOSE_S) -> bool:
        """Flushes and records no more, but leaves the session open: whoever opens it by its name goes on with it. As
        `flush`."""
        atexit.unregister(self._at_exit)
        return self._recorder.close(timeout_s)

    def _at_exit(self) -> None:
        self._recorder.close(EXIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the session, unless the application failed: then it may go on with it."""
        if error is None:
            self.end()
        else:
            self.close()

    def _send(self, writer: bytes, sent: int, events: list[Waiting], figures: Figures) -> None:
        request = state_pb2.RecordEventsRequest(
            session=self.session_id,
            writer=writer,
            sent=sent,
            events=_encode([e[:-1] for e in events]),
            dropped=figures.dropped,
            figures=state_pb2.WriterFigures(
                accepted=figures.accepted,
                turned_away=figures.turned_away,
                refused=figures.refused,
                failures=figures.failures,
                openings=figures.openings,
                waiting=figures.waiting,
                write_us=round(figures.write_ms * 1_000),
            ),
        )
        self._calls.unary(
            "SessionService/RecordEvents", request, state_pb2.RecordEventsResponse, repeatable=False
        )  # the recorder repeats it


def _within(name: str, value: int, most: int) -> int:
    number = operator.index(value)
    if not 0 <= number < most:
        raise ValueError(f"{name}: {number}; 0 to {most - 1} is allowed")
    return number


class Sessions:
    """SessionService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._opened: WeakSet[Session] = WeakSet()

    def close(self) -> None:
        """Closes those that this client has opened; what waits has a little time."""
        for session in [*self._opened]:
            session.close(EXIT_S)

    def open(self, name: str) -> Session:
        """A new session, or the one of that name that is open."""
        request = state_pb2.StartSessionRequest(name=name)
        started = self._calls.unary("SessionService/StartSession", request, state_pb2.StartSessionResponse)
        told = self.kinds()
        session = Session(self._calls, started.session, kinds_of(told), raw_content=told.store_raw_content)
        self._opened.add(session)
        return session

    def kinds(self) -> state_pb2.ListKindsResponse:
        """The kinds of events that the node knows, each with its schema."""
        return self._calls.unary("SessionService/ListKinds", state_pb2.ListKindsRequest(), state_pb2.ListKindsResponse)

    def register_kind(self, kind: str, schema: Mapping[str, Any]) -> state_pb2.Kind:
        """Events of this kind are recorded at the node from now on, as its JSON Schema has them (offgrid.kinds); the
        newest of a name stands. Sessions that are open in a process know it once they are opened anew."""
        request = state_pb2.RegisterKindRequest(kind=kind, schema=json.dumps(schema).encode())
        return self._calls.unary("SessionService/RegisterKind", request, state_pb2.RegisterKindResponse).kind

    def get(self, session: str) -> state_pb2.Session:
        """By its id, or a name: the newest session's."""
        request = state_pb2.GetSessionRequest(session=session)
        return self._calls.unary("SessionService/GetSession", request, state_pb2.GetSessionResponse).session

    def end(self, session: str) -> state_pb2.Session:
        request = state_pb2.EndSessionRequest(session=session)
        return self._calls.unary("SessionService/EndSession", request, state_pb2.EndSessionResponse).session

    def list(self, *, name: str = "", open_only: bool = False, limit: int | None = None) -> Iterator[state_pb2.Session]:
        """Newest first."""

        def fetch(size: int, token: str) -> tuple[list[state_pb2.Session], str]:
            request = state_pb2.ListSessionsRequest(page_size=size, page_token=token, name=name, open_only=open_only)
            page = self._calls.unary("SessionService/ListSessions", request, state_pb2.ListSessionsResponse)
            return [*page.sessions], page.next_page_token

        return pages(fetch, limit)

    def records(
        self,
        session: str,
        *,
        kinds: Iterable[str] = (),
        since_us: int = 0,
        until_us: int = 0,
        frame: int | None = None,
        until_number: int = 0,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[state_pb2.Record]:
        """What was recorded in a session, in order; times are microseconds since 1970. All bounds are inclusive."""
        wanted = [*kinds]

        def fetch(size: int, token: str) -> tuple[list[state_pb2.Record], str]:
            request = state_pb2.ListRecordsRequest(
                session=session,
                page_size=size,
                page_token=token,
                kinds=wanted,
                since_us=since_us,
                until_us=until_us,
                frame_id=frame,
                until_number=until_number,
                newest_first=newest_first,
            )
            page = self._calls.unary("SessionService/ListRecords", request, state_pb2.ListRecordsResponse)
            return [*page.records], page.next_page_token

        return pages(fetch, limit, RECORDS_PAGE)

    def watch(
        self, session: str, *, after: int | None = None, kinds: Iterable[str] = (), reducer: str = ""
    ) -> Iterator[state_pb2.WatchSessionResponse]:
        """First `sync`, what the session's events came to by `reducer`, then each `record` as it becomes durable, none
        twice and none left out; ends when the session has. With `after`, a record's number, it begins behind that,
        without a sync.

        A lost connection is taken up where it ended; a node that stays away for the client's `reconnect_s` raises
        OffgridError WatchEnded; whoever read so slowly that retention overtook it gets EventsGone.
        """
        named, silence = [*kinds], self._calls.silence("what is recorded")
        while True:
            request = state_pb2.WatchSessionRequest(session=session, after=after, kinds=named, reducer=reducer)
            lost: OffgridError | None = None
            silence.opening()
            try:
                for answer in self._calls.stream(
                    "SessionService/WatchSession", request, state_pb2.WatchSessionResponse
                ):
                    silence.heard()
                    if answer.HasField("sync"):
                        session, after = answer.sync.session.session_id, answer.sync.number
                    else:
                        after = answer.record.number
                    yield answer
            except OffgridError as error:
                if not error.outcome_unknown and error.reason != "SlowReader":
                    raise
                lost = error
            else:
                if self.get(session).ended_us:
                    return
            silence.wait(lost)

    def show(self, session: str, *, reducer: str = "", number: int = 0, at_us: int = 0) -> state_pb2.ShowStateResponse:
        """What a session's events come to: all of them, those up to a number, or those that the node had at a time."""
        request = state_pb2.ShowStateRequest(session=session, reducer=reducer, number=number, at_us=at_us)
        return self._calls.unary("SessionService/ShowState", request, state_pb2.ShowStateResponse)

    def snapshot(self, session: str, *, reducer: str = "") -> int:
        """Keeps what they come to; the number of the newest event in it."""
        request = state_pb2.TakeSnapshotRequest(session=session, reducer=reducer)
        return self._calls.unary("SessionService/TakeSnapshot", request, state_pb2.TakeSnapshotResponse).number

    def export(
        self,
        session: str,
        target: Target | BinaryIO,
        *,
        form: str = "json",
        content: bool | None = None,
        on_events: OnEvents = lambda doing, done, total: None,
    ) -> tuple[Head, Tail]:
        """All of a session into a file (offgrid.exports), which appears whole or not at all: "json", "yaml" or
        "parquet". `content`: what people and models said as it was recorded, and not hashed; as the node's
        `state.export_includes_content` has it, unless given."""
        from offgrid.client.porting import export_session

        return export_session(self._calls, session, target, form, content, on_events)

    def import_export(
        self, file: Target | BinaryIO, *, on_events: OnEvents = lambda doing, done, total: None
    ) -> Imported:
        """An export as a session of this node, which has its times and numbers; the same one again is that session.
        Kinds that the node does not know are registered. One that was cut off is gone on with. Raises BadExport."""
        from offgrid.client.porting import import_session

        return import_session(self._calls, file, on_events)

    def replay(
        self,
        session: str,
        *,
        reducer: str = "",
        number: int = 0,
        at_us: int = 0,
        on_event: Callable[[Recorded], None] = lambda event: None,
    ) -> Replayed:
        """As `show`, but folded in this process, anew from the first event, and held against what the node shows."""
        from offgrid.client.replaying import replay_session

        return replay_session(self, session, reducer, number, at_us, on_event)

    def pin(self, session: str, *, pinned: bool = True) -> state_pb2.Session:
        """What it said stays, whatever else has to go. Raises Exhausted where the sessions that are pinned would have
        more than the share of events."""
        request = state_pb2.PinSessionRequest(session=session, pinned=pinned)
        return self._calls.unary("SessionService/PinSession", request, state_pb2.PinSessionResponse).session

    def purge(
        self, sessions: Iterable[str] = (), *, everything: bool = False, forget: bool = False
    ) -> state_pb2.PurgeSessionsResponse:
        """Shreds what these sessions say, or all: nobody can read it any more, in any copy. `forget`: nor are they
        listed any more."""
        request = state_pb2.PurgeSessionsRequest(sessions=sessions, all=everything, forget=forget)
        return self._calls.unary("SessionService/PurgeSessions", request, state_pb2.PurgeSessionsResponse)


def kinds_of(told: state_pb2.ListKindsResponse) -> Kinds:
    """Those that a node knows, to check events by."""
    kinds = Kinds()
    for each in told.kinds:
        if each.registered_us:
            kinds.register(each.kind, json.loads(each.schema))
    return kinds


def data_of(record: state_pb2.Record) -> dict[str, Any]:
    """What was recorded, as it was given."""
    found: dict[str, Any] = json.loads(record.data)
    return found
