"""Many bodies under one signature: the leaves of a Merkle tree, whose root and number are what is signed.

Orders go to brokers and hosts so, receipts come back so: a signature and its check cost as much as forty bodies do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.merkle import root_of, tree_of
from offgrid_node.protocol.signing import digest_of


@dataclass(frozen=True, slots=True)
class BatchKind:
    """Personalisations of the leaves and of what is signed over their root."""

    leaf: bytes
    root: bytes

    def leaf_digest(self, salt: bytes, body: bytes) -> bytes:
        return digest_of(self.leaf, salt, body)

    def root_digest(self, salt: bytes, count: int, root: bytes) -> bytes:
        return digest_of(self.root, salt, count.to_bytes(4, "big") + root)

    def sign(self, bodies: Sequence[bytes], signer: Signer, salt: bytes) -> bytes:
        """One signature over all of them, in their order; empty for none."""
        if not bodies:
            return b""
        root = root_of([digest_of(self.leaf, salt, body) for body in bodies])
        return signer.sign(self.root_digest(salt, len(bodies), root))

    def check(
        self, bodies: Sequence[bytes], signature: bytes, public_key: bytes, verify: Verifier, salt: bytes
    ) -> list[list[bytes]]:
        """Each body's path to the root that `public_key` signed. Raises PeerFault (BadSignature)."""
        if not bodies:
            return []
        root, paths = tree_of([digest_of(self.leaf, salt, body) for body in bodies])
        if not verify(public_key, self.root_digest(salt, len(bodies), root), signature):
            raise PeerFault("the signature over these bodies is not their sender's", reason="BadSignature")
        return paths
