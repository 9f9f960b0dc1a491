"""The receiving side of a session's acknowledgements: when to say what has come, and in as few bytes as will do.

On a shared medium only who asks is answered: the last two frames of a burst ask, because a lost question costs a whole
wait; and a request is acknowledged where its answer does not come first. On other links word is given each
FRAMES_UNSAID_MAX frames, and at the latest after a short wait.
"""

from __future__ import annotations

import math

from offgrid_transports.path import Path
from offgrid_transports.records import ACK_BITS_MAX, Poll, write_ack
from offgrid_transports.sealing import WINDOW_FRAMES, Opener

FRAMES_UNSAID_MAX = 16


class Hearing:
    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._span = self._unsaid = 0
        self._said = -1  # the newest counter that word was given of
        self._newest_ms = 0.0
        self._word_ms = self._request_ms = math.inf

    @property
    def due_ms(self) -> float:
        """When an acknowledgement has to be sent; infinite for none."""
        return min(self._word_ms, self._request_ms)

    def on_carrying(self, now_ms: float, path: Path) -> None:
        """A frame has come that carries what has to arrive."""
        self._newest_ms = now_ms
        if not path.shared:
            self._unsaid += 1
            self._span = ACK_BITS_MAX
            wait_ms = 0.0 if self._unsaid >= FRAMES_UNSAID_MAX else path.ack_delay_ms
            self._word_ms = min(self._word_ms, now_ms + wait_ms)

    def on_poll(self, now_ms: float, poll: Poll, path: Path) -> None:
        """A frame asks. Where more follow that ask the same, those are waited for."""
        self._newest_ms = now_ms
        self._span = max(self._span, min(poll.span, ACK_BITS_MAX))
        transport = path.transport
        follow_ms = poll.more * transport.airtime_ms(path.frame_bytes) + transport.access_ms if poll.more else 0.0
        self._word_ms = min(self._word_ms, now_ms + follow_ms)

    def on_request(self, now_ms: float, path: Path) -> None:
        """A request is here whole, and is not answered yet."""
        self._newest_ms = now_ms
        self._span = max(self._span, min(self._opener.newest - self._said - 1, ACK_BITS_MAX))
        self._request_ms = min(self._request_ms, now_ms + path.ack_delay_ms)

    def on_answer(self) -> None:
        """The answer leaves, which tells that the request came."""
        self._request_ms = math.inf

    def record(self, now_ms: float) -> bytes:
        """What is due, and now is said."""
        newest, seen = self._opener.newest, self._opener.seen
        forgotten = (seen & -seen).bit_length() - 1 if seen else min(newest + 1, WINDOW_FRAMES)
        newest, seen = newest - forgotten, seen >> forgotten  # what is forgotten has not come
        span = max(0, min(self._span, newest))
        missing = ~(seen >> 1) & (1 << span) - 1
        self._said, self._span, self._unsaid = newest, 0, 0
        self._word_ms = self._request_ms = math.inf
        return write_ack(newest & 0xFFFF, max(0, int(now_ms - self._newest_ms)), span, missing)
