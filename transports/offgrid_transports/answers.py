"""The answering half of a session: executes each call at most once and keeps its answer until it has arrived.

A call that has begun is marked in the session's window and never begins again; a repeated request meets its answer, or
is told that the answer is gone. What must hold beyond the session (a restart between execution and answer) needs an
idempotent request, as on any other carrier.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum, auto

import msgspec

from offgrid_transports.gathering import Contradiction, Gathering, MessageTooLarge
from offgrid_transports.messages import Message, cut, read_request, response
from offgrid_transports.outgoing import Outgoing
from offgrid_transports.packing import PackingError
from offgrid_transports.records import Part, RecordError, Said, Signal, Whole
from offgrid_transports.session import Session
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Priority
from offgrid_transports.window import CallWindow

OPEN_MAX = 1024  # of a session: receiving, executing or answering; as many as one client keeps in flight
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # kept by all answers that have not arrived; beyond it the oldest go
RECEIVE_IDLE_MS = 600_000.0  # a half-received request that nobody continues; what it holds goes where there is need
ANSWER_GRACE_MS = 30_000.0  # an answer is kept this much longer than its caller may wait
SENDING_TIMES = 4  # as long as it takes without loss, and nobody else on the link
PATIENCE_MS_MAX = 3_600_000.0  # a caller may say that it waits longer; nothing is held for it beyond this


class Request(msgspec.Struct, frozen=True):
    """A call that has arrived whole and is handed out exactly once; answer it with `respond`.

    `deadline_ms` is when the caller stops waiting, on this side's monotonic clock."""

    peer: str
    session: int
    call: int
    method: int
    body: bytes
    deadline_ms: float


class _Phase(Enum):
    RECEIVING = auto()
    EXECUTING = auto()
    ANSWERING = auto()


class _Open(msgspec.Struct):
    phase: _Phase
    expires_ms: float
    deadline_ms: float = 0.0
    answer: Outgoing | None = None
    repeat_ms: float = 0.0
    """From then on a question for the answer has it sent again."""


