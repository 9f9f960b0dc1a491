"""The ledger's handlers over real machines and rows: one node that witnesses alone, with a member to pay.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from ledger_house import BARN, NODE, House

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PeerFault,
)
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import node_id_bytes, unbase32
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.heads import decode_heads
from offgrid_node.protocol.ledger.items import Statement
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.records import (
    AMOUNT_MAX,
    FEE_MICRO_DEFAULT,
    GENESIS_KIND,
    SUPPLY_MAX,
    LedgerGenesis,
)
from offgrid_node.protocol.ledger.tables import TX_INDEX
from offgrid_node.protocol.ledger.voice import QUIET_MS
from offgrid_node.protocol.mesh.records import ROLES_ALL, signed
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_node.services.ledger.reads import ledger_summary
from offgrid_node.services.stream import Stream

PEER = Caller(Kind.MEMBER, BARN.node_id, ROLES_ALL)
START_MICRO = 10**12
FINAL, SIGNED, QUEUED = (ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_SIGNED, ledger_pb2.TX_STATE_QUEUED)


@pytest.fixture
def house() -> House:
    return House()


class TestOpening:
    def test_tells_who_witnesses_and_who_has_what(self, house: House) -> None:
        genesis = house.open("hub", "barn")
        assert genesis == house.ask("get_genesis", ledger_pb2.GetGenesisRequest(), PEER)
        assert {w.name: w.weight_milli for w in genesis.witnesses} == {"hub": 1_000, "barn": 1_000}
        assert {b.name: b.final_micro for b in genesis.balances} == {"hub": START_MICRO, "barn": START_MICRO}
        assert (genesis.open, genesis.quorum_milli, genesis.faults_survived) == (True, 1_334, 0)
        body = LedgerGenesis.decode(genesis.ledger_genesis.body)
        assert genesis.ledger_genesis == signed(GENESIS_KIND, house.directory.salt, body.encode(), NODE)
        assert ledger_summary(house.store) == "2 witnesses, 0 pending"

    def test_happens_once(self, house: House) -> None:
        house.open()
        with pytest.raises(AlreadyExists, match=r"hub opened the mesh's ledger at 2023-11-14 22:13:20 UTC"):
            house.open()

    def test_of_two_at_once_the_first_counts(self, house: House) -> None:
        request = ledger_pb2.OpenLedgerRequest()
        first = house.handlers.open_ledger(ADMIN, request)
        house.now_ms += 1
        second = house.handlers.open_ledger(ADMIN, request)
        house.turn()
        assert isinstance(first.outcome, ledger_pb2.OpenLedgerResponse)
        assert isinstance(second.outcome, AlreadyExists)

    def test_is_for_admins(self) -> None:
        with pytest.raises(FailedPrecondition, match="ask one of: hub") as refused:
            House(key=BARN).open()
        assert refused.value.reason == "NotAnAdmin"

    def test_before_it_there_is_nothing_to_pay_with(self, house: House) -> None:
        for refusal in (house.pay, house.balance, lambda: house.ask("list_balances", ledger_pb2.ListBalancesRequest())):
            with pytest.raises(FailedPrecondition) as refused:
                refusal()
            assert refused.value.reason == "LedgerNotOpen"
        assert house.history() == []
        assert not house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).open
        assert not house.ask("get_genesis", ledger_pb2.GetGenesisRequest()).open
        assert ledger_summary(house.store) == ""


BAD_TRANSFERS: dict[str, tuple[dict[str, Any], type[Fault], str]] = {
    "anothers account": ({"src": "barn"}, InvalidRequest, "only its own key"),
    "nobody pays": ({"src": "nobody"}, NotFound, "nobody"),
    "nobody is paid": ({"dst": "nobody"}, NotFound, "nobody"),
    "no payee": ({"dst": ""}, InvalidRequest, "dst"),
    "to itself": ({"dst": "hub"}, InvalidRequest, "is the account that pays"),
    "from a lane that is not there": ({"src": "/1"}, InvalidRequest, "has 0 lanes"),
    "to no lane's number": ({"dst": "barn/x"}, InvalidRequest, "a lane's number is needed, 0 to 1024"),
    "to one who was removed": ({"dst": "gone"}, NotFound, "gone"),
    "nothing": ({"amount_micro": 0}, InvalidRequest, "amount_micro: 0; 1 to"),
    "too much for any ledger": ({"amount_micro": AMOUNT_MAX + 1}, InvalidRequest, "amount_micro"),
    "too much with its fee": ({"amount_micro": AMOUNT_MAX, "fee_micro": 10**6}, InvalidRequest, "fee_micro"),
    "too small a fee": ({"fee_micro": FEE_MICRO_DEFAULT - 1}, InvalidRequest, "fee_micro: 999; this ledger takes"),
    "meta that is none": ({"meta": {"Job": "x"}}, InvalidRequest, "meta"),
    "meta that turns text": ({"meta": {"job": "a\u202eb"}}, InvalidRequest, "meta"),
    "a request id with a space": ({"request_id": "a b"}, InvalidRequest, "request_id"),
    "more than there is": ({"amount_micro": START_MICRO}, FailedPrecondition, "needs 1000000001000"),
}


class TestTransfers:
    @pytest.mark.parametrize("case", BAD_TRANSFERS)
    def test_a_bad_one_is_refused_by_name_and_changes_nothing(self, house: House, case: str) -> None:
        fields, fault, words = BAD_TRANSFERS[case]
        house.open()
        before = house.store.journal_seq
        with pytest.raises(fault) as refused:
            house.pay(**fields)
        assert words in refused.value.message
        assert house.store.journal_seq == before
        assert house.balance().final_micro == START_MICRO

    def test_is_signed_when_it_is_answered_and_final_once_a_quorum_has_confirmed(self, house: House) -> None:
        house.open()
        tx = house.pay(7, src="hub", meta={"action": "rent"})
        assert (tx.src_name, tx.outputs[0].name, tx.fee_micro) == ("hub", "barn", FEE_MICRO_DEFAULT)
        house.turn()
        seen = house.tx(tx.tx_id)
        assert (seen.state, seen.voted_milli, seen.confirmed_milli) == (FINAL, 1_000, 1_000)
        assert (seen.src_name, seen.outputs[0].name, dict(seen.meta)) == ("hub", "barn", {"action": "rent"})
        assert house.balance("barn").final_micro == START_MICRO + 7
        own = house.balance()
        assert (own.final_micro, own.name, own.next_seq) == (START_MICRO - 7 - FEE_MICRO_DEFAULT, "hub", 1)

    def test_over_amounts_the_refusal_names_them_for_whoever_says_them_in_credits(self, house: House) -> None:
        with pytest.raises(InvalidRequest) as refused:
            house.open(balances=[ledger_pb2.Balance(name=name, final_micro=AMOUNT_MAX) for name in ("hub", "barn")])
        assert refused.value.reason == "SupplyTooLarge"
        assert refused.value.metadata == {"supply_micro": str(2 * AMOUNT_MAX), "most_micro": str(SUPPLY_MAX)}
        house.open()
        for reason, fields, named in (
            ("FeeTooLow", {"fee_micro": 5}, {"fee_micro": "5", "least_micro": str(FEE_MICRO_DEFAULT)}),
            ("AmountTooLarge", {"amount_micro": AMOUNT_MAX, "fee_micro": 2},
             {"total_micro": str(AMOUNT_MAX + 2), "most_micro": str(AMOUNT_MAX)}),
        ):  # fmt: skip
            with pytest.raises(InvalidRequest) as refused:
                house.pay(**fields)
            assert (refused.value.reason, refused.value.metadata) == (reason, named)

    @pytest.mark.parametrize("fee", [0, 25])
    def test_costs_the_fee_that_the_ledger_was_opened_with(self, house: House, fee: int) -> None:
        assert house.open(fee_micro=fee).fee_micro == fee
        assert house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).fee_micro == fee
        if fee:
            with pytest.raises(InvalidRequest, match=f"no less than {fee}"):
                house.pay(7, fee_micro=fee - 1)
        tx = house.pay(7)
        house.turn()
        assert (house.tx(tx.tx_id).state, tx.fee_micro) == (FINAL, fee)
        assert house.balance().final_micro == START_MICRO - 7 - fee

    def test_a_repeated_request_id_pays_once_and_for_nothing_else(self, house: House) -> None:
        house.open()
        first = house.pay(7, request_id="rent-may")
        assert house.pay(7, request_id="rent-may").transfer_id == first.transfer_id
        house.runtime.fail(None, OutcomeUnknown("lost"))  # the machines are loaded anew
        house.turn(QUIET_MS + 1)
        assert house.pay(7, request_id="rent-may").transfer_id == first.transfer_id
        with pytest.raises(AlreadyExists) as refused:
            house.pay(8, request_id="rent-may")
        assert refused.value.reason == "RequestIdReused"
        house.turn()
        assert house.balance("barn").final_micro == START_MICRO + 7

    def test_pending_money_is_shown_on_both_sides(self) -> None:
        house = House()
        house.open("hub", "barn")  # barn is never heard of: nothing becomes final
        tx = house.pay(7)
        queued = house.pay(9)
        house.turn()
        assert (house.tx(tx.tx_id).state, queued.state) == (SIGNED, QUEUED)
        assert queued.tx_id.startswith("t-")
        own, other = house.balance("hub"), house.balance("barn")
        assert (own.final_micro, own.pending_out_micro) == (START_MICRO, 7 + 9 + 2 * FEE_MICRO_DEFAULT)
        assert (other.final_micro, other.pending_in_micro) == (START_MICRO, 7)
        listed = {b.name: b for b in house.ask("list_balances", ledger_pb2.ListBalancesRequest()).balances}
        assert listed == {"hub": own, "barn": other}
        status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
        assert (status.pending, status.supply_micro, status.fees_micro) == (1, 2 * START_MICRO, 0)
        assert [(head.author, head.height) for head in status.heads] == [(NODE.node_id, 1)]


class TestFinding:
    def test_by_the_beginning_of_its_id(self, house: House) -> None:
        house.open()
        tx = house.pay()
        house.turn()
        other = "a" if tx.tx_id[8] != "a" else "b"
        with pytest.raises(NotFound):
            house.tx(tx.tx_id[:8] + other)
        for text in (tx.tx_id, tx.tx_id[:8], tx.tx_id[:9], tx.tx_id[:51], tx.transfer_id):
            assert house.tx(text).tx_id == tx.tx_id, text

    def test_a_beginning_of_several_or_too_short_is_said(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        house.open()
        ids = [house.pay(amount).tx_id for amount in range(1, 40) if not house.turn()]
        with pytest.raises(InvalidRequest, match="at least 8"):
            house.tx(ids[0][:7])
        monkeypatch.setattr("offgrid_node.services.ledger.reads.PREFIX_CHARS_MIN", 1)
        twice = next(one[0] for one in ids if sum(other[0] == one[0] for other in ids) > 1)
        with pytest.raises(InvalidRequest, match="give more of it"):
            house.tx(twice)

    @pytest.mark.parametrize("text", ["", "a" * 8, "a" * 52, "!" * 8, "t-none", "A" * 52, "x" * 600])
    def test_nothing_is_not_found(self, house: House, text: str) -> None:
        house.open()
        house.pay()
        with pytest.raises(NotFound) as refused:
            house.tx(text)
        assert refused.value.reason == "TransactionNotFound"
        assert len(refused.value.message) < 200

    def test_history_is_newest_first_with_what_waits_on_top_and_in_pages(self) -> None:
        house = House()
        house.open("hub", "barn")
        for amount in (1, 2, 3):
            house.pay(amount)
        amounts = [tx.outputs[0].amount_micro for tx in house.history()]
        assert amounts == [3, 2, 1]
        assert [tx.state for tx in house.history()] == [QUEUED, QUEUED, SIGNED]
        assert [tx.outputs[0].amount_micro for tx in house.history(account="barn")] == [], "payees see what is final"
        assert [tx.outputs[0].amount_micro for tx in house.history(account="hub")] == [3, 2, 1]
        assert house.history(account="gone") == [], "a removed member keeps its account"
        with pytest.raises(NotFound):
            house.history(account="nobody")

    def test_what_came_in_one_step_is_listed_newest_first_and_in_pages_too(self, house: House) -> None:
        house.open()
        for amount in (1, 2, 3):
            house.handlers.create_transfer(ADMIN, ledger_pb2.CreateTransferRequest(dst="barn", amount_micro=amount))
        house.turn()
        for listed in (house.history(), house.history(account="hub"), house.history(account="barn")):
            assert [tx.outputs[0].amount_micro for tx in listed] == [3, 2, 1]
        assert len([*house.store.scan(TX_INDEX)]) == 3, "a row for each list"

    def test_a_page_token_belongs_to_its_list(self, house: House) -> None:
        house.open()
        for _ in range(2):
            house.pay()
            house.turn()
        token = house.ask("list_transactions", ledger_pb2.ListTransactionsRequest(page_size=1)).next_page_token
        other = ledger_pb2.ListTransactionsRequest(page_token=token, account="barn")
        with pytest.raises(InvalidRequest, match="another list"):
            house.ask("list_transactions", other)


def test_status_says_who_of_the_witnesses_has_been_heard(house: House) -> None:
    house.open("hub", "barn")
    status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
    assert {w.name: w.state for w in status.witnesses} == dict.fromkeys(("hub", "barn"), ledger_pb2.WITNESS_STATE_HEARD)


def test_status_says_why_a_node_is_mute(house: House) -> None:
    house.open()
    assert house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).muted_why == ""
    house.runtime.machine("ledger", LedgerMachine)._voice.muted_why = "it was restored"
    assert house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).muted_why == "it was restored"


class TestWatching:
    def states(self, stream: Stream) -> list[int]:
        return [message.transaction.state for message in stream.take()]  # type: ignore[attr-defined]

    def watch(self, house: House, tx_id: str) -> Stream:
        stream: Stream = house.ask("watch_transaction", ledger_pb2.WatchTransactionRequest(tx_id=tx_id))
        return stream

    def test_from_signed_to_final(self) -> None:
        house = House()
        house.open("hub", "barn")
        tx = house.pay()
        stream, barn = self.watch(house, tx.tx_id), Witness(house)
        barn.say(tx, confirms=False)
        barn.say(tx, confirms=True)
        assert self.states(stream) == [SIGNED, FINAL]
        assert stream.ended
        assert self.states(self.watch(house, tx.tx_id)) == [FINAL], "what has ended is shown once"

    def test_from_waiting_to_signed_by_its_owners_name_for_it(self) -> None:
        house = House()
        house.open("hub", "barn")
        first, second = house.pay(), house.pay()
        stream, barn = self.watch(house, second.tx_id), Witness(house)
        barn.say(first, confirms=False)
        barn.say(first, confirms=True)
        assert self.states(stream) == [QUEUED, SIGNED]
        assert not stream.ended
        stream.cancel()

    def test_tells_nothing_of_others(self) -> None:
        house = House()
        house.open("hub", "barn")
        house.pay()
        waits = house.pay()
        stream = self.watch(house, waits.tx_id)
        house.pay()
        assert self.states(stream) == [QUEUED]
        assert not stream.ended
        stream.cancel()

    def test_of_nothing(self, house: House) -> None:
        with pytest.raises(NotFound):
            self.watch(house, "t-none")


class TestBookings:
    def cost(self, job: str, amount_micro: int) -> CostIncurred:
        return CostIncurred(job, 1, BARN.node_id, amount_micro, "compute")

    def test_are_promised_out_of_a_final_hold(self, house: House) -> None:
        house.open()
        house.runtime.deliver("ledger", self.cost("j-1", 50))
        for _ in range(3):
            house.turn()
        answer = house.ask("list_bookings", ledger_pb2.ListBookingsRequest())
        (booking,) = answer.bookings
        assert (booking.job_id, booking.payee_name, booking.amount_micro) == ("j-1", "barn", 50)
        assert (booking.promised, booking.delivered, booking.tx_id, answer.owed_micro) == (True, False, "", 0)
        status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
        assert (status.promised_out_micro, status.owed_micro) == (50, 0)
        assert status.held_micro > 50
        balances = house.ask("list_balances", ledger_pb2.ListBalancesRequest()).balances
        assert {"hub", "barn", "hold 1 for barn"} <= {balance.name for balance in balances}

    def test_are_listed_newest_first_and_found_by_job(self, house: House) -> None:
        house.open("hub", "barn")
        for number in range(5):
            house.runtime.deliver("ledger", self.cost(f"j-{number}", 10))
        house.turn()
        found, token = [], ""
        while True:
            page = house.ask("list_bookings", ledger_pb2.ListBookingsRequest(page_size=2, page_token=token))
            found += [booking.job_id for booking in page.bookings]
            token = page.next_page_token
            if not token:
                break
        assert found == ["j-4", "j-3", "j-2", "j-1", "j-0"]
        one = house.ask("list_bookings", ledger_pb2.ListBookingsRequest(job_id="j-3"))
        assert [booking.job_id for booking in one.bookings] == ["j-3"]
        assert not house.ask("list_bookings", ledger_pb2.ListBookingsRequest(job_id="j-9")).bookings

    def test_what_is_owed_is_counted(self, house: House) -> None:
        house.open("hub", "barn")
        house.pay()  # in flight for ever, so the rest waits
        house.runtime.deliver("ledger", self.cost("j-1", 50))
        house.turn()
        assert house.ask("list_bookings", ledger_pb2.ListBookingsRequest()).owed_micro == 50
        assert house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).owed_micro == 50


class TestPeers:
    def sync(self, house: House, **fields: Any) -> Any:
        given = {"genesis_digest": bytes(32), "summary": bytes(16), "key": bytes(16), **fields}
        request = ledger_pb2.SyncBlocksRequest(**given)
        return house.ask("sync_blocks", request, PEER)

    def genesis(self, issuer: NodeKey, house: House) -> dict[str, Any]:
        everybody = ((NODE.node_id, 1_000), (BARN.node_id, 1_000))
        body = LedgerGenesis(issuer.node_id, everybody, ((BARN.node_id, 5),), 1_000, 77)
        salt = house.directory.salt
        message = signed(GENESIS_KIND, salt, body.encode(), issuer)
        return {"ledger_genesis": message, "genesis_digest": body.digest(salt)}

    def test_bring_a_genesis_that_an_admin_has_signed(self, house: House) -> None:
        self.sync(house, **self.genesis(NODE, house))
        assert house.balance("barn").final_micro == 5

    def test_bring_no_other_genesis(self, house: House) -> None:
        with pytest.raises(PeerFault) as refused:
            self.sync(house, **self.genesis(BARN, house))
        assert refused.value.reason == "NotAnAdmin"
        with pytest.raises(FailedPrecondition):
            self.sync(house)
        assert ledger_summary(house.store) == ""

    def test_cannot_change_what_is_open(self, house: House) -> None:
        first = house.open()
        with pytest.raises(FailedPrecondition) as refused:
            self.sync(house, **self.genesis(NODE, house))
        assert refused.value.reason == "OtherLedger"
        assert house.ask("get_genesis", ledger_pb2.GetGenesisRequest()) == first

    def test_are_told_what_is_here(self, house: House) -> None:
        genesis = LedgerGenesis.decode(house.open().ledger_genesis.body)
        house.pay()
        digest = genesis.digest(house.directory.salt)
        answer = self.sync(house, genesis_digest=digest, all_heads=True)
        assert decode_heads(answer.heads) == {node_id_bytes(NODE.node_id): 1}
        assert self.sync(house, genesis_digest=digest).items == 1
        summary = self.sync(house, genesis_digest=digest).summary
        assert self.sync(house, genesis_digest=digest, summary=summary).in_sync

    @pytest.mark.parametrize(
        "wrong", [{"summary": b""}, {"yours": b"short"}, {"genesis_digest": b"short"}, {"heads": b"nobody"}]
    )
    def test_ask_nothing_that_nobody_asks(self, house: House, wrong: dict[str, Any]) -> None:
        genesis = LedgerGenesis.decode(house.open().ledger_genesis.body)
        with pytest.raises((PeerFault, InvalidRequest)):
            self.sync(house, **{"genesis_digest": genesis.digest(house.directory.salt), **wrong})

    def test_say_nothing_beside_blocks_that_nobody_says(self, house: House) -> None:
        house.open()
        for wrong in ({"announced": b"x"}, {"prune": b"y"}, {"graft": b"z" * 21}, {"lacking": b"a" * 20}):
            with pytest.raises(PeerFault) as refused:
                house.ask("push_blocks", ledger_pb2.PushBlocksRequest(**wrong), PEER)
            assert refused.value.reason == "BadHeads"

    def test_push_blocks_that_count(self, house: House) -> None:
        house.open("hub", "barn")
        tx = house.pay()
        Witness(house).say(tx, confirms=False)
        assert house.tx(tx.tx_id).voted_milli == 2_000
        assert house.tx(tx.tx_id).state == ledger_pb2.TX_STATE_CERTIFIED

    def test_push_again_what_is_held_here_at_no_cost(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("offgrid_node.services.ledger.blocks.REMEMBERED_BYTES_MAX", 0)
        house.open("hub", "barn")
        barn = Witness(house)
        pushed = barn.say(house.pay(), confirms=False)
        monkeypatch.setattr(house.handlers._checks, "_verify", lambda *signed: pytest.fail("it was checked before"))
        house.ask("push_blocks", pushed, PEER)

    def test_push_nothing_that_nobody_signed(self, house: House) -> None:
        house.open("hub", "barn")
        forged = seal_block(
            node_id_bytes(BARN.node_id), 1, bytes(32), (), [Statement(False, bytes(20), 0, 0, bytes(32))], 1, NODE,
            house.directory.salt,
        )  # fmt: skip
        pushed = ledger_pb2.PushBlocksRequest(blocks=[ledger_pb2.Block.FromString(forged.raw)])
        with pytest.raises(PeerFault) as refused:
            house.ask("push_blocks", pushed, PEER)
        assert refused.value.reason == "BadSignature"


class Witness:
    """`barn`, which says what it is told to, a block each."""

    def __init__(self, house: House) -> None:
        self._house, self._height, salt = house, 0, house.directory.salt
        genesis = house.ask("get_genesis", ledger_pb2.GetGenesisRequest())
        self._prev = LedgerGenesis.decode(genesis.ledger_genesis.body).digest(salt)

    def say(self, tx: ledger_pb2.Transaction, *, confirms: bool) -> ledger_pb2.PushBlocksRequest:
        statement = Statement(confirms, node_id_bytes(tx.src), tx.seq, 0, unbase32(tx.tx_id))
        self._height += 1
        block = seal_block(
            node_id_bytes(BARN.node_id), self._height, self._prev, (), [statement], 1, BARN, self._house.directory.salt
        )
        self._prev = block.digest
        pushed = ledger_pb2.PushBlocksRequest(blocks=[ledger_pb2.Block.FromString(block.raw)])
        self._house.ask("push_blocks", pushed, PEER)
        return pushed


OFF: dict[str, tuple[str, Callable[[], Message]]] = {
    "opening": ("open_ledger", ledger_pb2.OpenLedgerRequest),
    "paying": ("create_transfer", lambda: ledger_pb2.CreateTransferRequest(dst="barn", amount_micro=5)),
    "a balance": ("get_balance", ledger_pb2.GetBalanceRequest),
    "pushed blocks": ("push_blocks", ledger_pb2.PushBlocksRequest),
    "a receipt": ("get_receipt", ledger_pb2.GetReceiptRequest),
    "a signature for one": ("sign_final", lambda: ledger_pb2.SignFinalRequest(tx_digest=bytes(32))),
    "a sync": ("sync_blocks", lambda: ledger_pb2.SyncBlocksRequest(summary=bytes(16), key=bytes(16))),
}


@pytest.mark.parametrize("case", OFF)
def test_with_the_economy_off_nothing_is_done_and_it_is_said_why(case: str) -> None:
    method, request = OFF[case]
    house = House(enabled=False)
    with pytest.raises(FailedPrecondition, match=r"economy\.enabled") as refused:
        house.ask(method, request(), PEER)
    assert refused.value.reason == "EconomyOff"
    assert not house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()).enabled
    house.runtime.deliver("ledger", CostIncurred("j-1", 1, BARN.node_id, 5, "compute"))
    house.turn()
    assert not house.ask("list_bookings", ledger_pb2.ListBookingsRequest()).bookings
