"""Frames under way: which have arrived, which are lost, and how long to wait for word of them.

Each frame has a number of its own that is never used again (as QUIC's packets, RFC 9002), so an acknowledgement says of
each whether it came, and what is sent again is never taken for what was lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import msgspec

from offgrid_transports.outgoing import Outgoing, Span
from offgrid_transports.records import Ack

REORDER_FRAMES = 3  # on a link that may reorder: so many later ones arrived (RFC 9002, 6.1.1), and
LATE = 1.25  # it is later than that, in round trips, then a missing one is lost (RFC 8985, 6.2)
WAIT_MS_MIN, WAIT_MS_MAX = 10.0, 60_000.0
DOUBLINGS_MAX = 6
PATIENT_TRIES = 3  # before waits are doubled: what is lost now and then is asked for at once
PATIENT_TRIES_SHARED = 1  # where it may be others who speak
_HALF, _WHOLE = 0x8000, 0x10000


class Packet(msgspec.Struct, frozen=True):
    """`expected_ms`: when the link itself can have carried it and the shortest answer; what that takes beyond is the
    peer's time. `due_ms`: how much of that its peer may take on purpose; infinite where no word is expected."""

    number: int
    expected_ms: float
    due_ms: float
    spans: tuple[tuple[Outgoing, Span], ...]


class Delay:
    """How long a peer takes to answer, beyond what the link takes. RFC 6298, in milliseconds."""

    def __init__(self, guess_ms: float) -> None:
        self._smooth_ms, self._var_ms = guess_ms, guess_ms / 2
        self._sampled = False

    @property
    def patience_ms(self) -> float:
        """How long to wait before an answer counts as lost."""
        return self._smooth_ms + max(4 * self._var_ms, 1.0)

    @property
    def late_ms(self) -> float:
        """How long to wait where a later one has been answered."""
        return self._smooth_ms * LATE + 2 * self._var_ms

    @property
    def smooth_ms(self) -> float:
        return self._smooth_ms

    def sample(self, delay_ms: float) -> None:
        delay_ms = max(0.0, delay_ms)
        if not self._sampled:
            self._sampled = True
            self._smooth_ms, self._var_ms = delay_ms, delay_ms / 2
            return
        self._var_ms = 0.75 * self._var_ms + 0.25 * abs(self._smooth_ms - delay_ms)
        self._smooth_ms = 0.875 * self._smooth_ms + 0.125 * delay_ms


class Flight:
    """`reorder`: see REORDER_FRAMES; 0 on a link that keeps their order. `guess_ms`: of the peer's delay."""

    def __init__(self, reorder: int, guess_ms: float) -> None:
        self._reorder = reorder
        self._patient_tries = PATIENT_TRIES if reorder else PATIENT_TRIES_SHARED
        self.delay = Delay(guess_ms)
        self.packets: dict[int, Packet] = {}  # by number, rising
        self.tries = 0
        """Waits in a row that brought no word."""
        self._told = -1  # the newest number that has arrived

    def __len__(self) -> int:
        return len(self.packets)

    def sent(self, packet: Packet) -> None:
        self.packets[packet.number] = packet

    def acknowledged(
        self, now_ms: float, ack: Ack, answered: Callable[[int], int] = lambda newest: newest
    ) -> tuple[list[Packet], list[Packet]]:
        """Those that have arrived, and those that are lost; neither is under way any more. `answered` says of the
        newest that came up to which one there is word: what is beyond that was lost, on a link that keeps the
        order."""
        if (newest := self._whole(ack.newest)) is None:
            return [], []
        end = answered(newest)
        missing = {newest - age for age in ack.missing}
        arrived, lost = list[Packet](), list[Packet]()
        for number, packet in self.packets.items():
            if number > newest:
                if number <= end and not self._reorder:
                    lost.append(packet)
                continue
            if newest - number > ack.span:
                if self._reorder and now_ms >= packet.expected_ms + self._overdue_ms:
                    lost.append(packet)  # nobody will speak of it any more
            elif number not in missing:
                arrived.append(packet)
            elif newest - number >= self._reorder and now_ms >= packet.expected_ms + self._overdue_ms:
                lost.append(packet)
        for packet in (*arrived, *lost):
            del self.packets[packet.number]
        if arrived:
            self.tries = 0
            self._told = max(self._told, arrived[-1].number)
            overtaken = not self._reorder and self.packets  # what left later kept the medium from the answer
            if (last := arrived[-1]).number == newest and not overtaken:
                self.delay.sample(now_ms - last.expected_ms - ack.delay_ms)
        return arrived, lost

    def settle(self, now_ms: float, outgoing: Outgoing) -> list[Packet]:
        """An answer tells that this message arrived, whatever its frames' acknowledgements say: those that carried
        nothing else are not under way any more."""
        told = [packet for packet in self.packets.values() if all(item is outgoing for item, _ in packet.spans)]
        for packet in told:
            del self.packets[packet.number]
        if told:
            self._told = max(self._told, told[-1].number)
            quick_ms = now_ms - told[-1].expected_ms
            early = told[-1].number < 0  # it left with the hello, nobody knows when
            if not early and not self.tries and quick_ms < self.delay.patience_ms:  # later it may be slow work
                self.delay.sample(quick_ms)
            self.tries = 0
        return told

    def overtaken(self, now_ms: float) -> list[Packet]:
        """Those that a later one has overtaken, and of which there was time for word; they are not under way any more.
        Only on a link that may reorder: elsewhere a burst's end asks."""
        lost = list[Packet]()
        for packet in self.packets.values():
            if self._overtaken_ms(packet) > now_ms:
                break
            lost.append(packet)
        for packet in lost:
            del self.packets[packet.number]
        return lost

    def _overtaken_ms(self, packet: Packet) -> float:
        """When it counts as lost, as a later one has arrived; infinite where none has."""
        if not self._reorder or packet.number >= self._told:
            return math.inf
        return packet.expected_ms + packet.due_ms + max(self.delay.late_ms, WAIT_MS_MIN)

    def lose_all(self) -> list[Packet]:
        """The peer, or the road, is another one now."""
        lost = list(self.packets.values())
        self.packets.clear()
        self.tries = 0
        return lost

    @property
    def _overdue_ms(self) -> float:
        """Later than that after it could be answered, a frame that others have overtaken is not just late."""
        return self.delay.smooth_ms * LATE if self._reorder else -math.inf

    @property
    def due_ms(self) -> float:
        """When to look at those that were overtaken, or to ask what has become of them: after the newest of which word
        is expected. Infinite for none."""
        oldest = next(iter(self.packets.values()), None)
        return math.inf if oldest is None else min(self._overtaken_ms(oldest), self._asking_ms)

    @property
    def _asking_ms(self) -> float:
        for packet in reversed(self.packets.values()):
            if packet.due_ms < math.inf:
                doublings = min(max(0, self.tries - self._patient_tries), DOUBLINGS_MAX)
                patience_ms = self.delay.patience_ms * (1 << doublings)
                return packet.expected_ms + packet.due_ms + min(max(patience_ms, WAIT_MS_MIN), WAIT_MS_MAX)
        return math.inf

    def _whole(self, low: int) -> int | None:
        """The counter that an acknowledgement means: the newest that was sent and ends so."""
        if not self.packets:
            return None
        last = next(reversed(self.packets))
        number = last & ~0xFFFF | low
        if number > last + _HALF:
            number -= _WHOLE
        elif number <= last - _HALF:
            number += _WHOLE
        return number


def spans_of(packets: Iterable[Packet]) -> Iterator[tuple[Outgoing, Span]]:
    for packet in packets:
        yield from packet.spans
