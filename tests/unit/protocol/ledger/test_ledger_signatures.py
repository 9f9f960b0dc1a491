"""Signatures of the ledger, by real keys: one form of each, and none by a key that could vouch for anything.

RFC 8032 leaves room that verifiers fill differently. Two of a form would give one block two names on the wire; a key of
small order would sign what nobody wrote.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from nacl.bindings import crypto_core_ed25519_scalar_reduce, crypto_scalarmult_ed25519_base_noclamp
from signed_ledger import LEDGER, TX, papers_of, receipt_of, shown, written
from signed_receipts import GENESIS, HOST, OTHER

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block, seal_block
from offgrid_node.protocol.ledger.items import (
    Claim,
    Item,
    Report,
    SignedHeader,
    TxItem,
    Unlock,
    decode_item,
    double_of,
    fork_of,
)
from offgrid_node.protocol.ledger.papers import check_receipt
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.records import HEADER_KIND, TX_KIND, Header, Tx, noop_digest, unlock_digest
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource
from offgrid_node.protocol.signing import digest_of

SALT = bytes(range(16))
L = 2**252 + 27742317777372353535851937790883648493  # the order of the group: S and S + L are one to a lax verifier
KEY, PEER = NodeKey(b"k" * 32), NodeKey(b"p" * 32)
OWN, PAYEE = node_id_bytes(KEY.node_id), node_id_bytes(PEER.node_id)
P = 2**255 - 19
Y_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = [
    (y | sign << 255).to_bytes(32, "little") for y in (0, 1, P - 1, Y_8, P - Y_8, P, P + 1) for sign in (0, 1)
]


def larger(signature: bytes) -> bytes:
    """The same signature with S + L, which still fits into 32 bytes."""
    scalar = int.from_bytes(signature[32:], "little") + L
    return signature[:32] + scalar.to_bytes(32, "little")


def holds(claim: Claim) -> bool:
    keys = {key.node_id: key.public_key for key in (KEY, PEER)}
    return verify(keys[claim.signer], claim.digest, claim.signature)


def tx_item(amount: int = 5) -> TxItem:
    tx = Tx(NodeSource(OWN), 0, bytes(32), 1_000, ((PAYEE, amount),))
    digest = tx.digest(SALT)
    return TxItem(tx, tx.encode(), KEY.sign(digest), digest)


def unlock() -> Unlock:
    digest = unlock_digest(SALT, OWN, 3)
    return Unlock(NodeSource(OWN), 3, KEY.sign(digest), digest)


def header(number: int) -> SignedHeader:
    made = Header(OWN, 4, bytes(32), (), 0, bytes((number,)) * 32, 1, 9)
    digest = digest_of(HEADER_KIND, SALT, made.encode())
    return SignedHeader(made, made.encode(), KEY.sign(digest), digest)


def block_of(*items: Item) -> CheckedBlock:
    return seal_block(PAYEE, 1, bytes(32), (), items, 7, PEER, SALT)


ITEMS: dict[str, Item] = {
    "a transaction": tx_item(),
    "two transactions": double_of(tx_item(), tx_item(6)),
    "an unlock": unlock(),
    "two headers": fork_of(header(1), header(2)),
}


# ---- one signature, one form


@pytest.mark.parametrize("case", ITEMS)
def test_a_block_with_a_signature_in_another_form_is_refused(case: str) -> None:
    item = ITEMS[case]
    assert check_block(ledger_pb2.Block.FromString(block_of(item).raw), SALT, holds).items == (item,)
    signature = getattr(item, "signature", None) or item.first.signature  # type: ignore[union-attr]
    encoded = item.encode()
    assert encoded.count(signature) == 1
    malleable = encoded.replace(signature, larger(signature))
    sealed = block_of(decode_item(malleable, SALT))
    with pytest.raises(PeerFault, match="an item is not signed by"):
        check_block(ledger_pb2.Block.FromString(sealed.raw), SALT, holds)


def test_so_is_one_whose_own_is() -> None:
    block = ledger_pb2.Block.FromString(block_of(tx_item()).raw)
    block.header.signature = larger(block.header.signature)
    with pytest.raises(PeerFault, match="the signature is not its author's"):
        check_block(block, SALT, holds)


def test_so_is_a_light_receipt() -> None:
    receipt, papers = receipt_of(HOST, OTHER), written(papers_of())
    assert check_receipt(receipt.encode(), shown(), papers, verify).valid
    other = replace(receipt, signatures=(larger(receipt.signatures[0]), receipt.signatures[1]))
    assert not check_receipt(other.encode(), shown(), papers, verify).valid


# ---- no key of small order


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_nothing_of_the_ledger_is_signed_by_a_key_of_small_order(key: bytes) -> None:
    scalar = crypto_core_ed25519_scalar_reduce(digest_of(TX_KIND, SALT, key) * 2)
    commitments = [*SMALL_ORDER, crypto_scalarmult_ed25519_base_noclamp(scalar)]
    final = Final(LEDGER.digest(GENESIS.salt), TX.src, TX.seq, TX.digest(GENESIS.salt))
    digests = [tx_item().digest, unlock().digest, header(1).digest, final.digest(GENESIS.salt)]
    signatures = [commitment + s for commitment in commitments for s in (scalar, bytes(32))]
    assert not any(verify(key, digest, signature) for digest in digests for signature in signatures)


@pytest.mark.parametrize("commitment", SMALL_ORDER, ids=bytes.hex)
def test_nothing_is_signed_with_a_commitment_of_small_order(commitment: bytes) -> None:
    assert not verify(KEY.public_key, tx_item().digest, commitment + bytes(32))


# ---- golden vectors: what is signed never changes


def test_evidence_unlocks_and_reports_have_these_bytes() -> None:
    one, other = tx_item(), tx_item(6)
    body, second = one.body.hex(), other.body.hex()
    assert body == "0100" + OWN.hex() + "00" * 8 + "00" * 32 + "00000000000003e801" + PAYEE.hex() + (
        "00000000000000050000" + "00" * 16
    )
    size = f"{len(one.body):04x}"
    assert double_of(other, one).encode().hex() == (
        "05" + size + body + one.signature.hex() + size + second + other.signature.hex()
    )
    first, second = header(1).body.hex(), header(2).body.hex()
    assert first == "01" + OWN.hex() + "0000000000000004" + "00" * 32 + "0000000000" + "01" * 32 + (
        "000000010000000000000009"
    )
    size = f"{len(header(1).body):04x}"
    assert fork_of(header(2), header(1)).encode().hex() == (
        "04" + size + first + header(1).signature.hex() + size + second + header(2).signature.hex()
    )
    assert unlock().encode().hex() == "07" + unlock().signature.hex() + "00" + OWN.hex() + "0000000000000003"
    report = Report(OWN, 3, 2, 1, b"\x09" * 32)
    assert report.encode().hex() == "08" + OWN.hex() + "00000000000000030000000200000001" + "09" * 32


def test_digests_are_of_these_bodies_and_no_others() -> None:
    slot = bytes.fromhex("01") + OWN + bytes(7) + b"\x03"
    assert unlock().digest == digest_of(b"og.unlock.v1", SALT, slot)
    assert noop_digest(SALT, OWN, 3) == digest_of(b"og.noop.v1", SALT, slot)
    lane = Tx(LaneSource(OWN, 300, 2), 0, bytes(32), 0, ((PAYEE, 1),))
    assert lane.encode().hex().startswith("0101" + OWN.hex() + "012c0002")
    assert tx_item().digest.hex() == "1d6f27ae4f60148f0279ead1ccbb81597663638bf85ac5ee56613a5beae88664"
    assert unlock().digest.hex() == "dc9b18100e8e2f1ab8839e974fd0911da1b7b71795a2a06ab84107fd5f18703d"
    assert lane.digest(SALT).hex() == "32e59037c6fc39a49b48ba2d8eb46d8759c2b7d525f72f4ad17d99ccea455199"
