"""Planted bugs of the ends of epochs: what a cut must hold, who may speak when, what begins anew."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import turning
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.cuts import Cuts, NotYet
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Seal, Statement
from offgrid_node.protocol.ledger.orders import Orders
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.turning import Turning
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.sim.mutants.patches import Patch, Sound, after, never


def _whatever_is_here(sound: Sound) -> Sound:
    return lambda self, digest, ballot, now: self._cuts.held(digest) is not None


def _never_dismissed(sound: Sound) -> Sound:
    return lambda self, node_id, admin: sound(self, node_id, admin or self.is_admin(node_id_bytes(node_id)))


def _whatever_it_comes_to(sound: Sound) -> Sound:
    def enter(self: Any, now: Any) -> bool:
        digest = next(iter(self._slot.confirmed()), None)
        cut = self._cuts.held(digest) if digest is not None else None
        if cut is None:
            return False
        try:
            for target in cut.targets:
                self._cuts.rest(target)
        except NotYet:
            return False
        self._turn(cut, now)
        return True

    return enter


def _as_it_says(sound: Sound) -> Sound:
    def check(self: Any, cut: Any) -> Any:
        outcome, supply = self.outcome(cut.targets, self._epochs.witnesses), self._accounts.totals.supply_micro
        body = replace(cut.checkpoint, accounts=outcome.root, count=outcome.count, fees_micro=outcome.fees_micro)
        return sound(self, replace(cut, checkpoint=replace(body, supply_micro=supply)))

    return check


def _any_epoch(sound: Sound) -> Sound:
    return lambda self, header: self.committee.bit_of(header.author)


def _of_before(sound: Sound) -> Sound:
    return lambda self, witnesses, previous: sound(self, self.witnesses or witnesses, previous)


def _out_of_nothing(sound: Sound) -> Sound:
    def credit(self: Any, name: bytes, amount_micro: int) -> None:
        sound(self, name, amount_micro)
        self.totals.fees_micro += amount_micro

    return credit


def _all_to_the_first(sound: Sound) -> Sound:
    def rewards(fees_micro: int, witnesses: Any) -> Any:
        shares, left = sound(fees_micro, witnesses)
        return {witnesses[0][0]: sum(shares.values())}, left

    return rewards


def _committee_alone(sound: Sound) -> Sound:
    return lambda self: self._follow_epoch()


def _sealed_at_the_vote(sound: Sound) -> Sound:
    def next_word(self: Any, now: Any) -> Any:
        word = sound(self, now)
        if isinstance(word, Statement) and not word.confirms:
            epochs = self._epochs
            final = Final(epochs.ledger, epochs.cut, 0, word.tx_digest, epochs.number)
            signature = self._settings.signer.sign(final.digest(self._settings.salt))
            self._voice.say(Seal(epochs.number, word.tx_digest, signature))
        return word

    return next_word


def _but_the_last(sound: Sound) -> Sound:
    return lambda self: sound(self)[:-1] or sound(self)


def _not_silent(slot: Any) -> None:
    slot._silent = False


def _never_silent(sound: Sound) -> Any:
    return property(lambda self: False)


def _no_targets(sound: Sound) -> Sound:
    return lambda self: []


MUTANTS: dict[str, Planted] = {
    "end-forgotten": Planted(
        "a restarted witness forgets that it has spoken of the epoch's end",
        (Patch(CutSlot, "open", after(_not_silent)),),
        level="whole",
        ends=True,
    ),
    "end-ignored": Planted(
        "a witness that has spoken of the epoch's end goes on in it",
        (Patch(CutSlot, "silent", _never_silent),),
        level="whole",
        ends=True,
    ),
    "end-unwritten": Planted(
        "what is said of the epoch's end is in no row",
        (Patch(CutSlot, "flush", never(None)),),
        level="whole",
        ends=True,
    ),
    "cut-unchecked": Planted(
        "a witness votes for whatever its leader would end the epoch with",
        (Patch(Turning, "_is_good", _whatever_is_here),),
        level="whole",
        ends=True,
    ),
    "cut-without-confirmed": Planted(
        "a cut may leave out what this witness has confirmed, and takes in nothing that is not final",
        (Patch(Cuts, "_check_covered", never(None)), Patch(Cuts, "_targets", _no_targets)),
        level="whole",
        ends=True,
    ),
    "cut-uncertified": Planted(
        "a cut may end slots with what no quorum has voted for",
        (Patch(Cuts, "_check_certified", never(None)),),
        level="whole",
        ends=True,
    ),
    "cut-heads-unchecked": Planted(
        "a cut may name any heads", (Patch(Cuts, "_check_heads", never(None)),), level="whole", ends=True
    ),
    "cut-witnesses-unchecked": Planted(
        "a cut may name any witnesses", (Patch(Cuts, "_check_witnesses", never(None)),), level="whole", ends=True
    ),
    "evicted-without-evidence": Planted(
        "a leader leaves out the last witness, and nobody asks why",
        (Patch(Cuts, "_without_liars", _but_the_last), Patch(Cuts, "_check_witnesses", never(None))),
        level="whole",
        ends=True,
    ),
    "order-of-anybody": Planted(
        "whoever orders a committee is obeyed", (Patch(Orders, "has_force", never(True)),), level="whole", ends=True
    ),
    "admin-for-ever": Planted(
        "who was an admin once is one for ever", (Patch(Orders, "on_admin", _never_dismissed),), level="whole"
    ),
    "order-left-out": Planted(
        "a cut may leave out an order that has force",
        (Patch(Cuts, "check_order", never(None)),),
        level="whole",
    ),
    "root-unchecked": Planted(
        "an epoch ends, and the next is entered, with whatever the accounts come to",
        (Patch(Cuts, "check", _as_it_says), Patch(Turning, "_enter", _whatever_it_comes_to)),
        level="whole",
        ends=True,
    ),
    "old-epoch-counts": Planted(
        "what is said in an epoch that is over counts", (Patch(Epochs, "bit_of", _any_epoch),), level="whole", ends=True
    ),
    "new-epoch-early": Planted(
        "blocks of an epoch that has not come are taken in",
        (Patch(Epochs, "has_come", never(True)),),
        level="whole",
        ends=True,
    ),
    "committee-kept": Planted(
        "the next epoch has the witnesses of the one before",
        (Patch(Epochs, "_begin", _of_before),),
        level="whole",
        ends=True,
    ),
    "epoch-forgotten": Planted(
        "that another epoch has begun is in no row", (Patch(Epochs, "flush", never(None)),), level="whole", ends=True
    ),
    "votes-kept-over-epochs": Planted(
        "what was said of open slots counts in the next epoch too",
        (Patch(Witness, "enter", _committee_alone),),
        level="whole",
        ends=True,
    ),
    "rewards-twice": Planted(
        "what witnesses get for an epoch stays among the fees",
        (Patch(Accounts, "credit", _out_of_nothing),),
        level="whole",
        ends=True,
    ),
    "rewards-unweighed": Planted(
        "the first witness gets all the fees of an epoch",
        (Patch(turning, "rewards", _all_to_the_first),),
        level="whole",
        ends=True,
    ),
    "sealed-too-soon": Planted(
        "a witness seals what it votes for",
        (Patch(Turning, "_next_word", _sealed_at_the_vote),),
        level="whole",
        ends=True,
    ),
    "never-sealed": Planted(
        "nobody seals what an epoch has ended with", (Patch(Turning, "_seal", never(None)),), level="whole", ends=True
    ),
}
