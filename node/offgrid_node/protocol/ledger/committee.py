"""The witnesses of an epoch: who may vote, with what weight, and what is enough.

A set of witnesses is a mask: bit n is witness n of the genesis, or of the checkpoint before the epoch. What is enough
is decided by protocol/quorum/enough.py; here its answers are remembered, for the same few sets are asked about again
and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.quorum.enough import byzantine_quorum, enough, weight_of

REMEMBERED_MAX = 65_536


class Committee:
    """Weights are integer thousandths. `epoch`: for which it is asked who leads."""

    def __init__(self, witnesses: tuple[tuple[str, int], ...], epoch: int = 0) -> None:
        self._epoch = epoch
        self._nodes = [node for node, _ in witnesses]
        self._bits = {node_id_bytes(node): 1 << index for index, node in enumerate(self._nodes)}
        self._weights = dict(witnesses)
        self._known: dict[int, bool] = {}
        self.all = (1 << len(self._nodes)) - 1
        self.quorum_milli = byzantine_quorum(self._weights)

    def bit_of(self, account: bytes) -> int:
        """0 for whoever is no witness."""
        return self._bits.get(account, 0)

    def nodes_of(self, mask: int) -> Iterator[str]:
        return (node for index, node in enumerate(self._nodes) if mask >> index & 1)

    def leader_of(self, account: bytes, seq: int, ballot: int) -> int:
        """The bit of the witness whose vote the others follow at this ballot: each in turn, and another first in each
        slot and epoch. So liars who come first in a slot, which an epoch's end has begin anew, do not come first for
        ever, though epochs be shorter than their ballots."""
        first = int.from_bytes(account[:8], "big") + seq + self._epoch
        return 1 << (first + ballot) % len(self._nodes)

    def weight(self, mask: int) -> int:
        return weight_of(self.nodes_of(mask), self._weights)

    def weight_of(self, node: str) -> int:
        return self._weights.get(node, 0)

    def enough(self, mask: int) -> bool:
        known = self._known.get(mask)
        if known is None:
            if len(self._known) >= REMEMBERED_MAX:
                self._known.clear()
            known = self._known[mask] = enough(self.nodes_of(mask), self._weights, self.quorum_milli)
        return known

    def one_is_honest(self, mask: int) -> bool:
        """More than a third: liars alone weigh less."""
        return self.weight(mask) >= self.honest_milli

    @property
    def honest_milli(self) -> int:
        """The least weight among which somebody honest must be."""
        return self.weight(self.all) - self.quorum_milli + 1

    @property
    def faults_survived(self) -> int:
        """How many witnesses, the heaviest first, may lie or die at once: together they must weigh less than a third.
        Of equal ones that is (n - 1) // 3: with fewer than four, none."""
        total = sum(self._weights.values())
        heaviest = accumulate(sorted(self._weights.values(), reverse=True))
        return sum(1 for weight in heaviest if 3 * weight < total)
