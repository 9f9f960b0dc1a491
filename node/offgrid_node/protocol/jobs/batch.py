"""Many bodies under one signature: the leaves of a Merkle tree, whose root and number are what is signed.

Orders go to brokers and hosts so, receipts come back so: a signature and its check cost as much as forty bodies do.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.merkle import root_of, tree_of
from offgrid_node.protocol.signing import digest_of


class BatchKind(msgspec.Struct, frozen=True):
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
    ) -> None:
        """Raises PeerFault (BadSignature) unless `public_key` has signed all of them, in this order."""
        if bodies:
            root = root_of([digest_of(self.leaf, salt, body) for body in bodies])
            self._check_root(root, len(bodies), signature, public_key, verify, salt)

    def check_paths(
        self, bodies: Sequence[bytes], signature: bytes, public_key: bytes, verify: Verifier, salt: bytes
    ) -> list[list[bytes]]:
        """The same, and each body's path to the root, for those that are to stand alone: it costs as much again."""
        if not bodies:
            return []
        root, paths = tree_of([digest_of(self.leaf, salt, body) for body in bodies])
        self._check_root(root, len(bodies), signature, public_key, verify, salt)
        return paths

    def _check_root(
        self, root: bytes, count: int, signature: bytes, public_key: bytes, verify: Verifier, salt: bytes
    ) -> None:
        if not verify(public_key, self.root_digest(salt, count, root), signature):
            raise PeerFault("the signature over these bodies is not their sender's", reason="BadSignature")
