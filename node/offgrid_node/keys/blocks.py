"""Blocks of a session's events, sealed: XChaCha20-Poly1305 under the session's key (libsodium), with a random nonce
before it. Format: protocol/state/sessions/blocks.py."""

from __future__ import annotations

from collections.abc import Callable

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt as _open
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as _seal
from nacl.exceptions import CryptoError

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.blocks import NONCE_BYTES, TAG_BYTES

KEY_BYTES = 32


def seal_block(key: bytes, bound: bytes, clear: bytes, random: Callable[[int], bytes]) -> bytes:
    """`random` gives so many bytes that nobody can foretell."""
    nonce = random(NONCE_BYTES)
    return nonce + _seal(clear, bound, nonce, key)


def open_block(key: bytes, bound: bytes, sealed: bytes) -> bytes:
    """Raises Corrupt for what was not sealed under this key, bound to that."""
    try:
        if len(sealed) < NONCE_BYTES + TAG_BYTES:
            raise CryptoError(f"{len(sealed)} bytes")
        return _open(sealed[NONCE_BYTES:], bound, sealed[:NONCE_BYTES], key)
    except CryptoError as error:
        raise Corrupt(f"it does not open: {error}", reason="BlockDamaged") from error
