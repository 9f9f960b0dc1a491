"""How long a datagram may be on the way to one address: RFC 8899 (DPLPMTUD), with probes of its own.

A probe is a datagram of the length in question, padded; the other end answers with a short echo. First BASE is
confirmed, then the lengths of SIZES are tried upwards until one does not come through. While long frames are sent, the
length is confirmed now and then: a path that has become narrower swallows without a word (a black hole), and is found
by probes that stay away. Then it is BASE again, at once, and the search begins anew.

Pure: the caller gives the time in milliseconds, sends what `take_probe` returns and asks again when `wakes_ms` is due.
"""

from __future__ import annotations

import math
import struct
from random import Random

PROBE, ECHO = 0xF0, 0xF1
BASE = 1200
SIZES = (1232, 1280, 1352, 1392, 1432, 1452, 1472, 2272, 4032, 8152, 8952, 16_332, 32_712, 65_507)
LEAST = 512  # no probe is shorter, so that nobody can have us send more than he does
TOKEN_BYTES = 8
TRIES_MAX = 6
TIMEOUT_MS_FIRST = 500.0
TIMEOUT_MS_MIN = 200.0
CONFIRM_MS = 3000.0
USED_MS = 5000.0  # an address that nothing was sent to for so long is not probed
RETRY_MS = 10_000.0  # nobody answers even BASE
RAISE_MS = 600_000.0  # RFC 8899: after that a path may have become wider
_ECHO = struct.Struct(f"!B{TOKEN_BYTES}sH")


def echo_of(probe: bytes) -> bytes | None:
    """The answer to a probe; None for what is none."""
    if len(probe) < LEAST or probe[0] != PROBE:
        return None
    return _ECHO.pack(ECHO, probe[1 : 1 + TOKEN_BYTES], len(probe))


class MtuSearch:
    """What is known of the way to one address."""

    def __init__(self, rng: Random, most: int) -> None:
        """`most` is the longest that is ever tried."""
        self._rng = rng
        self._most = most
        self._base = min(BASE, most)
        self._mtu = self._base
        self._confirmed = False  # something came through since the search began
        self._search_ms = -math.inf  # when to try a longer one
        self._confirm_ms = math.inf
        self._used_ms = -math.inf
        self._token = b""  # of the probe under way; empty when there is none
        self._length = self._tries = 0
        self._sent_ms = self._due_ms = -math.inf
        self._timeout_ms = TIMEOUT_MS_FIRST

    @property
    def mtu_bytes(self) -> int:
        return self._mtu

    def on_used(self, now_ms: float, length: int) -> None:
        """A frame is sent there."""
        self._used_ms = now_ms
        if length > self._base and self._confirm_ms == math.inf:
            self._confirm_ms = now_ms + CONFIRM_MS

    def wakes_ms(self) -> float:
        """When `take_probe` may have another one; infinite while the address is not used."""
        if self._used_ms == -math.inf:
            return math.inf
        if self._token:
            return self._due_ms
        return min(self._confirm_ms, self._search_ms if self._mtu < self._most or not self._confirmed else math.inf)

    def unused(self, now_ms: float) -> bool:
        return now_ms - self._used_ms > USED_MS

    def take_probe(self, now_ms: float) -> bytes | None:
        """The next probe, for the caller to send; None while there is none to send now. `mtu_bytes` may have fallen."""
        if self.unused(now_ms):
            return None
        if self._token:
            if now_ms < self._due_ms:
                return None
            if self._tries >= TRIES_MAX:
                self._fail(now_ms)
        if not self._token:
            length = self._next_length(now_ms)
            if not length:
                return None
            self._token, self._length, self._tries = self._rng.randbytes(TOKEN_BYTES), length, 0
        self._tries += 1
        self._sent_ms, self._due_ms = now_ms, now_ms + self._timeout_ms
        return (bytes((PROBE,)) + self._token).ljust(self._length, b"\0")

    def on_echo(self, now_ms: float, echo: bytes) -> bool:
        """An answer; whether it changed `mtu_bytes`. Forged, late and doubled ones are passed over."""
        if len(echo) != _ECHO.size:
            return False
        _, token, length = _ECHO.unpack(echo)
        if not self._token or token != self._token or length != self._length:
            return False
        if self._tries == 1:  # of several, it is not known which one this answers
            self._timeout_ms = max(TIMEOUT_MS_MIN, 3 * (now_ms - self._sent_ms))
        self._token, self._confirmed, self._confirm_ms = b"", True, math.inf
        before, self._mtu = self._mtu, max(self._mtu, length)
        return self._mtu > before

    def on_too_long(self, now_ms: float, length: int) -> bool:
        """This machine refuses datagrams of `length` on the way there; whether that changed `mtu_bytes`."""
        if self._token and self._length >= length > self._mtu:
            self._token, self._search_ms = b"", now_ms + RAISE_MS
            return False
        if length > self._mtu or self._mtu == self._base:
            return False
        self._begin_again(now_ms)
        return True

    def _next_length(self, now_ms: float) -> int:
        if now_ms >= self._search_ms:
            if not self._confirmed:
                return self._base
            longer = [size for size in (*SIZES, self._most) if self._mtu < size <= self._most]
            if longer:
                return min(longer)
        return self._mtu if now_ms >= self._confirm_ms else 0

    def _fail(self, now_ms: float) -> None:
        """The length does not come through."""
        self._token = b""
        if self._length > self._mtu:
            self._search_ms = now_ms + RAISE_MS
        elif self._mtu > self._base:
            self._begin_again(now_ms)
        else:
            self._search_ms = now_ms + RETRY_MS

    def _begin_again(self, now_ms: float) -> None:
        self._token, self._mtu, self._confirmed = b"", self._base, False
        self._search_ms, self._confirm_ms = now_ms, math.inf
        self._timeout_ms = TIMEOUT_MS_FIRST
