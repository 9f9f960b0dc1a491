"""What a caller writes of a payment, checked: whose money it is, whom it pays, how much, and with what meta."""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.records import AMOUNT_MAX, Tx, encode_meta
from offgrid_node.protocol.ledger.refusals import wrong_amount
from offgrid_node.services.ledger.naming import AccountNames


def own_account(names: AccountNames, field: str, text: str) -> str:
    account = names.account(field, text, removed=True)
    if account not in (own := names.own()):
        raise InvalidRequest.field(
            field,
            f"{text!r} is no account of this node's, which holds only its own key and has {len(own) - 1} lanes; "
            "pay from there",
        )
    return account


def payment(
    names: AccountNames, request: ledger_pb2.CreateTransferRequest | ledger_pb2.CreateTransactionRequest, src: bytes
) -> tuple[tuple[tuple[bytes, int], ...], bytes]:
    """Outputs and meta."""
    if not request.dst:
        raise InvalidRequest.field("dst", "say whom to pay: a member's name or id, or NODE/LANE")
    dst = node_id_bytes(names.account("dst", request.dst))
    if dst == src:
        raise InvalidRequest.field("dst", f"{request.dst!r} is the account that pays; another one is allowed")
    _check_amounts(request.amount_micro, request.fee_micro)
    try:
        return ((dst, request.amount_micro),), encode_meta(request.meta)
    except ValueError as error:
        raise InvalidRequest.field("meta", str(error)) from error


def decoded(field: str, body: bytes) -> Tx:
    try:
        return Tx.decode(body)
    except PeerFault as fault:
        raise InvalidRequest.field(field, fault.message) from fault


def _check_amounts(amount_micro: int, fee_micro: int) -> None:
    if not 0 < amount_micro <= AMOUNT_MAX:
        raise InvalidRequest.field("amount_micro", f"{amount_micro}; 1 to {AMOUNT_MAX} are allowed")
    if amount_micro + fee_micro > AMOUNT_MAX:
        allowed, total = f"{fee_micro}; with the amount at most {AMOUNT_MAX} are allowed", amount_micro + fee_micro
        raise wrong_amount("fee_micro", allowed, "AmountTooLarge", total_micro=total, most_micro=AMOUNT_MAX)
