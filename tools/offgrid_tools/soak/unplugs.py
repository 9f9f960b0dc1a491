"""A LoRa modem that is pulled out and plugged in again, a thousand times, while nodes call each other over it.

In virtual time, over the real adapters and emulated modems of both KISS kinds. It is pulled at any moment: while it is
found, set up, idle, or in the middle of a frame; with its power, so that it has forgotten everything, or without. Held
is: each time the link is up again within two seconds; each call ends once, is carried out once at most, and its answer
is its own; nothing piles up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_tools.emulators.meshcore import MeshCoreEmulator
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_tools.fuzz.frames import PSK, key_of, public_of
from offgrid_tools.soak.chance import chance
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.lora.meshcore import MeshCore
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.path import Path
from offgrid_transports.transport import BROADCAST

BACK_MS = 2_000
TIMEOUT_MS = 60_000
QUIET_MS = 300_000
TIMERS_MAX = 200  # that wait at the end of it all
FAST = Modulation(869_525_000, 125_000, 7)
FREE = Band(0, 10**10, 99, ())  # no limit on what is sent
NAMES = {public_of(name): name for name in "ab"}


class _Call(msgspec.Struct):
    body: bytes
    ends: list[Reply] = msgspec.field(default_factory=list)


class Unplugging:
    """Two nodes; it is a's modem that comes and goes."""

    def __init__(self, seed: int) -> None:
        self._rng = chance(f"{seed}/unplugs")
        self._clock = VirtualClock()
        channel = Channel(self._clock, self._rng)
        kind = (RNode, MeshCore)[seed % 2]
        self._calls: list[_Call] = []
        self._ran: Counter[bytes] = Counter()
        self._devices: dict[str, RNodeEmulator | MeshCoreEmulator] = {}
        self._lines = {name: VirtualLine(self._clock) for name in "ab"}
        self._links: dict[str, RadioLink] = {}
        self._nodes: dict[str, Endpoint] = {}
        for name, line in self._lines.items():
            twin = RNodeEmulator if kind is RNode else MeshCoreEmulator
            device = self._devices[name] = twin(name, channel, lambda data: None)
            line.plug(device)
            link = self._links[name] = RadioLink(name, line, kind(FAST), FREE, virtual_host(self._clock, self._rng))
            self._nodes[name] = self._node(name, link)
        self.slowest_ms = 0

    def run(self, times: int) -> list[str]:
        """What was promised and is not so."""
        found = []
        self._pass_ms(BACK_MS)
        for number in range(times):
            for _ in range(self._rng.choice((0, 0, 1, 2))):
                self._call(*self._rng.choice(("ab", "ba")))
            self._pass_ms(self._rng.choice((0, 3, 40, 300, 1_500, 4_000)))
            self._lines["a"].unplug()
            if self._rng.random() < 0.5:
                self._devices["a"].reboot()
            self._pass_ms(self._rng.choice((2, 10, 500, 3_000)))
            self._lines["a"].plug(self._devices["a"])
            if self._rng.random() < 0.2:
                continue  # it is pulled again before it is set up
            found += self._wait_up(number)
        self._pass_ms(TIMEOUT_MS + QUIET_MS)
        return [*found, *self._broken()]

    def _wait_up(self, number: int) -> list[str]:
        """The link, not its news, which may still be under way."""
        for waited_ms in range(0, BACK_MS, 10):
            if self._links["a"].up and waited_ms:
                self.slowest_ms = max(self.slowest_ms, waited_ms)
                return []
            self._pass_ms(10)
        figures = self._links["a"].figures()
        return [f"time {number}: not back after {BACK_MS} ms: {figures.get('trouble', figures['state'])}"]

    def _broken(self) -> list[str]:
        found = []
        for call in self._calls:
            ran, said = self._ran[call.body], call.body.decode()
            if len(call.ends) != 1:
                found.append(f"call {said} ended {len(call.ends)} times")
            elif ran > 1:
                found.append(f"call {said} was carried out {ran} times")
            elif call.ends[0].end is End.OK and (not ran or call.ends[0].body != b"re:" + call.body):
                found.append(f"call {said} got an answer that is not its own: {call.ends[0].body!r}")
            elif call.ends[0].end is End.REFUSED and ran:
                found.append(f"call {said} was carried out, though refused: {call.ends[0].detail}")
        before = len(self._calls)
        for one, other in ("ab", "ba"):
            self._call(one, other)
        self._pass_ms(TIMEOUT_MS)
        found += [f"after all of it: {call.ends}" for call in self._calls[before:] if call.ends[0].end is not End.OK]
        waiting = self._clock.waiting
        return [*found, f"{waiting} timers wait"] if waiting > TIMERS_MAX else found

    # ---- the world

    def _node(self, name: str, link: RadioLink) -> Endpoint:
        clock, other = self._clock, "ab".replace(name, "")
        node = Endpoint(
            Own(key_of(name), PSK),
            NAMES.get,
            lambda: now_ms(clock),
            lambda delay_ms, fn: after_ms(clock, delay_ms, fn),
            chance(name),
            lambda: now_ms(clock),
        )
        node.on_request = lambda request: self._serve(node, request)
        node.attach(link)
        node.introduce(other, public_of(other), Path(link, BROADCAST))
        return node

    def _serve(self, node: Endpoint, request: Request) -> None:
        self._ran[request.body] += 1
        node.respond(request, b"re:" + request.body)

    def _call(self, one: str, other: str) -> None:
        call = _Call(f"{len(self._calls)} of {one}".encode())
        self._calls.append(call)
        self._nodes[one].call(other, 1, call.body, TIMEOUT_MS, call.ends.append)

    def _pass_ms(self, passed_ms: int) -> None:
        self._clock.run(self._clock.now_us + passed_ms * 1000)

    @property
    def answered(self) -> int:
        return sum(call.ends[0].end is End.OK for call in self._calls if call.ends)

    @property
    def calls(self) -> int:
        return len(self._calls)


def soak_unplugs(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """Pulls each of four modems, of both kinds in turn, `rounds` times; what was broken, each with its seed."""
    broken: list[str] = []
    for number in range(seed, seed + 4):
        world = Unplugging(number)
        broken += [f"world {number}: {wrong}" for wrong in world.run(rounds)]
        told = f"{world.answered} of {world.calls} calls answered, back in {world.slowest_ms} ms at most"
        say(f"   {rounds} times: {told}")
    return broken
