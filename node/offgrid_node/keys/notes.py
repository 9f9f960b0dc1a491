"""What a node notes down for itself and others keep: it alone opens it, and nobody else can have written it.

ChaCha20-Poly1305 (RFC 8439) under a key that BLAKE2b derives from the identity's seed and from what the note is for.
The nonce is a keyed hash of the note (a synthetic one, as in RFC 5297), so no chance is needed, and the same note is
the same bytes. Zeros fill a note up to a step, so that whoever keeps it does not learn the length of a name.

    nonce (12)  ciphertext of: length (2), note, zeros  tag (16)
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from offgrid_node.protocol.errors import PermissionDenied

NONCE_BYTES, TAG_BYTES, LENGTH_BYTES = 12, 16, 2
STEP_BYTES = 128  # most notes take one


def seal_note(secret: bytes, note: bytes, use: bytes) -> bytes:
    """`secret`: `NodeKey.note_secret`. Raises OverflowError above 64 KiB."""
    length = len(note).to_bytes(LENGTH_BYTES, "big")
    padded = length + note + bytes(-(len(length) + len(note)) % STEP_BYTES)
    nonce = hashlib.blake2b(use + padded, digest_size=NONCE_BYTES, key=secret, person=b"og.notenonce.v1").digest()
    return nonce + _cipher(secret, use).encrypt(nonce, padded, use)


def open_note(secret: bytes, sealed: bytes, use: bytes) -> bytes:
    """Raises PermissionDenied (reason NotForUs) for anything but what `seal_note` made of the same secret and use."""
    if len(sealed) >= NONCE_BYTES + LENGTH_BYTES + TAG_BYTES:
        try:
            padded = _cipher(secret, use).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], use)
            return padded[LENGTH_BYTES:][: int.from_bytes(padded[:LENGTH_BYTES], "big")]
        except InvalidTag:
            pass
    raise PermissionDenied("the note does not open: it is another node's, or damaged", reason="NotForUs")


def _cipher(secret: bytes, use: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(hashlib.blake2b(use, digest_size=32, key=secret, person=b"og.note.v1").digest())
