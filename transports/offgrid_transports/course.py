"""A session's frames over one path: what is under way there, how fast more may leave, and what was seen of it."""

from __future__ import annotations

import math
from collections.abc import Callable

from offgrid_transports.flight import REORDER_FRAMES, Flight, Packet
from offgrid_transports.outgoing import Outgoing
from offgrid_transports.pacing import Controller
from offgrid_transports.path import Path
from offgrid_transports.records import ACK_BITS_MAX, Ack
from offgrid_transports.roads import Measured
from offgrid_transports.transport import Priority

WINDOW_FRAMES = 2 * ACK_BITS_MAX  # under way: of what came long before the newest nobody would speak
LATELY_FRAMES = 512  # of which the share that was lost is told


class Course:
    """Where the medium is shared the bursts say when to send, elsewhere a controller does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flight = Flight(0 if path.shared else REORDER_FRAMES, path.guess_ms)
        self._controller = None if path.shared else Controller(path.frame_bytes, window_frames_max=WINDOW_FRAMES)
        self._arrived, self._lost = 0, 0  # frames of late

    # ---- what was seen

    @property
    def measured(self) -> Measured | None:
        """None while no word has come."""
        if not self._arrived:
            return None
        known = self._controller is not None and self._controller.rtt_ms < math.inf
        rate = self._controller.rate if self._controller is not None and known else math.inf
        return Measured(self.flight.delay.smooth_ms, self._lost / (self._arrived + self._lost), rate)

    def patience_ms(self, length: int) -> float:
        """How long the answer to a frame of that length is worth waiting for."""
        path = self.path
        return path.answered_ms(length, Priority.CONTROL) + path.ack_delay_ms + self.flight.delay.patience_ms

    def span_before(self, number: int) -> int:
        """How many frames before that one a question asks about."""
        return min(number - next(iter(self.flight.packets), number), ACK_BITS_MAX)

    # ---- how fast

    @property
    def paced(self) -> bool:
        """By the controller."""
        return self._controller is not None

    def may_send(self, now_ms: float) -> bool:
        """A whole frame."""
        if self._controller is None:
            return True
        frame_bytes = self.path.frame_bytes  # which may be another one since
        self._controller.on_frame_bytes(frame_bytes)
        return self._controller.can_send(now_ms, frame_bytes)

    def next_send_ms(self, now_ms: float) -> float:
        """When a whole frame may leave."""
        if self._controller is None or self._controller.can_send(now_ms, self.path.frame_bytes):
            return now_ms
        return max(now_ms + 1, self._controller.next_send_ms(now_ms, self.path.frame_bytes))

    # ---- what happens

    def sent(self, now_ms: float, packet: Packet, length: int) -> None:
        self.flight.sent(packet)
        if self._controller is not None:
            self._controller.on_sent(now_ms, packet.number, length)

    def on_ack(self, now_ms: float, ack: Ack, answered: Callable[[int], int]) -> tuple[list[Packet], list[Packet]]:
        """Those that have arrived, and those that are lost; neither is under way any more. `answered` as `Flight` has
        it."""
        arrived, lost = self.flight.acknowledged(now_ms, ack, answered)
        self._arrive(now_ms, arrived, ack.delay_ms)
        self.lose(now_ms, lost)
        return arrived, lost

    def settle(self, now_ms: float, outgoing: Outgoing) -> None:
        """That message is there."""
        self._arrive(now_ms, self.flight.settle(now_ms, outgoing), 0.0)

    def lose(self, now_ms: float, packets: list[Packet]) -> None:
        """They are not under way any more, and count as lost."""
        self._slow_down(now_ms, packets)
        self._count(0, len(packets))

    def let_go(self, now_ms: float, packets: list[Packet]) -> None:
        """Nobody wants what is in them, so nobody asks whether they came."""
        for packet in packets:
            del self.flight.packets[packet.number]
        self._slow_down(now_ms, packets)
        self.flight.tries = 0

    # ---- inside

    def _arrive(self, now_ms: float, packets: list[Packet], delay_ms: float) -> None:
        if self._controller is not None and packets:
            self._controller.on_acked(now_ms, [packet.number for packet in packets], delay_ms)
        self._count(len(packets), 0)

    def _slow_down(self, now_ms: float, lost: list[Packet]) -> None:
        if self._controller is not None and lost:
            self._controller.on_lost(now_ms, [packet.number for packet in lost])

    def _count(self, arrived: int, lost: int) -> None:
        self._arrived, self._lost = self._arrived + arrived, self._lost + lost
        if self._arrived + self._lost > LATELY_FRAMES:
            self._arrived, self._lost = self._arrived // 2, self._lost // 2
