"""How long a slot may take to end while liars lead its ballots."""

from __future__ import annotations

from offgrid_node.protocol.ledger.recovery import BALLOT_MS


def led_by_liars_ms(liars: int, first: int = 1) -> int:
    """The time of the ballots from `first` on until one is led by a witness that does not lie: they take turns, each
    ballot takes twice as long as the one before it, and all liars may come first."""
    return sum(BALLOT_MS << (ballot - 1) for ballot in range(first, first + liars + 1))
