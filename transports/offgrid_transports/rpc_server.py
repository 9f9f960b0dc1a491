"""The answering half of an endpoint: executes each call at most once and keeps its answer until it is acknowledged.

A call that has begun is marked in its session's window and never begins again; a repeated request meets its answer,
or is told that the answer is gone. The memory of this is bounded: it covers the last WINDOW_CALLS calls of the last
SESSIONS_MAX sessions, for as long as this process lives. What must hold beyond that (a restart between execution and
answer) needs an idempotent request, as on any other carrier.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum, auto

from offgrid_transports.fragment import Contradiction, FragmentSet, MessageTooLarge, NoRoom, Reassembly
from offgrid_transports.framing import Frame, Kind, Reset
from offgrid_transports.link import Link, Outgoing
from offgrid_transports.messages import Status, parse_request, write_response
from offgrid_transports.window import CallWindow

SESSIONS_MAX = 512  # peers and their restarts; the one heard of longest ago with nothing open goes first
OPEN_PER_SESSION_MAX = 1024  # receiving, executing or answering; as many as one client keeps in flight
OPEN_MAX = 8192
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # kept by all unacknowledged answers; beyond it the oldest go
RECEIVE_IDLE_MS = 60_000  # a half-received request that nobody continues
ANSWER_GRACE_MS = 30_000  # an answer is kept this much longer than its caller may wait
PATIENCE_MS_MAX = 3_600_000  # a caller may say that it waits longer; nothing is held for it beyond this
ANSWER_SILENT_MAX = 8  # then it rests until the caller asks


@dataclass(frozen=True, slots=True)
class CallKey:
    """Names one call: who, in which session, the how-manieth."""

    peer: str
    session: int
    call: int


@dataclass(frozen=True, slots=True)
class Request:
    """A call that has arrived whole and is handed out exactly once; answer it with `respond(key, …)`.

    `deadline_ms` is when the caller stops waiting, on this side's monotonic clock."""

    key: CallKey
    method: int
    body: bytes
    deadline_ms: int

    @property
    def peer(self) -> str:
        return self.key.peer


class _Phase(Enum):
    RECEIVING = auto()
    EXECUTING = auto()
    ANSWERING = auto()


@dataclass(slots=True)
class _Open:
    phase: _Phase
    expires_ms: int
    deadline_ms: int = 0
    ack_ms: int | None = None
    asked: Frame | None = None
    answer: Outgoing | None = None

    def due_ms(self) -> int:
        timers = (self.ack_ms, self.answer.due_ms if self.answer else None)
        return min((self.expires_ms, *(due for due in timers if due is not None)))


@dataclass(slots=True)
class _Session:
    window: CallWindow = field(default_factory=CallWindow)
    open: int = 0


