"""Meshes of nodes that relay, in virtual time: over an in-memory network, or over a LoRa channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from virtual_link import PSK, VirtualTime, key_of, name_behind, public_of

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.channel import USUAL_DBM, Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_transports.answers import Request
from offgrid_transports.beacons import Beacon, tag_of, write_beacon
from offgrid_transports.calls import Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.relay.relay import Relay
from offgrid_transports.transport import Schedule, Transport

SF7 = Modulation(869_525_000, 125_000, 7)
CLEAN = Faults()


class RelayNode:
    """It answers with what it was asked, after `re:`, or as `handle` says."""

    def __init__(self, mesh: Mesh, name: str, links: Iterable[Transport], *, hands_on: bool) -> None:
        self.name, self.mesh = name, mesh
        self._known: set[str] = set()
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.handle: Callable[[Request], bytes] = lambda request: b"re:" + request.body
        rng = Random(f"{mesh.seed}/{name}")
        own = Own(key_of(name), PSK)
        self.endpoint = Endpoint(own, name_behind, mesh.now_ms, mesh.schedule, rng, mesh.now_ms)
        self.endpoint.on_request = self._on_request
        self.relay = Relay(self.endpoint, public_of(name), PSK, mesh.now_ms, mesh.schedule, rng, hands_on=hands_on)
        self.links = list(links)
        for link in self.links:
            self.relay.attach(link)

    def beacon(self) -> None:
        frame = write_beacon(PSK, Beacon(tag_of(public_of(self.name)), self.mesh.now_ms()))
        for link in self.links:
            self.endpoint.broadcast(link, frame)

    def call(self, peer: str, body: bytes, timeout_ms: float = 60_000) -> None:
        if peer not in self._known:
            self._known.add(peer)
            self.endpoint.introduce(peer, public_of(peer), self.relay.path_to(public_of(peer)))
        self.endpoint.call(peer, 1, body, timeout_ms, self.replies.append)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        self.endpoint.respond(request, self.handle(request))


class Mesh:
    """`hears(a, b)` says who hears whom, by place; may be changed while it runs."""

    def __init__(self, seed: int, now_ms: Callable[[], int], schedule: Schedule, run: Callable[[int], None]) -> None:
        self.seed, self.now_ms, self.schedule, self._run = seed, now_ms, schedule, run
        self.nodes: list[RelayNode] = []
        self.hears: Callable[[int, int], bool] = lambda a, b: abs(a - b) == 1

    def run(self, seconds: float) -> None:
        self._run(self.now_ms() + round(seconds * 1000))

    def total(self, what: str) -> int:
        return sum(node.relay.counts[what] for node in self.nodes)


class MemoryMesh(Mesh):
    def __init__(
        self, count: int, seed: int = 1, *, faults: Faults = CLEAN, hands_on: bool = True, bitrate_bps: int = 0
    ) -> None:
        world = VirtualTime()
        super().__init__(seed, lambda: world.now_ms, world.schedule, world.run)
        rng = Random(seed)
        self.network = MemoryNetwork(rng, world.schedule, faults=faults, bitrate_bps=bitrate_bps)
        self.network.cut = lambda source, target: not self.hears(int(source[1:]), int(target[1:]))
        for at in range(count):
            self.nodes.append(RelayNode(self, f"n{at}", [self.network.attach(f"n{at}")], hands_on=hands_on))


class RadioMesh(Mesh):
    def __init__(self, count: int, seed: int = 1, *, loss: float = 0.0, modulation: Modulation = SF7) -> None:
        clock = VirtualClock()
        super().__init__(
            seed,
            lambda: clock.now_us // 1000,
            lambda delay_ms, fn: clock.after(delay_ms * 1000, fn),
            lambda until_ms: clock.run(until_ms * 1000),
        )
        self.channel = Channel(clock, Random(seed), reach=self._reach, loss=loss, logged=True)
        for at in range(count):
            link = AirLink(f"n{at}", self.channel, modulation)
            self.nodes.append(RelayNode(self, f"n{at}", [link], hands_on=True))

    @property
    def air_ms(self) -> float:
        return self.channel.counts.airtime_us / 1000

    def _reach(self, sender: str, hearer: str) -> float | None:
        return USUAL_DBM if self.hears(int(sender[1:]), int(hearer[1:])) else None
