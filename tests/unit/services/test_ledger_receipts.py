"""Light receipts at a node: what a witness signs, what it never does, and how enough signatures are gathered."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message
from ledger_house import BARN, NODE, House

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.ids import node_id_bytes, unbase32
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.receipts import Final, LightReceipt, receipt_of_text
from offgrid_node.protocol.mesh.records import ROLES_ALL
from offgrid_node.services.caller import Caller, Kind

PEER = Caller(Kind.MEMBER, BARN.node_id, ROLES_ALL)


def sign(house: House, digest: bytes) -> Message | Fault:
    try:
        answer: Message = house.ask("sign_final", ledger_pb2.SignFinalRequest(tx_digest=digest), PEER)
    except Fault as fault:
        return fault
    return answer


def final_of(house: House, tx: ledger_pb2.Transaction, **other: int) -> bytes:
    said = Final(house.handlers._reads.ledger, node_id_bytes(tx.src), other.get("seq", tx.seq), unbase32(tx.tx_id))
    return said.digest(house.directory.salt)


def by(key: NodeKey, house: House, tx: ledger_pb2.Transaction, **other: int) -> ledger_pb2.SignFinalResponse:
    return ledger_pb2.SignFinalResponse(signature=key.sign(final_of(house, tx, **other)))


def receipt(house: House, tx_id: str) -> ledger_pb2.GetReceiptResponse:
    found: ledger_pb2.GetReceiptResponse = house.ask("get_receipt", ledger_pb2.GetReceiptRequest(tx_id=tx_id))
    return found


class TestAWitness:
    def test_signs_what_is_final_here(self) -> None:
        house = House()
        house.open()
        tx = house.tx(house.pay().tx_id)
        assert tx.state == ledger_pb2.TX_STATE_FINAL
        assert sign(house, unbase32(tx.tx_id)) == by(NODE, house, tx)

    def test_signs_nothing_that_is_not(self) -> None:
        house = House()
        house.open("hub", "barn")
        fault = sign(house, unbase32(house.pay().tx_id))
        assert isinstance(fault, FailedPrecondition)
        assert fault.reason == "NotFinal"
        unknown = sign(house, bytes(32))
        assert isinstance(unknown, NotFound)
        assert unknown.reason == "TransactionNotFound"
        assert isinstance(sign(house, bytes(31)), InvalidRequest)

    def test_signs_nothing_once_it_is_muted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        house = House()
        house.open()
        tx = house.pay()
        monkeypatch.setattr(LedgerMachine, "muted_why", "it was restored, and learns")
        fault = sign(house, unbase32(tx.tx_id))
        assert isinstance(fault, FailedPrecondition)
        assert (fault.reason, "learns" in fault.message) == ("Muted", True)

    def test_is_whom_the_genesis_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        house = House()
        house.open("barn")
        fault = sign(house, unbase32(house.pay().tx_id))
        assert isinstance(fault, FailedPrecondition)
        assert fault.reason == "NoWitness"


class TestAReceipt:
    def test_has_the_signatures_that_are_enough_and_no_more(self) -> None:
        house = House()
        house.open()
        tx = house.pay()
        found = receipt(house, tx.tx_id[:12])
        light = LightReceipt.decode(found.receipt)
        assert light == LightReceipt(0, 1, (NODE.sign(final_of(house, tx)),)) == receipt_of_text(found.text)
        assert ([witness.name for witness in found.witnesses], found.tx_id) == (["hub"], tx.tx_id)

    def test_asks_the_next_where_one_is_silent_or_lies(self) -> None:
        house = House()
        house.open("hub", "barn")
        tx = house.pay()
        house.answers[BARN.node_id] = by(BARN, house, tx)
        found = receipt(house, tx.tx_id)
        assert LightReceipt.decode(found.receipt).signatures == (BARN.sign(final_of(house, tx)),)
        assert [node for node, _, _ in house.asked] == [NODE.node_id, BARN.node_id]

    @pytest.mark.parametrize("case", ["silent", "another's key", "another slot", "another epoch"])
    def test_is_refused_with_what_each_said_where_too_few_sign(self, case: str) -> None:
        house = House()
        house.open("hub", "barn")
        tx = house.pay()
        answers = {
            "another's key": by(NODE, house, tx),
            "another slot": by(BARN, house, tx, seq=tx.seq + 1),
            "another epoch": ledger_pb2.SignFinalResponse(epoch=1, signature=by(BARN, house, tx).signature),
        }
        if case in answers:
            house.answers[BARN.node_id] = answers[case]
        with pytest.raises(Unavailable, match=r"weigh 0\.0 of 0\.667 .* hub: .* is not final here; barn: ") as raised:
            receipt(house, tx.tx_id)
        assert raised.value.reason == "TooFewWitnesses"

    def test_is_not_asked_for_where_nothing_is_signed(self) -> None:
        house = House()
        house.open("barn")
        house.pay()
        with pytest.raises(FailedPrecondition) as raised:
            receipt(house, house.pay().tx_id)
        assert raised.value.reason == "NotFinal"
        assert house.asked == []
