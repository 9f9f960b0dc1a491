"""Frames of a session sealed and opened: an explicit counter as nonce, keys that are renewed, a window against replay.

Only the low 16 bits of a counter travel; the rest follows from the newest one that was received (as in DTLS 1.3, RFC
9147 section 4.2.2, and QUIC). Each EPOCH_FRAMES the key is replaced by one that follows from it and cannot be worked
back, so what was sent before stays secret when a node is seized. Nothing of this costs a byte or a message.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, ChaCha20Poly1305

COUNTER_BYTES = 2
EPOCH_BITS = 16
EPOCH_FRAMES = 1 << EPOCH_BITS
COUNTER_MAX = (1 << 48) - 1
WINDOW_FRAMES = 8192  # how far frames may overtake each other
FORGED_MAX = 1 << 20  # frames that do not open, after which a session ends: far below what forging one takes
_HALF = 1 << 8 * COUNTER_BYTES - 1
_NONCE_BYTES = 12


class Suite(IntEnum):
    """How frames are sealed: a radio's eight bytes saved a frame are worth more there than a shorter tag costs."""

    AES_CCM_8 = 0
    CHACHA20_POLY1305 = 1

    @property
    def tag_bytes(self) -> int:
        return 8 if self is Suite.AES_CCM_8 else 16


class NotOpened(Exception):
    """A frame is forged, damaged, of another session, or was here before."""


class _Cipher(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


def _cipher(suite: Suite, key: bytes) -> _Cipher:
    return AESCCM(key, tag_length=8) if suite is Suite.AES_CCM_8 else ChaCha20Poly1305(key)


def _next(key: bytes) -> bytes:
    return hashlib.blake2s(key, person=b"og.epoch").digest()


class Sealer:
    """One direction of a session, the sending end."""

    def __init__(self, suite: Suite, key: bytes) -> None:
        self._suite, self._key = suite, key
        self._cipher = _cipher(suite, key)
        self.count = 0
        """Of the frame that is sealed next."""

    @property
    def used_up(self) -> bool:
        return self.count > COUNTER_MAX

    def seal(self, head: bytes, clear: bytes) -> bytes:
        """`head`, the counter's low bits, and `clear` sealed; `head` and counter are authenticated."""
        count = self.count
        if count > COUNTER_MAX:
            raise OverflowError("the session's counters are used up")
        self.count = count + 1
        if count and not count & EPOCH_FRAMES - 1:
            self._key = _next(self._key)
            self._cipher = _cipher(self._suite, self._key)
        head += (count & 0xFFFF).to_bytes(COUNTER_BYTES)
        return head + self._cipher.encrypt(count.to_bytes(_NONCE_BYTES), clear, head)


class Opener:
    """The receiving end. Frames of the epoch before the newest still open, older ones never."""

    def __init__(self, suite: Suite, key: bytes) -> None:
        self._suite = suite
        self._keys: dict[int, tuple[bytes, _Cipher]] = {0: (key, _cipher(suite, key))}  # by epoch
        self.newest = -1
        """The highest counter that has come."""
        self.seen = 0
        """A bit for each of the last WINDOW_FRAMES counters, the lowest for the newest."""
        self.forged = 0

    def open(self, frame: bytes, head_bytes: int) -> tuple[int, bytes]:
        """The frame's counter and what it holds. Raises NotOpened."""
        end = head_bytes + COUNTER_BYTES
        if len(frame) < end + self._suite.tag_bytes:
            raise NotOpened(f"{len(frame)} bytes are no frame of a session")
        count = self._whole(int.from_bytes(frame[head_bytes:end]))
        age = self.newest - count
        if age >= WINDOW_FRAMES or (age >= 0 and self.seen >> age & 1):
            raise NotOpened("it was here before, or is too old to tell")
        epoch = count >> EPOCH_BITS
        key, cipher = self._key(epoch)
        try:
            clear = cipher.decrypt(count.to_bytes(_NONCE_BYTES), frame[end:], frame[:end])
        except InvalidTag:
            self.forged += 1
            raise NotOpened("it is not of this session") from None
        if age < 0:
            self.seen = (self.seen << min(-age, WINDOW_FRAMES) | 1) & (1 << WINDOW_FRAMES) - 1
            self.newest = count
            if epoch not in self._keys:
                self._keys = {at: held for at, held in self._keys.items() if at >= epoch - 1} | {epoch: (key, cipher)}
        else:
            self.seen |= 1 << age
        return count, clear

    def forget(self, count: int) -> None:
        """That one counts as not received, and opens once more."""
        age = self.newest - count
        if 0 <= age < WINDOW_FRAMES:
            self.seen &= ~(1 << age)

    def _whole(self, low: int) -> int:
        """The counter nearest to the one that is due."""
        due = self.newest + 1
        count = due & ~0xFFFF | low
        if count > due + _HALF and count >= 0x10000:
            return count - 0x10000
        return count + 0x10000 if count <= due - _HALF else count

    def _key(self, epoch: int) -> tuple[bytes, _Cipher]:
        """That epoch's. Where nothing of it has been opened it is the next one's, worked out but not yet kept."""
        if (found := self._keys.get(epoch)) is not None:
            return found
        key = _next(self._keys[max(self._keys)][0])
        return key, _cipher(self._suite, key)
