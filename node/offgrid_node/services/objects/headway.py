"""Whether a host that makes a shard anew comes on: its repair takes one of a few slots, and another may do better.

What counts is whole sums of rows, as hosts that pull write them: a byte now and then is nothing. A host that its own
rate holds back says for how long (`repair_pace.py`), and is given that time, as long as it comes on as fast as the
slowest rate that a repair is worth.
"""

from __future__ import annotations

from collections.abc import Mapping

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.services.objects.combining import SUM_BYTES_MAX

STUMBLES_MAX = 4  # answers in a row that brought it no further, for which the host names no reason
SLOWEST_BYTES_PER_S = 1_000  # on the whole; at less, a shard of some MB takes longer than another host's death
GRACE_MS = 2 * SUM_BYTES_MAX * 1_000 // SLOWEST_BYTES_PER_S  # the first sum may come all at once, and so may the next
PAUSE_MS_MIN, PAUSE_MS_MAX = 1_000, GRACE_MS // 2  # before a host that names one is asked again


class Headway:
    """Of one repair at one host, by how far each shard has come."""

    def __init__(self, node: str, reached: Mapping[int, int], total_bytes: int, now_ms: int) -> None:
        """`total_bytes`: of each shard."""
        self._node, self._reached, self._total = node, dict(reached), total_bytes
        self._began_ms, self._began_bytes = now_ms, sum(reached.values())
        self._stumbles = 0

    @property
    def reached(self) -> Mapping[int, int]:
        return self._reached

    @property
    def missing(self) -> list[int]:
        """Shards that are not all there."""
        return [shard for shard, offset in self._reached.items() if offset < self._total]

    def on_answer(self, further: Mapping[int, int], retry_ms: int, now_ms: int) -> int:
        """How long to leave the host alone, which says how far it has come, and for how long others keep it from coming
        on. Raises PeerFault (WrongShards, NoProgress)."""
        missing = self.missing
        if [*further] != missing or any(offset > self._total for offset in further.values()):
            raise PeerFault(f"{self._node} tells of other shards than {missing}", reason="WrongShards")
        came = any(self._came(shard, offset) for shard, offset in further.items())
        self._reached |= further
        if came:
            self._stumbles = 0
        elif not retry_ms:
            self._stumbles += 1
        if self._stumbles > STUMBLES_MAX or self._is_slow(now_ms):
            raise PeerFault(f"{self._node} comes no further than {self._reached}", reason="NoProgress")
        if not retry_ms:
            return 0
        return min(retry_ms, PAUSE_MS_MAX) if came else min(max(retry_ms, PAUSE_MS_MIN), PAUSE_MS_MAX)

    def _came(self, shard: int, offset: int) -> bool:
        return offset == self._total or offset - self._reached[shard] >= SUM_BYTES_MAX

    def _is_slow(self, now_ms: int) -> bool:
        made_bytes = sum(self._reached.values()) - self._began_bytes
        return now_ms - self._began_ms > GRACE_MS + made_bytes * 1_000 // SLOWEST_BYTES_PER_S
