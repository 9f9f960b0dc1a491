"""How much may be under way from one host at once, and in pieces of what size: as much as the road there carries.

A window doubles while what it brings comes at once, or the faster for it, and shrinks to what comes within QUEUE_MS
where it only waits on the road (delay-based, as LEDBAT, RFC 6817; the rate decides as in BBR: a busy machine is slow by
the piece, not by the byte). So a narrow road is full of what is wanted and has room for what is urgent.
"""

from __future__ import annotations

WINDOW_MIN, WINDOW_FIRST, WINDOW_MAX = 32 << 10, 64 << 10, 4 << 20
PIECE_MIN, PIECE_MAX = 16 << 10, 1 << 20
QUEUE_MS = 250  # what may wait on the road, beside the time that one piece takes
LEAST_MS_MAX = 5_000  # that a piece alone is taken to need
ROUNDS_STEADY = 8  # then a larger window is tried again
FORGOTTEN_MS = 60_000  # without a byte: the road may be another one by now
QUICK_MS, QUICK_BYTES_PER_S = 1_000, 1_000_000
PATIENT_MS, PATIENT_BYTES_PER_S = 5_000, 50_000
SLOWEST_BYTES_PER_S = 4_000  # a host that brings less gives nothing
MARGIN = 4  # that a rate may fall by, from one piece to the next


class Congestion:
    """Of one host. Times are monotonic."""

    def __init__(self, now_ms: int) -> None:
        self.window_bytes = WINDOW_FIRST
        self.bytes_per_s = 0  # of late; 0 where that is not known
        self.heard_ms = now_ms  # when anything came last, or was asked for where nothing was under way
        self.flying_bytes = 0
        self._began_ms, self._came_bytes, self._least_ms, self._steady = now_ms, 0, LEAST_MS_MAX, 0

    @property
    def piece_bytes(self) -> int:
        return max(PIECE_MIN, min(PIECE_MAX, self.window_bytes // 2))

    def has_room(self, size_bytes: int) -> bool:
        return not self.flying_bytes or self.flying_bytes + size_bytes <= self.window_bytes

    def patience_ms(self, size_bytes: int, *, patient: bool) -> int:
        """How long the next piece may take, behind what is under way: little where somebody else can be asked."""
        load = self.flying_bytes + size_bytes
        if not self.bytes_per_s:
            slowest = SLOWEST_BYTES_PER_S if size_bytes <= WINDOW_FIRST else PATIENT_BYTES_PER_S
            if patient:
                return PATIENT_MS + size_bytes * 1_000 // slowest
            return QUICK_MS + load * 1_000 // QUICK_BYTES_PER_S
        expected_ms = load * 1_000 // max(self.bytes_per_s, SLOWEST_BYTES_PER_S)
        if patient:
            return PATIENT_MS + max(MARGIN * expected_ms, size_bytes * 1_000 // PATIENT_BYTES_PER_S)
        return QUICK_MS + max(MARGIN * expected_ms, size_bytes * 1_000 // QUICK_BYTES_PER_S)

    def stalls(self, now_ms: int, after_ms: int) -> bool:
        """Nothing has come for so long, nor for twice as long as it should have taken."""
        expected_ms = 2_000 * self.flying_bytes // self.bytes_per_s if self.bytes_per_s else 0
        return now_ms - self.heard_ms >= after_ms + expected_ms

    def on_asked(self, size_bytes: int, now_ms: int) -> None:
        if not self.flying_bytes:
            if now_ms - self.heard_ms > FORGOTTEN_MS:
                self.window_bytes, self.bytes_per_s, self._least_ms = WINDOW_FIRST, 0, LEAST_MS_MAX
            self.heard_ms = self._began_ms = now_ms
            self._came_bytes = 0
        self.flying_bytes += size_bytes

    def on_came(self, size_bytes: int, took_ms: int, now_ms: int) -> None:
        self.flying_bytes -= size_bytes
        self.heard_ms = now_ms
        self._came_bytes += size_bytes
        self._least_ms = min(self._least_ms, took_ms)
        if self._came_bytes >= self.window_bytes - self.window_bytes // 8:
            self._end_round(now_ms, full=True)
        elif not self.flying_bytes:  # nobody wants more
            self._end_round(now_ms, full=False)

    def on_lost(self, size_bytes: int) -> None:
        """It was not answered."""
        self.flying_bytes -= size_bytes
        self.window_bytes = max(WINDOW_MIN, self.window_bytes // 4)
        self.bytes_per_s //= 2

    def _end_round(self, now_ms: int, *, full: bool) -> None:
        """One that was not full shows that a road is narrow, never that it is wide."""
        took_ms, aim_ms = now_ms - self._began_ms, QUEUE_MS + self._least_ms
        rate = max(1, self._came_bytes * 1_000 // max(1, took_ms))
        self._steady += full
        wider = took_ms <= aim_ms or 4 * rate >= 5 * self.bytes_per_s or self._steady >= ROUNDS_STEADY
        if wider and full:
            self.window_bytes, self._steady = min(WINDOW_MAX, 2 * self.window_bytes), 0
        elif not wider and took_ms > 2 * aim_ms:
            self.window_bytes = max(WINDOW_MIN, min(self.window_bytes, rate * aim_ms // 1_000))
        if full or took_ms > 2 * aim_ms or rate > self.bytes_per_s:
            self.bytes_per_s = rate
        self._began_ms, self._came_bytes = now_ms, 0
