"""Sessions over a real store on disk, held against a plain Python model, through crashes at any commit.

Runs of 50 steps, many more by `soak tests`. A crash takes the folder as it lies on the disk just then, as a process
that is killed leaves it, and begins with that.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from session_desk import START_US, Desk, event

from offgrid.reducers import Recorded, SessionReducer, show_state
from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.services.caller import ADMIN
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.noting import NotingStore
from offgrid_node.storage.store import Batch

EXAMPLES = settings().max_examples // 3
NAMES, WRITERS = ("one", "two"), (b"writer-1", b"writer-2")
SAID = st.lists(st.sampled_from(["health.heartbeat", "energy.update"]), min_size=1, max_size=4)
LIMIT_BYTES = 64 * 1024 * 1024


@dataclass
class Session:
    """What a session is to be. `sent`: by writer, how many events; `gone`: how many of the oldest may be no more."""

    name: str
    events: list[list[Any]] = field(default_factory=list)
    sent: dict[bytes, int] = field(default_factory=dict)
    last: dict[bytes, list[list[Any]]] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)  # numbers of their last events
    ended: bool = False
    purged: bool = False
    pinned: bool = False
    gone: int = 0

    def state(self, upto: int | None = None) -> tuple[int, bytes]:
        reducer, events = SessionReducer(), self.events[:upto]
        state = reducer.initial()
        for number, (at_us, kind, frame, energy, data) in enumerate(events, 1):
            state = reducer.apply(state, Recorded(number, at_us, kind, frame, energy, json.loads(data)))
        return len(events), show_state(reducer, state)[1]


class Disk(Desk):
    """A desk over a store on disk. `fails`: what comes of the next commit, once."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sessions-"))
        self.lives = 0
        self.fails = ""
        self.logged = LoggedStore.open(self.folder / "0", limit_bytes=LIMIT_BYTES)
        super().__init__()

    def start(self) -> None:
        self.store = Failing(self.logged, self)  # type: ignore[assignment]
        super().start()
        self.handlers.shredding.start()
        self.runtime.turn()

    def crash(self) -> None:
        before, self.lives = self.folder / str(self.lives), self.lives + 1
        shutil.copytree(before, self.folder / str(self.lives), ignore=shutil.ignore_patterns("*lock*"))
        self.logged.close()
        shutil.rmtree(before)
        self.fails = ""
        self.logged = LoggedStore.open(self.folder / str(self.lives), limit_bytes=LIMIT_BYTES)
        self.timers.clear()
        self.start()

    def close(self) -> None:
        self.logged.close()
        shutil.rmtree(self.folder)


class Failing(NotingStore):
    """The store under a node, whose disk refuses a commit, or loses the word that it took it."""

    def __init__(self, below: LoggedStore, disk: Disk) -> None:
        super().__init__(below)
        self._disk = disk

    def commit(self, batch: Batch) -> int:
        fails, self._disk.fails = self._disk.fails, ""
        fault = Unavailable("the disk refuses", reason="DiskError")
        if fails == "before":
            raise fault
        seq = super().commit(batch)
        if fails == "after":
            raise fault
        return seq


