"""The calling half of a session: sends requests, gathers responses, gives up at the deadline."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from offgrid_transports.gathering import Contradiction, Gathering, MessageTooLarge
from offgrid_transports.headway import Headway
from offgrid_transports.messages import Message, cut, read_response, request
from offgrid_transports.outgoing import Outgoing
from offgrid_transports.packing import PackingError
from offgrid_transports.records import CALL_MAX, Part, RecordError, Said, Signal, Whole
from offgrid_transports.session import Session
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Priority, TransportError

CALLS_MAX = 1024  # in flight from one session
REQUEST_BYTES_MAX = 64 * 1024 * 1024  # pinned by all calls in flight
TIMEOUT_MS_MAX = 24 * 3600 * 1000
COMING_WAITS = 8  # a call whose answer is coming in parts goes on while so many waits bring
HEADWAY_BYTES = 160  # of it, or a frame's worth where that is less
PROBE_MS_MIN, PROBE_MS_MAX = 250.0, 60_000.0


class CallRefused(TransportError):
    """The call was not sent: too many are in flight, or it is too large."""


class End(Enum):
    """How a call ended."""

    OK = auto()
    """The server answered: `body` is its answer."""
    ERROR = auto()
    """The server answered with an error: `body` is what it said."""
    REFUSED = auto()
    """It was surely not carried out."""
    UNKNOWN = auto()
    """No answer came, or it was lost: it may have been carried out."""


class Reply(msgspec.Struct, frozen=True):
    """The end of a call; `detail` says why when there is no answer."""

    end: End
    body: bytes = b""
    detail: str = ""
    partial: bool = False
    """`body` is of a long message, and for long_calls.py."""


Done = Callable[[Reply], None]


class _Open(msgspec.Struct):
    """A call in flight. `probes` counts questions since the request arrived or a part of its answer came."""

    request: Outgoing
    headway: Headway
    done: Done
    probe_ms: float = math.inf
    probes: int = 0

    @property
    def due_ms(self) -> float:
        return min(self.headway.deadline_ms, self.probe_ms)


class Calls:
    """Those of one session. `done` of a call is called once, never from within `call`."""

    def __init__(self, session: Session, gathering: Gathering, timers: Timers) -> None:
        self._session, self._gathering, self._timers = session, gathering, timers
        self._name = f"calls {session.ours}"
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._pinned_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def call(
        self,
        now_ms: float,
        method: int,
        body: bytes,
        timeout_ms: float,
        done: Done,
        *,
        priority: Priority = Priority.JOB,
        early: bool = False,
    ) -> int:
        """Starts a call and returns its number. `early`: it has left with the hello. Raises CallRefused."""
        timeout_ms = min(max(timeout_ms, 1), TIMEOUT_MS_MAX)
        if len(self._open) >= CALLS_MAX:
            raise CallRefused(f"{CALLS_MAX} calls are in flight already")
        if self._pinned_bytes + len(body) > REQUEST_BYTES_MAX:
            raise CallRefused(f"calls in flight hold {self._pinned_bytes} bytes; {REQUEST_BYTES_MAX} are allowed")
        if self._number == CALL_MAX:
            raise CallRefused("the session's numbers are used up")
        said, packed = self._session.shorten(body)
        message = request(method, math.ceil(timeout_ms), said, packed=packed)
        try:
            outgoing = Outgoing(request=True, call=self._number + 1, message=message, priority=priority)
        except MessageTooLarge as error:
            raise CallRefused(str(error)) from error
        self._number += 1
        opened = self._open[self._number] = _Open(outgoing, Headway(now_ms + timeout_ms), done)
        self._pinned_bytes += outgoing.size
        if early:
            self._session.sent_early(now_ms, outgoing)
        else:
            self._session.send(outgoing)
        self._set_timer(self._number, opened)
        return self._number

    def skip(self) -> None:
        """A call left with the hello, and was given up since: its number is not given again."""
        self._number += 1

    def on_response(self, now_ms: float, content: Whole | Part) -> None:
        """Raises NoRoom: it counts as not received then."""
        opened = self._open.get(content.call)
        if opened is None:
            return
        self._session.settle(now_ms, opened.request)
        opened.probes = 0
        opened.probe_ms = now_ms + self._probe_wait_ms(opened)
        self._set_timer(content.call, opened)
        if isinstance(content, Whole):
            self._finish(now_ms, content.call, Message(content.flags, content.rest))
            return
        try:
            held = self._gathering.add(
                now_ms, self._name, content.call, content.offset, content.data, last=content.last
            )
        except (Contradiction, MessageTooLarge) as error:
            self._end(now_ms, content.call, Reply(End.UNKNOWN, detail=f"its answer: {error}"))
            return
        frame_bytes = self._session.path.frame_bytes
        wait_ms = COMING_WAITS * self._session.patience_ms(frame_bytes)
        opened.headway.on_bytes(now_ms, held.come_bytes, min(HEADWAY_BYTES, frame_bytes), wait_ms)
        if held.complete:
            try:
                message = cut(held.message())
            except RecordError as error:
                self._end(now_ms, content.call, Reply(End.UNKNOWN, detail=f"its answer is malformed: {error}"))
            else:
                self._finish(now_ms, content.call, message)

    def on_signal(self, now_ms: float, said: Said) -> None:
        opened = self._open.get(said.call)
        if opened is None:
            return
        if said.signal is Signal.HELD:
            self._session.settle(now_ms, opened.request)
            opened.probe_ms = now_ms + self._probe_wait_ms(opened)
            self._set_timer(said.call, opened)
        elif said.signal in (Signal.GONE, Signal.REFUSED, Signal.TOO_LARGE, Signal.MALFORMED):
            end = End.UNKNOWN if said.signal is Signal.GONE else End.REFUSED
            words = said.signal.name.lower().replace("_", " ")
            self._end(now_ms, said.call, Reply(end, detail=f"the peer says: {words}"))

    def on_arrived(self, now_ms: float, outgoing: Outgoing) -> None:
        """A request is there; the answer may take its time."""
        opened = self._open.get(outgoing.call)
        if opened is not None and opened.probe_ms == math.inf:
            opened.probe_ms = now_ms + self._probe_wait_ms(opened)
            self._set_timer(outgoing.call, opened)

    def on_timer(self, now_ms: float, call: int) -> None:
        opened = self._open.get(call)
        if opened is None:
            return
        if opened.headway.deadline_ms <= now_ms:
            come = f"{opened.headway.bytes} bytes of its answer" if opened.headway.bytes else "no answer"
            self._end(now_ms, call, Reply(End.UNKNOWN, detail=f"{come} within the time given"))
            return
        if opened.probe_ms <= now_ms:
            self._session.signal(Signal.PROBE, call)
            opened.probes += 1
            opened.probe_ms = now_ms + self._probe_wait_ms(opened)
        self._set_timer(call, opened)

    def abandon(self, now_ms: float, detail: str) -> None:
        """Ends every open call as unknown."""
        for call in list(self._open):
            self._end(now_ms, call, Reply(End.UNKNOWN, detail=detail))

    # ---- inside

    def _finish(self, now_ms: float, call: int, message: Message) -> None:
        try:
            error, partial, packed, body = read_response(message)
            if packed:
                body = self._session.words.lengthen(body)
        except (RecordError, PackingError) as fault:
            self._end(now_ms, call, Reply(End.UNKNOWN, detail=f"its answer is malformed: {fault}"))
        else:
            self._end(now_ms, call, Reply(End.ERROR if error else End.OK, body, partial=partial))

    def _end(self, now_ms: float, call: int, reply: Reply) -> None:
        opened = self._open.pop(call)
        self._session.settle(now_ms, opened.request)
        self._pinned_bytes -= opened.request.size
        self._gathering.drop(self._name, call)
        self._timers.set((self._name, call), None)
        opened.done(reply)

    def _probe_wait_ms(self, opened: _Open) -> float:
        wait_ms = 2 * self._session.patience_ms(self._session.path.frame_bytes) * (1 << min(opened.probes, 8))
        return min(max(wait_ms, PROBE_MS_MIN), PROBE_MS_MAX)

    def _set_timer(self, call: int, opened: _Open) -> None:
        self._timers.set((self._name, call), math.ceil(opened.due_ms))
