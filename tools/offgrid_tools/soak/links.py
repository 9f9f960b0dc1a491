"""Storms over links: nodes call each other over a bad network or a busy LoRa channel, and each promise is checked.

A seed draws the link and how bad it is, who calls whom when, with how much and how long it waits, how long work takes,
and which node of a network begins anew. Everything runs in virtual time, on the real endpoints, the real LoRa adapter
and emulated modems. Promised is: each call ends, once; no node carries one out twice, unless it began anew in between;
an answer is that of its call; what is said to be refused was not carried out; and when all have ended the link falls
silent.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_tools.emulators.rnode import Firmware, RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_tools.soak.chance import chance
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.path import Path
from offgrid_transports.transport import BROADCAST, Transport

NAMES = "abc"
CALLS = 40
PSK = bytes(32)
TAG_BYTES = 8  # of a call, before what it is padded with
TIMEOUTS_MS = (200, 2_000, 20_000, 200_000)
QUIET_S = 900  # after the last call's time is up, all is said
RESTART = 0.03  # how likely before a call
STEP = 100
FAST = Modulation(869_525_000, 125_000, 7)
FREE = Band(0, 10**10, 99, ())  # no limit on what is sent


class Call(msgspec.Struct):
    server: str
    tag: bytes
    ends: list[Reply] = msgspec.field(default_factory=list)


class Storm:
    """One seed's."""

    def __init__(self, seed: int) -> None:
        self._rng = chance(f"{seed}/links")
        self._clock = VirtualClock()
        self._names = NAMES[: self._rng.choice((2, 2, 3))]
        self._keys = {name: X25519PrivateKey.from_private_bytes(_digest(name)) for name in self._names}
        self._calls: list[Call] = []
        self._ran: Counter[tuple[Endpoint, bytes]] = Counter()
        self._network: MemoryNetwork | None = None
        self.kind = self._rng.choice(("network", "network", "LoRa"))
        links = self._over_network() if self.kind == "network" else self._over_lora()
        self._nodes = {name: self._node(name, link) for name, link in links.items()}

    def run(self) -> list[str]:
        """What was promised and is not so."""
        rng, slow = self._rng, 1 if self.kind == "network" else 20
        for _ in range(CALLS):
            self._pass_ms(slow * rng.choice((0, 0, 1, 5, 50, 500)))
            if self._network is not None and rng.random() < RESTART:
                self._restart(self._network, rng.choice(self._names))
            client, server = rng.sample(self._names, 2)
            call = Call(server, len(self._calls).to_bytes(TAG_BYTES))
            self._calls.append(call)
            body = call.tag + bytes(rng.choice((0, 0, 10, 300, 3_000)))
            self._nodes[client].call(server, 1, body, slow * rng.choice(TIMEOUTS_MS), call.ends.append)
        self._pass_ms(slow * TIMEOUTS_MS[-1] + QUIET_S * 1000)
        return [*self._broken(), *self._unquiet()]

    def _broken(self) -> list[str]:
        found = []
        for call in self._calls:
            ran = max((count for (_, tag), count in self._ran.items() if tag == call.tag), default=0)
            said = f"call {int.from_bytes(call.tag)} of {call.server}"
            if len(call.ends) != 1:
                found.append(f"{said} ended {len(call.ends)} times")
            elif ran > 1:
                found.append(f"{said} was carried out {ran} times, and ended {call.ends[0].end.name}")
            elif call.ends[0].end is End.OK and (not ran or not call.ends[0].body.startswith(call.tag)):
                found.append(f"{said} got an answer that is not its own: {call.ends[0].body[:TAG_BYTES].hex()}")
            elif call.ends[0].end is End.REFUSED and ran:
                found.append(f"{said} was carried out, though refused: {call.ends[0].detail}")
        return found

    def _restart(self, network: MemoryNetwork, name: str) -> None:
        self._nodes[name].close()
        self._nodes[name] = self._node(name, network.attach(name))

    def _unquiet(self) -> list[str]:
        if self._network is None:
            return []
        before = self._network.frames_sent
        self._pass_ms(QUIET_S * 1000)
        after = self._network.frames_sent
        return [f"{after - before} frames in the silence after all"] if after > before else []

    # ---- the world

    def _over_network(self) -> dict[str, Transport]:
        rng = self._rng
        faults = Faults(
            loss=rng.choice((0.0, 0.05, 0.2, 0.4)),
            duplicate=rng.choice((0.0, 0.1)),
            delay_ms=rng.choice((1, 10, 200)),
            jitter_ms=rng.choice((0, 5, 300)),
        )
        self._network = MemoryNetwork(
            rng,
            self._schedule,
            mtu_bytes=rng.choice((200, 1200)),
            bitrate_bps=rng.choice((0, 0, 50_000)),
            faults=faults,
        )
        return {name: self._network.attach(name) for name in self._names}

    def _over_lora(self) -> dict[str, Transport]:
        rng = self._rng
        channel = Channel(self._clock, rng, loss=rng.choice((0.0, 0.1, 0.2, 0.3)))
        links: dict[str, Transport] = {}
        for name in self._names:
            device, line = RNodeEmulator(name, channel, lambda data: None, Firmware()), VirtualLine(self._clock)
            line.plug(device)
            links[name] = RadioLink(name, line, RNode(FAST), FREE, virtual_host(self._clock, rng))
        return links

    def _node(self, name: str, link: Transport) -> Endpoint:
        known = {self._public(other): other for other in self._names}
        node = Endpoint(
            Own(self._keys[name], PSK),
            known.get,
            self._now_ms,
            self._schedule,
            chance(name),
            self._now_ms,
        )
        work_ms = self._rng.choice((0, 0, 50, 2_000))
        node.on_request = lambda request: self._serve(node, request, work_ms)
        node.attach(link)
        for other in self._names:
            if other != name:
                node.introduce(other, self._public(other), Path(link, BROADCAST if link.shared else other))
        return node

    def _serve(self, node: Endpoint, request: Request, work_ms: int) -> None:
        tag = request.body[:TAG_BYTES]
        self._ran[node, tag] += 1
        answer = tag + bytes(self._rng.choice((0, 0, 300, 3_000)))
        self._schedule(work_ms, lambda: node.respond(request, answer))

    def _public(self, name: str) -> bytes:
        return self._keys[name].public_key().public_bytes_raw()

    def _now_ms(self) -> int:
        return now_ms(self._clock)

    def _schedule(self, delay_ms: int, fn: Callable[[], object]) -> None:
        after_ms(self._clock, delay_ms, fn)

    def _pass_ms(self, passed_ms: int) -> None:
        self._clock.run(self._clock.now_us + passed_ms * 1000)


def soak_links(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """So many storms from that seed on; what was broken, each with its seed."""
    broken: list[str] = []
    for number in range(seed, seed + rounds):
        broken += [f"storm {number}: {wrong}" for wrong in Storm(number).run()]
        if (number - seed + 1) % STEP == 0:
            say(f"   {number - seed + 1:6} storms, {len(broken)} violations")
    return broken


def _digest(name: str) -> bytes:
    return hashlib.blake2s(name.encode()).digest()
