"""The calling half of an endpoint: sends requests, gathers responses, gives up at the deadline."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from random import Random

from offgrid_transports.arq import backoff
from offgrid_transports.fragment import Contradiction, FragmentSet, MessageTooLarge, NoRoom, Reassembly
from offgrid_transports.framing import Frame, Kind, Reset
from offgrid_transports.link import Link, Outgoing
from offgrid_transports.messages import Status, parse_response, write_request
from offgrid_transports.transport import TransportError

CALLS_MAX = 1024  # in flight from one endpoint
REQUEST_BYTES_MAX = 64 * 1024 * 1024  # pinned by all calls in flight
TIMEOUT_MS_MAX = 24 * 3600 * 1000
PROBE_MS_MIN = 250
CALL_NUMBER_MAX = 0xFFFF_FFFF


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


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of the call that `call(...)` numbered; `detail` says why when there is no answer."""

    call: int
    peer: str
    end: End
    body: bytes = b""
    detail: str = ""


@dataclass(slots=True)
class _Open:
    """A call in flight. `probes` counts questions since the request arrived or a part of its answer came."""

    peer: str
    request: Outgoing
    request_bytes: int
    deadline_ms: int
    probe_ms: int | None = None
    probes: int = 0
    ack_ms: int | None = None
    asked: Frame | None = None

    def due_ms(self) -> int:
        timers = (self.request.due_ms, self.probe_ms, self.ack_ms)
        return min((self.deadline_ms, *(due for due in timers if due is not None)))