class Sessions(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.known: dict[str, Session] = {}  # by id

    def teardown(self) -> None:
        self.disk.close()

    def _open(self, name: str) -> str | None:
        return next((key for key, each in self.known.items() if each.name == name and not each.ended), None)

    def _newest(self, name: str) -> str | None:
        return next((key for key in reversed(self.known) if self.known[key].name == name), None)

    def _asked(self, method: str, request: Any) -> Any:
        """None where the disk failed: whoever asked knows nothing, and asks again once the node is there anew."""
        try:
            return self.disk.ask(method, request)
        except Unavailable:
            self.disk.crash()
            return self.disk.ask(method, request)

    # ---- what applications do

    def _started(self, name: str) -> str:
        """Anew, unless it is open."""
        started = self._asked("start_session", state_pb2.StartSessionRequest(name=name)).session
        assert started.session_id == (self._open(name) or started.session_id)
        assert not started.ended_us
        self.known.setdefault(started.session_id, Session(name))
        return str(started.session_id)

    @rule(name=st.sampled_from(NAMES), said=st.lists(st.tuples(st.sampled_from(WRITERS), SAID), min_size=1, max_size=5))
    def record(self, name: str, said: list[tuple[bytes, list[str]]]) -> None:
        key = self._started(name)
        for writer, kinds in said:
            self._record(key, writer, kinds)

    def _record(self, key: str, writer: bytes, kinds: list[str]) -> None:
        session = self.known[key]
        sent, number = session.sent.get(writer, 0), len(session.events)
        said = [event(START_US + number + at, kind=kind, **_data(kind, number + at)) for at, kind in enumerate(kinds)]
        assert self._recorded(key, writer, sent, said) == number + 1
        session.events += said
        session.sent[writer], session.last[writer] = sent + len(said), said
        session.blocks.append(len(session.events))

    @rule(name=st.sampled_from(NAMES), writer=st.sampled_from(WRITERS))
    def send_what_came_last_again(self, name: str, writer: bytes) -> None:
        key = self._open(name)
        if key is not None and writer in self.known[key].last:
            said = self.known[key].last[writer]
            self._recorded(key, writer, self.known[key].sent[writer] - len(said), said)

    def _recorded(self, key: str, writer: bytes, sent: int, said: list[list[Any]]) -> int:
        try:
            return self.disk.record(key, *said, sent=sent, writer=writer)
        except Unavailable:
            self.disk.crash()
            return self.disk.record(key, *said, sent=sent, writer=writer)

    @rule(name=st.sampled_from(NAMES))
    def end(self, name: str) -> None:
        if (key := self._open(name)) is not None:
            assert self._asked("end_session", state_pb2.EndSessionRequest(session=key)).session.ended_us
            self.known[key].ended = True

    # ---- what its owner does

    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        if (key := self._newest(name)) is not None:
            self._asked("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[key]))
            session = self.known[key]
            session.ended = session.purged = True
            session.pinned = False
            assert key not in self.disk.keys

    @rule(name=st.sampled_from(NAMES), pinned=st.booleans())
    def pin(self, name: str, pinned: bool) -> None:
        key = self._newest(name)
        if key is not None and not self.known[key].purged:
            self._asked("pin_session", state_pb2.PinSessionRequest(session=key, pinned=pinned))
            self.known[key].pinned = pinned

    def snapshot(self, name: str) -> None:
        key = self._newest(name)
        if key is not None and not self.known[key].purged and self.known[key].events:
            taken = self._asked("take_snapshot", state_pb2.TakeSnapshotRequest(session=key))
            assert taken.number == len(self.known[key].events)

    @rule(
        few=st.integers(1, 2_000),
        upto=st.integers(1, 60),
        summed_up=st.sampled_from([True, True, False]),
        pins=st.sampled_from([*NAMES, ""]),
    )
    def drop(self, few: int, upto: int, summed_up: bool, pins: str) -> None:
        """What retention asks for; where it wants snapshots and gets none it drops less. What is kept in memory goes
        behind it, so that all is told from the disk. Somebody `pins` a session just before."""
        self.pin(name=pins, pinned=True)
        for name in NAMES if summed_up else ():
            self.snapshot(name)
        kept = {key: self._get(key).kept for key in self.known}
        self.disk.runtime.ask("sessions", "test", DropOldest(upto, few))
        self.disk.runtime.turn()
        self.disk.crash()
        for key, session in self.known.items():
            now = self._get(key)
            if session.pinned or session.purged:
                assert now.kept == kept[key]
            if not session.purged:
                session.gone = len(session.events) - now.kept
                assert session.gone in (0, *session.blocks)

    # ---- what happens

    @rule(how=st.sampled_from(["now", "before", "after"]))
    def crash(self, how: str) -> None:
        """Now, or before or after the next commit."""
        if how == "now":
            self.disk.crash()
        else:
            self.disk.fails = how

    @rule(hours=st.sampled_from([-1, 48]))
    def step_the_clock(self, hours: int) -> None:
        self.disk.clock.now_us += hours * 3_600_000_000

    @rule()
    def wait(self) -> None:
        if not self.disk.fails:
            self.disk.wait(60_000)

    # ---- what is always so

    def _get(self, key: str) -> state_pb2.Session:
        session: state_pb2.Session = self.disk.handlers.get_session(
            ADMIN, state_pb2.GetSessionRequest(session=key)
        ).session  # type: ignore[attr-defined]
        return session

    @invariant()
    def every_session_is_as_the_model_has_it(self) -> None:
        for key, session in self.known.items():
            told = self._get(key)
            assert (told.recorded, bool(told.ended_us)) == (len(session.events), session.ended)
            assert (bool(told.purged_us), told.pinned) == (session.purged, session.pinned)
            if session.purged:
                assert told.kept == 0
                continue
            assert told.kept == len(session.events) - session.gone
            found = [(each.number, each.kind, each.data) for each in self.disk.records(key)]
            wanted = [(at, each[1], each[4]) for at, each in enumerate(session.events, 1) if at > session.gone]
            assert found == wanted
            shown = self._shown(key)
            assert (shown.number, shown.digest) == session.state()
            if len(session.events) > session.gone:
                middle = (session.gone + len(session.events) + 1) // 2
                at_middle = self._shown_if_told(key, middle)
                assert at_middle in (None, session.state(middle))

    def _shown(self, key: str, **asked: Any) -> state_pb2.ShowStateResponse:
        shown: state_pb2.ShowStateResponse = self.disk.ask(
            "show_state", state_pb2.ShowStateRequest(session=key, **asked)
        )
        return shown

    def _shown_if_told(self, key: str, number: int) -> tuple[int, bytes] | None:
        """None where what came before is gone, and no snapshot tells what it came to."""
        try:
            shown = self._shown(key, number=number)
        except Fault as fault:
            if fault.reason != "EventsGone" or not self.known[key].gone:
                raise
            return None
        return shown.number, shown.digest

    @invariant()
    def the_store_is_sound(self) -> None:
        journal = [seq for seq, _ in self.disk.logged.events()]
        assert journal == list(range(self.disk.logged.journal_floor + 1, self.disk.logged.journal_seq + 1))


def _data(kind: str, number: int) -> dict[str, Any]:
    return {"energy": 0.5 * number, "accumulator": 1.0} if kind == "energy.update" else {"n": number}


TestSessions: Callable[[], Any] = Sessions.TestCase
TestSessions.settings = settings(max_examples=EXAMPLES, stateful_step_count=50)  # type: ignore[attr-defined]
