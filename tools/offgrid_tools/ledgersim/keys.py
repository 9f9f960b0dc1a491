"""Names and keys of simulated members. Signatures cannot be forged by construction: a keyed hash stands for Ed25519,
and nobody calls the signer of another."""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.items import Claim, TxItem
from offgrid_node.protocol.ledger.records import TX_KIND, Tx
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.signing import digest_of

SALT = bytes(range(16))  # the mesh's
FEE = 10
START_MICRO = 1_000_000


def name_of(number: int) -> str:
    return base32(blake2b(number.to_bytes(4, "big"), digest_size=20).digest())


class Key(msgspec.Struct, frozen=True, dict=True):
    """A `Signer`."""

    node_id: str

    @cached_property
    def public_key(self) -> bytes:
        return node_id_bytes(self.node_id)

    def wrapping_key(self, number: int) -> WrappingKey:
        return WrappingKey(number, self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return blake2b(digest, digest_size=64, key=self.public_key).digest()


def holds(claim: Claim) -> bool:
    """Whether the signature is its signer's."""
    return Key(claim.signer).sign(claim.digest) == claim.signature


def sign_tx(tx: Tx) -> TxItem:
    """As its owner does."""
    body = tx.encode()
    digest = digest_of(TX_KIND, SALT, body)
    return TxItem(tx, body, Key(base32(tx.source.signer)).sign(digest), digest)


class Checks:
    """What every handler does with a block, once for a block however often it comes."""

    def __init__(self) -> None:
        self._checked: dict[bytes, CheckedBlock] = {}

    def __call__(self, block: ledger_pb2.Block) -> CheckedBlock:
        """Raises PeerFault."""
        raw = block.SerializeToString()
        if raw not in self._checked:
            self._checked[raw] = check_block(block, SALT, holds)
        return self._checked[raw]
