"""Signatures, certificates and seals for the simulator: keyed hashes under the public key.

A node that lies (`liar.py`) signs with its own key only, so they hold as well as Ed25519 and cost a fiftieth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES, NUMBER_BYTES, WrappingKey

SEAL_BYTES = 16
_CERTIFICATE = b"sim-cert:"


def _tag(public_key: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(digest, digest_size=64, key=public_key, person=b"og.sim.sign").digest()


class SimSigner:
    """A node's key, made from its name."""

    def __init__(self, name: str) -> None:
        self.public_key = hashlib.blake2b(name.encode(), digest_size=32, person=b"og.sim.key").digest()
        self.node_id = node_id_of(self.public_key)

    def sign(self, digest: bytes) -> bytes:
        return _tag(self.public_key, digest)

    def wrapping_key(self, number: int) -> WrappingKey:
        if number == 0:
            return WrappingKey(0, self.public_key)
        salt = number.to_bytes(16, "big")
        key = hashlib.blake2b(self.public_key, digest_size=32, salt=salt, person=b"og.sim.wrapkey").digest()
        return WrappingKey(number, key)


def sim_verify(public_key: bytes, digest: bytes, signature: bytes) -> bool:
    return len(public_key) == 32 and signature == _tag(public_key, digest)


def sim_certificate(signer: SimSigner) -> bytes:
    """Stands for the identity certificate: the key itself behind a mark."""
    return _CERTIFICATE + signer.public_key


def sim_check_certificate(certificate: bytes) -> bytes:
    if not certificate.startswith(_CERTIFICATE):
        raise InvalidRequest.field("certificate", "none of the simulator's")
    return certificate.removeprefix(_CERTIFICATE)


def sim_seal(secret: bytes, context: bytes, data: bytes) -> bytes:
    return _seal_tag(secret, context, data) + data


def sim_open(secret: bytes, context: bytes, data: bytes) -> bytes:
    if data[:SEAL_BYTES] != _seal_tag(secret, context, data[SEAL_BYTES:]):
        raise PermissionDenied("the seal does not open", reason="BadSeal")
    return data[SEAL_BYTES:]


def _seal_tag(secret: bytes, context: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(context + data, digest_size=SEAL_BYTES, key=secret, person=b"og.sim.seal").digest()


class SimWraps:
    """Key wraps that only the holder of a wrapping key opens, as far as anybody here plays by the rules."""

    def __init__(self, signer: SimSigner) -> None:
        self._signer = signer

    def wrap(self, reader: WrappingKey, secrets: Sequence[tuple[bytes, bytes]], entropy: bytes) -> list[bytes]:
        return [reader.label + entropy + sim_seal(reader.key, use, secret[::-1]) for secret, use in secrets]

    def unwrap(self, wrapped: bytes, use: bytes) -> bytes:
        own = self._signer.wrapping_key(int.from_bytes(wrapped[:NUMBER_BYTES], "big"))
        return sim_open(own.key, use, wrapped[LABEL_BYTES + 32 :])[::-1]

    def seal_note(self, note: bytes, use: bytes) -> bytes:
        return sim_seal(self._signer.public_key, b"note" + use, note[::-1])

    def open_note(self, sealed: bytes, use: bytes) -> bytes:
        return sim_open(self._signer.public_key, b"note" + use, sealed)[::-1]


class SimLetters:
    """Letters that only the holder of a public key opens, under the same rules; bound to what they are for."""

    def __init__(self, signer: SimSigner) -> None:
        self._public_key = signer.public_key

    def seal(self, public_key: bytes, context: bytes, plaintext: bytes) -> bytes:
        return sim_seal(public_key, context, plaintext[::-1])

    def open(self, letter: bytes, context: bytes) -> bytes:
        return sim_open(self._public_key, context, letter)[::-1]
