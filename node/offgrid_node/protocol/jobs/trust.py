"""How far a core trusts each host: results in a row that agreed with those of others, durable.

As BOINC counts consecutive valid results (adaptive replication): who has enough of them may run an adaptive job alone,
but for spot checks, and one wrong result begins the count anew. A result that nobody compared counts for nothing.
"""

from __future__ import annotations

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.rng import Rng

TRUST = "trust"  # host's node id → how many, 4 bytes
TRUSTED_FROM = 10  # valid results in a row
SPOT_CHECK_ONE_IN = 10
COUNT_MAX = 1_000_000  # far beyond what anybody asks for


class Trust:
    """Counts by host, as many as the mesh has had hosts."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._valid: dict[str, int] = {}

    def load(self, rows: Rows) -> None:
        for key, value in rows.scan(TRUST):
            self._valid[key.decode()] = int.from_bytes(value, "big")

    def count(self, host: str) -> int:
        """Results in a row that agreed with others'."""
        return self._valid.get(host, 0)

    def may_run_alone(self, host: str, rng: Rng) -> bool:
        """Whether nobody need compare its next result: it is trusted, and no spot check falls on it."""
        return self.count(host) >= TRUSTED_FROM and rng.randrange(0, SPOT_CHECK_ONE_IN) != 0

    def agreed(self, host: str) -> None:
        self._set(host, min(COUNT_MAX, self.count(host) + 1))

    def failed(self, host: str) -> None:
        """It disagreed, or brought nothing where others did."""
        if self.count(host):
            self._set(host, 0)

    def _set(self, host: str, count: int) -> None:
        self._valid[host] = count
        self._post.put_bytes(TRUST, host.encode(), count.to_bytes(4, "big"))