class Calls:
    """The open calls of one endpoint."""

    def __init__(self, link: Link, rng: Random, reassembly: Reassembly) -> None:
        self._link = link
        self._rng = rng
        self._reassembly = reassembly
        self._session = rng.getrandbits(32)
        self._number = 0
        self._open: dict[int, _Open] = {}
        self._pinned_bytes = 0
        self._replies: list[Reply] = []

    def __len__(self) -> int:
        return len(self._open)

    def call(self, now_ms: int, peer: str, method: int, body: bytes, timeout_ms: int) -> int:
        """Starts a call and returns its number; its one Reply comes at the latest after `timeout_ms`."""
        timeout_ms = min(max(timeout_ms, 1), TIMEOUT_MS_MAX)
        message = write_request(method, timeout_ms, body)
        if len(self._open) >= CALLS_MAX:
            raise CallRefused(f"{CALLS_MAX} calls are in flight already")
        if self._pinned_bytes + len(message) > REQUEST_BYTES_MAX:
            raise CallRefused(f"calls in flight hold {self._pinned_bytes} bytes; {REQUEST_BYTES_MAX} are allowed")
        number = self._next_number()
        try:
            request = Outgoing(self._link, peer, Frame(Kind.REQUEST, self._session, number), message)
        except MessageTooLarge as error:
            raise CallRefused(str(error)) from error
        opened = self._open[number] = _Open(peer, request, len(message), now_ms + timeout_ms)
        self._pinned_bytes += len(message)
        request.begin(now_ms)
        self._set_timer(number, opened)
        return number

    def take_replies(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies

    def on_frame(self, now_ms: int, peer: str, frame: Frame) -> None:
        """A RESPONSE, REQUEST_ACK or RESET."""
        opened = self._open.get(frame.call) if frame.session == self._session else None
        if opened is None or opened.peer != peer:
            # An answer that nobody waits for: its server may forget it.
            if frame.kind is Kind.RESPONSE and frame.poll:
                self._link.acknowledge_all(peer, frame, frame.total)
            return
        match frame.kind:
            case Kind.REQUEST_ACK:
                self._on_ack(now_ms, opened, frame)
            case Kind.RESPONSE:
                self._on_response(now_ms, opened, frame)
            case Kind.RESET:
                self._on_reset(frame)
                return
            case _:
                return
        if frame.call in self._open:
            self._set_timer(frame.call, opened)

    def on_timer(self, now_ms: int, number: int) -> None:
        opened = self._open.get(number)
        if opened is None:
            return
        if opened.deadline_ms <= now_ms:
            self._end(number, End.UNKNOWN, detail="no answer within the time given")
            return
        if opened.request.due_ms is not None and opened.request.due_ms <= now_ms:
            opened.request.on_silence(now_ms)
        if opened.ack_ms is not None and opened.ack_ms <= now_ms:
            self._acknowledge(number, opened)
        if opened.probe_ms is not None and opened.probe_ms <= now_ms:
            self._link.emit(opened.peer, Frame(Kind.PROBE, self._session, number))
            opened.probes += 1
            opened.probe_ms = now_ms + self._probe_wait_ms(opened)
        self._set_timer(number, opened)

    def abandon(self, detail: str) -> None:
        """Ends every open call as unknown."""
        for number in list(self._open):
            self._end(number, End.UNKNOWN, detail=detail)

    def _on_ack(self, now_ms: int, opened: _Open, frame: Frame) -> None:
        if opened.request.done:
            return  # the server is still at it
        opened.request.on_ack(now_ms, frame)
        if opened.request.done:
            opened.probe_ms = now_ms + self._probe_wait_ms(opened)

    def _on_response(self, now_ms: int, opened: _Open, frame: Frame) -> None:
        opened.request.finish(now_ms)
        opened.probes = 0
        opened.probe_ms = now_ms + self._probe_wait_ms(opened)
        held = self._gather(now_ms, opened.peer, frame)
        if held is not None and held.complete:
            message = held.message()
            self._link.acknowledge_all(opened.peer, frame, frame.total)
            self._finish(frame.call, message)
        elif frame.poll and held is not None:  # without room for it silence slows the server down
            opened.asked = frame
            opened.ack_ms = opened.ack_ms or now_ms + self._link.profile.ack_delay_ms

    def _gather(self, now_ms: int, peer: str, frame: Frame) -> FragmentSet | None:
        try:
            return self._reassembly.add(now_ms, peer, ("response", frame.call), frame.index, frame.total, frame.payload)
        except (Contradiction, NoRoom) as error:
            self._link.counts[type(error).__name__] += 1
        except MessageTooLarge:
            self._link.counts["MessageTooLarge"] += 1
            self._link.acknowledge_all(peer, frame, frame.total)
            self._end(frame.call, End.UNKNOWN, detail="the answer is longer than a message may be")
        return None

    def _acknowledge(self, number: int, opened: _Open) -> None:
        if opened.asked is not None:
            held = self._reassembly.get(opened.peer, ("response", number)) or FragmentSet(opened.asked.total)
            self._link.acknowledge(opened.peer, opened.asked, held)
        opened.ack_ms = opened.asked = None

    def _finish(self, number: int, message: bytes) -> None:
        parsed = parse_response(message)
        if parsed is None:
            self._link.counts["malformed_response"] += 1
            self._end(number, End.UNKNOWN, detail="the answer is malformed")
            return
        status, body = parsed
        self._end(number, End.OK if status is Status.OK else End.ERROR, body)

    def _on_reset(self, frame: Frame) -> None:
        reason = Reset(frame.payload[0])
        end = End.UNKNOWN if reason is Reset.GONE else End.REFUSED
        self._end(frame.call, end, detail=f"the peer says: {reason.name.lower().replace('_', ' ')}")

    def _end(self, number: int, end: End, body: bytes = b"", detail: str = "") -> None:
        opened = self._open.pop(number)
        self._pinned_bytes -= opened.request_bytes
        self._reassembly.drop(opened.peer, ("response", number))
        self._link.timers.set(number, None)
        self._replies.append(Reply(number, opened.peer, end, body, detail))

    def _next_number(self) -> int:
        if self._number == CALL_NUMBER_MAX:
            self.abandon("the session's numbers are used up")
            self._session, self._number = self._rng.getrandbits(32), 0
        self._number += 1
        return self._number

    def _probe_wait_ms(self, opened: _Open) -> int:
        return max(PROBE_MS_MIN, backoff(self._link.wait_ms(opened.peer, 0) * 2, opened.probes))

    def _set_timer(self, number: int, opened: _Open) -> None:
        self._link.timers.set(number, opened.due_ms())
