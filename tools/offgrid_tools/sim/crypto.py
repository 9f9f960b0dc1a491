"""Signatures, certificates and seals for the simulator: keyed hashes under the public key.

A node that lies (`liar.py`) signs with its own key only, so they hold as well as Ed25519 and cost a fiftieth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress

from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES, NUMBER_BYTES, WrappingKey

SEAL_BYTES = 16
_CERTIFICATE = b"sim-cert:"


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=32, person=b"og.sim.key").digest()


def _tag(public_key: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(digest, digest_size=64, key=public_key, person=b"og.sim.sign").digest()


class SimSigner:
    """A node's key, made from its name and from how often it was replaced."""

    def __init__(self, name: str, number: int = 0) -> None:
        self.public_key = _key(f"{name} {number}" if number else name)
        self.node_id = node_id_of(_key(name))

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

    def __init__(self, signer: SimSigner, older: Sequence[SimSigner] = ()) -> None:
        """`older`: identity keys of the node's before."""
        self._keys = (signer, *older)

    def wrap(self, reader: WrappingKey, secrets: Sequence[tuple[bytes, bytes]], entropy: bytes) -> list[bytes]:
        return [reader.label + entropy + sim_seal(reader.key, use, secret[::-1]) for secret, use in secrets]

    def unwrap(self, wrapped: bytes, use: bytes) -> bytes:
        number = int.from_bytes(wrapped[:NUMBER_BYTES], "big")
        for own in (signer.wrapping_key(number) for signer in self._keys):
            if own.label == wrapped[:LABEL_BYTES]:
                return sim_open(own.key, use, wrapped[LABEL_BYTES + 32 :])[::-1]
        raise PermissionDenied("the seal does not open: it is for another key", reason="BadSeal")

    def seal_note(self, note: bytes, use: bytes) -> bytes:
        return sim_seal(self._keys[0].public_key, b"note" + use, note[::-1])

    def open_note(self, sealed: bytes, use: bytes) -> bytes:
        for older in self._keys[1:]:
            with suppress(PermissionDenied):
                return sim_open(older.public_key, b"note" + use, sealed)[::-1]
        return sim_open(self._keys[0].public_key, b"note" + use, sealed)[::-1]


class SimLetters:
    """Letters that only the holder of a public key opens, under the same rules; bound to what they are for."""

    def __init__(self, signer: SimSigner, older: Sequence[SimSigner] = ()) -> None:
        """`older`: as above."""
        self._public_key, self._older = signer.public_key, [each.public_key for each in older]

    def seal(self, public_key: bytes, context: bytes, plaintext: bytes) -> bytes:
        return sim_seal(public_key, context, plaintext[::-1])

    def open(self, letter: bytes, context: bytes) -> bytes:
        for key in self._older:
            with suppress(PermissionDenied):
                return sim_open(key, context, letter)[::-1]
        return sim_open(self._public_key, context, letter)[::-1]
