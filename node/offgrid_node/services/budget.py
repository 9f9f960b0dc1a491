"""How much one peer may ask of this node at once: a rate, a number of calls and a number of bytes in flight. Pure.

The rate is a token bucket (as RFC 2697 meters with). Each peer has its own, so that one that floods us is told to come
back while the others are served. gRPC's own limit on concurrent calls bounds no memory (measured), hence the bytes.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from offgrid_node.protocol.errors import Exhausted

RETRY_IN_FLIGHT_MS = 100  # a guess: when something in flight has ended, there is room again


class Limits(msgspec.Struct, frozen=True):
    """What one peer may use; `peers_max` bounds the table of those that we remember, `calls_max` the calls of all."""

    calls_per_s: float = 2_000.0
    burst_calls: int = 2_000
    calls_in_flight: int = 512
    bytes_in_flight: int = 16 * 1024 * 1024
    peers_max: int = 4_096
    calls_max: int = 8_192


class _Peer(msgspec.Struct):
    tokens: float
    filled_ms: int
    calls: int = 0
    held_bytes: int = 0


class Budget:
    """Admits calls by peer. A peer is any string; time is handed in (monotonic milliseconds)."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Those with nothing in flight, the longest unseen first; they alone can be forgotten.
        self._idle: OrderedDict[str, _Peer] = OrderedDict()
        self._busy: dict[str, _Peer] = {}
        self._calls = 0

    @property
    def peers(self) -> int:
        """How many peers are remembered; never more than `peers_max`."""
        return len(self._idle) + len(self._busy)

    def enter(self, name: str, now_ms: int, *, rated: bool = True) -> Visit:
        """Admits one call, or raises Exhausted with when to come back. The caller owes `leave`.

        With `rated=False` the rate does not apply, the other bounds do.
        """
        limits = self._limits
        if self._calls >= limits.calls_max:
            raise Exhausted(
                f"{self._calls} calls are in flight here, no more are allowed",
                reason="TooManyCalls",
                retry_ms=RETRY_IN_FLIGHT_MS,
            )
        peer = self._find(name, now_ms)
        try:
            if peer.calls >= limits.calls_in_flight:
                raise Exhausted(
                    f"{name} has {peer.calls} calls in flight, no more are allowed",
                    reason="TooManyCalls",
                    retry_ms=RETRY_IN_FLIGHT_MS,
                )
            if rated:
                self._pay(name, peer, now_ms)
            peer.calls += 1
            self._calls += 1
        finally:
            self._file(name, peer)
        return Visit(self, name, peer)

    def _find(self, name: str, now_ms: int) -> _Peer:
        peer = self._busy.get(name) or self._idle.pop(name, None)
        if peer is not None:
            return peer
        if self.peers >= self._limits.peers_max:
            if not self._idle:
                raise Exhausted(
                    f"{self.peers} peers are being served already", reason="TooManyPeers", retry_ms=RETRY_IN_FLIGHT_MS
                )
            self._idle.popitem(last=False)
        return _Peer(float(self._limits.burst_calls), now_ms)

    def _pay(self, name: str, peer: _Peer, now_ms: int) -> None:
        limits = self._limits
        passed_ms = max(0, now_ms - peer.filled_ms)
        peer.tokens = min(float(limits.burst_calls), peer.tokens + passed_ms * limits.calls_per_s / 1000)
        peer.filled_ms = max(now_ms, peer.filled_ms)
        if peer.tokens < 1:
            wait_ms = int((1 - peer.tokens) * 1000 / limits.calls_per_s) + 1
            raise Exhausted(
                f"{name} called more than {limits.calls_per_s:g} times a second",
                reason="RateLimited",
                retry_ms=wait_ms,
            )
        peer.tokens -= 1

    def _file(self, name: str, peer: _Peer) -> None:
        if peer.calls:
            self._busy[name] = peer
        else:
            self._busy.pop(name, None)
            self._idle[name] = peer

    def _take(self, name: str, peer: _Peer, size_bytes: int) -> None:
        if peer.held_bytes and peer.held_bytes + size_bytes > self._limits.bytes_in_flight:
            raise Exhausted(
                f"{name} has {peer.held_bytes} bytes in flight, at most {self._limits.bytes_in_flight} are allowed",
                reason="TooManyBytes",
                retry_ms=RETRY_IN_FLIGHT_MS,
            )
        peer.held_bytes += size_bytes

    def _leave(self, name: str, peer: _Peer, size_bytes: int) -> None:
        peer.held_bytes -= size_bytes
        peer.calls -= 1
        self._calls -= 1
        self._file(name, peer)


class Visit:
    """One admitted call and the bytes that it holds."""

    __slots__ = ("_budget", "_held_bytes", "_left", "_name", "_peer")

    def __init__(self, budget: Budget, name: str, peer: _Peer) -> None:
        self._budget, self._name, self._peer = budget, name, peer
        self._held_bytes = 0
        self._left = False

    def take(self, size_bytes: int) -> None:
        """Holds the bytes of a request; raises Exhausted when the peer has too many in flight already."""
        self._budget._take(self._name, self._peer, size_bytes)
        self._held_bytes += size_bytes

    def owe(self, size_bytes: int) -> None:
        """Holds the bytes of an answer. It is there already, so it is never refused; the peer's next request may be."""
        self._peer.held_bytes += size_bytes
        self._held_bytes += size_bytes

    def leave(self) -> None:
        """The call has ended and all its bytes have gone; a second time does nothing."""
        if not self._left:
            self._left = True
            self._budget._leave(self._name, self._peer, self._held_bytes)
