"""One session between two nodes: frames sealed and opened, repaired, and sent as the link is best used.

On a shared medium a burst of frames leaves, the last two ask what came, and then there is silence until word of it
(bursts.py), for only one can speak at a time. On other links frames leave as the controller paces them. Either way it
is asked for its next frame when the link has room, so what is most urgent then goes first, and what is lost is cut anew
for the path of that moment. Pure: the caller gives the time, as monotonic milliseconds.
"""

from __future__ import annotations

import math
from collections import Counter, deque

from offgrid_transports.backlog import Backlog
from offgrid_transports.bursts import Bursts
from offgrid_transports.course import Course
from offgrid_transports.flight import Flight, Packet, spans_of
from offgrid_transports.hearing import Hearing
from offgrid_transports.noise import Keys
from offgrid_transports.outgoing import Outgoing, Span
from offgrid_transports.packing import Packing, Words
from offgrid_transports.path import Path
from offgrid_transports.records import (
    ACK_BITS_MAX,
    Ack,
    Echo,
    Part,
    Poll,
    Said,
    Signal,
    Whole,
    parse,
    write_echo,
    write_poll,
    write_signal,
)
from offgrid_transports.roads import Measured
from offgrid_transports.sealing import COUNTER_BYTES, FORGED_MAX, Opener, Sealer, Suite
from offgrid_transports.transport import Priority

SID_BYTES = 2
HEAD_BYTES = 1 + SID_BYTES
POLL_FRAMES = 2  # at the end of a burst
POLL_BYTES = 2
ACK_BYTES_MAX = 5 + ACK_BITS_MAX // 8
UNREAD_MAX = 64
SIGNALS_MAX = 2048
RESTS = 3  # answers' times that a session which was replaced leaves a shared medium to the new one
STALE_MS = 60_000.0  # without a frame, after which a peer on a shared medium may be away
PROBE = write_signal(Signal.PROBE, 0)[0]
FRAME_TYPE = 0x00  # of a session's frames, the first byte's upper half
ASKS = 0x01  # in the lower half, for relays: word of this frame is expected,
MORE = 0x02  # or one that asks of this one as well follows

Content = Whole | Part | Said | Echo


