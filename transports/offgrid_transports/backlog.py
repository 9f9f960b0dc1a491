"""What of a session waits for a frame: messages by priority, in turn where that is equal, and before them copies of
what was sent, where there is no word of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from offgrid_transports.outgoing import Outgoing, Span
from offgrid_transports.transport import Priority

Taken = tuple[bytes, Outgoing, Span]


class Backlog:
    def __init__(self) -> None:
        self._queues: tuple[deque[Outgoing], ...] = tuple(deque() for _ in Priority)
        self._copies: deque[tuple[Outgoing, Span]] = deque()

    def __bool__(self) -> bool:
        """A message waits."""
        return any(self._queues)

    @property
    def copies(self) -> int:
        return len(self._copies)

    @property
    def urgency(self) -> Priority | None:
        """Of the most urgent message."""
        return next((priority for priority in Priority if self._queues[priority]), None)

    @property
    def first(self) -> Outgoing | None:
        """The most urgent message."""
        return next((queue[0] for queue in self._queues if queue), None)

    @property
    def waiting_bytes(self) -> int:
        return sum(outgoing.waiting_bytes for queue in self._queues for outgoing in queue)

    def add(self, outgoing: Outgoing) -> None:
        self._queues[outgoing.priority].append(outgoing)

    def copy(self, wanted: Iterable[tuple[Outgoing, Span]]) -> None:
        """These are sent once more."""
        self._copies.extend(wanted)

    def lost(self, outgoing: Outgoing, span: Span) -> None:
        """It did not arrive, as far as one knows; what of it has to be sent again goes first."""
        waited = outgoing.ready
        outgoing.lost(span)
        if outgoing.ready and not waited:
            self._queues[outgoing.priority].appendleft(outgoing)

    def take(self, room: int, asking: int, *, asks: bool) -> Taken | None:
        """A record of what is most urgent; `asking` bytes of the room are left for a question: always where `asks`, and
        else where it is no message that stands whole."""
        while self._copies:
            outgoing, span = self._copies.popleft()
            if (record := outgoing.copy(span)) is not None:
                if len(record) <= room:
                    return record, outgoing, span
                outgoing.lost(span)
        for queue in self._queues:
            while queue:
                outgoing = queue.popleft()
                fits = outgoing.whole_fits(room - asking if asks else room)
                taken = outgoing.take(room if fits else room - asking)
                if outgoing.ready:
                    if taken is None:
                        queue.appendleft(outgoing)
                    else:
                        queue.append(outgoing)
                if taken is not None:
                    return taken[0], outgoing, taken[1]
                if outgoing.ready:
                    return None  # it needs a frame of its own
        return None
