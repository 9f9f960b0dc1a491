"""Transactions made, signed and sent by hand: one signature per slot, whoever has the key, and no node torn by it."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest
from offgrid_node.protocol.events import KeyReplaced
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.commands import (
    CreateTransfer,
    OpenLanes,
    SendTransaction,
    SignTransaction,
    UnlockSlot,
)
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem
from offgrid_node.protocol.ledger.records import BY_HAND, TX_KIND, Tx, noop_digest, tx_id_of
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource
from offgrid_node.protocol.ledger.tables import EVERYBODY, IN_FLIGHT, LEARN_KEY, META, TX_INDEX
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key

OWN, OTHER = node_id_bytes(SELF), node_id_bytes(OWNER)


def by_hand(bench: Bench, src: str = SELF, seq: int = 0, amount: int = 50, prev: bytes = b"") -> Tx:
    outputs = ((node_id_bytes(PAYEE), amount),)
    return Tx(NodeSource(node_id_bytes(src)), seq, prev or bench.root, FEE, outputs, b"", BY_HAND)


def signed(tx: Tx, by: str) -> TxItem:
    digest = digest_of(TX_KIND, SALT, tx.encode())
    return TxItem(tx, tx.encode(), Key(by).sign(digest), digest)


def transactions(items: list[Item]) -> list[bytes]:
    return [item.digest for item in items if isinstance(item, TxItem)]


def refusal(outcome: object) -> str:
    assert isinstance(outcome, Fault), outcome
    return outcome.reason


def send(bench: Bench, item: TxItem, *, owner_is_up: bool = False) -> object:
    return bench.ask(SendTransaction(item, owner_is_up))


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestSigning:
    def test_gives_a_signature_has_the_slot_and_says_nothing(self, bench: Bench) -> None:
        tx = by_hand(bench)
        answer = bench.ask(SignTransaction(tx))
        assert isinstance(answer, ledger_pb2.SignTransactionResponse)
        assert (answer.signed.body, answer.signed.signature) == (tx.encode(), signed(tx, SELF).signature)
        bench.transfer(7)
        assert bench.take_said() == []
        assert bench.machine.queued_micro == 7 + FEE
        assert [*bench.views.unsent()] == [signed(tx, SELF).digest]
        assert bench.views.balance(SELF).pending_out_micro == 50 + FEE + 7 + FEE

    def test_asked_again_gives_the_same_through_a_crash_too(self, bench: Bench) -> None:
        first = bench.ask(SignTransaction(by_hand(bench)))
        bench.restart()
        bench.calm()
        assert bench.ask(SignTransaction(by_hand(bench))) == first
        bench.transfer(7)
        assert transactions(bench.take_said()) == []

    def test_a_second_one_for_the_slot_is_refused(self, bench: Bench) -> None:
        bench.ask(SignTransaction(by_hand(bench)))
        assert refusal(bench.ask(SignTransaction(by_hand(bench, amount=51)))) == "SlotTaken"

    def test_is_refused_while_a_transfer_of_the_account_is_under_way_or_waits(self, bench: Bench) -> None:
        bench.transfer(7)
        assert refusal(bench.ask(SignTransaction(by_hand(bench)))) == "SlotTaken"
        bench = Bench()
        bench.restart()  # it has just started, and signs nothing yet
        bench.transfer(7)
        assert refusal(bench.ask(SignTransaction(by_hand(bench)))) == "StillLearning"

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"request": bytes(16)}, "NotByHand"),
            ({"seq": 1}, "NotNext"),
            ({"prev": bytes(32)}, "NotNext"),
            ({"fee_micro": FEE - 1}, "FeeTooLow"),
            ({"outputs": ((node_id_bytes(PAYEE), START_MICRO),)}, "InsufficientFunds"),
        ],
        ids=lambda value: str(value)[:24],
    )
    def test_what_no_witness_would_vote_for_is_refused(
        self, bench: Bench, change: dict[str, object], reason: str
    ) -> None:
        tx = replace(by_hand(bench), **change)  # type: ignore[arg-type]
        assert refusal(bench.ask(SignTransaction(tx))) == reason
        assert bench.take_said() == []

    def test_of_anothers_account_is_refused(self, bench: Bench) -> None:
        outcome = bench.ask(SignTransaction(by_hand(bench, OWNER)))
        assert isinstance(outcome, InvalidRequest)
        assert "no account of this node's" in outcome.message

    def test_with_a_key_that_was_replaced_is_refused(self, bench: Bench) -> None:
        bench.ask(OpenLanes(1, 0))
        tx = replace(by_hand(bench), source=LaneSource(OWN, 1, key=1))
        assert refusal(bench.ask(SignTransaction(tx))) == "OldKey"

    def test_what_was_signed_and_not_sent_can_be_ended(self, bench: Bench) -> None:
        bench.ask(SignTransaction(by_hand(bench)))
        assert isinstance(bench.ask(UnlockSlot()), ledger_pb2.UnlockSlotResponse)

    @pytest.mark.parametrize("restart", [False, True])
    def test_the_account_goes_on_once_its_slot_has_ended_without_it(self, bench: Bench, restart: bool) -> None:
        item = signed(by_hand(bench), SELF)
        bench.ask(SignTransaction(item.tx))
        if restart:
            bench.restart()
            bench.calm()
        bench.ask(UnlockSlot())
        noop = noop_digest(SALT, OWN, 0)
        for witness in (W1, W2, W3):
            bench.says(witness, Report(OWN, 0, 1, 0, bytes(32)))
        for witness in (W1, W2, W3):
            bench.says(witness, *(Statement(confirms, OWN, 0, 1, noop) for confirms in (False, True)))
        bench.take_said()
        assert tx_id_of(item.digest) in bench.machine.notices[0]
        assert bench.views.by_digest(item.digest).state == ledger_pb2.TX_STATE_VOID
        assert [*bench.store.scan(IN_FLIGHT)] == []
        bench.transfer(7)
        (following,) = [said for said in bench.take_said() if isinstance(said, TxItem)]
        assert (following.tx.seq, following.tx.prev) == (1, noop)

    def test_another_of_the_key_elsewhere_may_end_it(self, bench: Bench) -> None:
        bench.ask(SignTransaction(by_hand(bench)))
        other = signed(by_hand(bench, amount=77), SELF)
        bench.says(W1, other)
        bench.finish(other)
        assert [*bench.store.scan(IN_FLIGHT)] == []

    def test_a_restored_node_still_knows_that_the_slot_is_taken(self, bench: Bench) -> None:
        bench.ask(SignTransaction(by_hand(bench)))
        bench.store.commit(Batch(writes={(META, LEARN_KEY): b"\1"}))
        bench.restart()
        bench.calm()
        assert refusal(bench.ask(SignTransaction(by_hand(bench, amount=51)))) == "SlotTaken"


class TestSending:
    def test_what_this_node_signed_leaves_once(self, bench: Bench) -> None:
        item = signed(by_hand(bench), SELF)
        bench.ask(SignTransaction(item.tx))
        for _ in range(2):
            assert isinstance(send(bench, item), ledger_pb2.SendTransactionResponse)
        assert transactions(bench.take_said()) == [item.digest]
        assert [*bench.views.unsent()] == []
        assert len([*bench.store.scan(TX_INDEX, prefix=EVERYBODY)]) == 1
        bench.transfer(7)
        assert transactions(bench.take_said()) == []
        bench.finish(item)
        assert len(transactions(bench.take_said())) == 1, "the transfer that waited behind it"
        assert isinstance(send(bench, item), ledger_pb2.SendTransactionResponse)
        assert transactions(bench.take_said()) == []

    def test_an_account_whose_node_is_away_pays_through_any_node(self, bench: Bench) -> None:
        item = signed(by_hand(bench, OWNER), OWNER)
        for _ in range(2):
            assert isinstance(send(bench, item), ledger_pb2.SendTransactionResponse)
        assert transactions(bench.take_said()) == [item.digest]
        bench.finish(item)
        assert bench.balance(OWNER) == START_MICRO - 50 - FEE

    def test_one_whose_node_is_up_pays_there(self, bench: Bench) -> None:
        outcome = send(bench, signed(by_hand(bench, OWNER), OWNER), owner_is_up=True)
        assert refusal(outcome) == "OwnerIsUp"
        assert bench.take_said() == []

    def test_what_was_signed_elsewhere_for_this_nodes_account_has_its_slot(self, bench: Bench) -> None:
        item = signed(by_hand(bench), SELF)
        send(bench, item)
        assert transactions(bench.take_said()) == [item.digest]
        bench.transfer(7)
        assert transactions(bench.take_said()) == []

    def test_what_is_signed_here_and_not_sent_has_the_slot_against_what_is_signed_elsewhere(self, bench: Bench) -> None:
        bench.ask(SignTransaction(by_hand(bench)))
        assert refusal(send(bench, signed(by_hand(bench, amount=51), SELF))) == "SlotTaken"
        assert bench.take_said() == []

    def test_what_was_signed_elsewhere_is_in_flight_and_can_be_ended(self, bench: Bench) -> None:
        item = signed(by_hand(bench), SELF)
        send(bench, item)
        assert bench.store.get(IN_FLIGHT, OWN) == item.digest
        assert isinstance(bench.ask(UnlockSlot()), ledger_pb2.UnlockSlotResponse)

    def test_it_tears_no_slot(self, bench: Bench) -> None:
        bench.transfer(7)
        bench.take_said()
        assert refusal(send(bench, signed(by_hand(bench), SELF))) == "SlotTaken"
        bench.says(OWNER, bench.tx(OWNER))
        bench.take_said()
        assert refusal(send(bench, signed(by_hand(bench, OWNER), OWNER))) == "SlotTaken"
        assert bench.take_said() == []
        assert not any("signed two" in notice for notice in bench.machine.notices)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"request": bytes(16)}, "NotByHand"),
            ({"seq": 1}, "NotNext"),
            ({"fee_micro": FEE - 1}, "FeeTooLow"),
            ({"outputs": ((node_id_bytes(PAYEE), START_MICRO),)}, "InsufficientFunds"),
        ],
        ids=lambda value: str(value)[:24],
    )
    def test_a_strangers_is_checked(self, bench: Bench, change: dict[str, object], reason: str) -> None:
        tx = replace(by_hand(bench, OWNER), **change)  # type: ignore[arg-type]
        assert refusal(send(bench, signed(tx, OWNER))) == reason
        assert bench.take_said() == []

    def test_what_an_old_key_has_signed_for_a_lane_is_refused(self, bench: Bench) -> None:
        lane = LaneSource(OTHER, 1, key=0)
        funding = bench.taking(NodeSource(OTHER), ((lane.account, 5_000),))
        bench.says(OWNER, funding)
        bench.finish(funding)
        bench.step(KeyReplaced(OWNER, 1))
        tx = replace(by_hand(bench), source=lane)
        assert refusal(send(bench, signed(tx, OWNER))) == "OldKey"
        bench.step(KeyReplaced(OWNER, 0))
        assert isinstance(send(bench, signed(tx, OWNER)), ledger_pb2.SendTransactionResponse)

    def test_what_is_over_is_refused_by_name(self, bench: Bench) -> None:
        item = signed(by_hand(bench, OWNER), OWNER)
        send(bench, item)
        bench.finish(item)
        outcome = send(bench, signed(by_hand(bench, OWNER, amount=51), OWNER))
        assert isinstance(outcome, FailedPrecondition)
        assert "its number is 0, the next of" in outcome.message


class TestMeetingIt:
    """The account's node was away while its key signed elsewhere."""

    def test_its_node_takes_it_for_its_own_and_is_not_mute(self, bench: Bench) -> None:
        item = signed(by_hand(bench), SELF)
        bench.says(W1, item)
        assert bench.machine.muted_why == ""
        bench.transfer(7)
        assert transactions(bench.take_said()) == []
        bench.finish(item)
        (following,) = [said for said in bench.take_said() if isinstance(said, TxItem)]
        assert (following.tx.seq, following.tx.prev) == (1, item.digest)

    def test_sent_here_for_a_lane_it_is_in_flight_there(self, bench: Bench) -> None:
        bench.ask(OpenLanes(1, 1_000 * FEE))
        (funding,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        bench.finish(funding)
        item = signed(replace(by_hand(bench), source=LaneSource(OWN, 1)), SELF)
        send(bench, item)
        assert bench.store.get(IN_FLIGHT, item.tx.src) == item.digest

    def test_of_a_lane_too_it_can_be_ended(self, bench: Bench) -> None:
        bench.ask(OpenLanes(1, 1_000 * FEE))
        (funding,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        bench.finish(funding)
        tx = replace(by_hand(bench), source=LaneSource(OWN, 1))
        bench.says(W1, signed(tx, SELF))
        assert isinstance(bench.ask(UnlockSlot(tx.src)), ledger_pb2.UnlockSlotResponse)

    def test_where_a_lane_has_one_no_other_is_signed(self, bench: Bench) -> None:
        bench.ask(OpenLanes(1, 1_000 * FEE))
        (funding,) = [item for item in bench.take_said() if isinstance(item, TxItem)]
        bench.finish(funding)
        tx = replace(by_hand(bench), source=LaneSource(OWN, 1))
        bench.says(W1, signed(tx, SELF))
        other = replace(tx, outputs=((node_id_bytes(PAYEE), 51),))
        assert refusal(bench.ask(SignTransaction(other))) == "SlotTaken"
        again = bench.ask(SignTransaction(tx))
        assert isinstance(again, ledger_pb2.SignTransactionResponse)
        assert again.signed.signature == signed(tx, SELF).signature

    def test_one_after_the_next_is_waited_for_too(self, bench: Bench) -> None:
        first = signed(by_hand(bench), SELF)
        second = signed(by_hand(bench, seq=1, prev=first.digest), SELF)
        bench.says(W1, first, second)
        bench.transfer(7)
        bench.finish(first)
        assert transactions(bench.take_said()) == [], "the second has the next slot"
        bench.finish(second)
        assert len(transactions(bench.take_said())) == 1

    def test_of_two_in_one_slot_all_are_shown_the_evidence(self, bench: Bench) -> None:
        bench.ask(CreateTransfer(((node_id_bytes(PAYEE), 7),), 0, b"", ""))
        bench.take_said()
        bench.says(W1, signed(by_hand(bench), SELF))
        assert any(isinstance(item, Double) for item in bench.take_said())
        assert bench.machine.muted_why == ""
