"""Planted bugs of holds: what is promised out of them, how often they are posted, what is owed after their end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.ends import Ends
from offgrid_node.protocol.ledger.given import Given, GivenHolds
from offgrid_node.protocol.ledger.taken import TakenHolds
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never


def _only_the_last(sound: Sound) -> Sound:
    def promise(self: Any, payee: bytes, amount_micro: int, leaf: bytes, now: Any) -> Any:
        found = sound(self, payee, amount_micro, leaf, now)
        if found is not None:
            self._held[found[0]].row.amount_micro = amount_micro
        return found

    return promise


def _all_again(sound: Sound) -> Sound:
    return lambda self, ended: sound(self, replace(ended, paid=0))


def _nothing_again(sound: Sound) -> Sound:
    return lambda self, ended: sound(self, replace(ended, paid=ended.count))


def _no_promise_kept(sound: Sound) -> Sound:
    def flush(self: Any) -> None:
        for hold in [hold for hold, given in self._changed.items() if given.row.count and hold in self._held]:
            del self._changed[hold]
        sound(self)

    return flush


def _the_lowest_too(sound: Sound) -> Sound:
    def on_voucher(self: Any, terms: Any, voucher: Any, now: Any) -> Any:
        held = self._held.get(terms.account)
        if held is not None:
            held[1].voucher.amount_micro = 0
        return sound(self, terms, voucher, now)

    return on_voucher


HOLD_MUTANTS = {
    "voucher-not-cumulative": Mutant(
        "a voucher promises the last booking alone", (Patch(GivenHolds, "promise", _only_the_last),)
    ),
    "paid-twice": Mutant("what a hold has paid is owed again", (Patch(Bookings, "on_hold_ended", _all_again),)),
    "unpaid-forgotten": Mutant(
        "what a hold's end did not pay is owed no more", (Patch(Bookings, "on_hold_ended", _nothing_again),)
    ),
    "promised-beyond": Mutant("more is promised out of a hold than there is", (Patch(Given, "has_room", never(True)),)),
    "promise-not-durable": Mutant(
        "what is promised is in no row: a restarted payer promises it away again",
        (Patch(GivenHolds, "flush", _no_promise_kept),),
    ),
    "posted-twice": Mutant(
        "a payee posts a hold again, with every voucher that comes", (Patch(Ends, "own", never(None)),)
    ),
    "older-voucher-taken": Mutant(
        "an older voucher takes the place of a newer one", (Patch(TakenHolds, "on_voucher", _the_lowest_too),)
    ),
}
