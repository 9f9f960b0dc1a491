"""The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s (noiseprotocol.org, revision 34), on pyca's primitives.

    <- s
    ...
    -> e, es, s, ss          96 bytes and the payload
    <- e, ee, se, psk        48 bytes and the payload

Both sides prove their static keys, what is sent later stays secret when those become known (forward secrecy), and only
who has the pre-shared key gets through. The initiator's payload (0-RTT) can be read by whoever steals the responder's
static key later, and can be sent again by whoever heard it: `handshake.py` sees to that.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
KEY_BYTES, TAG_BYTES = 32, 16
FIRST_BYTES = 2 * KEY_BYTES + 2 * TAG_BYTES  # without a payload
SECOND_BYTES = KEY_BYTES + TAG_BYTES


class HandshakeFailed(Exception):
    """These bytes are no message of a handshake with this node."""


class Keys(NamedTuple):
    """What a handshake comes to: `binding` is the same on both sides and of no other handshake."""

    sending: bytes
    receiving: bytes
    binding: bytes


class Initiator:
    """Knows whom it speaks to: `responder` is a static public key."""

    def __init__(
        self, static: X25519PrivateKey, responder: bytes, psk: bytes, prologue: bytes, ephemeral: X25519PrivateKey
    ) -> None:
        """`ephemeral` is used for this handshake alone."""
        self._static, self._responder, self._psk, self._ephemeral = static, responder, psk, ephemeral
        self._state = _Symmetric(prologue)
        self._state.mix_hash(responder)

    def first(self, payload: bytes) -> bytes:
        """Once. Raises HandshakeFailed where the responder's public key is none."""
        state, public = self._state, self._ephemeral.public_key().public_bytes_raw()
        state.mix_ephemeral(public)
        state.mix_key(_exchange(self._ephemeral, self._responder))
        static = state.seal(self._static.public_key().public_bytes_raw())
        state.mix_key(_exchange(self._static, self._responder))
        return public + static + state.seal(payload)

    def second(self, message: bytes) -> tuple[bytes, Keys]:
        """The responder's payload. Raises HandshakeFailed, and can then be asked again with another message."""
        if len(message) < SECOND_BYTES:
            raise HandshakeFailed(f"{len(message)} bytes; a second message has {SECOND_BYTES} at least")
        state, public = self._state.copy(), message[:KEY_BYTES]
        state.mix_ephemeral(public)
        state.mix_key(_exchange(self._ephemeral, public))
        state.mix_key(_exchange(self._static, public))
        state.mix_key_and_hash(self._psk)
        payload = state.open(message[KEY_BYTES:])
        sending, receiving = state.split()
        return payload, Keys(sending, receiving, state.hash)


class Responder:
    """Learns from the first message who speaks: `initiator` is that static public key, which is proved once a frame
    under the new keys has come, for the first message alone may be an old one."""

    def __init__(self, static: X25519PrivateKey, psk: bytes, prologue: bytes) -> None:
        self._static, self._psk = static, psk
        self._state = _Symmetric(prologue)
        self._state.mix_hash(static.public_key().public_bytes_raw())
        self._theirs = b""
        self.initiator = b""

    def first(self, message: bytes) -> bytes:
        """The initiator's payload; once. Raises HandshakeFailed."""
        if len(message) < FIRST_BYTES:
            raise HandshakeFailed(f"{len(message)} bytes; a first message has {FIRST_BYTES} at least")
        state, end = self._state, 2 * KEY_BYTES + TAG_BYTES
        self._theirs = message[:KEY_BYTES]
        state.mix_ephemeral(self._theirs)
        state.mix_key(_exchange(self._static, self._theirs))
        self.initiator = state.open(message[KEY_BYTES:end])
        state.mix_key(_exchange(self._static, self.initiator))
        return state.open(message[end:])

    def second(self, payload: bytes, ephemeral: X25519PrivateKey) -> tuple[bytes, Keys]:
        """Once, after `first`."""
        state, public = self._state, ephemeral.public_key().public_bytes_raw()
        state.mix_ephemeral(public)
        state.mix_key(_exchange(ephemeral, self._theirs))
        state.mix_key(_exchange(ephemeral, self.initiator))
        state.mix_key_and_hash(self._psk)
        message = public + state.seal(payload)
        receiving, sending = state.split()
        return message, Keys(sending, receiving, state.hash)


class _Symmetric:
    """Chaining key, hash of all that was said, and the cipher's key with its counter (section 5.2)."""

    def __init__(self, prologue: bytes) -> None:
        self.hash = self._chain = _digest(NAME)  # longer than a digest
        self._key, self._count = b"", 0
        self.mix_hash(prologue)

    def copy(self) -> _Symmetric:
        copied = object.__new__(_Symmetric)
        copied.__dict__.update(self.__dict__)
        return copied

    def mix_hash(self, data: bytes) -> None:
        self.hash = _digest(self.hash + data)

    def mix_key(self, material: bytes) -> None:
        self._chain, self._key = _derive(self._chain, material, 2)
        self._count = 0

    def mix_ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        self.mix_key(public)  # as handshakes with a pre-shared key do (section 9.2)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chain, said, self._key = _derive(self._chain, material, 3)
        self.mix_hash(said)
        self._count = 0

    def seal(self, clear: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self._key).encrypt(self._nonce(), clear, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        try:
            clear = ChaCha20Poly1305(self._key).decrypt(self._nonce(), sealed, self.hash)
        except InvalidTag:
            raise HandshakeFailed("it was not made for this node, by who knows what the mesh knows") from None
        self.mix_hash(sealed)
        return clear

    def split(self) -> tuple[bytes, bytes]:
        first, second = _derive(self._chain, b"", 2)
        return first, second

    def _nonce(self) -> bytes:
        self._count += 1
        return bytes(4) + (self._count - 1).to_bytes(8, "little")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.blake2s)


def _derive(chain: bytes, material: bytes, count: int) -> list[bytes]:
    """HKDF as Noise has it."""
    secret, out, last = _mac(chain, material), list[bytes](), b""
    for number in range(1, count + 1):
        last = _mac(secret, last + bytes([number]))
        out.append(last)
    return out


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # of small order: the secret would be known to all
        raise HandshakeFailed("a public key that is none") from None
