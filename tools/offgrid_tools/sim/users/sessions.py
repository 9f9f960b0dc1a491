"""Who records what happens in sessions, reads it back, and is its owner: pins, ends and purges them.

Several are at one machine and have the same few sessions, so that one ends or purges what another one writes in.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, Unavailable
from offgrid_node.protocol.state.sessions.blocks import Entry
from offgrid_tools.sim.engine import MS, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.monitor.sessions import MARK
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import HUNG_UP, Person

NAMES = ("flight", "run")
KINDS = ("energy.update", "health.heartbeat")
EVENTS_MAX = 6  # in one block
PADDING_MAX = 400
PAUSE_US = (5 * MS, 600 * MS)
OVER = ("SessionEnded", "SessionShredded", "SessionNotFound")  # what is so when somebody has ended or purged it
LATE_CHANCE = 0.15
PATIENCE_CHANCE = 0.3  # of who purges; else a purge is asked for once, whatever comes of it
PAGE = 7

Act = Callable[[], None]


class Speaker(Person):
    """Does `acts` things, one after the other; most of them are to record."""

    wants = "what happened to be recorded"

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, acts: int, name: str) -> None:
        super().__init__(engine, monitor, process)
        self._rng = Random(f"speaker {name} {engine.rng.random()}")  # noqa: S311 - to be repeatable
        self._writer, self._left, self._said = name.encode().ljust(8), acts, 0
        self._sent: dict[str, int] = {}  # by session, how many events
        self._acts: list[Act] = [self._record] * 10 + [self._list] * 2 + [self._show] * 3 + [self._pin] * 2
        self._acts += [self._count, self._seek]
        self._acts += [self._snapshot, self._end, self._purge, self._purge]

    @property
    def content(self) -> bool:
        return self._left == 0

    def start(self) -> None:
        self._engine.after(self._rng.randint(*PAUSE_US), self._go_on)

    def _go_on(self) -> None:
        if self._left:
            self._rng.choice(self._acts)()

    def _done(self, _: object = None) -> None:
        self._left -= 1
        self.start()

    # ---- to record

    def _record(self) -> None:
        """In the session of now, or now and then in one that may be over."""
        if self._sent and self._rng.random() < LATE_CHANCE:
            self._record_in(self._rng.choice([*self._sent]))
            return
        request = state_pb2.StartSessionRequest(name=self._rng.choice(NAMES))
        self._call("SessionService/StartSession", request, self._on_started)

    def _on_started(self, reply: Message) -> None:
        assert isinstance(reply, state_pb2.StartSessionResponse)
        self._monitor.sessions.on_started(self.node, reply.session)
        self._record_in(reply.session.session_id)

    def _record_in(self, session: str) -> None:
        sent = self._sent.get(session, 0)
        entries = [self._entry() for _ in range(self._rng.randint(1, EVENTS_MAX))]
        request = state_pb2.RecordEventsRequest(
            session=session, writer=self._writer, sent=sent, events=msgspec.msgpack.encode(entries)
        )

        def recorded(reply: Message) -> None:
            assert isinstance(reply, state_pb2.RecordEventsResponse)
            self._sent[session] = sent + len(entries)
            self._monitor.sessions.on_recorded(self.node, session, reply.first, entries)
            self._done()

        self._ask("SessionService/RecordEvents", request, session, recorded)

    def _entry(self) -> Entry:
        """None is like another one."""
        self._said += 1
        rng, text = self._rng, f"{MARK}{self._writer.decode().strip()} {self._said}"
        if rng.random() < 0.5:
            said = {"text": text + "x" * rng.randrange(PADDING_MAX), "n": self._said}
            return Entry(self._process.utc_us, "health.heartbeat", None, None, msgspec.json.encode(said))
        more = {"energy": rng.random(), "accumulator": 0.5, "model_id": text, "token_count": self._said}
        return Entry(
            self._process.utc_us, "energy.update", self._said, rng.randint(-8, 8) / 4, msgspec.json.encode(more)
        )

    # ---- to read

    def _known(self) -> str:
        """Any that one has written in, or a name."""
        return self._rng.choice([*self._sent, *NAMES])

    def _with_session(self, then: Callable[[state_pb2.Session], None]) -> None:
        def told(reply: Message) -> None:
            assert isinstance(reply, state_pb2.GetSessionResponse)
            self._monitor.sessions.on_told(self.node, reply.session)
            then(reply.session)

        self._ask("SessionService/GetSession", state_pb2.GetSessionRequest(session=self._known()), "", told)

    def _list(self) -> None:
        newest_first = self._rng.random() < 0.3
        self._with_session(lambda session: self._page(session.session_id, 0, "", newest_first=newest_first))

    def _page(self, session: str, at: int, token: str, *, newest_first: bool) -> None:
        request = state_pb2.ListRecordsRequest(
            session=session, page_token=token, page_size=PAGE, newest_first=newest_first
        )

        def came(reply: Message) -> None:
            assert isinstance(reply, state_pb2.ListRecordsResponse)
            last = self._monitor.sessions.on_listed(self.node, session, at, reply, newest_first=newest_first)
            if reply.next_page_token and self._rng.random() < 0.8:
                self._page(session, last, reply.next_page_token, newest_first=newest_first)
            else:
                self._done()

        self._ask("SessionService/ListRecords", request, session, came)

    def _show(self) -> None:
        self._with_session(self._show_this)

    def _show_this(self, session: state_pb2.Session) -> None:
        number = self._rng.randint(1, session.recorded) if session.recorded and self._rng.random() < 0.4 else 0
        request = state_pb2.ShowStateRequest(session=session.session_id, number=number)
        least = number or session.recorded

        def shown(reply: Message) -> None:
            assert isinstance(reply, state_pb2.ShowStateResponse)
            self._monitor.sessions.on_shown(self.node, session.session_id, least, reply, exact=number > 0)
            self._done()

        self._ask("SessionService/ShowState", request, session.session_id, shown, gone=number > 0)

    def _snapshot(self) -> None:
        def snapshot(session: state_pb2.Session) -> None:
            if not session.recorded:
                self._done()
                return
            request = state_pb2.TakeSnapshotRequest(session=session.session_id)
            self._ask("SessionService/TakeSnapshot", request, session.session_id, self._done)

        self._with_session(snapshot)

    # ---- to ask what is remembered

    def _count(self) -> None:
        kind = self._rng.choice(KINDS)

        def count(session: state_pb2.Session) -> None:
            scope = state_pb2.AskScope(session=session.session_id)

            def counted(reply: Message) -> None:
                assert isinstance(reply, state_pb2.AskCountResponse)
                self._monitor.summaries.on_counted(self.node, session.session_id, kind, reply)
                self._done()

            request = state_pb2.AskCountRequest(scope=scope, kind=kind)
            self._ask("MemoryService/AskCount", request, session.session_id, counted)

        self._with_session(count)

    def _seek(self) -> None:
        """Something that was said, by its key."""

        def seek(session: state_pb2.Session) -> None:
            number = self._rng.randint(1, session.recorded) if session.recorded else 0
            key = self._monitor.summaries.key_of(session.session_id, number)
            if not key:
                self._done()
                return

            def found(reply: Message) -> None:
                assert isinstance(reply, state_pb2.AskKeyResponse)
                self._monitor.summaries.on_sought(self.node, session.session_id, number, reply)
                self._done()

            scope = state_pb2.AskScope(session=session.session_id)
            request = state_pb2.AskKeyRequest(scope=scope, key=key)
            self._ask("MemoryService/AskKey", request, session.session_id, found)

        self._with_session(seek)

    # ---- to own

    def _pin(self) -> None:
        pinned = self._rng.random() < 0.5

        def pin(session: state_pb2.Session) -> None:
            request = state_pb2.PinSessionRequest(session=session.session_id, pinned=pinned)
            self._monitor.sessions.on_pinning(self.node, session.session_id)

            def done(_: Message) -> None:
                self._monitor.sessions.on_pinned(self.node, session.session_id, pinned=pinned)
                self._done()

            self._ask("SessionService/PinSession", request, session.session_id, done)

        self._with_session(pin)

    def _end(self) -> None:
        def end(session: state_pb2.Session) -> None:
            self._monitor.sessions.on_ending(self.node, session.session_id)

            def ended(_: Message) -> None:
                self._monitor.sessions.on_ended(self.node, session.session_id)
                self._done()

            request = state_pb2.EndSessionRequest(session=session.session_id)
            self._ask("SessionService/EndSession", request, session.session_id, ended)

        self._with_session(end)

    def _purge(self) -> None:
        patient = self._rng.random() < PATIENCE_CHANCE

        def purge(session: state_pb2.Session) -> None:
            request = state_pb2.PurgeSessionsRequest(sessions=[session.session_id])
            self._monitor.sessions.on_purging(self.node, session.session_id)

            def purged(_: Message) -> None:
                self._monitor.sessions.on_purged(self.node, session.session_id)
                self._done()

            def refused(fault: Fault) -> bool:
                if not patient or fault.reason == "SessionNotFound":
                    self._done()
                    return True
                return False

            self._call("SessionService/PurgeSessions", request, purged, refused)

        self._with_session(purge)

    # ---- as all of them

    def _ask(
        self,
        method: str,
        request: Message,
        session: str,
        done: Callable[[Message], None],
        *,
        gone: bool = False,
    ) -> None:
        """Until it is answered, or there is nothing to ask any more; `gone`: or what is asked for may be kept no
        more."""

        def refused(fault: Fault) -> bool:
            if fault is HUNG_UP or (isinstance(fault, (Unavailable, Exhausted)) and fault.reason != "PinsFull"):
                return False
            if gone and fault.reason == "EventsGone":
                self._monitor.sessions.check_gone(self.node, session)
            elif fault.reason in OVER:
                self._monitor.sessions.check_over(self.node, session, fault.reason)
            elif fault.reason != "PinsFull":
                raise Violation(f"{method} of a sound session is refused: {fault.message}")
            self._done()
            return True

        self._call(method, request, done, refused)
