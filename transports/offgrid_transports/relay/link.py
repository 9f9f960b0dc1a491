"""A link as relays use it beside the sessions: a short queue of its own, and a budget for what is said about ways."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable

from offgrid_transports.path import DOWN_MS
from offgrid_transports.relay.budget import DEPTH_FRAMES, SHARE, Budget, Share, Shares
from offgrid_transports.relay.frames import NAME_BYTES
from offgrid_transports.relay.queueing import Queue, Queued, leaves_as
from offgrid_transports.spending import Spending
from offgrid_transports.transport import BROADCAST, Priority, Transport, duty_share

DELAY_MS_MAX = 30_000.0  # that a question waits for its share of the link's time
ASK_BYTES = 16 + 4 * NAME_BYTES  # a question with some hops in it
SLOT_MS_MIN = 2.0
DUTY_PART = 0.2  # of what rules allow, that goes to questions at most
# questions heard that may go on: where they take no air, what all their ways cost is little
ASKS = Share(0.01, 0.05, 10, least_ms=0.1)
REPLIES = Share(0.1, 0.2, 20)  # short words that a frame brings about which anybody may say, or say again
OPENS = Share(0.1, 0.2, 20, least_ms=0.5)  # handed on, or answered
CARRIED = Share(0.6, 0.9, 200)  # of one circuit in one direction, that comes from a shared medium
WAYS = "ways"  # for whom time is counted that goes to words about ways


class RelayLink:
    """`place` tells it from the node's other ones."""

    def __init__(self, transport: Transport, place: int, now_ms: Callable[[], float], counts: Counter[str]) -> None:
        self.transport, self.place, self._counts = transport, place, counts
        self.floods: deque[bytes] = deque()
        """Questions that wait for their share of the link's time."""
        self.spending = Spending()
        """For whom the link's time went to frames of relays."""
        self._now_ms, self._queue, self._owes_turn = now_ms, Queue(), False
        duty = duty_share(transport)
        self._budget = Budget(now_ms(), min(SHARE, DUTY_PART * duty))
        self.asks = Shares(now_ms(), ASKS)
        self._replies = Shares(now_ms(), REPLIES.of(duty))
        self.opens = Shares(now_ms(), OPENS.of(duty))
        self.carried = Shares(now_ms(), CARRIED.of(duty))

    @property
    def slot_ms(self) -> float:
        """What a question takes here."""
        transport = self.transport
        return max(SLOT_MS_MIN, transport.airtime_ms(min(ASK_BYTES, transport.mtu_bytes())) + transport.access_ms)

    def sent_ms(self, length: int, priority: Priority, *, handed_on: bool = False) -> float:
        """In how long a frame handed over now will have left."""
        wait_ms = self.transport.wait_ms(length, leaves_as(priority, handed_on=handed_on))
        ahead = (each for each in self._queue.frames() if each.priority <= priority)
        queued_ms = sum(self.transport.airtime_ms(len(each.frame)) for each in ahead)
        return (wait_ms if wait_ms < math.inf else DOWN_MS) + queued_ms + self.transport.airtime_ms(length)

    def send(
        self, address: str, frame: bytes, priority: Priority, who: str, flow: Hashable, *, handed_on: bool = False
    ) -> bool:
        """`who` has its time counted; frames of a `flow` keep their order. False where it was dropped. What is too long
        for the link is dropped as well."""
        queued = Queued(flow, address, frame, priority, who, handed_on)
        if not self._queue.holds_up(leaves_as(priority, handed_on=handed_on)) and self._send(queued):
            return True
        if not self.transport.up:
            self._counts["relay_queue_full"] += 1
            return False
        before = len(self._queue)
        taken = self._queue.add(queued)
        self._counts["relay_queue_full"] += len(self._queue) == before
        return taken

    def is_full(self, priority: Priority) -> bool:
        """For a frame of this node's own."""
        return self._queue.holds_up(priority)

    def goes_first(self) -> bool:
        """What waits here takes the room that there is now before what this node has to say itself: each in turn, and
        what is urgent always."""
        first = self._queue.first()
        self._owes_turn = not self._owes_turn
        return first is not None and (self._owes_turn or first.priority <= Priority.PAYMENT)

    def on_room(self) -> None:
        for own in (False, True):  # where the rules of the air leave time for what is urgent alone
            while (first := self._queue.first(own=own)) is not None and self._send(first):
                self._queue.sent(first)

    def clear(self) -> None:
        self._queue.clear()
        self.floods.clear()

    def may_say_ms(self, now_ms: float, length: int) -> float | None:
        """How long a question has to wait for its share of the link's time; None where that is too long."""
        air_ms = self.transport.airtime_ms(length)
        self._budget.deepen(DEPTH_FRAMES * air_ms)
        wait_ms = self._budget.wait_ms(now_ms, air_ms)
        return wait_ms if wait_ms <= DELAY_MS_MAX else None

    def say(self, now_ms: float, address: str, frame: bytes, carried: int = 0) -> None:
        """A word about ways, out of the share of questions; `carried` bytes of it are somebody's frame, and not
        counted. To all where there is no address."""
        air_ms = self.transport.airtime_ms(len(frame)) - (self.transport.airtime_ms(carried) if carried else 0.0)
        self._budget.deepen(DEPTH_FRAMES * air_ms)
        self._budget.spend(now_ms, air_ms)
        self._say(address, frame, air_ms)

    def reply(self, now_ms: float, address: str, frame: bytes, who: Hashable) -> bool:
        """A word that a frame brings about which anybody may say, or say again: out of the shares of that alone. False
        where they are spent."""
        air_ms = self.transport.airtime_ms(len(frame))
        taken = self._replies.take(now_ms, who, air_ms)
        if taken:
            self._say(address, frame, air_ms)
        return taken

    def _say(self, address: str, frame: bytes, air_ms: float) -> None:
        self._counts["control_frames"] += 1
        self._counts["control_air_us"] += round(air_ms * 1000)
        self.send(BROADCAST if self.transport.shared else address, frame, Priority.CONTROL, WAYS, frame)

    def _send(self, queued: Queued) -> bool:
        try:
            leaves = leaves_as(queued.priority, handed_on=queued.handed_on)
            sent = self.transport.send(queued.address, queued.frame, leaves)
        except ValueError:
            self._counts["relay_too_long"] += 1
            return True
        if sent:
            air_ms = self.transport.airtime_ms(len(queued.frame))
            self.spending.add(self._now_ms(), queued.who, queued.priority, air_ms)
        return sent
