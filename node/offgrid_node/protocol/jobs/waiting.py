"""Orders that wait at brokers, said again a few at a time: a broker may have been restored from an older disk.

A call's worth per broker and round, the longest unsaid first, so that a long queue costs no more than a short one. When
a broker turns out not to have known one of them, the next round begins at once.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.timers import Timers

POLL_MS = 5_000
ORDER_BYTES, POLL_SHARE = 400, 200  # of a slow road's time one part is for saying orders again


class Waiting:
    """Job ids by the broker at which their orders wait, and since when."""

    def __init__(self, round_max: int, paces: Paces = all_free) -> None:
        self._round_max, self._paces = round_max, paces
        self._at: dict[str, OrderedDict[str, int]] = {}
        self._timers: Timers[str] = Timers()

    def __bool__(self) -> bool:
        """Whether any waits anywhere."""
        return bool(self._at)

    def deadline_ms(self) -> int | None:
        return self._timers.next_ms()

    def add(self, broker: str, job_id: str, now_ms: int) -> None:
        """`job_id` is the very string that the open job is known by: there may be a hundred thousand of them."""
        there = self._at.get(broker)
        if there is None:
            there = self._at[broker] = OrderedDict()
            self._timers.set(broker, now_ms + self._poll_ms(broker))
        there.setdefault(job_id, now_ms)

    def holds(self, broker: str, job_id: str) -> bool:
        return job_id in self._at.get(broker, ())

    def since_ms(self, broker: str, job_id: str) -> int:
        """Of one that waits there."""
        return self._at[broker][job_id]

    def discard(self, broker: str, job_id: str) -> None:
        there = self._at.get(broker)
        if there is not None:
            there.pop(job_id, None)
            if not there:
                del self._at[broker]
                self._timers.cancel(broker)

    def hurry(self, broker: str, now_ms: int) -> None:
        """It did not know one of them."""
        if broker in self._at:
            self._timers.set(broker, now_ms)

    def take_due(self, now_ms: int) -> list[str]:
        """The jobs whose orders are to be said again now."""
        due: list[str] = []
        for broker in self._timers.take_due(now_ms):
            there = self._at[broker]
            said = list(islice(there, self._round_max))
            for job_id in said:
                there.move_to_end(job_id)
            due += said
            self._timers.set(broker, now_ms + self._poll_ms(broker))
        return due

    def _poll_ms(self, broker: str) -> int:
        return max(POLL_MS, self._paces(broker).apart_ms(ORDER_BYTES, POLL_SHARE))
