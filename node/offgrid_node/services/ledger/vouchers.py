"""What a payer delivers, checked before the machine sees it: whose it is, that its terms allow it, and who signed."""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied, Unavailable
from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes
from offgrid_node.protocol.ledger.commands import VOUCHERS_MAX
from offgrid_node.protocol.ledger.given import BOOKINGS_MAX
from offgrid_node.protocol.ledger.records import DIGEST_BYTES
from offgrid_node.protocol.ledger.sources import HoldTerms, Voucher
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.signing import SIGNATURE_BYTES

Checked = tuple[tuple[HoldTerms, ledger_pb2.HoldVoucher], ...]


def checked_vouchers(
    request: ledger_pb2.DeliverVouchersRequest,
    sender: str,
    own: str,
    fee_micro: int,
    directory: Directory,
    verify: Verifier,
) -> Checked:
    """`fee_micro` is the ledger's least: the end of a hold of less would find no witness. Raises InvalidRequest,
    PermissionDenied, PeerFault; Unavailable where the payer's key is not known here yet."""
    if len(request.vouchers) > VOUCHERS_MAX:
        raise InvalidRequest.field("vouchers", f"{len(request.vouchers)}; at most {VOUCHERS_MAX} in one call")
    return tuple(
        (_checked(number, voucher, sender, own, fee_micro, directory, verify), voucher)
        for number, voucher in enumerate(request.vouchers)
    )


def checked_asked(request: ledger_pb2.DeliverVouchersRequest) -> tuple[bytes, ...]:
    """Raises InvalidRequest."""
    if len(request.asked) > VOUCHERS_MAX:
        raise InvalidRequest.field("asked", f"{len(request.asked)}; at most {VOUCHERS_MAX} in one call")
    for number, hold in enumerate(request.asked):
        if len(hold) != NODE_ID_BYTES:
            raise InvalidRequest.field(f"asked[{number}]", f"{len(hold)} bytes; an account has {NODE_ID_BYTES}")
    return tuple(request.asked)


def _checked(
    number: int,
    said: ledger_pb2.HoldVoucher,
    sender: str,
    own: str,
    fee_micro: int,
    directory: Directory,
    verify: Verifier,
) -> HoldTerms:
    said.DiscardUnknownFields()  # nobody has signed them, and what is good is kept
    field, terms = f"vouchers[{number}]", HoldTerms.decode(said.terms)
    if terms.payer != node_id_bytes(sender):
        raise PermissionDenied(f"{field}: the payer of a hold delivers its vouchers, and {sender} is not")
    if terms.payee != node_id_bytes(own):
        raise InvalidRequest.field(f"{field}.terms", "another node is the payee of that hold")
    if terms.fee_micro < fee_micro:
        raise InvalidRequest.field(
            f"{field}.terms", f"a fee of {terms.fee_micro} for its end; this ledger takes no less than {fee_micro}"
        )
    if said.amount_micro > terms.room_micro:
        raise InvalidRequest.field(f"{field}.amount_micro", f"{said.amount_micro}; 0 to {terms.room_micro} are allowed")
    if said.count > BOOKINGS_MAX or bool(said.count) != bool(said.amount_micro):
        raise InvalidRequest.field(
            f"{field}.count", f"{said.count} for {said.amount_micro}; 1 to {BOOKINGS_MAX}, and 0 for 0, are allowed"
        )
    if (len(said.root), len(said.signature)) != (DIGEST_BYTES, SIGNATURE_BYTES):
        raise InvalidRequest.field(
            field, f"a root of {DIGEST_BYTES} bytes and a signature of {SIGNATURE_BYTES} are allowed"
        )
    key = directory.key_at(sender, number=terms.key)
    if key is None:
        raise Unavailable(f"key {terms.key} of {sender} is not known here yet", reason="UnknownSigner")
    voucher = Voucher(terms.account, said.amount_micro, said.count, said.root)
    if not verify(key, voucher.digest(directory.salt), said.signature):
        raise InvalidRequest.field(f"{field}.signature", f"it is not {sender}'s, by its key {terms.key}")
    return terms
