"""For whom a backup is sealed: a recovery key, whose secret lies in a file far from the node, or a passphrase.

Either is an X25519 key pair (RFC 7748). That of a passphrase comes out of Argon2id (RFC 9106) over it and a salt, so
who seals needs no secret. As text a key is base32 of its 32 bytes and three of their BLAKE2b, so that a slip of the pen
is no other key, for which nobody has the secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from offgrid.backup import BackupDamaged, SecretNeeded

KEY_BYTES, SALT_BYTES, SUM_BYTES = 32, 16, 3
PUBLIC_PREFIX, SECRET_PREFIX = "ogr-", "ogr-secret-"
PUBLIC_RULE = f'"{PUBLIC_PREFIX}" and 56 letters and digits, as `offgrid state recovery-key` shows it'
PASSES, MEMORY_KIB = 3, 256 * 1024  # libsodium's "moderate": most of a second
PASSES_MAX, MEMORY_KIB_MAX = 64, 4 * 1024 * 1024  # that a file may ask of whoever opens it
SECRET_FILE_BYTES_MAX = 256
_HEAD = struct.Struct(f">{KEY_BYTES}s{SALT_BYTES}sII")  # public key, salt, passes, memory
RECIPIENT_BYTES = _HEAD.size


@dataclass(frozen=True, slots=True)
class Recipient:
    """`salt`, `passes` and `memory_kib` tell how the secret comes out of a passphrase; without a salt it lies in a
    file."""

    public_key: bytes
    salt: bytes = b""
    passes: int = 0
    memory_kib: int = 0

    def encode(self) -> bytes:
        return _HEAD.pack(self.public_key, self.salt, self.passes, self.memory_kib)

    @classmethod
    def decode(cls, data: bytes) -> Recipient:
        """Raises BackupDamaged."""
        if len(data) != RECIPIENT_BYTES:
            raise BackupDamaged(f"for whom it is sealed: {len(data)} bytes, {RECIPIENT_BYTES} are needed")
        public_key, salt, passes, memory_kib = _HEAD.unpack(data)
        if salt == bytes(SALT_BYTES):
            return cls(public_key)
        if not (1 <= passes <= PASSES_MAX and 8 <= memory_kib <= MEMORY_KIB_MAX):
            raise BackupDamaged(f"its passphrase would take {passes} passes over {memory_kib} KiB")
        return cls(public_key, salt, passes, memory_kib)


@dataclass(frozen=True, slots=True)
class Secret:
    """What opens: one of the two."""

    key: bytes = b""
    passphrase: bytes = b""

    def key_for(self, recipient: Recipient) -> bytes:
        """The private key. Raises SecretNeeded where this is another's."""
        if recipient.salt:
            if not self.passphrase:
                raise SecretNeeded("it is sealed by a passphrase: give it")
            key = _stretched(self.passphrase, recipient.salt, recipient.passes, recipient.memory_kib)
            other = "the passphrase is another one"
        else:
            if not self.key:
                raise SecretNeeded(f"it is sealed for the recovery key {public_text(recipient.public_key)}: "
                                   "give the file of its secret")  # fmt: skip
            key, other = self.key, f"it is sealed for another recovery key, {public_text(recipient.public_key)}"
        if public_of(key) != recipient.public_key:
            raise SecretNeeded(other)
        return key


def for_passphrase(passphrase: bytes, *, passes: int = PASSES, memory_kib: int = MEMORY_KIB) -> Recipient:
    """A fresh recipient of this passphrase; it takes most of a second, and 256 MiB meanwhile."""
    salt = os.urandom(SALT_BYTES)
    return Recipient(public_of(_stretched(passphrase, salt, passes, memory_kib)), salt, passes, memory_kib)


def public_of(secret_key: bytes) -> bytes:
    from nacl.bindings import crypto_scalarmult_base

    return crypto_scalarmult_base(secret_key)


def public_text(public_key: bytes) -> str:
    return PUBLIC_PREFIX + _text(public_key)


def public_from(text: str) -> bytes:
    """Raises ValueError, whose text is a predicate."""
    return _key(text, PUBLIC_PREFIX, "recovery key")


def make_secret(path: Path) -> bytes:
    """Writes a fresh secret to a new private file, durably, and returns the public key. Raises FileExistsError."""
    secret = os.urandom(KEY_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{SECRET_PREFIX}{_text(secret)}\n")
        file.flush()
        os.fsync(file.fileno())
    return public_of(secret)


def read_secret(path: Path) -> Secret:
    """Raises ValueError where it is no such file, OSError."""
    with path.open("rb") as file:
        text = file.read(SECRET_FILE_BYTES_MAX).decode("ascii", "replace").strip()
    return Secret(key=_key(text, SECRET_PREFIX, "recovery secret"))


def _text(key: bytes) -> str:
    return base64.b32encode(key + _sum(key)).decode("ascii").lower()


def _key(text: str, prefix: str, what: str) -> bytes:
    if not text.startswith(prefix):
        raise ValueError(f"is no {what}: it does not begin with {prefix!r}")
    try:
        data = base64.b32decode(text.removeprefix(prefix).upper())
    except (binascii.Error, ValueError):
        raise ValueError(f"is no {what}: not all of it are letters and digits 2 to 7") from None
    key, checksum = data[:KEY_BYTES], data[KEY_BYTES:]
    if len(key) != KEY_BYTES or checksum != _sum(key):
        raise ValueError(f"is no {what}: a letter is wrong, or missing")
    return key


def _sum(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=SUM_BYTES, person=b"og.recovery.v1").digest()


def _stretched(passphrase: bytes, salt: bytes, passes: int, memory_kib: int) -> bytes:
    from nacl.pwhash import argon2id

    return argon2id.kdf(KEY_BYTES, passphrase, salt, opslimit=passes, memlimit=memory_kib * 1024)
