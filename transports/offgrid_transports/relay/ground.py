"""What the parts of a relay have in common: its links, its time, and who is heard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable
from random import Random

from offgrid_transports.beacons import tag_of
from offgrid_transports.path import Path
from offgrid_transports.relay.circuits import Circuit, Way
from offgrid_transports.relay.frames import HOP_BYTES, NAME_BYTES, Said, hop_of, write
from offgrid_transports.relay.link import RelayLink
from offgrid_transports.relay.metric import Metric, metric_of
from offgrid_transports.relay.neighbours import Neighbours
from offgrid_transports.relay.routes import Route, Routes
from offgrid_transports.relay.shunned import Shunned
from offgrid_transports.timers import Timers
from offgrid_transports.transport import BROADCAST, Transport

RENAME_MS = 600_000.0
FLOODS_MAX = 32  # questions that wait for their share of a link's time


def steps(hops: tuple[bytes, ...], name: bytes) -> tuple[bytes, ...]:
    """Whom a way there is blamed on: those between, or that very node where it was heard itself."""
    return hops or (hop_of(name),)


def name_of(public: bytes) -> bytes:
    """By which relays call the node with that key."""
    return tag_of(public)[:NAME_BYTES]


class Ground:
    """`name` is the node's own."""

    def __init__(self, name: bytes, psk: bytes, now_ms: Callable[[], float], rng: Random) -> None:
        self.name, self.hop, self.psk, self.rng = name, hop_of(name), psk, rng
        self.now_ms, self._renamed_ms = now_ms, -math.inf
        self.counts: Counter[str] = Counter()
        """What happened, was dropped or refused."""
        self.timers = Timers()
        self.links: list[RelayLink] = []
        self.neighbours, self.routes, self.shunned = Neighbours(), Routes(), Shunned()

    def link(self, transport: Transport) -> RelayLink:
        return next(link for link in self.links if link.transport is transport)

    @property
    def up(self) -> list[RelayLink]:
        return [link for link in self.links if link.transport.up]

    @property
    def slot_ms(self) -> float:
        return max((link.slot_ms for link in self.up), default=1.0)

    def hop_before(self, circuit: Circuit, way: Way) -> bytes:
        """Who sends frames of that way to here: the name of an end, the hop of another one."""
        places = (circuit.source, *circuit.hops, circuit.target)
        return places[circuit.place - 1 if way is circuit.forth else circuit.place + 1]

    def rename(self) -> None:
        """Another one near is called by this node's hop as well. Who needs to know the new one is told it on the way;
        what is said to the old one is the other one's from now on."""
        if self._renamed_ms + RENAME_MS <= self.now_ms():
            self._renamed_ms, self.hop = self.now_ms(), self.rng.randbytes(HOP_BYTES)
            self.counts["renamed"] += 1

    def set(self, key: object, due_ms: float) -> None:
        self.timers.set(key, None if due_ms == math.inf else math.ceil(due_ms))

    def say(self, path: Path, said: Said, carried: int = 0) -> bytes:
        """At once, whatever else is to be said."""
        frame = write(self.psk, said, shared=path.shared)
        self.link(path.transport).say(self.now_ms(), path.address, frame, carried)
        return frame

    def reply(self, path: Path, said: Said, who: Hashable) -> None:
        """Because of a frame that anybody may say, or say again: within the shares of that. `who` as in Shares."""
        frame = write(self.psk, said, shared=path.shared)
        if not self.link(path.transport).reply(self.now_ms(), path.address, frame, who):
            self.counts["replies_refused"] += 1

    def known_as(self, who: bytes, path: Path) -> Hashable:
        """For whom that counts which somebody says who calls himself so: all of whom that is not known are one."""
        known = self.neighbours.proved(self.now_ms(), who, path)
        return hop_of(who) if known else id(path.transport)

    def flood(self, link: RelayLink, said: Said) -> None:
        """To all on a link, when its share of the link's time is there."""
        if len(link.floods) >= FLOODS_MAX:
            self.counts["control_dropped"] += 1
            return
        link.floods.append(write(self.psk, said, shared=link.transport.shared))
        self.go_on_flooding(link)

    def go_on_flooding(self, link: RelayLink) -> None:
        while link.floods:
            frame = link.floods[0]
            wait_ms = link.may_say_ms(self.now_ms(), len(frame))
            if wait_ms is not None and wait_ms > 0:
                self.counts["control_delayed"] += 1
                self.set(("flood", link.place), self.now_ms() + wait_ms)
                return
            link.floods.popleft()
            if wait_ms is None:
                self.counts["control_dropped"] += 1
            else:
                link.say(self.now_ms(), BROADCAST, frame)

    def next_path(self, who: bytes) -> Path | None:
        return self.neighbours.path(self.now_ms(), who)

    def hops_to(self, name: bytes) -> tuple[bytes, ...] | None:
        """Those between, by the best way that is known and whose first hop is heard."""
        route = self.route_to(name)
        return None if route is None else route.hops

    def route_to(self, name: bytes) -> Route | None:
        """As `hops_to`."""
        now_ms = self.now_ms()
        if self.neighbours.is_near(now_ms, name) and not self.shunned.has(now_ms, hop_of(name)):
            path = self.next_path(name)
            return Route((), now_ms, 1 if path is None else metric_of(path).cost_ms)
        route = self.routes.get(now_ms, name)
        if route is None or self.next_path(route.hops[0] if route.hops else name) is None:
            return None
        return route

    def learn(self, name: bytes, hops: tuple[bytes, ...], cost_ms: int, *, asked: bool = False) -> None:
        """A way there, as somebody says; `asked`: to this node, and knowing whom it would rather avoid."""
        now_ms = self.now_ms()
        if asked or not any(self.shunned.has(now_ms, hop) for hop in steps(hops, name)):
            if self.route_to(name) is None:
                self.routes.forget(name)  # whose first hop is not heard any more, however cheap it was
            self.routes.learn(now_ms, name, hops, cost_ms)

    def prove(self, name: bytes, hops: tuple[bytes, ...], cost_ms: int) -> None:
        """Word came from there over them."""
        self.routes.prove(self.now_ms(), name, hops, cost_ms)
        self.shunned.proved(self.now_ms(), steps(hops, name))

    def distrust(self, name: bytes, hops: tuple[bytes, ...], *, blamed: bool) -> None:
        """That way there leads on no more; `blamed`: perhaps because one on it drops what it should hand on."""
        self.routes.distrust(name)
        if blamed:
            self.shun(steps(hops, name), name)

    def shun(self, hops: tuple[bytes, ...], name: bytes = b"") -> None:
        """One of them drops what it should hand on, perhaps: ways over them that were only told are none. `name`: as
        in Shunned."""
        self.shunned.failed(self.now_ms(), hops, name)
        self.routes.forget_told(frozenset(hops))

    def guess(self, hops: int) -> Metric | None:
        """Of a way of so many hops, as if all were like this node's own slowest one. None without a link."""
        metrics = [metric_of(Path(link.transport, BROADCAST)) for link in self.up]
        if not metrics:
            return None
        return max(metrics, key=lambda metric: metric.airtime_ms(100)).times(hops)
