"""Sealing an object stripe by stripe, so that any part of it can be opened and checked alone.

XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) under a random key of the object's own. A stripe's nonce is the object's
nonce and the stripe's number; number, and whether it is the last, are bound in again as associated data
(`manifest.stripe_aad`): a stripe that was moved, swapped, left out or put last does not open (the STREAM construction,
Hoang, Reyhanitabar, Rogaway and Vizár 2015).

The object's nonce is the part of XChaCha20's that HChaCha20 takes in, so an object has one subkey, under which each
stripe is ChaCha20-Poly1305 (RFC 8439): OpenSSL does that at three times the rate of libsodium's XChaCha20.

The own size of what is padded is sealed likewise, under the last number there is, which no stripe has.
"""

from __future__ import annotations

import struct
from collections import deque

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.manifest import NONCE_BYTES, Manifest, size_aad, stripe_aad

OBJECT_KEY_BYTES = 32
SIZE_NUMBER = (1 << 64) - 1  # stripes are far fewer: protocol/merkle.py
BLOCK_BYTES = 64  # of ChaCha20: sixteen words
CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")  # its first four words


def seal_stripe(key: bytes, nonce: bytes, index: int, last: bool, plaintext: bytes) -> bytes:
    """TAG_BYTES longer than the plaintext. One key and nonce seal one object, once."""
    return _cipher(key, nonce).encrypt(_stripe_nonce(index), plaintext, stripe_aad(nonce, index, last))


def open_stripe(key: bytes, nonce: bytes, index: int, last: bool, sealed: bytes | bytearray | memoryview) -> bytes:
    """The plaintext. Raises Corrupt (reason SealBroken) for anything but this very stripe."""
    try:
        return _cipher(key, nonce).decrypt(_stripe_nonce(index), sealed, stripe_aad(nonce, index, last))
    except InvalidTag:
        text = f"stripe {index} does not open: it is damaged, or another one"
        raise Corrupt(text, reason="SealBroken") from None


def seal_size(key: bytes, nonce: bytes, padded_bytes: int, size_bytes: int) -> bytes:
    """Of an object that is filled up to `padded_bytes`."""
    aad = size_aad(nonce, padded_bytes)
    return _cipher(key, nonce).encrypt(_stripe_nonce(SIZE_NUMBER), size_bytes.to_bytes(8, "big"), aad)


def open_size(key: bytes, manifest: Manifest) -> int:
    """The object's own size. Raises Corrupt (reason SealBroken) where its owner has not sealed one."""
    if not manifest.sealed_size:
        return manifest.size_bytes
    aad = size_aad(manifest.nonce, manifest.size_bytes)
    try:
        opened = _cipher(key, manifest.nonce).decrypt(_stripe_nonce(SIZE_NUMBER), manifest.sealed_size, aad)
    except InvalidTag:
        raise Corrupt("the object's size does not open: it is another's", reason="SealBroken") from None
    if (size_bytes := int.from_bytes(opened, "big")) > manifest.size_bytes:
        text = f"an object of {size_bytes} bytes in {manifest.size_bytes} is none"
        raise Corrupt(text, reason="SealBroken")
    return size_bytes


def _cipher(key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    """Under HChaCha20 of key and nonce. That is ChaCha20's block without its last step, which adds the words that it
    began with: for eight of the sixteen those are known, so they are taken off again."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"an object's nonce has {NONCE_BYTES} bytes, got {len(nonce)}")
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(BLOCK_BYTES))
    words, added = struct.unpack("<16I", block), (*CONSTANTS, *struct.unpack("<4I", nonce))
    rounds = ((word - more) & 0xFFFFFFFF for word, more in zip((*words[:4], *words[12:]), added, strict=True))
    return ChaCha20Poly1305(struct.pack("<8I", *rounds))


def _stripe_nonce(index: int) -> bytes:
    return bytes(4) + index.to_bytes(8, "big")


class StripeSealer:
    """Plaintext in, in pieces of any size; sealed stripes out. Which stripe is the last shows only at the end, so the
    newest one is held back: at most a stripe and a piece are in memory."""

    def __init__(self, key: bytes, nonce: bytes, stripe_bytes: int) -> None:
        self._key, self._nonce, self._stripe_bytes = key, nonce, stripe_bytes
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._index = 0
        self.size_bytes = 0  # of plaintext so far

    def feed(self, data: bytes) -> list[bytes]:
        """The stripes that are surely not the last."""
        self._held.append(data)
        self._held_bytes += len(data)
        self.size_bytes += len(data)
        sealed = []
        while self._held_bytes > self._stripe_bytes:
            sealed.append(self._seal(self._take(self._stripe_bytes), last=False))
        return sealed

    def finish(self) -> bytes:
        """The last stripe; there is always one, even of an empty object."""
        return self._seal(self._take(self._held_bytes), last=True)

    def _take(self, size: int) -> bytes:
        """The oldest bytes that are held; a piece of just this size is not copied."""
        self._held_bytes -= size
        parts: list[bytes] = []
        while size:
            piece = self._held.popleft()
            parts.append(piece[:size])
            if len(piece) > size:
                self._held.appendleft(piece[size:])
            size -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _seal(self, plaintext: bytes, *, last: bool) -> bytes:
        sealed = seal_stripe(self._key, self._nonce, self._index, last, plaintext)
        self._index += 1
        return sealed
