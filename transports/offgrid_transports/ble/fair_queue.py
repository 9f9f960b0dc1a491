"""Which connection's packet goes to the controller next; stands where Bumble has one line for all connections.

A controller has few buffers, and one connection that is out of reach or weak would soon hold them all. Each connection
has a line of its own here, they take turns, and none may hold more than twice what is free (dynamic thresholds:
Choudhury and Hahne 1998), so that something is left for the others. Who is alone may have all.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from offgrid_transports.transport import OnEvent

SHARE_OF_FREE = 2


class FairQueue:
    """The names that Bumble's host calls are Bumble's. A packet is whatever `send` takes."""

    def __init__(self, max_packet_size: int, max_in_flight: int, send: Callable[[object], None]) -> None:
        self.max_packet_size = max_packet_size
        self.max_in_flight = max_in_flight
        self.connections: Callable[[], int] = lambda: 1
        """How many connections there are."""
        self.on_room: OnEvent = lambda: None
        """Something has left the controller."""
        self._send = send
        self._lines: OrderedDict[int, deque[object]] = OrderedDict()
        self._in_flight: Counter[int] = Counter()

    def waits(self, handle: int) -> bool:
        """Whether something of that connection is not with the controller yet."""
        return handle in self._lines

    def enqueue(self, packet: object, connection_handle: int) -> None:
        self._lines.setdefault(connection_handle, deque()).append(packet)
        self._hand_over()

    def on_packets_completed(self, packet_count: int, connection_handle: int) -> None:
        held = self._in_flight.pop(connection_handle, 0)
        if held > packet_count:
            self._in_flight[connection_handle] = held - packet_count
        self._hand_over()
        self.on_room()

    def flush(self, connection_handle: int) -> None:
        """That connection has ended."""
        self._lines.pop(connection_handle, None)
        self._in_flight.pop(connection_handle, None)
        self._hand_over()
        self.on_room()

    def _hand_over(self) -> None:
        while (handle := self._next()) is not None:
            line = self._lines.pop(handle)
            packet = line.popleft()
            if line:
                self._lines[handle] = line  # last in turn
            self._in_flight[handle] += 1
            self._send(packet)

    def _next(self) -> int | None:
        free = self.max_in_flight - self._in_flight.total()
        if free <= 0:
            return None
        alone = self.connections() <= 1
        allowed = (handle for handle in self._lines if alone or self._in_flight[handle] < SHARE_OF_FREE * free)
        return next(allowed, None)
