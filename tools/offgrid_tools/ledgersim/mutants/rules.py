"""Planted bugs of ballot 0, of accounts and of what is durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.doubles import Doubles
from offgrid_node.protocol.ledger.endings import Endings
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Slots
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.ledgersim.slots.node import Node
from offgrid_tools.sim.mutants.ledger import MUTANTS as OF_NODES
from offgrid_tools.sim.mutants.patches import Patch, Sound, after, never


def _row_without(**fields: object) -> Callable[[Sound], Sound]:
    return lambda sound: lambda slot: sound(replace(slot, **fields))


def _told_first(sound: Sound) -> Sound:
    def commit(self: Any, effects: Any, taken: Any, said: Any, ended: Any) -> None:
        self._tell(said)
        sound(self, effects, taken, said, ended)

    return commit


def _without_its_fee(sound: Sound) -> Sound:
    def may_vote(self: Any, slot: Any, account: Any) -> bool:
        known = self._endings.known(slot, account, slot.first)
        return known is not None and bool(account.balance_micro >= known.item.tx.total_micro - known.item.tx.fee_micro)

    return may_vote


def _with_what_is_on_its_way(sound: Sound) -> Sound:
    def may_vote(self: Any, slot: Any, account: Any) -> bool:
        known = self._endings.known(slot, account, slot.first)
        held = self._transactions._held.values()
        coming = sum(amount for each in held for to, amount in each.item.tx.outputs if to == slot.account)
        return known is not None and bool(account.balance_micro + coming >= known.item.tx.total_micro)

    return may_vote


def _whatever_comes_before(sound: Sound) -> Sound:
    return lambda self, slot, account, digest: self._transactions.of_slot(slot.account, slot.seq, digest)


def _confirms_vote(sound: Sound) -> Sound:
    def state(self: Any, slot: Any, tx_digest: bytes, bit: int, *, confirms: bool) -> bool:
        return bool(sound(self, slot, tx_digest, bit, confirms=False))

    return state


def _any_transaction(sound: Sound) -> Sound:
    def on_statement(self: Any, statement: Any, bit: int) -> None:
        slot = self._slots.get(statement.account, statement.seq)
        if slot is not None and slot.first != NOTHING and statement.ballot == 0:
            statement = replace(statement, tx_digest=slot.first)
        sound(self, statement, bit)

    return on_statement


def _fee_for_nobody(sound: Sound) -> Sound:
    def apply(self: Any, tx: Any, digest: bytes) -> None:
        sound(self, tx, digest)
        self.totals.fees_micro -= tx.fee_micro

    return apply


def _only_the_first_output(sound: Sound) -> Sound:
    def apply(self: Any, tx: Any, digest: bytes) -> None:
        sound(self, tx, digest)
        to, amount = tx.outputs[0]
        self.get(to).balance_micro += 1 if amount > 1 else 0
        self.get(tx.src).balance_micro -= 1 if amount > 1 else 0

    return apply


def _head_as_it_was(sound: Sound) -> Sound:
    def apply(self: Any, tx: Any, digest: bytes) -> None:
        sound(self, tx, tx.prev)

    return apply


def _noop_unchained(sound: Sound) -> Sound:
    return lambda self, account, seq, digest: sound(self, account, seq, self.get(account).head)


def _row_of_own_words(sound: Sound) -> Sound:
    def flush(self: Any) -> None:
        for key in [key for key, slot in self._changed.items() if slot.voted == NOTHING]:
            del self._changed[key]
            self._spilled.pop(key, None)
        sound(self)

    return flush


def _a_third(endings: Any) -> None:
    endings._committee = _Third(endings._committee)


class _Third:
    def __init__(self, committee: Any) -> None:
        self.enough = committee.one_is_honest


def _no_fee_asked(witness: Any) -> None:
    witness._fee_micro = 0


def _first_evidence_only(sound: Sound) -> Sound:
    def on_double(self: Any, slot: Any, item: Any, *, told: bool) -> None:
        sound(self, slot, item, told=True)

    return on_double


MUTANTS: dict[str, Planted] = {
    "told-before-sync": Planted(
        "words leave while they are still being synced", (Patch(Node, "_commit", _told_first),)
    ),
    "lock-forgotten": Planted(
        "a restarted witness forgets what it has said at ballot 0",
        (Patch(Slot, "encode", _row_without(first=NOTHING, voted=NOTHING, confirmed=NOTHING)),),
    ),
    "vote-forgotten": Planted(
        "a restarted witness forgets its votes alone",
        (Patch(Slot, "encode", _row_without(first=NOTHING, voted=NOTHING)),),
    ),
    "dispute-forgotten": Planted(
        "a restarted witness forgets that anything was said above ballot 0",
        (Patch(Slot, "encode", _row_without(disputed=False)),),
    ),
    "tallies-forgotten": Planted(
        "a restarted witness forgets what others have said", (Patch(Slot, "encode", _row_without(tallies={})),)
    ),
    "tear-forgotten": Planted(
        "a restarted witness forgets that a slot is torn", (Patch(Slot, "encode", _row_without(doubled=False)),)
    ),
    "words-of-others-unwritten": Planted(
        "what others say is written only once this node has said something", (Patch(Slots, "flush", _row_of_own_words),)
    ),
    "open-slots-unexamined": Planted(
        "a restarted witness does not look at what was open", (Patch(Witness, "load", never(None)),)
    ),
    "lock-overwritten": Planted(
        "of two transactions for one slot a witness votes for each", OF_NODES["lock-overwritten"].patches
    ),
    "quorum-of-a-half": Planted(
        "half of the weight is a quorum",
        (Patch(Committee, "enough", lambda sound: lambda self, mask: 2 * self.weight(mask) >= self.weight(self.all)),),
    ),
    "quorum-off-by-one": Planted(
        "two thirds are a quorum, where it must be more",
        (Patch(Committee, "enough", lambda sound: lambda self, mask: self.weight(mask) >= self.quorum_milli - 1),),
    ),
    "quorum-too-large": Planted(
        "only all together are a quorum",
        (Patch(Committee, "enough", lambda sound: lambda self, mask: mask == self.all),),
    ),
    "weights-ignored": Planted("witnesses are counted, whatever they weigh", OF_NODES["weights-ignored"].patches),
    "final-by-a-third": Planted(
        "confirms of more than a third make a slot final", (Patch(Endings, "open", after(_a_third)),)
    ),
    "confirm-without-certificate": Planted(
        "a witness confirms what it has seen first", OF_NODES["confirm-without-certificate"].patches
    ),
    "votes-confirm": Planted("a vote counts as a confirm too", OF_NODES["one-phase"].patches),
    "confirms-are-votes": Planted("a confirm counts as a vote", (Patch(Slots, "state", _confirms_vote),)),
    "votes-for-any": Planted(
        "what is said for one transaction of a slot counts for the first that came",
        (Patch(Witness, "on_statement", _any_transaction),),
    ),
    "funds-unchecked": Planted("a witness votes whatever the account has", OF_NODES["balance-unchecked"].patches),
    "fee-not-covered": Planted(
        "a witness votes where the funds cover the outputs alone", (Patch(Witness, "_may_vote", _without_its_fee),)
    ),
    "funds-before-final": Planted(
        "a witness counts credits that are on their way", (Patch(Witness, "_may_vote", _with_what_is_on_its_way),)
    ),
    "fee-too-low": Planted(
        "a transaction without its fee is voted for", (Patch(Witness, "open", after(_no_fee_asked)),)
    ),
    "prev-unchecked": Planted(
        "a transaction may stand on what the slot before did not end with",
        (Patch(Endings, "known", _whatever_comes_before),),
    ),
    "any-slot": Planted("a transaction may end a slot that is not its own", OF_NODES["void-whosever"].patches),
    "credited-twice": Planted("what a final slot moves is credited twice", OF_NODES["credited-twice"].patches),
    "fee-lost": Planted("fees go nowhere", (Patch(Accounts, "apply", _fee_for_nobody),)),
    "a-millionth-more": Planted(
        "a payee gets a millionth more than was signed", (Patch(Accounts, "apply", _only_the_first_output),)
    ),
    "head-kept": Planted("what follows a transaction need not name it", (Patch(Accounts, "apply", _head_as_it_was),)),
    "noop-unchained": Planted("what follows a no-op need not name it", (Patch(Accounts, "skip", _noop_unchained),)),
    "tear-unseen": Planted(
        "two transactions of one slot are nothing special", (Patch(Doubles, "on_double", never(None)),)
    ),
    "evidence-kept-back": Planted(
        "who sees two transactions of one slot tells nobody",
        (Patch(Doubles, "on_double", _first_evidence_only),),
    ),
    "unlock-ignored": Planted(
        "an owner that asks that its slot ends is not heard", (Patch(Ballots, "on_unlock", never(None)),)
    ),
    "voids-untold": Planted(
        "what a slot did not end with stays under way", (Patch(Endings, "_void_others", never(None)),)
    ),
}