class Kept:
    """The answers of all sessions, by age, within one budget."""

    def __init__(self, bytes_max: int = ANSWER_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._sizes: OrderedDict[tuple[Answers, int], int] = OrderedDict()
        self._bytes = 0

    def add(self, now_ms: float, answers: Answers, call: int, size: int) -> None:
        self._sizes[answers, call] = size
        self._bytes += size
        while self._bytes > self._bytes_max and len(self._sizes) > 1:
            oldest, number = next(iter(self._sizes))
            oldest.close(now_ms, number)

    def drop(self, answers: Answers, call: int) -> None:
        self._bytes -= self._sizes.pop((answers, call), 0)


class Answers:
    """The calls that a session's peer has made."""

    def __init__(self, session: Session, gathering: Gathering, timers: Timers, kept: Kept) -> None:
        self._session, self._gathering, self._timers, self._kept = session, gathering, timers, kept
        self._name = f"answers {session.ours}"
        self._window = CallWindow()
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def on_request(self, now_ms: float, content: Whole | Part) -> Request | None:
        """The request, once it is whole. Raises NoRoom: what came counts as not received then."""
        call, opened = content.call, self._open.get(content.call)
        if self._window.marked(call):
            self._on_repeated(now_ms, call, opened)
            return None
        if opened is None:
            if len(self._open) >= OPEN_MAX and not self._make_room(now_ms):
                self._refuse(now_ms, call, Signal.REFUSED)
                return None
            opened = self._open[call] = _Open(_Phase.RECEIVING, now_ms + RECEIVE_IDLE_MS)
        if isinstance(content, Whole):
            return self._hand_out(now_ms, call, opened, Message(content.flags, content.rest))
        opened.expires_ms = now_ms + RECEIVE_IDLE_MS
        self._set_timer(call, opened)
        try:
            held = self._gathering.add(now_ms, self._name, call, content.offset, content.data, last=content.last)
        except Contradiction:
            self._refuse(now_ms, call, Signal.MALFORMED)
            return None
        except MessageTooLarge:
            self._refuse(now_ms, call, Signal.TOO_LARGE)
            return None
        if not held.complete:
            return None
        try:
            message = cut(held.message())
        except RecordError:
            self._refuse(now_ms, call, Signal.MALFORMED)
            return None
        return self._hand_out(now_ms, call, opened, message)

    def on_probe(self, now_ms: float, said: Said) -> None:
        opened = self._open.get(said.call)
        if opened is None:
            self._session.signal(Signal.GONE, said.call)
        elif opened.phase is _Phase.ANSWERING:
            self._on_repeated(now_ms, said.call, opened)
        else:
            self._session.signal(Signal.HELD, said.call)

    def on_evicted(self, now_ms: float, call: int) -> None:
        """What was held of a request is no more."""
        self._refuse(now_ms, call, Signal.REFUSED)

    def respond(
        self,
        now_ms: float,
        call: int,
        body: bytes,
        *,
        error: bool = False,
        partial: bool = False,
        priority: Priority = Priority.JOB,
    ) -> bool:
        """Answers a request, once; False when nobody waits for it any more. Raises MessageTooLarge; the request is
        then still open."""
        opened = self._open.get(call)
        if opened is None or opened.phase is not _Phase.EXECUTING:
            return False
        said, packed = self._session.shorten(body)
        message = response(said, error=error, partial=partial, packed=packed)
        opened.answer = Outgoing(request=False, call=call, message=message, priority=priority)
        opened.phase = _Phase.ANSWERING
        sent_ms = self._session.path.sent_ms(opened.answer.size, priority)
        opened.expires_ms = max(opened.expires_ms, now_ms + ANSWER_GRACE_MS + SENDING_TIMES * sent_ms)
        self._set_timer(call, opened)
        self._session.on_answer()
        self._begin(now_ms, opened, opened.answer)
        self._kept.add(now_ms, self, call, opened.answer.size)
        return True

    def on_arrived(self, now_ms: float, outgoing: Outgoing) -> None:
        """An answer is there."""
        opened = self._open.get(outgoing.call)
        if opened is not None and opened.answer is outgoing:
            self.close(now_ms, outgoing.call)

    def on_timer(self, now_ms: float, call: int) -> None:
        opened = self._open.get(call)
        if opened is None or opened.expires_ms > now_ms:
            return
        if opened.phase is _Phase.RECEIVING:
            self._refuse(now_ms, call, Signal.REFUSED)
        else:
            self.close(now_ms, call)

    def close(self, now_ms: float, call: int) -> None:
        """Forgets a call; it is not carried out again."""
        self._window.mark(call)
        opened = self._open.pop(call, None)
        if opened is not None and opened.answer is not None and not opened.answer.done:
            self._session.settle(now_ms, opened.answer)
        self._kept.drop(self, call)
        self._gathering.drop(self._name, call)
        self._timers.set((self._name, call), None)

    def close_all(self, now_ms: float) -> None:
        for call in list(self._open):
            self.close(now_ms, call)

    # ---- inside

    def _make_room(self, now_ms: float) -> bool:
        """The oldest answer goes: on a shared medium nobody acknowledges a short one."""
        oldest = next((call for call, opened in self._open.items() if opened.answer is not None), None)
        if oldest is not None:
            self.close(now_ms, oldest)
        return oldest is not None

    def _hand_out(self, now_ms: float, call: int, opened: _Open, message: Message) -> Request | None:
        try:
            method, timeout_ms, packed, body = read_request(message)
            if packed:
                body = self._session.words.lengthen(body)
        except (RecordError, PackingError):
            self._refuse(now_ms, call, Signal.MALFORMED)
            return None
        self._window.mark(call)
        self._gathering.drop(self._name, call)
        opened.phase = _Phase.EXECUTING
        opened.deadline_ms = now_ms + min(timeout_ms, PATIENCE_MS_MAX)
        opened.expires_ms = opened.deadline_ms + ANSWER_GRACE_MS
        self._set_timer(call, opened)
        self._session.on_request(now_ms)
        session = self._session
        return Request(session.peer, session.ours, call, method, body, opened.deadline_ms)

    def _on_repeated(self, now_ms: float, call: int, opened: _Open | None) -> None:
        if opened is None:
            self._session.signal(Signal.GONE, call)
        elif opened.phase is _Phase.EXECUTING:
            self._session.on_request(now_ms)
        elif opened.answer is not None and not opened.answer.ready and opened.repeat_ms <= now_ms:
            opened.answer.again()
            self._begin(now_ms, opened, opened.answer)

    def _begin(self, now_ms: float, opened: _Open, answer: Outgoing) -> None:
        self._session.send(answer)
        opened.repeat_ms = now_ms + self._session.path.sent_ms(answer.size, answer.priority)

    def _refuse(self, now_ms: float, call: int, why: Signal) -> None:
        """Ends a call that was not carried out, and makes sure that no straggling copy of it ever will be."""
        self.close(now_ms, call)
        self._session.signal(why, call)

    def _set_timer(self, call: int, opened: _Open) -> None:
        self._timers.set((self._name, call), math.ceil(opened.expires_ms))
