"""An object's key, wrapped for each node that may read the object.

X25519 between an ephemeral key and the reader's wrapping key (RFC 7748), then ChaCha20-Poly1305 (RFC 8439) with a nonce
made of what the wrap is for: HPKE's base mode (RFC 9180) in short. So one ephemeral key serves one reader for as many
objects as are wrapped at once, and no wrap opens as another object's. It comes from entropy that is handed in, which
keeps whoever wraps repeatable in the simulator.

    label (6: protocol/mesh/wrapping.py)  ephemeral public key (32)  ciphertext (32), tag (16)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base, crypto_sign_ed25519_pk_to_curve25519
from nacl.exceptions import RuntimeError as SodiumError

from offgrid_node.keys.notes import open_note, seal_note
from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES, NUMBER_BYTES, WrappingKey

ENTROPY_BYTES = 32
KEY_BYTES = 32
HEAD_BYTES = LABEL_BYTES + KEY_BYTES
NONCE_BYTES = 12
WRAP_BYTES_MAX = 256  # of any kind of wrap
POINTS_REMEMBERED = 64  # this node's own before all: it reads each object that it puts


@lru_cache(POINTS_REMEMBERED)
def _curve_point(identity_key: bytes) -> bytes:
    """It takes as long as to seal a small object."""
    return crypto_sign_ed25519_pk_to_curve25519(identity_key)


class KeyWraps:
    """Wraps for others, unwraps what was wrapped for this node's keys, and seals what it notes down for itself. May be
    used in any thread."""

    def __init__(self, key: NodeKey, older: Sequence[NodeKey] = ()) -> None:
        """`older`: identity keys of this node's before; what was wrapped for them and is not yet rewritten still
        opens."""
        self._keys = (key, *older)

    def wrap(self, reader: WrappingKey, secrets: Sequence[tuple[bytes, bytes]], entropy: bytes) -> list[bytes]:
        """Each of the secrets, given with what it is for, for the holder of a wrapping key; `entropy`: ENTROPY_BYTES
        that nobody else knows, never used twice.

        Raises InvalidRequest for a key that is none.
        """
        if len(entropy) != ENTROPY_BYTES:
            raise ValueError(f"{ENTROPY_BYTES} bytes of entropy are needed, got {len(entropy)}")
        if len(reader.key) != KEY_BYTES:  # libsodium's binding would read on behind a short one
            raise InvalidRequest.field("public_key", f"{len(reader.key)} bytes; a key has {KEY_BYTES}")
        try:
            public = _curve_point(reader.key) if reader.number == 0 else reader.key
            shared = crypto_scalarmult(entropy, public)
        except (SodiumError, ValueError, TypeError) as error:
            raise InvalidRequest.field("public_key", "no key that something could be wrapped for") from error
        ephemeral = crypto_scalarmult_base(entropy)
        cipher = _cipher(shared, ephemeral, reader)
        return [reader.label + ephemeral + cipher.encrypt(_nonce(use), secret, use) for secret, use in secrets]

    def unwrap(self, wrapped: bytes, use: bytes) -> bytes:
        """What was wrapped for this node and this use. Raises PermissionDenied (reason NotForUs) for anything else."""
        if HEAD_BYTES < len(wrapped) <= WRAP_BYTES_MAX:
            label, ephemeral, sealed = wrapped[:LABEL_BYTES], wrapped[LABEL_BYTES:HEAD_BYTES], wrapped[HEAD_BYTES:]
            number = int.from_bytes(label[:NUMBER_BYTES], "big")
            for key in self._keys:
                own = key.wrapping_key(number)
                if own.label != label:
                    continue
                try:
                    shared = crypto_scalarmult(key.wrapping_secret(number), ephemeral)
                    return _cipher(shared, ephemeral, own).decrypt(_nonce(use), sealed, use)
                except (InvalidTag, SodiumError):
                    pass
        raise PermissionDenied(
            "this node's key does not open the wrap: it is for another, or damaged", reason="NotForUs"
        )

    def seal_note(self, note: bytes, use: bytes) -> bytes:
        """For this node alone (`notes.py`)."""
        return seal_note(self._keys[0].note_secret(), note, use)

    def open_note(self, sealed: bytes, use: bytes) -> bytes:
        """What this node noted down for this use. Raises PermissionDenied (reason NotForUs)."""
        for older in self._keys[1:]:
            with suppress(PermissionDenied):
                return open_note(older.note_secret(), sealed, use)
        return open_note(self._keys[0].note_secret(), sealed, use)


def _cipher(shared: bytes, ephemeral: bytes, reader: WrappingKey) -> ChaCha20Poly1305:
    bound = ephemeral + reader.label + reader.key
    return ChaCha20Poly1305(hashlib.blake2b(bound, key=shared, digest_size=32, person=b"og.wrap.v1").digest())


def _nonce(use: bytes) -> bytes:
    """Under one key no use comes twice with another secret: an object has one key."""
    return hashlib.blake2b(use, digest_size=NONCE_BYTES, person=b"og.wrapnonce.v1").digest()