class Answers:
    """The calls that peers have made to this endpoint."""

    def __init__(self, link: Link, reassembly: Reassembly, answer_bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._link = link
        self._answer_bytes_max = answer_bytes_max
        self._reassembly = reassembly
        self._sessions: OrderedDict[tuple[str, int], _Session] = OrderedDict()
        self._open: dict[CallKey, _Open] = {}
        self._answering: OrderedDict[CallKey, int] = OrderedDict()
        self._answer_bytes = 0
        self._requests: list[Request] = []

    def __len__(self) -> int:
        return len(self._open)

    def take_requests(self) -> list[Request]:
        requests, self._requests = self._requests, []
        return requests

    def respond(self, now_ms: int, key: CallKey, status: Status, body: bytes) -> bool:
        """Answers a request; False when nobody waits for it any more. Raises MessageTooLarge."""
        opened = self._open.get(key)
        if opened is None or opened.phase is not _Phase.EXECUTING:
            return False
        message = write_response(status, body)
        answer = Outgoing(self._link, key.peer, Frame(Kind.RESPONSE, key.session, key.call), message)
        opened.phase, opened.answer = _Phase.ANSWERING, answer
        opened.ack_ms = opened.asked = None  # the answer tells that the request arrived
        self._answering[key] = len(message)
        self._answer_bytes += len(message)
        answer.begin(now_ms)
        self._set_timer(key, opened)
        while self._answer_bytes > self._answer_bytes_max and len(self._answering) > 1:
            self._link.counts["answer_dropped"] += 1
            self._close(next(iter(self._answering)))
        return True

    def on_frame(self, now_ms: int, peer: str, frame: Frame) -> None:
        """A REQUEST, PROBE or RESPONSE_ACK."""
        key = CallKey(peer, frame.session, frame.call)
        opened = self._open.get(key)
        match frame.kind:
            case Kind.REQUEST:
                self._on_request(now_ms, key, opened, frame)
            case Kind.PROBE:
                self._on_probe(now_ms, key, opened)
            case Kind.RESPONSE_ACK if opened is not None and opened.answer is not None:
                opened.answer.on_ack(now_ms, frame)
                if opened.answer.done:
                    self._close(key)
            case _:
                pass
        if (opened := self._open.get(key)) is not None:
            self._set_timer(key, opened)

    def on_timer(self, now_ms: int, key: CallKey) -> None:
        opened = self._open.get(key)
        if opened is None:
            return
        if opened.expires_ms <= now_ms:
            self._link.counts[f"expired_{opened.phase.name.lower()}"] += 1
            self._close(key)
            return
        if opened.ack_ms is not None and opened.ack_ms <= now_ms:
            self._acknowledge(key, opened)
        answer = opened.answer
        if answer is not None and answer.due_ms is not None and answer.due_ms <= now_ms:
            if answer.silent < ANSWER_SILENT_MAX:
                answer.on_silence(now_ms)
            else:
                answer.rest()
        self._set_timer(key, opened)

    # ---- requests

    def _on_request(self, now_ms: int, key: CallKey, opened: _Open | None, frame: Frame) -> None:
        if opened is None:
            opened = self._begin(now_ms, key)
        if opened is None:
            return
        if opened.phase is _Phase.RECEIVING:
            self._receive(now_ms, key, opened, frame)
        elif opened.answer is not None and opened.answer.due_ms is None:
            opened.answer.begin(now_ms)
        if frame.poll and key in self._open and opened.phase is not _Phase.ANSWERING:
            opened.asked = frame
            opened.ack_ms = opened.ack_ms or now_ms + self._link.profile.ack_delay_ms

    def _begin(self, now_ms: int, key: CallKey) -> _Open | None:
        session = self._session(key)
        if session is None:
            self._reset(key, Reset.GONE)  # with no session to mark it in, a straggling copy may yet be carried out
            return None
        if session.window.marked(key.call):
            self._reset(key, Reset.GONE)
            return None
        if session.open >= OPEN_PER_SESSION_MAX or len(self._open) >= OPEN_MAX:
            self._refuse(key, Reset.REFUSED)
            return None
        session.open += 1
        opened = self._open[key] = _Open(_Phase.RECEIVING, now_ms + RECEIVE_IDLE_MS)
        return opened

    def _session(self, key: CallKey) -> _Session | None:
        name = (key.peer, key.session)
        found = self._sessions.get(name)
        if found is None:
            if len(self._sessions) >= SESSIONS_MAX:
                idle = next((name for name, session in self._sessions.items() if not session.open), None)
                if idle is None:
                    return None
                del self._sessions[idle]
            found = self._sessions[name] = _Session()
        self._sessions.move_to_end(name)
        return found

    def _receive(self, now_ms: int, key: CallKey, opened: _Open, frame: Frame) -> None:
        try:
            held = self._reassembly.add(now_ms, key.peer, key, frame.index, frame.total, frame.payload)
        except Contradiction:
            self._link.counts["Contradiction"] += 1
            return
        except NoRoom:
            self._refuse(key, Reset.REFUSED)
            return
        except MessageTooLarge:
            self._refuse(key, Reset.TOO_LARGE)
            return
        opened.expires_ms = now_ms + RECEIVE_IDLE_MS
        if held.complete:
            self._hand_out(now_ms, key, opened, held)

    def _hand_out(self, now_ms: int, key: CallKey, opened: _Open, held: FragmentSet) -> None:
        parsed = parse_request(held.message())
        if parsed is None:
            self._refuse(key, Reset.MALFORMED)
            return
        method, timeout_ms, body = parsed
        self._sessions[key.peer, key.session].window.mark(key.call)
        self._reassembly.drop(key.peer, key)
        opened.phase = _Phase.EXECUTING
        opened.deadline_ms = now_ms + min(timeout_ms, PATIENCE_MS_MAX)
        opened.expires_ms = opened.deadline_ms + ANSWER_GRACE_MS
        self._requests.append(Request(key, method, body, opened.deadline_ms))

    def _on_probe(self, now_ms: int, key: CallKey, opened: _Open | None) -> None:
        if opened is None:
            self._reset(key, Reset.GONE)
        elif opened.phase is _Phase.EXECUTING:
            self._link.acknowledge_all(key.peer, Frame(Kind.REQUEST, key.session, key.call), 1)
        elif opened.answer is not None and opened.answer.due_ms is None:
            opened.answer.begin(now_ms)

    def _acknowledge(self, key: CallKey, opened: _Open) -> None:
        asked = opened.asked
        if asked is not None and opened.phase is _Phase.EXECUTING:
            self._link.acknowledge_all(key.peer, asked, asked.total)
        elif asked is not None:
            held = self._reassembly.get(key.peer, key) or FragmentSet(asked.total)
            self._link.acknowledge(key.peer, asked, held)
        opened.ack_ms = opened.asked = None

    # ---- ends

    def _refuse(self, key: CallKey, reason: Reset) -> None:
        """Ends a call that was not carried out, and makes sure that no straggling copy of it ever will be."""
        session = self._sessions.get((key.peer, key.session))
        if session is not None:
            session.window.mark(key.call)
        self._close(key)
        self._reset(key, reason)

    def _reset(self, key: CallKey, reason: Reset) -> None:
        self._link.counts[f"reset_{reason.name.lower()}"] += 1
        self._link.emit(key.peer, Frame(Kind.RESET, key.session, key.call, payload=bytes([reason])))

    def _close(self, key: CallKey) -> None:
        if self._open.pop(key, None) is not None:
            self._sessions[key.peer, key.session].open -= 1
        self._answer_bytes -= self._answering.pop(key, 0)
        self._reassembly.drop(key.peer, key)
        self._link.timers.set(key, None)

    def _set_timer(self, key: CallKey, opened: _Open) -> None:
        self._link.timers.set(key, opened.due_ms())
