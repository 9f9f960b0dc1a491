"""A file sealed for a recipient, in pieces that open alone.

    "OGBS" version 1 | recipient 56 | key of the file, sealed 80 | nonce 16 | pieces

The file's key is random and lies in a sealed box (X25519, XSalsa20-Poly1305: libsodium's `crypto_box_seal`). Each piece
is XChaCha20-Poly1305 under it; its nonce is the file's and the piece's number, and the head, and whether it is the
last, are bound in (the STREAM construction, Hoang, Reyhanitabar, Rogaway and Vizár 2015): a piece that was moved, left
out or put last does not open, and a file that was cut off has no last one.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO

from offgrid.backup import BackupDamaged, BackupUnknown
from offgrid.backup.recovery import KEY_BYTES, RECIPIENT_BYTES, Recipient, Secret

MAGIC, VERSION = b"OGBS", 1
NONCE_BYTES, BOX_BYTES, TAG_BYTES = 16, KEY_BYTES + 48, 16
PIECE_BYTES = 256 * 1024
_AT_RECIPIENT = len(MAGIC) + 1
_AT_BOX = _AT_RECIPIENT + RECIPIENT_BYTES
_AT_NONCE = _AT_BOX + BOX_BYTES
HEAD_BYTES = _AT_NONCE + NONCE_BYTES


class _Pieces:
    """The cipher of one file."""

    def __init__(self, key: bytes, head: bytes) -> None:
        self._key, self._head = key, head

    def seal(self, index: int, last: bool, clear: bytes) -> bytes:
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

        return crypto_aead_xchacha20poly1305_ietf_encrypt(clear, self._bound(last), self._nonce(index), self._key)

    def open(self, index: int, last: bool, sealed: bytes) -> bytes:
        from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt
        from nacl.exceptions import CryptoError

        try:
            if len(sealed) < TAG_BYTES:
                raise CryptoError
            return crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, self._bound(last), self._nonce(index), self._key)
        except CryptoError:
            at = HEAD_BYTES + index * (PIECE_BYTES + TAG_BYTES)
            raise BackupDamaged(f"what lies behind its byte {at} does not open: it is damaged, or cut off") from None

    def _nonce(self, index: int) -> bytes:
        return self._head[_AT_NONCE:] + index.to_bytes(8, "big")

    def _bound(self, last: bool) -> bytes:
        return self._head + bytes([last])


class SealedWriter(io.RawIOBase):
    """Clear bytes in, sealed ones into `file`, which stays open; `close` writes the last piece."""

    def __init__(self, file: BinaryIO, recipient: Recipient) -> None:
        from nacl.bindings import crypto_box_seal

        self.key = os.urandom(KEY_BYTES)
        """Opens what was written; whoever wrote it may read it back."""
        box = crypto_box_seal(self.key, recipient.public_key)
        head = MAGIC + bytes([VERSION]) + recipient.encode() + box + os.urandom(NONCE_BYTES)
        self._file, self._pieces = file, _Pieces(self.key, head)
        self._held, self._index = bytearray(), 0
        file.write(head)

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        clear = memoryview(data)  # type: ignore[arg-type]  # whatever has bytes
        self._held += clear
        while len(self._held) > PIECE_BYTES:
            self._put(bytes(self._held[:PIECE_BYTES]), last=False)
            del self._held[:PIECE_BYTES]
        return clear.nbytes

    def close(self) -> None:
        if not self.closed:
            self._put(bytes(self._held), last=True)
            self._held.clear()
            super().close()

    def give_up(self) -> None:
        """As `close`, without the last piece."""
        super().close()

    def _put(self, clear: bytes, *, last: bool) -> None:
        self._file.write(self._pieces.seal(self._index, last, clear))
        self._index += 1


class SealedReader(io.RawIOBase):
    """The clear bytes of a sealed file, of which any part may be read. One piece is in memory at a time."""

    def __init__(self, file: BinaryIO, *, secret: Secret | None = None, key: bytes = b"") -> None:
        """By the recipient's secret, or the file's own key. Raises BackupUnknown, BackupDamaged, SecretNeeded."""
        head = file.read(HEAD_BYTES)
        recipient = recipient_of(head)
        self._pieces = _Pieces(key or _unboxed(head, recipient, secret or Secret()), head)
        self._file = file
        sealed = file.seek(0, io.SEEK_END) - HEAD_BYTES
        self._count = -(-sealed // (PIECE_BYTES + TAG_BYTES))
        last = sealed - (self._count - 1) * (PIECE_BYTES + TAG_BYTES)
        if not self._count or last < TAG_BYTES:
            raise BackupDamaged("it is cut off within a piece")
        self._size = (self._count - 1) * PIECE_BYTES + last - TAG_BYTES
        self._at, self._index, self._clear = 0, -1, b""
        self._load(self._count - 1)  # shows at once whether there is more, or less

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: object) -> int:
        room = memoryview(buffer)  # type: ignore[arg-type]  # whatever takes bytes
        if self._at >= self._size:
            return 0
        self._load(self._at // PIECE_BYTES)
        part = self._clear[self._at % PIECE_BYTES :][: room.nbytes]
        room[: len(part)] = part
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _load(self, index: int) -> None:
        if index != self._index:
            self._file.seek(HEAD_BYTES + index * (PIECE_BYTES + TAG_BYTES))
            sealed = self._file.read(PIECE_BYTES + TAG_BYTES)
            self._clear = self._pieces.open(index, index == self._count - 1, sealed)
            self._index = index


def is_sealed(start: bytes) -> bool:
    return start[: len(MAGIC)] == MAGIC


def recipient_of(head: bytes) -> Recipient:
    """For whom a file with this beginning is sealed. Raises BackupUnknown, BackupDamaged."""
    if not is_sealed(head):
        raise BackupUnknown("it is no sealed backup")
    if head[len(MAGIC) : _AT_RECIPIENT] != bytes([VERSION]):
        raise BackupUnknown(f"it is sealed in version {head[len(MAGIC)]}, this program knows {VERSION}")
    if len(head) < HEAD_BYTES:
        raise BackupDamaged("it is cut off within its head")
    return Recipient.decode(head[_AT_RECIPIENT:_AT_BOX])


def _unboxed(head: bytes, recipient: Recipient, secret: Secret) -> bytes:
    from nacl.bindings import crypto_box_seal_open
    from nacl.exceptions import CryptoError

    private = secret.key_for(recipient)
    try:
        return crypto_box_seal_open(head[_AT_BOX:_AT_NONCE], recipient.public_key, private)
    except CryptoError:
        raise BackupDamaged("the key in its head does not open: it is damaged") from None
