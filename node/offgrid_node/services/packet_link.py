"""One node's end of a packet link: moves frames between a transport and the pure endpoint, and keeps its timer.

Knows neither thread nor event loop: `schedule` is the loop's `call_later` in the daemon and the simulator's heap in
virtual time. One server and one road share a link (`packet_server.py`, `packet_road.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from offgrid_node.protocol.clock import Clock
from offgrid_transports.rpc import CallKey, LinkProfile, Reply, Request, RpcEndpoint
from offgrid_transports.transport import Schedule, Transport


class PacketLink:
    """Owns the transport. All methods belong to one thread, the runtime's."""

    def __init__(self, transport: Transport, clock: Clock, schedule: Schedule, rng: Random) -> None:
        self.on_request: Callable[[Request], None] = lambda request: None
        self.on_reply: Callable[[Reply], None] = lambda reply: None
        self._transport = transport
        self._clock = clock
        self._schedule = schedule
        self.endpoint = RpcEndpoint(LinkProfile.of(transport), rng)
        self._alarm_ms: int | None = None
        self._pumping = False
        self._again = False
        self._closed = False
        transport.on_frame = self._on_frame

    @property
    def closed(self) -> bool:
        return self._closed

    def call(self, peer: str, method: int, body: bytes, timeout_ms: int) -> int:
        """Starts a call; its Reply goes to `on_reply`, never before this returns. Raises CallRefused."""
        number = self.endpoint.call(self._now_ms, peer, method, body, timeout_ms)
        self._pump()
        return number

    def respond(self, key: CallKey, body: bytes, *, error: bool = False) -> None:
        """Answers a request; too late is no error."""
        if not self._closed:
            self.endpoint.respond(self._now_ms, key, body, error=error)
            self._pump()

    def close(self) -> None:
        """Ends the calls of this side as unknown and closes the transport; may be called twice."""
        if self._closed:
            return
        self._closed = True
        self._transport.close()
        self.endpoint.abandon("the link was closed")
        for reply in self.endpoint.take_replies():
            self.on_reply(reply)

    @property
    def _now_ms(self) -> int:
        return self._clock.now().mono_ms

    def _on_frame(self, peer: str, frame: bytes) -> None:
        if not self._closed:
            self.endpoint.on_frame(self._now_ms, peer, frame)
            self._pump()

    def _pump(self) -> None:
        if self._pumping:
            self._again = True  # whoever pumps already will see to it
            return
        self._pumping = self._again = True
        try:
            while self._again and not self._closed:
                self._again = False
                for reply in self.endpoint.take_replies():
                    self.on_reply(reply)
                for request in self.endpoint.take_requests():
                    self.on_request(request)
                for peer, frame in self.endpoint.take_frames():
                    self._transport.send(peer, frame)  # a frame that finds no room is a frame lost
        finally:
            self._pumping = False
            self._arm()

    def _arm(self) -> None:
        due_ms = self.endpoint.deadline_ms
        if due_ms is not None and not self._closed and (self._alarm_ms is None or due_ms < self._alarm_ms):
            self._alarm_ms = due_ms
            self._schedule(max(0, due_ms - self._now_ms), lambda: self._ring(due_ms))

    def _ring(self, due_ms: int) -> None:
        if self._alarm_ms == due_ms:
            self._alarm_ms = None
        if not self._closed:
            self.endpoint.on_timer(self._now_ms)
            self._pump()
