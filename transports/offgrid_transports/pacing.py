"""How fast a session may send: pacing and congestion control by delay, where loss is the weather and says nothing.

A controller is told of every frame that leaves, of every one that is acknowledged and of every one that is given up,
and says whether the next may leave. It follows Copa (Arun and Balakrishnan, NSDI 2018): the window grows while the
queue that it sees at the bottleneck (the least round trip of the last half round trip, less the least of all) is
shorter than what it may cause, and shrinks while it is longer, faster the longer one direction lasts. So it yields to
a queue, shares evenly with its like, drains the queue in each swing and so learns the true round trip again.

Four things differ from the paper. The queue that it may cause is `sqrt(QUEUE / rate)` long rather than so many packets:
3.5 ms at 5 MB/s and 24 ms at 100 kB/s, which a slow line's users do not feel and a fast line's jittery ends do not
mistake. The first doubling ends at what was delivered, not where it overshot. And loss beyond LOSS_MAX, which a queue
too short to be seen causes too, or silence for PERSISTENT_RTTS shrinks the window after all. And when the window has
been the smallest for LOW_ROUNDS and the round trip is still long, the path itself has grown longer.

Pure: the caller gives the time, as monotonic milliseconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import msgspec

WINDOW_FRAMES_MIN = 4
WINDOW_FRAMES_FIRST = 10
WINDOW_FRAMES_MAX = 8192
BURST_FRAMES = 10  # what may leave at once after a pause, or in one go of a coarse timer
BURST_MS = 2.0
PAUSE_MS_MIN = 0.01  # a clock that counts from far away still tells this much apart
PACE = 2.0  # how much faster than a window a round trip frames may leave: the window limits, the pace smooths
QUEUE = 60_000.0  # byte·ms: the queue that one session may cause is sqrt(QUEUE / rate) long
QUEUE_FRAMES_MIN = 2
FLOOR_MS = 10_000.0  # the least round trip is remembered so long, for a path may change
RTT_MS_MIN = 0.05
LOW_ROUNDS = 8
VELOCITY_MAX = 1 << 16
LOSS_MAX = 0.4
LOSS_FRAMES_MIN = 64  # fewer say too little about a share
LOSS_SHRINK = 0.7
PERSISTENT_RTTS = 4.0
FIRST_RTT_MS = 100.0  # assumed for the pace before anything was measured


class _Sent(msgspec.Struct, frozen=True):
    at_ms: float
    length: int
    delivered: int  # bytes delivered in all when it left


class LeastOf:
    """The least sample of the last `span_ms`, to within half of that: of two halves, the older is dropped in turn."""

    def __init__(self, span_ms: float) -> None:
        self._half_ms = span_ms / 2
        self._began_ms = -math.inf
        self._older = self._newer = math.inf

    def add(self, now_ms: float, sample: float) -> None:
        age_ms = now_ms - self._began_ms
        if age_ms >= self._half_ms:
            self._older = self._newer if age_ms < 2 * self._half_ms else math.inf
            self._newer, self._began_ms = math.inf, now_ms
        self._newer = min(self._newer, sample)

    @property
    def least(self) -> float:
        return min(self._older, self._newer)


class Controller:
    """One direction of one session. Numbers are used once, whatever they carry, and each ends as acked or lost."""

    def __init__(self, frame_bytes: int, *, window_frames_max: int = WINDOW_FRAMES_MAX) -> None:
        """`frame_bytes` is the longest frame of the path; never more than `window_frames_max` of them are under way."""
        self._frame_bytes = frame_bytes
        self._frames_max = window_frames_max
        self._window = self._bounded(float(WINDOW_FRAMES_FIRST * frame_bytes))
        self._sent: dict[int, _Sent] = {}
        self._in_flight = self._delivered = 0
        self._rtt_ms = math.inf
        self._floor = LeastOf(FLOOR_MS)
        self._recent: deque[tuple[float, float]] = deque()  # (when, round trip), rising in both
        self._first_doubling = True
        self._velocity = 1
        self._rising = True
        self._rounds_alike = 0
        self._round_ends = 0  # the number with which the next round begins
        self._round_window = self._window
        self._seen_acked = self._seen_lost = 0  # frames since the share of loss was judged last
        self._number_last = -1
        self._credit = 0.0
        self._credit_at_ms = -math.inf
        self._heard_ms = -math.inf  # when something was acknowledged last
        self._silent_ms = math.inf  # when the first of the lost left that left since then
        self._low_rounds = 0

    @property
    def in_flight_bytes(self) -> int:
        return self._in_flight

    @property
    def window_bytes(self) -> int:
        """How much may be under way."""
        return int(self._window)

    @property
    def rtt_ms(self) -> float:
        """The smoothed round trip; infinite before the first acknowledgement."""
        return self._rtt_ms

    @property
    def rtt_least_ms(self) -> float:
        """The round trip without a queue, as far as seen; infinite before the first acknowledgement."""
        return self._floor.least

    @property
    def rate(self) -> float:
        """What the window comes to, in bytes per millisecond."""
        return self._window / (self._rtt_ms if self._rtt_ms < math.inf else FIRST_RTT_MS)

    def on_frame_bytes(self, frame_bytes: int) -> None:
        """The path takes longer or only shorter frames from now on."""
        if frame_bytes != self._frame_bytes:
            self._frame_bytes = frame_bytes
            self._window = self._bounded(self._window)

    def can_send(self, now_ms: float, length: int) -> bool:
        """Whether a frame of `length` bytes may leave now. With nothing under way one always may."""
        if not self._in_flight:
            return True
        self._earn(now_ms)
        return self._credit > 0 and self._in_flight + length <= self._window

    def next_send_ms(self, now_ms: float, length: int) -> float:
        """When a frame of `length` bytes may leave: now, later, or, infinite, once something is acked or lost."""
        if self.can_send(now_ms, length):
            return now_ms
        if self._in_flight + length > self._window:
            return math.inf
        return self._credit_at_ms + max(PAUSE_MS_MIN, (1 - self._credit) / (PACE * self.rate))

    def on_sent(self, now_ms: float, number: int, length: int) -> None:
        """A frame left, whether it was allowed or not; `number` is higher than all before."""
        if number <= self._number_last:
            raise ValueError(f"number {number} after {self._number_last}: numbers rise")
        self._earn(now_ms)
        self._credit -= length
        self._number_last = number
        self._sent[number] = _Sent(now_ms, length, self._delivered)
        self._in_flight += length

    def on_acked(self, now_ms: float, numbers: Iterable[int], delay_ms: float = 0.0) -> None:
        """Frames arrived. `delay_ms` is how long the other side says it held back this acknowledgement. Numbers that
        are not under way are passed over."""
        full = self._in_flight >= self._window / 2  # else it sends less than it may, and a larger window says nothing
        bytes_acked, newest, newest_number = 0, None, -1
        for number in numbers:
            sent = self._sent.pop(number, None)
            if sent is not None:
                bytes_acked += sent.length
                self._seen_acked += 1
                if number > newest_number:
                    newest, newest_number = sent, number
        if newest is None:
            return
        self._in_flight -= bytes_acked
        self._delivered += bytes_acked
        self._heard_ms, self._silent_ms = now_ms, math.inf
        rtt_ms = max(RTT_MS_MIN, now_ms - newest.at_ms)
        self._measure(now_ms, rtt_ms - min(max(0.0, delay_ms), rtt_ms / 2))
        self._steer(bytes_acked, full, newest, now_ms)
        if newest_number >= self._round_ends:
            self._end_round()

    def on_lost(self, now_ms: float, numbers: Iterable[int]) -> None:
        """Frames were given up; what they carried is sent again under other numbers."""
        newest_ms = -math.inf
        for number in numbers:
            sent = self._sent.pop(number, None)
            if sent is not None:
                self._in_flight -= sent.length
                self._seen_lost += 1
                newest_ms = max(newest_ms, sent.at_ms)
                if sent.at_ms >= self._heard_ms:
                    self._silent_ms = min(self._silent_ms, sent.at_ms)
        patience_ms = PERSISTENT_RTTS * (self._rtt_ms if self._rtt_ms < math.inf else FIRST_RTT_MS)
        if newest_ms - self._silent_ms > patience_ms:
            self._window = self._bounded(0.0)
            self._first_doubling = True
            self._turn(rising=True)

    def _measure(self, now_ms: float, rtt_ms: float) -> None:
        self._rtt_ms = rtt_ms if self._rtt_ms == math.inf else 0.875 * self._rtt_ms + 0.125 * rtt_ms
        self._floor.add(now_ms, rtt_ms)
        recent = self._recent
        while recent and recent[-1][1] >= rtt_ms:
            recent.pop()
        recent.append((now_ms, rtt_ms))
        while recent[0][0] < now_ms - self._rtt_ms / 2:
            recent.popleft()

    def _steer(self, bytes_acked: int, full: bool, newest: _Sent, now_ms: float) -> None:
        """Grows or shrinks the window by what `bytes_acked` stands for."""
        standing_ms = max(self._recent[0][1], 0.001)
        rate = self._window / standing_ms
        allowed_bytes = max(math.sqrt(QUEUE * rate), QUEUE_FRAMES_MIN * self._frame_bytes)
        rising = (standing_ms - self._floor.least) * rate <= allowed_bytes
        if rising and not full:
            return
        if self._first_doubling and rising:
            self._window = self._bounded(self._window + bytes_acked)
            return
        if self._first_doubling:
            self._first_doubling = False
            got = (self._delivered - newest.delivered) * self._floor.least / max(now_ms - newest.at_ms, 0.001)
            self._window = self._bounded(min(self._window, got + allowed_bytes))
            self._turn(rising=False)
            return
        if rising != self._rising:
            self._turn(rising=rising)
        step = bytes_acked * min(self._velocity * allowed_bytes / self._window, 1.0 if rising else 0.5)
        self._window = self._bounded(self._window + (step if rising else -step))

    def _turn(self, *, rising: bool) -> None:
        self._rising, self._velocity, self._rounds_alike = rising, 1, 0
        self._round_window = self._window

    def _end_round(self) -> None:
        """Once a round trip: a direction that lasts is worth a longer stride."""
        moved = self._window > self._round_window if self._rising else self._window < self._round_window
        self._rounds_alike = self._rounds_alike + 1 if moved else 0
        if self._rounds_alike >= 3:
            self._velocity = min(VELOCITY_MAX, 2 * self._velocity)
        elif not moved:
            self._velocity = 1
        self._round_window = self._window
        self._round_ends = self._number_last + 1
        self._low_rounds = 0 if self._rising or self._window > self._bounded(0.0) else self._low_rounds + 1
        if self._low_rounds >= LOW_ROUNDS:  # what is left of the round trip is the path, not a queue of its own
            self._low_rounds, self._floor = 0, LeastOf(FLOOR_MS)
        seen = self._seen_acked + self._seen_lost
        if seen >= LOSS_FRAMES_MIN:
            if self._seen_lost > LOSS_MAX * seen:
                self._window = self._bounded(self._window * LOSS_SHRINK)
                self._first_doubling = False
                self._turn(rising=False)
            self._seen_acked = self._seen_lost = 0

    def _bounded(self, window: float) -> float:
        most = max(self._frames_max, WINDOW_FRAMES_MIN) * self._frame_bytes
        return min(float(most), max(window, float(WINDOW_FRAMES_MIN * self._frame_bytes)))

    def _earn(self, now_ms: float) -> None:
        """Fills the credit that frames are sent from; it goes below nothing by one frame at most when it is heeded."""
        rate = PACE * self.rate
        most = max(BURST_FRAMES * self._frame_bytes, BURST_MS * rate)
        passed_ms = max(0.0, now_ms - self._credit_at_ms)
        self._credit = min(most, self._credit + passed_ms * rate) if passed_ms < math.inf else float(most)
        self._credit_at_ms = max(self._credit_at_ms, now_ms)
