"""What witnesses get for an epoch: its fees, by weight. A pure function of what a checkpoint fixes, so all that know it
come to the same."""

from __future__ import annotations

from offgrid_node.protocol.ledger.checkpoints import Witnesses


def rewards(fees_micro: int, witnesses: Witnesses) -> tuple[dict[str, int], int]:
    """What each witness gets, and what is left of the fees: less than a millionth for each of them."""
    total = sum(weight for _, weight in witnesses)
    shares = {node: fees_micro * weight // total for node, weight in witnesses}
    return shares, fees_micro - sum(shares.values())
