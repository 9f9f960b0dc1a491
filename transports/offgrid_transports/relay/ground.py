"""What the parts of a relay have in common: its links, its time, and who is heard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

from offgrid_transports.beacons import tag_of
from offgrid_transports.path import Path
from offgrid_transports.relay.frames import NAME_BYTES, Said, hop_of, write
from offgrid_transports.relay.link import RelayLink
from offgrid_transports.relay.metric import Metric, metric_of
from offgrid_transports.relay.routes import Neighbours, Routes
from offgrid_transports.timers import Timers
from offgrid_transports.transport import BROADCAST, Transport


def name_of(public: bytes) -> bytes:
    """By which relays call the node with that key."""
    return tag_of(public)[:NAME_BYTES]


class Ground:
    """`name` is the node's own."""

    def __init__(self, name: bytes, psk: bytes, now_ms: Callable[[], float], rng: Random) -> None:
        self.name, self.hop, self.psk, self.rng = name, hop_of(name), psk, rng
        self.now_ms = now_ms
        self.counts: Counter[str] = Counter()
        """What happened, was dropped or refused."""
        self.timers = Timers()
        self.links: list[RelayLink] = []
        self.neighbours, self.routes = Neighbours(), Routes()

    def link(self, transport: Transport) -> RelayLink:
        return next(link for link in self.links if link.transport is transport)

    @property
    def up(self) -> list[RelayLink]:
        return [link for link in self.links if link.transport.up]

    @property
    def slot_ms(self) -> float:
        return max((link.slot_ms for link in self.up), default=1.0)

    def set(self, key: object, due_ms: float) -> None:
        self.timers.set(key, None if due_ms == math.inf else math.ceil(due_ms))

    def say(self, path: Path, said: Said, carried: int = 0) -> bytes:
        """At once, whatever else is to be said."""
        frame = write(self.psk, said)
        self.link(path.transport).say(self.now_ms(), path.address, frame, carried)
        return frame

    def flood(self, link: RelayLink, said: Said) -> None:
        """To all on a link, when its share of the link's time is there."""
        frame = write(self.psk, said)
        wait_ms = link.may_say_ms(self.now_ms(), len(frame))
        if wait_ms is None:
            self.counts["control_dropped"] += 1
        elif wait_ms <= 0:
            link.say(self.now_ms(), BROADCAST, frame)
        else:
            self.counts["control_delayed"] += 1
            self.set(("flood", link.place, said), self.now_ms() + wait_ms)

    def next_path(self, hop: bytes) -> Path | None:
        return self.neighbours.path(self.now_ms(), hop)

    def hops_to(self, name: bytes) -> tuple[bytes, ...] | None:
        """Those between, by the shortest way that is known and whose first hop is heard."""
        now_ms = self.now_ms()
        if self.neighbours.is_near(now_ms, name):
            return ()
        route = self.routes.get(now_ms, name)
        if route is None or self.next_path(route.hops[0] if route.hops else hop_of(name)) is None:
            return None
        return route.hops

    def distrust(self, name: bytes) -> None:
        """A way there brought no word."""
        self.routes.distrust(name)

    def guess(self, hops: int) -> Metric | None:
        """Of a way of so many hops, as if all were like this node's own slowest one. None without a link."""
        metrics = [metric_of(Path(link.transport, BROADCAST)) for link in self.up]
        if not metrics:
            return None
        return max(metrics, key=lambda metric: metric.airtime_ms(100)).times(hops)
