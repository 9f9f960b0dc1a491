"""Two frames make a session: who wants one says hello, and is welcomed.

    HELLO     1 | hint 2 | sid 2 | Noise's first message, with: stamp 6 | records
    WELCOME   1 | sid 2 | Noise's second message, with: sid 2

The first byte's lowest bit is the suite; the three above it are 0 in a welcome, and in a hello the newest dictionary
that its sender has (packing.py). `hint` is the beginning of a hash of the responder's key, so that on a shared
medium only one in 65,536 others tries to read it. Each side gives the session a number of its own, `sid`, which the
other one's frames bear. A hello is sent again, the same bytes, until a welcome comes; the same welcome answers each.

A hello that was recorded and is sent again later makes no session: its sender cannot read the welcome. It counts at
once, with what it brings, only where it is from somebody known and `stamp`, a time that only rises, is newer than the
newest of that sender (as WireGuard's); else once a frame under the new keys has come. After a restart no stamp is
known, so what came with one may be carried out twice, as requests that are sent again over any carrier may.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_transports.noise import FIRST_BYTES, SECOND_BYTES, HandshakeFailed, Initiator, Keys, Responder
from offgrid_transports.sealing import Suite
from offgrid_transports.stamps import STAMP_BYTES

HELLO, WELCOME = 0x10, 0x20
HINT_BYTES = SID_BYTES = 2
HELLO_BYTES = 1 + HINT_BYTES + SID_BYTES + FIRST_BYTES + STAMP_BYTES  # without records
WELCOME_BYTES = 1 + SID_BYTES + SECOND_BYTES + SID_BYTES
PROLOGUE = b"og.link.v1 "
ANSWERED_MAX = 256  # hellos whose welcome is kept, for when it is lost
STAMPS_MAX = 4096
DICTIONARY_MAX = 7  # that a hello has room for
HELLOS_A_SECOND, HELLOS_AT_ONCE = 50, 100  # that are read: each costs a quarter of a millisecond


class Own(NamedTuple):
    """What a node proves itself by, and what only those of its mesh know."""

    static: X25519PrivateKey
    psk: bytes

    @property
    def hint(self) -> bytes:
        return hint_of(self.static.public_key().public_bytes_raw())


def hint_of(public: bytes) -> bytes:
    return hashlib.blake2s(public, person=b"og.hint").digest()[:HINT_BYTES]


class Hello:
    """The initiator's side of one handshake."""

    def __init__(
        self,
        own: Own,
        responder: bytes,
        suite: Suite,
        sid: int,
        stamp: int,
        records: bytes = b"",
        *,
        dictionary: int = 0,
    ) -> None:
        """`dictionary` is the newest that this side has. Raises HandshakeFailed for a public key that is none."""
        head = (
            bytes((HELLO | min(dictionary, DICTIONARY_MAX) << 1 | suite,))
            + hint_of(responder)
            + sid.to_bytes(SID_BYTES)
        )
        self.suite, self.sid, self.speaks = suite, sid, bool(records)
        self._noise = Initiator(own.static, responder, own.psk, PROLOGUE + head, X25519PrivateKey.generate())
        self.frame = head + self._noise.first(stamp.to_bytes(STAMP_BYTES) + records)

    def welcomed(self, frame: bytes) -> tuple[int, Keys]:
        """The responder's number for the session, and its keys. Raises HandshakeFailed."""
        head = bytes((WELCOME | self.suite,)) + self.sid.to_bytes(SID_BYTES)
        if len(frame) != WELCOME_BYTES or not frame.startswith(head):
            raise HandshakeFailed("no welcome")
        payload, keys = self._noise.second(frame[1 + SID_BYTES :])
        return int.from_bytes(payload), keys


class Greeted(NamedTuple):
    """What a hello came to. `records`: what it brought; `fresh`: they may be taken at once."""

    public: bytes
    suite: Suite
    ours: int
    theirs: int
    keys: Keys
    records: bytes
    dictionary: int
    fresh: bool
    frame: bytes
    """The welcome."""


class Door:
    """The responder's side of all handshakes."""

    def __init__(self, own: Own, new_sid: Callable[[], int]) -> None:
        self._own, self._new_sid = own, new_sid
        self._hint = own.hint
        self._answered: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._stamps: OrderedDict[bytes, int] = OrderedDict()
        self._budget, self._budget_ms = float(HELLOS_AT_ONCE), 0.0

    def is_meant(self, frame: bytes) -> bool:
        return len(frame) >= HELLO_BYTES and frame[1 : 1 + HINT_BYTES] == self._hint

    def answered(self, frame: bytes) -> tuple[int, bytes] | None:
        """Of a hello that was welcomed before: the number of its session, and the welcome."""
        return self._answered.get(hashlib.blake2s(frame).digest())

    def keep(self, frame: bytes, greeted: Greeted) -> None:
        """There is a session of it now: if the hello comes again, it is welcomed again."""
        self._answered[hashlib.blake2s(frame).digest()] = greeted.ours, greeted.frame
        if len(self._answered) > ANSWERED_MAX:
            self._answered.popitem(last=False)

    def greet(self, now_ms: float, frame: bytes) -> Greeted:
        """Raises HandshakeFailed; also where too many come at once."""
        self._spend(now_ms)
        suite, dictionary, end = Suite(frame[0] & 1), frame[0] >> 1 & DICTIONARY_MAX, 1 + HINT_BYTES + SID_BYTES
        noise = Responder(self._own.static, self._own.psk, PROLOGUE + frame[:end])
        payload = noise.first(frame[end:])
        stamp, theirs, ours = int.from_bytes(payload[:STAMP_BYTES]), frame[1 + HINT_BYTES : end], self._new_sid()
        second, keys = noise.second(ours.to_bytes(SID_BYTES), X25519PrivateKey.generate())
        welcome = bytes((WELCOME | suite,)) + theirs + second
        fresh = stamp > self._stamps.get(noise.initiator, -1)
        if fresh:
            self._stamps[noise.initiator] = stamp
            self._stamps.move_to_end(noise.initiator)
            if len(self._stamps) > STAMPS_MAX:
                self._stamps.popitem(last=False)
        records = payload[STAMP_BYTES:]
        said = int.from_bytes(theirs)
        return Greeted(noise.initiator, suite, ours, said, keys, records, dictionary, fresh, welcome)

    def _spend(self, now_ms: float) -> None:
        grown = self._budget + (now_ms - self._budget_ms) * HELLOS_A_SECOND / 1000
        self._budget, self._budget_ms = min(grown, float(HELLOS_AT_ONCE)), now_ms
        if self._budget < 1:
            raise HandshakeFailed("too many at once")
        self._budget -= 1
