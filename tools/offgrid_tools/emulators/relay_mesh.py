"""Meshes of nodes that relay, in virtual time: over an in-memory network, or over a LoRa channel."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.channel import USUAL_DBM, Channel
from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_tools.soak.chance import chance
from offgrid_transports.answers import Request
from offgrid_transports.beacons import Beacon, tag_of, write_beacon
from offgrid_transports.calls import Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.relay.relay import Relay
from offgrid_transports.transport import Transport

SF7 = Modulation(869_525_000, 125_000, 7)
CLEAN = Faults()
PSK = bytes(range(32))
TIMEOUT_MS = 60_000.0
BEACON_S = 3_600  # until the next one


class RelayNode:
    """It answers with what it was asked, after `re:`, or as `handle` says; `requests` are kept."""

    def __init__(self, mesh: Mesh, name: str, links: Iterable[Transport], *, hands_on: bool = True) -> None:
        self.name, self.mesh = name, mesh
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.handle: Callable[[Request], bytes] = lambda request: b"re:" + request.body
        self._known: set[str] = set()
        rng, own = chance(f"{mesh.seed}/{name}"), Own(_key_of(name), PSK)
        self.public = mesh.meet(name)
        self.endpoint = Endpoint(own, mesh.names.get, mesh.now_ms, mesh.schedule, rng, mesh.now_ms)
        self.endpoint.on_request = self._on_request
        self.relay = Relay(
            self.endpoint,
            self.public,
            PSK,
            mesh.now_ms,
            mesh.schedule,
            rng,
            hands_on=hands_on,
            is_member=mesh.tags.__contains__,
        )
        self.links = list(links)
        for link in self.links:
            self.relay.attach(link)

    def close(self) -> None:
        self.relay.close()
        self.endpoint.close()

    def beacon(self) -> None:
        """Says that it is there, to all who hear."""
        frame = write_beacon(PSK, Beacon(tag_of(self.public), self.mesh.now_ms(), BEACON_S))
        for link in self.links:
            self.endpoint.broadcast(link, frame)

    def call(
        self, peer: str, body: bytes, timeout_ms: float = TIMEOUT_MS, done: Callable[[Reply], None] | None = None
    ) -> None:
        """Over others; the answer goes to `replies` unless `done` takes it."""
        if peer not in self._known:
            public = self.mesh.meet(peer)
            self.endpoint.introduce(peer, public, self.relay.path_to(public))
            self._known.add(peer)
        self.endpoint.call(peer, 1, body, timeout_ms, done or self.replies.append)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        self.endpoint.respond(request, self.handle(request))


class Mesh:
    """`hears(a, b)` says whether who is in place a is heard by who is in place b; it may be changed while it runs."""

    def __init__(self, seed: int) -> None:
        self.seed, self.clock = seed, VirtualClock()
        self.nodes: list[RelayNode] = []
        self.names: dict[bytes, str] = {}
        self.tags: set[bytes] = set()
        self.hears: Callable[[int, int], bool] = lambda a, b: abs(a - b) == 1

    def now_ms(self) -> int:
        return now_ms(self.clock)

    def schedule(self, delay_ms: int, fn: Callable[[], object]) -> None:
        after_ms(self.clock, delay_ms, fn)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now_us + round(seconds * 1_000_000))

    def meet(self, name: str) -> bytes:
        """The public key of the node of that name."""
        public = _key_of(name).public_key().public_bytes_raw()
        self.names[public] = name
        self.tags.add(tag_of(public))
        return public

    def total(self, what: str) -> int:
        """Of what all relays count."""
        return sum(node.relay.counts[what] for node in self.nodes)

    def beacons(self) -> None:
        """Everybody says that it is there, one after the other."""
        for node in self.nodes:
            node.beacon()
            self.run(1)

    def asked(self, node: RelayNode, peer: str, body: bytes, timeout_ms: float = TIMEOUT_MS) -> Reply:
        """One call to its end."""
        ends: list[Reply] = []
        node.call(peer, body, timeout_ms, ends.append)
        while not ends:
            self.run(0.05)
        return ends[0]


class MemoryMesh(Mesh):
    def __init__(self, count: int, seed: int = 1, *, faults: Faults = CLEAN, hands_on: bool = True) -> None:
        super().__init__(seed)
        self.network = MemoryNetwork(chance(f"mesh {seed}"), self.schedule, faults=faults)
        self.network.cut = lambda source, target: not self.hears(int(source[1:]), int(target[1:]))
        for at in range(count):
            self.nodes.append(RelayNode(self, f"n{at}", [self.network.attach(f"n{at}")], hands_on=hands_on))


class RadioMesh(Mesh):
    def __init__(self, count: int, seed: int = 1, *, loss: float = 0.0, modulation: Modulation = SF7) -> None:
        super().__init__(seed)
        self.channel = Channel(self.clock, chance(f"mesh {seed}"), reach=self._reach, loss=loss)
        self.radios = [AirLink(f"n{at}", self.channel, modulation) for at in range(count)]
        self.nodes = [RelayNode(self, radio.name, [radio]) for radio in self.radios]

    @property
    def air_ms(self) -> float:
        """Of all that was sent."""
        return self.channel.counts.airtime_us / 1000

    def _reach(self, sender: str, hearer: str) -> float | None:
        return USUAL_DBM if self.hears(int(sender[1:]), int(hearer[1:])) else None


def _key_of(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
