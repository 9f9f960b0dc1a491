"""Signatures for the simulator: keyed hashes under the public key. Nobody in here forges, so they hold as well as
Ed25519 and cost a fiftieth."""

from __future__ import annotations

import hashlib
import hmac

from offgrid_node.protocol.ids import node_id_of


def _tag(public_key: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(digest, digest_size=64, key=public_key, person=b"og.sim.sign").digest()


class SimSigner:
    """A node's key, made from its number."""

    def __init__(self, name: str) -> None:
        self.public_key = hashlib.blake2b(name.encode(), digest_size=32, person=b"og.sim.key").digest()
        self.node_id = node_id_of(self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return _tag(self.public_key, digest)


def sim_verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(signature, _tag(public_key, digest))


def sim_certificate(signer: SimSigner) -> bytes:
    """Stands for the identity certificate: the key itself behind a mark."""
    return b"sim-cert:" + signer.public_key


def sim_check_certificate(certificate: bytes) -> bytes:
    return certificate.removeprefix(b"sim-cert:")
