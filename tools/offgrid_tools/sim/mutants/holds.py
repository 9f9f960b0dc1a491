"""Planted bugs of holds: what is promised out of them, whether that is durable, and what is owed after their end."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.given import GivenHolds
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound


def _only_the_last(sound: Sound) -> Sound:
    def promise(self: Any, payee: bytes, amount_micro: int, leaf: bytes, now: Any) -> Any:
        found = sound(self, payee, amount_micro, leaf, now)
        if found is not None:
            self._held[found[0]].row.amount_micro = amount_micro
        return found

    return promise


def _all_again(sound: Sound) -> Sound:
    def owe_again(self: Any, given: Any) -> None:
        paid, given.row.paid = given.row.paid, 0
        sound(self, given)
        given.row.paid = paid

    return owe_again


def _no_promise_kept(sound: Sound) -> Sound:
    def flush(self: Any, now: Any) -> None:
        for hold in [hold for hold, given in self._changed.items() if given.row.count and hold in self._held]:
            del self._changed[hold]
        sound(self, now)

    return flush


HOLD_MUTANTS = {
    "voucher-not-cumulative": Mutant(
        "a voucher promises the last booking alone", (Patch(GivenHolds, "promise", _only_the_last),)
    ),
    "paid-twice": Mutant("what a hold has paid is owed again", (Patch(Bookings, "_owe_again", _all_again),)),
    "promise-not-durable": Mutant(
        "what is promised is in no row: a restarted payer promises it away again",
        (Patch(GivenHolds, "flush", _no_promise_kept),),
    ),
}
