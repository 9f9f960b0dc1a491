"""Small data sealed for one reader, many times over: what a host keeps of a result until its core has it.

X25519 between an ephemeral key of the sender's and the reader's Ed25519 key in its Montgomery form (RFC 7748), then
AES-256-GCM whose nonce is the letter's number under that key: HPKE's base mode (RFC 9180) in short. One ephemeral key
serves one reader for many letters, so that a letter costs microseconds where a sealed box costs two curve operations.
It is in memory only, so no number comes twice, and the sender itself cannot open what it kept once it has ended. Who
wrote a letter is not proved by it.

    version (1)  ephemeral public key (32)  number (4)  ciphertext, tag (16)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base, crypto_sign_ed25519_pk_to_curve25519
from nacl.exceptions import RuntimeError as SodiumError

from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

VERSION = b"\x01"
PUBLIC_BYTES, NUMBER_BYTES, TAG_BYTES, SECRET_BYTES = 32, 4, 16, 32
HEAD_BYTES = len(VERSION) + PUBLIC_BYTES + NUMBER_BYTES
LETTER_OVERHEAD_BYTES = HEAD_BYTES + TAG_BYTES
LETTERS_PER_KEY = 1 << 20  # then a fresh ephemeral key; far below what AES-GCM bears, and numbers have room for
NONCE_START = bytes(12 - NUMBER_BYTES)
KEYS_MAX = 1_024  # agreed keys that are remembered, of readers and of senders


class _Agreed(msgspec.Struct):
    public: bytes
    cipher: AESGCM
    letters: int = 0


class Letters:
    """Seals for others, opens what was sealed for this node's key. Belongs to one thread."""

    def __init__(self, key: NodeKey, randbytes: Callable[[int], bytes], older: Sequence[NodeKey] = ()) -> None:
        """`older`: identity keys of this node's before; letters that are on their way open under them still."""
        self._secrets = [each.exchange_secret() for each in (key, *older)]
        self._randbytes = randbytes
        self._outgoing: OrderedDict[bytes, _Agreed] = OrderedDict()
        self._incoming: OrderedDict[tuple[bytes, int], AESGCM] = OrderedDict()

    def seal(self, public_key: bytes, context: bytes, plaintext: bytes) -> bytes:
        """LETTER_OVERHEAD_BYTES longer than the plaintext, for the holder of an Ed25519 key. `context` says what it is
        for, and must be said again to open it. Raises InvalidRequest for a key that is none."""
        agreed = self._outgoing.get(public_key)
        if agreed is None or agreed.letters >= LETTERS_PER_KEY:
            agreed = self._outgoing[public_key] = self._agree(public_key)
            if len(self._outgoing) > KEYS_MAX:
                self._outgoing.popitem(last=False)
        number = agreed.letters.to_bytes(NUMBER_BYTES, "big")
        agreed.letters += 1
        sealed = agreed.cipher.encrypt(NONCE_START + number, plaintext, context)
        return b"".join((VERSION, agreed.public, number, sealed))

    def open(self, letter: bytes, context: bytes) -> bytes:
        """Raises PermissionDenied (reason NotForUs) for anything that was not sealed for this node and this context."""
        if len(letter) >= LETTER_OVERHEAD_BYTES and letter[:1] == VERSION:
            public, number = letter[1 : 1 + PUBLIC_BYTES], letter[1 + PUBLIC_BYTES : HEAD_BYTES]
            for place in range(len(self._secrets)):
                try:
                    cipher = self._incoming.get((public, place)) or self._meet(public, place)
                    return cipher.decrypt(NONCE_START + number, letter[HEAD_BYTES:], context)
                except (InvalidTag, SodiumError):
                    pass
        raise PermissionDenied(
            "this node's key does not open the letter: it is for another, or damaged", reason="NotForUs"
        )

    def _agree(self, public_key: bytes) -> _Agreed:
        try:
            reader = crypto_sign_ed25519_pk_to_curve25519(public_key)
        except (SodiumError, ValueError, TypeError) as error:
            raise InvalidRequest.field("public_key", "no Ed25519 key that something could be sealed for") from error
        secret = self._randbytes(SECRET_BYTES)
        public = crypto_scalarmult_base(secret)
        return _Agreed(public, _derive(crypto_scalarmult(secret, reader), public, reader))

    def _meet(self, public: bytes, place: int) -> AESGCM:
        """`place`: of this node's keys, the one of now first."""
        secret = self._secrets[place]
        cipher = _derive(crypto_scalarmult(secret, public), public, crypto_scalarmult_base(secret))
        self._incoming[public, place] = cipher
        if len(self._incoming) > KEYS_MAX:
            self._incoming.popitem(last=False)
        return cipher


def _derive(shared: bytes, ephemeral: bytes, reader: bytes) -> AESGCM:
    return AESGCM(hashlib.blake2b(ephemeral + reader, key=shared, digest_size=32, person=b"og.letter.v1").digest())
