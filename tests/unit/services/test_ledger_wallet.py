"""The handlers of a wallet's lanes, of transactions made by hand and of credit lines: names and refusals."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from ledger_house import BARN, NODE, House

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.events import PeerUp
from offgrid_node.protocol.ids import base32, node_id_bytes, unbase32
from offgrid_node.protocol.ledger.lanes import LANES_MAX
from offgrid_node.protocol.ledger.records import AMOUNT_MAX, BY_HAND, FEE_MICRO_DEFAULT, TX_KIND, Tx
from offgrid_node.protocol.ledger.sources import LaneSource, lane_account
from offgrid_node.protocol.signing import digest_of

START_MICRO = 10**12
FINAL, SIGNED = ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_SIGNED
HUB_1 = base32(lane_account(node_id_bytes(NODE.node_id), 1))


@pytest.fixture
def house() -> House:
    """`hub` witnesses alone: what is sent is final a turn later."""
    house = House()
    house.open()
    return house


def open_lanes(house: House, count: int, fund_micro: int = 0) -> ledger_pb2.GetWalletResponse:
    request = ledger_pb2.OpenLanesRequest(count=count, fund_micro=fund_micro)
    wallet: ledger_pb2.GetWalletResponse = house.ask("open_lanes", request).wallet
    return wallet


def create(house: House, **fields: Any) -> ledger_pb2.CreateTransactionResponse:
    request = ledger_pb2.CreateTransactionRequest(**{"dst": "barn", "amount_micro": 5, **fields})
    made: ledger_pb2.CreateTransactionResponse = house.ask("create_transaction", request)
    return made


def sign(house: House, body: bytes) -> ledger_pb2.SignTransactionResponse:
    signed: ledger_pb2.SignTransactionResponse = house.ask(
        "sign_transaction", ledger_pb2.SignTransactionRequest(body=body)
    )
    return signed


def send(house: House, body: bytes, signature: bytes) -> ledger_pb2.Transaction:
    request = ledger_pb2.SendTransactionRequest(signed=common_pb2.Signed(body=body, signature=signature))
    sent: ledger_pb2.Transaction = house.ask("send_transaction", request).transaction
    return sent


class TestLanes:
    def test_are_opened_funded_and_listed_by_name(self, house: House) -> None:
        wallet = open_lanes(house, 2, 1_000)
        assert [(one.lane, one.balance.name) for one in wallet.accounts] == [(0, "hub"), (1, "hub/1"), (2, "hub/2")]
        house.turn()
        wallet = house.ask("get_wallet", ledger_pb2.GetWalletRequest())
        assert [one.balance.final_micro for one in wallet.accounts] == [
            START_MICRO - 2_000 - FEE_MICRO_DEFAULT, 1_000, 1_000,
        ]  # fmt: skip
        assert not any(one.in_flight for one in wallet.accounts)

    def test_show_what_is_in_flight(self) -> None:
        house = House()
        house.open("hub", "barn")
        tx = house.pay()
        wallet = house.ask("get_wallet", ledger_pb2.GetWalletRequest())
        assert [one.in_flight for one in wallet.accounts] == [tx.tx_id]

    def test_are_named_wherever_an_account_is(self, house: House) -> None:
        open_lanes(house, 1, 10_000)
        house.turn()
        for name in ("/1", "hub/1", HUB_1):
            assert house.balance(name).name == "hub/1"
        tx = house.pay(7, src="/1")
        house.turn()
        assert house.tx(tx.tx_id).src_name == "hub/1"
        assert tx.tx_id in [found.tx_id for found in house.history(account="/1")]
        back = house.pay(1_000, src="/1", dst="hub/0")
        assert (back.src, back.outputs[0].name) == (HUB_1, "hub")

    def test_of_another_member_can_be_paid(self, house: House) -> None:
        tx = house.pay(7, dst="barn/3")
        assert tx.outputs[0].account == base32(lane_account(node_id_bytes(BARN.node_id), 3))

    def test_of_another_member_has_its_name_once_it_has_signed(self, house: House) -> None:
        lane = base32(lane_account(node_id_bytes(BARN.node_id), 3))
        house.pay(10_000, dst="barn/3")
        house.turn()
        assert house.balance(lane).name == ""
        made = create(house, src="barn/3", dst="hub")
        send(house, made.body, BARN.sign(digest_of(TX_KIND, house.directory.salt, made.body)))
        house.turn()
        assert house.balance(lane).name == "barn/3"
        assert {tx.src_name for tx in house.history()} == {"hub", "barn/3"}

    @pytest.mark.parametrize("name", ["/x", "/1025", "/-1", "hub/", "/1/2", "/٣"])
    def test_a_wrong_name_says_what_is_allowed(self, house: House, name: str) -> None:
        with pytest.raises(InvalidRequest, match="a lane's number is needed, 0 to 1024"):
            house.balance(name)

    def test_of_nobody_known_is_not_found(self, house: House) -> None:
        with pytest.raises(NotFound):
            house.balance("nobody/1")

    @pytest.mark.parametrize(
        ("count", "fund", "field"),
        [(0, 0, "count"), (LANES_MAX + 1, 0, "count"), (1, AMOUNT_MAX // LANES_MAX + 1, "fund_micro")],
    )
    def test_too_many_and_too_much_are_refused(self, house: House, count: int, fund: int, field: str) -> None:
        with pytest.raises(InvalidRequest, match=f"{field}: .* allowed"):
            open_lanes(house, count, fund)


class TestByHand:
    def test_is_made_signed_and_sent_in_steps(self, house: House) -> None:
        made = create(house, meta={"invoice": "17"})
        tx = Tx.decode(made.body)
        assert (tx.seq, tx.fee_micro, tx.request) == (0, FEE_MICRO_DEFAULT, BY_HAND)
        assert (made.mesh_id, made.transaction.src_name) == (house.directory.mesh_id, "hub")
        assert made.transaction.outputs[0].name == "barn"
        assert house.history() == []
        signed = sign(house, made.body)
        assert (signed.transaction.state, signed.transaction.unsent) == (SIGNED, True)
        assert [found.unsent for found in house.history(open=True)] == [True]
        house.turn()
        sent = send(house, made.body, signed.signed.signature)
        assert not sent.unsent
        house.turn()
        assert house.tx(signed.transaction.tx_id).state == FINAL

    def test_of_a_lane_it_names_the_lane(self, house: House) -> None:
        open_lanes(house, 1, 10_000)
        house.turn()
        tx = Tx.decode(create(house, src="/1").body)
        assert tx.source == LaneSource(node_id_bytes(NODE.node_id), 1)

    def test_of_another_member_is_signed_with_its_key_elsewhere(self, house: House) -> None:
        made = create(house, src="barn", dst="hub")
        with pytest.raises(InvalidRequest, match="no account of this node's"):
            sign(house, made.body)
        digest = digest_of(TX_KIND, house.directory.salt, made.body)
        sent = send(house, made.body, BARN.sign(digest))
        assert (sent.tx_id, sent.src_name) == (base32(digest), "barn")
        house.turn()
        assert house.balance("barn").final_micro == START_MICRO - 5 - FEE_MICRO_DEFAULT
        assert unbase32(sent.tx_id) == digest

    def test_of_a_member_that_is_up_is_refused(self, house: House) -> None:
        made = create(house, src="barn", dst="hub")
        signature = BARN.sign(digest_of(TX_KIND, house.directory.salt, made.body))
        house.handlers._machine().reach.on_peer_up(BARN.node_id)
        with pytest.raises(FailedPrecondition, match="send it there") as refused:
            send(house, made.body, signature)
        assert refused.value.reason == "OwnerIsUp"

    def test_of_a_lane_of_this_node_that_is_not_open_here_it_is_taken_in(self, house: House) -> None:
        house.pay(10_000, dst="hub/7")
        house.turn()
        made = create(house, src="hub/7")
        sent = send(house, made.body, NODE.sign(digest_of(TX_KIND, house.directory.salt, made.body)))
        house.turn()
        assert house.tx(sent.tx_id).state == FINAL

    def test_with_anothers_signature_is_refused(self, house: House) -> None:
        made = create(house, src="barn", dst="hub")
        digest = digest_of(TX_KIND, house.directory.salt, made.body)
        for signature in (NODE.sign(digest), bytes(64), b""):
            with pytest.raises(InvalidRequest, match=r"signed\.signature: it is not by the key of"):
                send(house, made.body, signature)

    def test_what_is_no_transaction_is_refused_by_field(self, house: House) -> None:
        with pytest.raises(InvalidRequest, match=r"^body: "):
            sign(house, b"\x01")
        with pytest.raises(InvalidRequest, match=r"^signed\.body: "):
            send(house, b"", bytes(64))

    def test_a_fee_below_the_least_is_refused_when_it_is_made(self, house: House) -> None:
        with pytest.raises(InvalidRequest, match="no less than 1000") as refused:
            create(house, fee_micro=999)
        assert refused.value.reason == "FeeTooLow"

    def test_of_an_account_whose_owner_is_not_known_is_refused(self, house: House) -> None:
        house.pay(7, dst="barn/3")
        house.turn()
        with pytest.raises(InvalidRequest, match="name its owner"):
            create(house, src=base32(lane_account(node_id_bytes(BARN.node_id), 3)))


class TestCreditLines:
    def test_are_set_and_listed_by_name(self, house: House) -> None:
        request = ledger_pb2.SetCreditLineRequest(payer="barn", amount_micro=50)
        line = house.ask("set_credit_line", request).line
        assert (line.payer_name, line.amount_micro, line.used_micro) == ("barn", 50, 0)
        (listed,) = house.ask("list_credit_lines", ledger_pb2.ListCreditLinesRequest()).lines
        assert listed == line

    @pytest.mark.parametrize(
        ("payer", "amount", "words"),
        [("hub", 5, "this node itself"), ("/1", 5, "this node itself"), ("barn", AMOUNT_MAX + 1, "0 .none. to")],
    )
    def test_a_wrong_one_is_refused(self, house: House, payer: str, amount: int, words: str) -> None:
        with pytest.raises(InvalidRequest, match=words):
            house.ask("set_credit_line", ledger_pb2.SetCreditLineRequest(payer=payer, amount_micro=amount))


OFF: dict[str, Any] = {
    "create_transaction": ledger_pb2.CreateTransactionRequest(dst="barn", amount_micro=5),
    "sign_transaction": ledger_pb2.SignTransactionRequest(),
    "send_transaction": ledger_pb2.SendTransactionRequest(),
    "get_wallet": ledger_pb2.GetWalletRequest(),
    "open_lanes": ledger_pb2.OpenLanesRequest(count=1),
    "unlock_slot": ledger_pb2.UnlockSlotRequest(),
    "set_credit_line": ledger_pb2.SetCreditLineRequest(payer="barn", amount_micro=5),
    "list_credit_lines": ledger_pb2.ListCreditLinesRequest(),
    "list_balances": ledger_pb2.ListBalancesRequest(),
}


@pytest.mark.parametrize("method", OFF)
def test_with_the_economy_off_each_says_so(method: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"economy\.enabled") as refused:
        House(enabled=False).ask(method, OFF[method])
    assert refused.value.reason == "EconomyOff"


def test_status_says_how_much_weight_is_in_reach(house: House) -> None:
    house = House()
    house.open("hub", "barn")
    status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
    assert (status.reach_milli, status.quorum_milli) == (1_000, 1_334)
    assert {one.name: one.away_ms > 0 for one in status.witnesses} == {"hub": False, "barn": True}
    house.handlers._machine().step([PeerUp(BARN.node_id, "barn", frozenset())], house.now(), Random(5))
    status = house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest())
    assert status.reach_milli == 2_000
