"""Peers behind slow roads: they are not asked whether they live while they are heard, and seldom then.

What a beacon says is believed until so many of the next ones have failed to come. Whom this node hears nothing of it
asks, one at a time, so that all such questions together take PROBE_SHARE of the road's time at most; the dead less
often, for they call out themselves when they are back.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid_node.protocol.pace import Paces, all_free

PROBE_BYTES = 160  # of a question with its answer, and the news in both
PROBE_SHARE = 200
DEAD_FACTOR = 10
BEACONS_MISSED = 3
SUSPICION_PROBES = 2
AGAIN_MS_MAX = 3_600_000


class Quiet:
    """Whom to ask next."""

    def __init__(self, paces: Paces = all_free) -> None:
        self._paces = paces
        self._heard_until_ms: dict[str, int] = {}
        self._asked_ms: dict[str, int] = {}
        self._next_ms = 0

    def is_slow(self, node_id: str) -> bool:
        return not self._paces(node_id).free

    def longer_ms(self, node_id: str) -> int:
        """How much longer a question there may take."""
        return self._paces(node_id).longer_ms(PROBE_BYTES)

    def suspicion_ms(self, node_id: str) -> int:
        """For how much longer it is but suspect."""
        return SUSPICION_PROBES * self._paces(node_id).apart_ms(PROBE_BYTES, PROBE_SHARE)

    def lately_ms(self, node_id: str, now_ms: int) -> int:
        """For how much longer nobody's word counts against what was heard of it."""
        return max(0, self._heard_until_ms.get(node_id, now_ms) - now_ms)

    def on_beacon(self, node_id: str, again_ms: int, now_ms: int) -> None:
        """It says that it will say so again in so long."""
        self._heard_until_ms[node_id] = now_ms + BEACONS_MISSED * min(again_ms, AGAIN_MS_MAX)

    def forget(self, node_id: str) -> None:
        self._heard_until_ms.pop(node_id, None)
        self._asked_ms.pop(node_id, None)

    def take(self, watched: Iterable[str], dead: Iterable[str], now_ms: int) -> list[str]:
        """The one to ask now, of slow ones alone: who was asked longest ago; none if it is too early."""
        if now_ms < self._next_ms:
            return []
        for some, factor in ((watched, 1), (dead, DEAD_FACTOR)):
            unheard = [node_id for node_id in some if self._heard_until_ms.get(node_id, 0) <= now_ms]
            if unheard:
                node_id = min(unheard, key=lambda each: (self._asked_ms.get(each, -1), each))
                self._asked_ms[node_id] = now_ms
                self._next_ms = now_ms + factor * self._paces(node_id).apart_ms(PROBE_BYTES, PROBE_SHARE)
                return [node_id]
        return []
