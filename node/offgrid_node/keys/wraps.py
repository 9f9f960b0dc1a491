"""An object's key, sealed for each node that may read the object.

An anonymous sealed box (libsodium's crypto_box_seal: X25519, XSalsa20-Poly1305) to the reader's Ed25519 key in its
Montgomery form (RFC 7748, section 4.1), so that a node needs one key only. The ephemeral key comes from entropy that is
handed in, which keeps whoever wraps repeatable in the simulator.
"""

from __future__ import annotations

import hashlib

from nacl.bindings import (
    crypto_box,
    crypto_box_NONCEBYTES,
    crypto_box_seal_open,
    crypto_box_SEALBYTES,
    crypto_box_seed_keypair,
    crypto_scalarmult_base,
    crypto_sign_ed25519_pk_to_curve25519,
)
from nacl.exceptions import CryptoError
from nacl.exceptions import RuntimeError as SodiumError

from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

ENTROPY_BYTES = 32
WRAP_BYTES_MAX = 256  # of any kind of wrap; this one adds 48 to the key


class KeyWraps:
    """Wraps for others, unwraps what was wrapped for this node's key."""

    def __init__(self, key: NodeKey) -> None:
        self._secret = key.exchange_secret()
        self._public = crypto_scalarmult_base(self._secret)

    def wrap(self, public_key: bytes, secret: bytes, entropy: bytes) -> bytes:
        """`secret` for the holder of an Ed25519 key; `entropy`: ENTROPY_BYTES that nobody else knows, never used twice.

        Raises InvalidRequest for a key that is none.
        """
        try:
            reader = crypto_sign_ed25519_pk_to_curve25519(public_key)
        except (SodiumError, ValueError, TypeError) as error:
            raise InvalidRequest.field("public_key", "no Ed25519 key that something could be sealed for") from error
        if len(entropy) != ENTROPY_BYTES:
            raise ValueError(f"{ENTROPY_BYTES} bytes of entropy are needed, got {len(entropy)}")
        ephemeral, ephemeral_secret = crypto_box_seed_keypair(entropy)
        nonce = hashlib.blake2b(ephemeral + reader, digest_size=crypto_box_NONCEBYTES).digest()
        return ephemeral + crypto_box(secret, nonce, reader, ephemeral_secret)

    def unwrap(self, wrapped: bytes) -> bytes:
        """What was wrapped for this node. Raises PermissionDenied (reason NotForUs) for anything else."""
        if crypto_box_SEALBYTES <= len(wrapped) <= WRAP_BYTES_MAX:
            try:
                return crypto_box_seal_open(wrapped, self._public, self._secret)
            except CryptoError:
                pass
        raise PermissionDenied(
            "this node's key does not open the wrap: it is for another, or damaged", reason="NotForUs"
        )