class Session:
    """`theirs` is the number that the peer has given the session, `ours` the one that frames to here bear."""

    def __init__(
        self, peer: str, ours: int, theirs: int, suite: Suite, keys: Keys, path: Path, words: Words | None = None
    ) -> None:
        self.peer, self.ours, self.theirs, self.suite = peer, ours, theirs, suite
        self.words = words or Words(Packing())
        self.counts: Counter[str] = Counter()
        self._heads = {flags: bytes((FRAME_TYPE | flags,)) + theirs.to_bytes(SID_BYTES) for flags in (0, ASKS, MORE)}
        self._sealer, self._opener = Sealer(suite, keys.sending), Opener(suite, keys.receiving)
        self._hearing = Hearing(self._opener)
        self._backlog = Backlog()
        self._signals: deque[bytes] = deque()
        self._polls = 0  # bare questions to be sent
        self._done: list[Outgoing] = []
        self._unread = 0  # frames in a row
        self.silent = self.silent_here = 0
        """Waits in which its peer was asked for something, since a frame of it came; and on this path."""
        self._asked_ms = -math.inf  # when the wait that a PROBE began ends
        self.listens_ms = -math.inf
        """Until then the answer to what left last may come; on a shared medium who sends does not hear it."""
        self.rests_ms = -math.inf
        """Until then it begins nothing."""
        self._replaced_ms = -math.inf
        self._heard_ms = math.inf  # not yet; it has just said hello
        self._bursts = Bursts()
        self.path, self._course = path, Course(path)

    # ---- the path

    def move(self, path: Path) -> None:
        """Goes on over another path: what is under way counts as lost."""
        lost, self._polls, self.silent_here = self._flight.lose_all(), 0, 0
        self.path, self._course = path, Course(path)
        self._bursts.clear()
        self._lose(lost)

    @property
    def _flight(self) -> Flight:
        return self._course.flight

    @property
    def worn(self) -> bool:
        """It should be replaced: its numbers run out, somebody tries to forge its frames, or it cannot read them any
        more, as after a silence of tens of thousands of them."""
        return self._sealer.used_up or self._opener.forged >= FORGED_MAX or self._unread >= UNREAD_MAX

    @property
    def unanswered(self) -> bool:
        """What was asked last brought no word yet, though there was time for it."""
        return self._flight.tries > 0

    @property
    def delay_ms(self) -> float:
        """How long the peer takes beyond the link's own time, smoothed."""
        return self._flight.delay.smooth_ms

    @property
    def measured(self) -> Measured | None:
        """Of its path; None while no word has come there."""
        return self._course.measured

    def patience_ms(self, length: int) -> float:
        """How long the answer to a frame of that length is worth waiting for."""
        return self._course.patience_ms(length)

    def is_newest(self, count: int) -> bool:
        """Of a frame: none that was sent after it has come."""
        return count == self._opener.newest

    def wake(self, now_ms: float) -> None:
        """The peer may be in reach again, and has another session: what was silent is asked at once. On a shared
        medium it is when that is still, and nothing else is said: who waits for an answer asks for it."""
        asks = not self.path.shared or self._flight.due_ms < math.inf
        self._flight.tries = self.silent = self.silent_here = 0
        self._replaced_ms = now_ms
        self.rest(now_ms)
        if asks:
            self._ask(list(self._flight.packets.values()))

    def rest(self, now_ms: float) -> None:
        """The session that has replaced it has the medium, where that is shared: nothing is begun here before a
        question there, and its answer, would have been heard. Only at first: what is under way here goes on then,
        however much is said there."""
        if not self.path.shared:
            return
        answered_ms = self.path.answered_ms(self.path.frame_bytes, Priority.CONTROL)
        if now_ms < self._replaced_ms + RESTS * answered_ms:
            self.rests_ms = now_ms + answered_ms

    # ---- what is to be sent

    def shorten(self, body: bytes) -> tuple[bytes, bool]:
        """A message's body as it is to travel, and whether that is packed: where others wait for the air, that is
        worth more than the time it takes."""
        return self.words.shorten(body) if self.path.shared else (body, False)

    def send(self, outgoing: Outgoing) -> None:
        self._backlog.add(outgoing)

    def sent_early(self, now_ms: float, outgoing: Outgoing) -> None:
        """It left with the hello, all of it: it is asked for as if it were the frame before the first."""
        taken = outgoing.take(outgoing.size + HEAD_BYTES)
        if taken is not None:
            due_ms = now_ms + self.path.answered_ms(outgoing.size, outgoing.priority)
            self._flight.sent(Packet(-1, due_ms, self.path.ack_delay_ms, ((outgoing, taken[1]),)))

    def signal(self, signal: Signal, call: int) -> None:
        """Once, without repair: whoever needs it asks again."""
        if len(self._signals) < SIGNALS_MAX:
            self._signals.append(write_signal(signal, call))

    def echo(self, *, answers: bool, number: int) -> bytes:
        """A frame of its own, for whichever path. It may be lost."""
        return self._sealer.seal(self._heads[0 if answers else ASKS], write_echo(answers=answers, number=number))

    def settle(self, now_ms: float, outgoing: Outgoing) -> None:
        """It is known to have arrived, or nobody wants it any more."""
        outgoing.done = True
        self._course.settle(now_ms, outgoing)
        self._end_burst()

    # ---- frames

    def on_frame(self, now_ms: float, frame: bytes, path: Path) -> tuple[int, list[Content]]:
        """Its counter, and what it brings for whoever is above. Raises NotOpened, RecordError."""
        self._unread += 1
        count, clear = self._opener.open(frame, HEAD_BYTES)
        self._unread = self.silent = self.silent_here = 0
        self._heard_ms = now_ms
        self.listens_ms = -math.inf
        contents: list[Content] = []
        for record in parse(clear):
            if isinstance(record, Ack):
                self._on_ack(now_ms, record)
            elif isinstance(record, Poll):
                self._hearing.on_poll(now_ms, record, path)
            else:
                contents.append(record)
                if isinstance(record, Whole | Part):
                    self._hearing.on_carrying(now_ms, path)
        return count, contents

    def on_request(self, now_ms: float) -> None:
        """A request is here whole, and is not answered yet."""
        self._hearing.on_request(now_ms, self.path)

    def on_answer(self) -> None:
        """The answer leaves."""
        self._hearing.on_answer()

    def unhear(self, count: int) -> None:
        """There was no room for what that frame brought: it counts as not received."""
        self._opener.forget(count)

    def next_frame(self, now_ms: float) -> bytes | None:
        """What to hand to the link now, or None."""
        if now_ms - self._heard_ms > STALE_MS:
            self._bursts.feel()
        records, room = list[bytes](), self.room_bytes
        if self._hearing.due_ms <= now_ms:
            records.append(self._hearing.record(now_ms))
            room -= len(records[0])
        while self._signals and len(self._signals[0]) <= room:
            records.append(self._signals.popleft())
            room -= len(records[-1])
            self._count_probe(now_ms, records[-1])
        if self._polls:
            return self._poll(now_ms, records)
        copying, taken = self._backlog.copies > 0, None
        if self._may_carry(now_ms):  # two bytes are left for a question where it may be needed
            taken = self._backlog.take(room, POLL_BYTES, asks=self._bursts.has_pieces)
        if taken is not None:
            return self._launch(now_ms, records, *taken, copying=copying)
        asks = any(record[0] == PROBE for record in records)
        return self._sealer.seal(self._heads[ASKS if asks else 0], b"".join(records)) if records else None

    def _count_probe(self, now_ms: float, record: bytes) -> None:
        """Many calls may ask in one wait."""
        if record[0] == PROBE and self._asked_ms <= now_ms:
            self._asked_ms = now_ms + self.patience_ms(self.path.frame_bytes)
            self._missed()

    def on_timer(self, now_ms: float) -> None:
        """Does what is due by `now_ms`; an early call does nothing. Asks two times, because one may be lost as well: on
        a shared medium with what is next, or with nothing but the question after a burst; else with copies."""
        flight = self._flight
        if self._due_ms > now_ms or self._backlog.copies or self._polls:
            return
        if lost := flight.overtaken(now_ms):
            self._course.lose(now_ms, lost)
            self._lose(lost)
            return
        flight.tries += 1
        self._missed()
        packets = list(flight.packets.values())
        if self.path.shared and self._backlog:
            self._bursts.unanswered()
        elif not self._ask(packets):  # whatever was in them, nobody wants it any more
            self._course.let_go(now_ms, packets)
            self._end_burst()

    @property
    def _due_ms(self) -> float:
        """When `on_timer` has something to do; infinite while what waits will ask as soon as it may leave."""
        return math.inf if self._bursts.begins_anew and self._backlog else self._flight.due_ms

    def _missed(self) -> None:
        self.silent += 1
        self.silent_here += 1

    def _ask(self, packets: list[Packet]) -> bool:
        wanted = [(outgoing, span) for outgoing, span in spans_of(packets) if outgoing.under_way(span)]
        if self.path.shared and len(wanted) > POLL_FRAMES:
            self._polls = POLL_FRAMES
            return True
        wanted = wanted[-POLL_FRAMES:] if self.path.shared else wanted[:POLL_FRAMES]
        self._backlog.copy(wanted if len(wanted) == POLL_FRAMES or self.path.shared else wanted * POLL_FRAMES)
        return bool(wanted)

    def urgency(self, now_ms: float) -> Priority | None:
        """Of what would leave next; None where there is nothing."""
        if self._signals or self._backlog.copies or self._polls or self._hearing.due_ms <= now_ms:
            return Priority.CONTROL
        return self._backlog.urgency

    def begins(self, now_ms: float) -> bool:
        """What would leave next is a question of this side's, and goes on with nothing that is under way."""
        if self._signals or self._hearing.due_ms <= now_ms or self._bursts.has_pieces:
            return False
        waiting = self._backlog.first
        return bool(self._backlog.copies or self._polls) or (
            waiting is not None and (waiting.request or not waiting.whole_fits(self.room_bytes))
        )

    def next_ms(self, now_ms: float) -> float:
        """When there is something to send or to do in `on_timer`; infinite for never."""
        if self._signals or self._backlog.copies or self._polls:
            return now_ms
        next_ms = min(self._due_ms, self._hearing.due_ms)
        if self._bursts.full or not self._backlog:
            return next_ms
        if not self._course.paced and self._hearing.due_ms < math.inf:
            return next_ms
        return min(next_ms, self._course.next_send_ms(now_ms))

    @property
    def room_bytes(self) -> int:
        """What a frame of the path has room for."""
        return self.path.frame_bytes - HEAD_BYTES - COUNTER_BYTES - self.suite.tag_bytes

    # ---- sending

    def _may_carry(self, now_ms: float) -> bool:
        if self._backlog.copies:
            return True
        if self._course.paced:
            return self._course.may_send(now_ms)
        return not self._bursts.full and self._hearing.due_ms == math.inf

    def _launch(
        self, now_ms: float, records: list[bytes], record: bytes, outgoing: Outgoing, span: Span, *, copying: bool
    ) -> bytes:
        number = self._sealer.count
        whole = span.start == 0 and span.end == outgoing.size
        room = self.room_bytes - sum(map(len, records)) - len(record)
        asks = self._question(number, whole=whole, copying=copying) if room >= POLL_BYTES else None
        if asks is not None:
            records.append(write_poll(asks, self._course.span_before(number)))
        elif self._hearing.due_ms < math.inf and room >= ACK_BYTES_MAX:
            records.append(self._hearing.record(now_ms))
        records.append(record)
        path = self.path
        due_ms = 0.0 if asks is not None else path.ack_delay_ms if outgoing.request or not path.shared else math.inf
        if whole is False and asks is None and path.shared:
            due_ms = math.inf  # the burst's end asks for it
        flags = ASKS if due_ms < math.inf else 0 if whole else MORE
        frame = self._sealer.seal(self._heads[flags], b"".join(records))
        expected_ms = now_ms + path.answered_ms(len(frame), outgoing.priority)
        if due_ms < math.inf:
            self.listens_ms = expected_ms + due_ms
        self._course.sent(now_ms, Packet(number, expected_ms, due_ms, ((outgoing, span),)), len(frame))
        return frame

    def _poll(self, now_ms: float, records: list[bytes]) -> bytes:
        """A question that carries nothing."""
        self._polls -= 1
        number, path = self._sealer.count, self.path
        records.append(write_poll(self._polls, self._course.span_before(number)))
        frame = self._sealer.seal(self._heads[ASKS], b"".join(records))
        expected_ms = now_ms + path.answered_ms(len(frame), Priority.CONTROL)
        self.listens_ms = expected_ms
        self._flight.sent(Packet(number, expected_ms, 0.0, ()))
        return frame

    def _question(self, number: int, *, whole: bool, copying: bool) -> int | None:
        """How many frames that ask follow this one, which asks as well; None where this one does not."""
        backlog = self._backlog
        urgent = backlog.copies > 0 or self._flight.tries > 0
        if (copying and urgent) or self._course.paced:
            return backlog.copies if urgent else None
        asks = self._bursts.question(number, whole=whole, waiting_bytes=backlog.waiting_bytes, room=self.room_bytes)
        return 0 if asks is None and whole and urgent else asks

    # ---- word of it

    def _on_ack(self, now_ms: float, ack: Ack) -> None:
        arrived, lost = self._course.on_ack(now_ms, ack, self._bursts.answered)
        for outgoing, span in spans_of(arrived):
            outgoing.arrived(span)
            if outgoing.done:
                self._done.append(outgoing)
        self._lose(lost)
        self._end_burst()

    def take_done(self) -> list[Outgoing]:
        """Messages of which the peer has acknowledged all."""
        done, self._done = self._done, []
        return done

    def _lose(self, packets: list[Packet]) -> None:
        self.counts["frames_lost"] += len(packets)
        for outgoing, span in spans_of(packets):
            self._backlog.lost(outgoing, span)

    def _end_burst(self) -> None:
        """Where no word is expected any more, the next burst may begin."""
        if self._flight.due_ms == math.inf:
            self._bursts.clear()
