"""Sealing with a shared secret, for the join door, where neither side knows the other's key yet.

XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a key that BLAKE2b derives from the secret. Its 24-byte nonce is long
enough to be drawn at random. What a message is for, and which way it goes, belongs in `context`: both sides share one
key, so without it a question could be sent back as its own answer.
"""

from __future__ import annotations

import hashlib

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError
from nacl.utils import random

from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

SECRET_BYTES_MIN = 16  # the invite's; a secret people choose would need a slow hash or a PAKE
PLAINTEXT_BYTES_MAX = 3 * 1024 * 1024  # with its envelope below gRPC's 4 MiB message
NONCE_BYTES: int = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
TAG_BYTES: int = crypto_aead_xchacha20poly1305_ietf_ABYTES


def seal(secret: bytes, context: bytes, plaintext: bytes) -> bytes:
    """nonce ‖ ciphertext ‖ tag: 40 bytes longer than the plaintext. Raises InvalidRequest above PLAINTEXT_BYTES_MAX."""
    if len(plaintext) > PLAINTEXT_BYTES_MAX:
        raise InvalidRequest.field("plaintext", f"{len(plaintext)} bytes, at most {PLAINTEXT_BYTES_MAX} can be sealed")
    nonce = random(NONCE_BYTES)
    return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, context, nonce, _key_of(secret))


def open_sealed(secret: bytes, context: bytes, sealed: bytes) -> bytes:
    """What was sealed under the same secret and context.

    Raises one and the same PermissionDenied for a wrong secret, a wrong context and damaged or short input: whoever
    guesses learns nothing from the answer.
    """
    size = len(sealed)
    if not NONCE_BYTES + TAG_BYTES <= size <= NONCE_BYTES + TAG_BYTES + PLAINTEXT_BYTES_MAX:
        raise _refusal()
    try:
        return crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed[NONCE_BYTES:], context, sealed[:NONCE_BYTES], _key_of(secret)
        )
    except CryptoError as error:
        raise _refusal() from error


def _refusal() -> PermissionDenied:
    return PermissionDenied("the seal does not open: another secret, or a damaged message", reason="SealBroken")


def _key_of(secret: bytes) -> bytes:
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"a secret of {len(secret)} bytes can be guessed, at least {SECRET_BYTES_MIN} are needed")
    return hashlib.blake2b(secret, digest_size=32, person=b"og.seal-key.v1").digest()
