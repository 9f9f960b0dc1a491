"""Which witnesses this node is in touch with, and since when not: the mesh says who is alive.

Nothing of safety leans on it. It tells people why a transaction is not final: without a quorum in reach none can be.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now


class Reach:
    """Peers by node id, as long as this machine lives."""

    def __init__(self, self_id: str) -> None:
        self._self_id = self_id
        self._started_ms = 0
        self._up: set[str] = {self_id}
        self._down_ms: dict[str, int] = {}  # since when, of those that were up before

    def load(self, now: Now) -> None:
        self._started_ms = now.mono_ms

    def on_peer_up(self, node: str) -> None:
        self._up.add(node)
        self._down_ms.pop(node, None)

    def on_peer_down(self, node: str, now: Now) -> None:
        if node in self._up and node != self._self_id:
            self._up.discard(node)
            self._down_ms[node] = now.mono_ms

    def away_ms(self, node: str, now: Now) -> int:
        """For how long it has been out of touch, since this node's start at most; 0: it is in touch."""
        if node in self._up:
            return 0
        return max(1, now.mono_ms - self._down_ms.get(node, self._started_ms))
