"""Selective repeat: bursts of fragments, one bitmap acknowledgement each, timers from airtime and measured delay.

A burst is followed by silence until its acknowledgement says what is missing; the last two frames of a burst both ask
for it, because a lost question costs a whole timeout. When nothing is heard only the question is repeated, with
exponential backoff. (Bursts and bitmaps as in SCHC, RFC 8724 section 8; the delay estimate as in RFC 6298, except
that rounds make every sample unambiguous.)
"""

from __future__ import annotations

import math

from offgrid_transports.framing import BITMAP_BYTES_MAX

BURST_FRAMES = 64
POLL_FRAMES = 2  # at the end of a burst
RTO_MS_MIN = 20
RTO_MS_MAX = 60_000
BACKOFF_DOUBLINGS_MAX = 6
SPAN = BITMAP_BYTES_MAX * 8  # how far beyond the first missing fragment a burst may reach


class DelayEstimator:
    """How long a peer takes to answer, beyond the airtime of what is sent. RFC 6298, in milliseconds."""

    def __init__(self, guess_ms: float) -> None:
        self._smooth_ms = guess_ms
        self._var_ms = guess_ms / 2
        self._sampled = False

    @property
    def patience_ms(self) -> float:
        """How long to wait before an answer counts as lost."""
        return self._smooth_ms + max(4 * self._var_ms, 1.0)

    def sample(self, delay_ms: float) -> None:
        delay_ms = max(0.0, delay_ms)
        if not self._sampled:
            self._sampled = True
            self._smooth_ms, self._var_ms = delay_ms, delay_ms / 2
            return
        self._var_ms = 0.75 * self._var_ms + 0.25 * abs(self._smooth_ms - delay_ms)
        self._smooth_ms = 0.875 * self._smooth_ms + 0.125 * delay_ms


class Sender:
    """Which fragments of one message to send next. Knows no time and no bytes; `Outgoing` does."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.round = 0
        self.silent = 0
        """Bursts in a row that nobody acknowledged."""
        self.done = False
        self._base = 0
        self._held: frozenset[int] = frozenset()

    def burst(self) -> list[int]:
        """The next fragments that are missing over there, as a new round."""
        self.round = (self.round + 1) % 256
        return self._missing(BURST_FRAMES)

    def question(self) -> list[int]:
        """After silence: just enough to be acknowledged, as a new round."""
        self.round = (self.round + 1) % 256
        self.silent += 1
        return self._missing(BURST_FRAMES)[-POLL_FRAMES:]

    def on_ack(self, round_: int, base: int, bitmap: bytes) -> bool:
        """Takes an acknowledgement; True when it belongs to the current round, so that the next burst is due.

        It is authoritative: a peer that dropped its set says so, and everything is sent again.
        """
        if base >= self.total:
            self.done = True
            return False
        if round_ != self.round:
            return False
        self.silent = 0
        self._base = base
        self._held = frozenset(
            base + offset for offset in range(len(bitmap) * 8) if bitmap[offset // 8] & 0x80 >> offset % 8
        )
        return True

    def _missing(self, limit: int) -> list[int]:
        missing = []
        for index in range(self._base, min(self.total, self._base + SPAN)):
            if index not in self._held:
                missing.append(index)
                if len(missing) == limit:
                    break
        return missing


def backoff(base_ms: float, silent: int) -> int:
    """`base_ms`, doubled for each silent burst, within RTO_MS_MIN and RTO_MS_MAX."""
    doubled: float = base_ms * (1 << min(silent, BACKOFF_DOUBLINGS_MAX))
    return math.ceil(min(max(doubled, RTO_MS_MIN), RTO_MS_MAX))
