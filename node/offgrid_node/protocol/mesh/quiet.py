"""Peers behind slow roads: they are not asked whether they live while they are heard, and seldom then.

A beacon says that its node is there, and is believed for as long as the link says on which it came; over quick links
for no time at all, for there it costs nothing to ask. Whom this node hears nothing of it asks, one at a time, so that
all such questions together take PROBE_SHARE of the road's time at most; the dead less often, for they call out
themselves when they are back. First comes whose beacons tell of another life than the one that is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.pace import Pace, Paces, all_free

PROBE_BYTES = 160  # of a question with its answer, and the news in both
PROBE_SHARE = 200
QUICK_MS = 10  # of air: whom such a question takes less is asked as if it took none
DEAD_FACTOR = 10
SUSPICION_PROBES = 2


def is_quick(pace: Pace) -> bool:
    """Whether members there may be asked every other second whether they live."""
    return pace.air_ms(PROBE_BYTES) <= QUICK_MS


class Quiet:
    """Whom to ask next."""

    def __init__(self, paces: Paces = all_free) -> None:
        self._paces = paces
        self._heard_until_ms: dict[str, int] = {}
        self._asked_ms: dict[str, int] = {}
        self._doubted: dict[str, None] = {}
        self._next_ms = 0

    def is_slow(self, node_id: str) -> bool:
        return not is_quick(self._paces(node_id))

    def longer_ms(self, node_id: str) -> int:
        """How much longer a question there may take."""
        return self._paces(node_id).longer_ms(PROBE_BYTES)

    def suspicion_ms(self, node_id: str) -> int:
        """For how much longer it is but suspect."""
        pace = self._paces(node_id)
        return 0 if is_quick(pace) else SUSPICION_PROBES * pace.apart_ms(PROBE_BYTES, PROBE_SHARE)

    def lately_ms(self, node_id: str, now_ms: int) -> int:
        """For how much longer nobody's word counts against what was heard of it."""
        return max(0, self._heard_until_ms.get(node_id, now_ms) - now_ms)

    def on_beacon(self, node_id: str, lasts_ms: int, now_ms: int, *, doubted: bool) -> None:
        """It is there, which is believed for so long. `doubted`: it may have begun anew."""
        self._heard_until_ms[node_id] = now_ms + lasts_ms
        if doubted:
            self._doubted[node_id] = None
        else:
            self._doubted.pop(node_id, None)

    def road_lost(self, node_id: str) -> None:
        """What was heard of it until now says nothing of what has become of it."""
        self._heard_until_ms.pop(node_id, None)

    def forget(self, node_id: str) -> None:
        self._doubted.pop(node_id, None)
        self._heard_until_ms.pop(node_id, None)
        self._asked_ms.pop(node_id, None)

    def take(self, watched: Iterable[str], dead: Iterable[str], now_ms: int) -> list[str]:
        """The one to ask now, of slow ones alone: who was asked longest ago; none if it is too early."""
        if now_ms < self._next_ms:
            return []
        living = list(watched)
        doubted, unheard = [each for each in living if each in self._doubted], self._unheard(living, now_ms)
        for some, factor in ((doubted, 1), (unheard, 1), (self._unheard(dead, now_ms), DEAD_FACTOR)):
            if some:
                node_id = min(some, key=lambda each: (self._asked_ms.get(each, -1), each))
                self._doubted.pop(node_id, None)
                self._asked_ms[node_id] = now_ms
                self._next_ms = now_ms + factor * self._paces(node_id).apart_ms(PROBE_BYTES, PROBE_SHARE)
                return [node_id]
        return []

    def _unheard(self, some: Iterable[str], now_ms: int) -> list[str]:
        return [node_id for node_id in some if self._heard_until_ms.get(node_id, 0) <= now_ms]
