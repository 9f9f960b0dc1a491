"""Which calls of another node come too late: after a newer one of it was carried out.

A caller that waits in vain says it again, and says it as things are then; what it said before may arrive after that,
and would undo it. So such calls carry a number for the caller's life, which rises, and one that never falls within a
life. A late call is refused: nobody waits for its answer any more. A caller that was restored has begun a life that
members have noted down (objects/lives.py), above all that it may have said before. One that was put back from a backup
and does not know that yet, under a clock that was set back, seems late; it says it again, and is heeded once nothing
newer can be on its way.
"""

from __future__ import annotations

import msgspec

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition

ON_ITS_WAY_MS_MAX = 300_000  # a call: it has a minute at most, and roads that carry it longer give it up


CLOCK_BITS = 48  # of ms, for 8,900 years; above them the 16 bits of LIFE_MAX


def next_life(before: int, begun: int, now: Now) -> int:
    """Of a caller that begins now; `before` is the last one that it knows of, 0 for none, and `begun` the life of its
    journal. Within that by the clock: so it rises also where what it knows is from a backup."""
    return max(before + 1, begun << CLOCK_BITS | now.utc_us // 1_000)


class _Heard(msgspec.Struct):
    place: tuple[int, int]
    at_ms: int


class Latecomers:
    """Callers are members, so bounded by the mesh. What a restart forgets came by connections that ended with it."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def check(self, caller: str, life: int, number: int, now_ms: int) -> None:
        """Of a call that arrives now; the same once more is not late. With life 0 it says nothing of its place. Raises
        FailedPrecondition (CameLate)."""
        if not life:
            return
        heard, place = self._heard.get(caller), (life, number)
        if heard is not None and place < heard.place and now_ms - heard.at_ms <= ON_ITS_WAY_MS_MAX:
            raise FailedPrecondition(f"{caller} has said newer things since it said this", reason="CameLate")
        self._heard[caller] = _Heard(place, now_ms)
