"""Planted bugs of the market: what a broker believes of hosts, and what it pays them."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.jobs import clearing
from offgrid_node.protocol.jobs.postings import Postings
from offgrid_node.protocol.jobs.turning import Turning
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import MARKET_MESH


def _any_base(sound: Sound) -> Sound:
    def on_offers(self: Any, request: Any, now: Any) -> Any:
        standing = self._book.get(request.host)
        if request.base_seq and standing is not None:
            request.base_seq = standing.seq
        return sound(self, request, now)

    return on_offers


def _beyond_the_reserve(sound: Sound) -> Sound:
    def price(winner: Any, losers: Any, count: int, group: Any) -> int:
        won: int = sound(winner, losers, count, group._replace(price_max_micro=2 * group.price_max_micro))
        return won

    return price


MUTANTS: dict[str, Mutant] = {
    "stale-word-taken": Mutant(
        "a broker takes a host's change on top of another word than the one that it changes",
        (Patch(Postings, "on_offers", _any_base),),
    ),
    "expired-offer-used": Mutant(
        "a broker keeps the offers of hosts that say nothing more",
        (Patch(Postings, "drop", never(None)),),
    ),
    "reserve-ignored": Mutant(
        "a winner may be paid more than the order's reserve", (Patch(clearing, "_price", _beyond_the_reserve),)
    ),
    "waits-for-ever": Mutant(
        "a core waits at a broker for as long as it is told to",
        (Patch(Turning, "_is_over", never(False)),),
        MARKET_MESH,
    ),
    "paid-below-ask": Mutant("a winner is paid less than it asks", (Patch(clearing, "_price", never(0)),)),
}
