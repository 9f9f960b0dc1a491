"""Planted bugs of the ledger: locks, certificates, recovery, funds, bookings, and blocks that do not get round."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE, Disputes
from offgrid_node.protocol.ledger.endings import Endings
from offgrid_node.protocol.ledger.lanes import Lanes
from offgrid_node.protocol.ledger.recovery import Recovery
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Slots
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_node.runtime import Runtime
from offgrid_tools.sim.mutants.holds import HOLD_MUTANTS
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, after, early, never


def _without_locks(sound: Sound) -> Sound:
    return lambda slot: sound(replace(slot, first=NOTHING, voted=NOTHING, confirmed=NOTHING))


def _the_newest_counts(sound: Sound) -> Sound:
    def follow(self: Any, item: Any, now: Any, *, told: bool = False) -> None:
        slot = self._slots.get(item.tx.src, item.tx.seq)
        if slot is not None and slot.first not in (NOTHING, item.digest):
            slot = self._slots.make(item.tx.src, item.tx.seq)
            slot.first, slot.voted = item.digest, NOTHING
        sound(self, item, now, told=told)

    return follow


def _whatever_the_leader_says(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> list[bytes]:
        return [*slot.tallies, *free(ballot)]

    return allowed


def _whatever_promised(sound: Sound) -> Sound:
    return lambda self, slot, dispute, promised, holds: sound(self, slot, dispute, 0, holds)


def _unwritten(sound: Sound) -> Sound:
    return lambda disputes: disputes._changed.clear()


def _half_is_enough(sound: Sound) -> Sound:
    return lambda self, mask: 2 * self.weight(mask) >= self.quorum_milli


def _by_heads(sound: Sound) -> Sound:
    return lambda self, mask: 3 * mask.bit_count() > 2 * len(self._nodes)


def _any_vote_certifies(sound: Sound) -> Sound:
    def certified(self: Any, slot: Any, account: Any) -> Any:
        return slot.first if self._endings.known(slot, account, slot.first) is not None else None

    return certified


def _whoever_asks(sound: Sound) -> Sound:
    return lambda self, slot, account: self._endings.known(slot, account, slot.first) is not None


def _whatever_comes_before(sound: Sound) -> Sound:
    def known(self: Any, slot: Any, account: Any, digest: bytes) -> Any:
        return self._transactions.get(digest) if digest != NOTHING else None

    return known


def _whosever_it_is(sound: Sound) -> Sound:
    return lambda self, account, seq, digest: self.get(digest) if digest != NOTHING else None


def _votes_confirm(sound: Sound) -> Sound:
    def state(self: Any, slot: Any, tx_digest: bytes, bit: int, *, confirms: bool) -> bool:
        if not confirms:
            sound(self, slot, tx_digest, bit, confirms=True)
        counted: bool = sound(self, slot, tx_digest, bit, confirms=confirms)
        return counted

    return state


def _credit_twice(sound: Sound) -> Sound:
    def apply(self: Any, tx: Any, digest: bytes) -> None:
        sound(self, tx, digest)
        for account, amount in tx.outputs:
            self.get(account).balance_micro += amount

    return apply


def _book_twice(sound: Sound) -> Sound:
    def on_cost(self: Any, cost: Any, now: Any, *, payable: bool, may_promise: bool) -> None:
        before = self._last
        sound(self, cost, now, payable=payable, may_promise=may_promise)
        for owed in [each for each in self.owed.window(node_id_bytes(cost.payee)) if each.number > before]:
            self._last += 1
            self.owed.add(replace(owed, number=self._last))

    return on_cost


MUTANTS: dict[str, Mutant] = {
    "vote-before-sync": Mutant(
        "blocks leave while the votes in them are still being synced",
        (Patch(Runtime, "gather", early(lambda effect: isinstance(effect, Call) and effect.domain == "ledger")),),
    ),
    "lock-forgotten": Mutant("a restarted witness forgets its votes", (Patch(Slot, "encode", _without_locks),)),
    "lock-overwritten": Mutant(
        "of two transactions for one slot a witness votes for each", (Patch(Witness, "follow", _the_newest_counts),)
    ),
    "quorum-too-small": Mutant("half of a quorum is enough", (Patch(Committee, "enough", _half_is_enough),)),
    "weights-ignored": Mutant("witnesses are counted, whatever they weigh", (Patch(Committee, "enough", _by_heads),)),
    "confirm-without-certificate": Mutant(
        "a witness confirms what it has seen", (Patch(Witness, "_certified", _any_vote_certifies),)
    ),
    "one-phase": Mutant("votes count as confirms", (Patch(Slots, "state", _votes_confirm),)),
    "balance-unchecked": Mutant(
        "a witness votes whatever the account has", (Patch(Witness, "_may_vote", _whoever_asks),)
    ),
    "prev-unchecked": Mutant(
        "a witness takes any transaction for the next one", (Patch(Endings, "known", _whatever_comes_before),)
    ),
    "void-whosever": Mutant(
        "what was named in a slot is void with it, of whatever slot it is",
        (Patch(Transactions, "of_slot", _whosever_it_is),),
    ),
    "torn-for-ever": Mutant(
        "a slot of two transactions hangs when neither gets a quorum", (Patch(Recovery, "next_word", never(None)),)
    ),
    "promise-not-kept": Mutant(
        "a witness confirms at ballots below one that it has reported",
        (Patch(Recovery, "_confirm", _whatever_promised),),
    ),
    "promise-not-durable": Mutant(
        "what a witness has said above ballot 0 is in no row",
        (Patch(Disputes, "flush", _unwritten),),
    ),
    "vote-unbound": Mutant(
        "a witness follows its leader whatever the reports allow",
        (Patch(Recovery, "_allowed", _whatever_the_leader_says),),
    ),
    "certificate-hidden": Mutant(
        "witnesses report without the certificate that they know",
        (Patch(Recovery, "_certificate", never(NO_CERTIFICATE)),),
    ),
    "credited-twice": Mutant("a final slot is applied twice", (Patch(Accounts, "apply", _credit_twice),)),
    "in-flight-forgotten": Mutant(
        "a restarted owner signs its slot anew",
        (Patch(Lanes, "load", after(lambda lanes: lanes._in_flight.clear())), Patch(Witness, "standing", never(None))),
    ),
    "booking-lost": Mutant("a job's cost is not booked", (Patch(Bookings, "on_cost", never(None)),)),
    "booked-twice": Mutant("a job's cost is owed twice", (Patch(Bookings, "on_cost", _book_twice),)),
    "paid-twice": HOLD_MUTANTS["paid-twice"],
    "blocks-unreconciled": Mutant(
        "blocks that a push did not bring are never offered", (Patch(Chains, "in_order", never(())),)
    ),
    "never-mute": Mutant("a witness restored from a backup goes on", (Patch(Voice, "mute", never(None)),)),
}
