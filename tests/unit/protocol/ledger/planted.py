"""Bugs planted on purpose, one patch each: the hostile world must catch every one of them (research/ledger.md, "Be
wary": a suite that misses `vote before sync` proves nothing). Three more take luck to show here, and test_witness,
test_ledger_gossip and test_recovery catch them: statements of which only a witness' first counts, forks that nobody is
told of, and certificates that are believed unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE, Dispute, Disputes
from offgrid_node.protocol.ledger.gossip import Gossip
from offgrid_node.protocol.ledger.recovery import Recovery
from offgrid_node.protocol.ledger.slots import NOTHING, Slot
from offgrid_node.protocol.ledger.wallet import Wallet
from offgrid_node.protocol.ledger.witness import Witness

PLANTED: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}
ABOVE: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}  # at ballots above 0


def planted_above(plant: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    ABOVE[plant.__name__] = plant
    return plant


def planted(plant: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    PLANTED[plant.__name__] = plant
    return plant


@planted
def lock_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    encode = Slot.encode

    def forgetful(slot: Slot) -> bytes:
        return encode(replace(slot, first=NOTHING, voted=NOTHING, confirmed=NOTHING))

    patch.setattr(Slot, "encode", forgetful)


@planted
def quorum_of_a_half(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committee, "enough", lambda self, mask: self.weight(mask) * 2 >= self.weight(2**64 - 1))


@planted
def weights_do_not_count(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committee, "enough", lambda self, mask: 3 * mask.bit_count() > 2 * len(self._nodes))


@planted
def what_is_named_in_a_slot_is_void_with_it(patch: pytest.MonkeyPatch) -> None:
    def whosever(self: Witness, slot: Slot, digest: bytes) -> Any:
        return self._transactions.get(digest) if digest != NOTHING else None

    patch.setattr(Witness, "_of", whosever)


@planted
def confirm_without_certificate(patch: pytest.MonkeyPatch) -> None:
    def eager(self: Witness, slot: Slot, account: Any) -> bytes | None:
        return slot.first if self._known(slot, account, slot.first) else None

    patch.setattr(Witness, "_certified", eager)


@planted
def funds_unchecked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Witness, "_may_vote", lambda self, slot, account: self._known(slot, account, slot.first) is not None)


@planted
def later_transaction_takes_the_lock(patch: pytest.MonkeyPatch) -> None:
    def turncoat(self: Witness, slot: Slot, item: Any, told: bool) -> None:
        slot.first, slot.voted = item.digest, NOTHING

    patch.setattr(Witness, "_on_double", turncoat)


@planted
def no_anti_entropy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Gossip, "on_time", lambda self, now, rng: None)


@planted
def signs_anew_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    load = Wallet.load

    def forgetful(self: Wallet) -> None:
        load(self)
        self._in_flight = b""

    patch.setattr(Wallet, "load", forgetful)


@planted
def fee_kept_by_nobody(patch: pytest.MonkeyPatch) -> None:
    apply = Accounts.apply

    def lossy(self: Accounts, tx: Any, digest: bytes) -> None:
        apply(self, tx, digest)
        self.totals.fees_micro -= tx.fee_micro

    patch.setattr(Accounts, "apply", lossy)


@planted
def owed_stays_owed(patch: pytest.MonkeyPatch) -> None:
    paid = Bookings.paid

    def generous(self: Bookings, payment: Any, tx_id: str, fee_micro: int) -> None:
        paid(self, payment, tx_id, fee_micro)
        for owed in payment.bookings:
            self._draft.put_bytes("ledger_owed", owed.number.to_bytes(8, "big"), owed.encode())

    patch.setattr(Bookings, "paid", generous)


@planted_above
def what_was_said_above_ballot_0_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disputes, "flush", lambda self: self._changed.clear())


@planted_above
def a_promise_that_does_not_bind(patch: pytest.MonkeyPatch) -> None:
    confirm = Recovery._confirm

    def faithless(self: Recovery, slot: Slot, dispute: Dispute, promised: int, holds: Any) -> Any:
        return confirm(self, slot, dispute, 0, holds)

    patch.setattr(Recovery, "_confirm", faithless)


@planted_above
def reports_without_their_certificate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "_certificate", lambda self, slot, dispute, holds: NO_CERTIFICATE)


@planted_above
def a_vote_for_whatever_the_leader_says(patch: pytest.MonkeyPatch) -> None:
    def anything(self: Recovery, slot: Slot, dispute: Dispute, ballot: int, holds: Any) -> list[bytes]:
        return [*slot.tallies, self.noop(slot)]

    patch.setattr(Recovery, "_allowed", anything)


@planted_above
def nobody_ends_a_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recovery, "next_word", lambda self, slot, dispute, holds, now_ms: None)


@planted
def own_chain_begins_anew_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    load = Chains.load

    def forgetful(self: Chains, genesis_digest: bytes) -> None:
        load(self, genesis_digest)
        for author in self._authors.values():
            author.height = max(0, author.height - 1)

    patch.setattr(Chains, "load", forgetful)
