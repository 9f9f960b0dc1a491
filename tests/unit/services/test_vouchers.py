"""What a node checks of a voucher before its machine sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ledger_house import BARN, GONE, NODE, House
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import Fault, InvalidRequest, PeerFault, PermissionDenied, Unavailable
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.commands import VOUCHERS_MAX
from offgrid_node.protocol.ledger.given import BOOKINGS_MAX
from offgrid_node.protocol.ledger.sources import HoldTerms, Voucher
from offgrid_node.services.ledger.vouchers import Checked, checked_asked, checked_vouchers

FEE, ROOT = 10, bytes(range(32))
TERMS = HoldTerms(node_id_bytes(BARN.node_id), node_id_bytes(NODE.node_id), 1, 1_000, FEE, 2**50)
HOUSE = House()


def voucher(terms: HoldTerms = TERMS, amount: int = 500, count: int = 2, by: NodeKey = BARN) -> ledger_pb2.HoldVoucher:
    digest = Voucher(terms.account, amount, count, ROOT).digest(HOUSE.directory.salt)
    return ledger_pb2.HoldVoucher(
        terms=terms.encode(), amount_micro=amount, count=count, root=ROOT, signature=by.sign(digest)
    )


def check(*vouchers: ledger_pb2.HoldVoucher, sender: NodeKey = BARN) -> Checked:
    request = ledger_pb2.DeliverVouchersRequest(vouchers=vouchers)
    return checked_vouchers(request, sender.node_id, NODE.node_id, FEE, HOUSE.directory, verify)


def test_a_good_one_is_handed_on_with_its_terms() -> None:
    good = voucher()
    assert check(good) == ((TERMS, good),)


def test_one_over_nothing_may_ask_for_the_end() -> None:
    question = voucher(amount=0, count=0)
    assert check(question) == ((TERMS, question),)


def cut(field: str) -> Callable[[ledger_pb2.HoldVoucher], None]:
    return lambda said: setattr(said, field, getattr(said, field)[:-1])


@pytest.mark.parametrize(
    ("said", "fault", "why"),
    [
        (voucher(replace(TERMS, payer=node_id_bytes(GONE.node_id))), PermissionDenied, "the payer of a hold delivers"),
        (voucher(replace(TERMS, payee=node_id_bytes(GONE.node_id))), InvalidRequest, "another node is the payee"),
        (voucher(replace(TERMS, fee_micro=FEE - 1)), InvalidRequest, "no less than 10"),
        (voucher(amount=0), InvalidRequest, "0 for 0"),
        (voucher(amount=991), InvalidRequest, "0 to 990 are allowed"),
        (voucher(count=0), InvalidRequest, f"1 to {BOOKINGS_MAX}"),
        (voucher(count=BOOKINGS_MAX + 1), InvalidRequest, f"1 to {BOOKINGS_MAX}"),
        (voucher(replace(TERMS, key=1)), Unavailable, "key 1 of"),
        (voucher(by=NODE), InvalidRequest, "is not"),
    ],
)
def test_a_bad_one_is_refused_by_name(said: ledger_pb2.HoldVoucher, fault: type[Fault], why: str) -> None:
    with pytest.raises(fault, match=why) as caught:
        check(voucher(), said)
    assert "vouchers[1]" in str(caught.value) or fault is Unavailable


@pytest.mark.parametrize(
    ("field", "fault"), [("root", InvalidRequest), ("signature", InvalidRequest), ("terms", PeerFault)]
)
def test_one_that_is_cut_short_is_refused(field: str, fault: type[Fault]) -> None:
    said = voucher()
    cut(field)(said)
    with pytest.raises(fault):
        check(said)


def test_more_than_a_call_may_carry_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=f"at most {VOUCHERS_MAX}"):
        check(*[voucher()] * (VOUCHERS_MAX + 1))


def test_a_question_names_accounts_and_not_too_many() -> None:
    holds = [bytes([number] * 20) for number in range(VOUCHERS_MAX)]
    assert checked_asked(ledger_pb2.DeliverVouchersRequest(asked=holds)) == tuple(holds)
    with pytest.raises(InvalidRequest, match=f"asked: 65; at most {VOUCHERS_MAX}"):
        checked_asked(ledger_pb2.DeliverVouchersRequest(asked=[*holds, holds[0]]))
    with pytest.raises(InvalidRequest, match=r"asked\[1\]: 19 bytes; an account has 20"):
        checked_asked(ledger_pb2.DeliverVouchersRequest(asked=[holds[0], bytes(19)]))
