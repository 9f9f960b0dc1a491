"""Targets that are whole nodes: two that call each other while somebody between does what he likes to their frames, and
one that serves a friend while a member of its mesh says what it likes. In virtual time, on the real endpoints."""

from __future__ import annotations

from collections import Counter
from functools import partial

import msgspec

from offgrid_tools.emulators.clock import VirtualClock, after_ms, now_ms
from offgrid_tools.fuzz.frames import PSK, key_of, public_of
from offgrid_tools.fuzz.script import Script
from offgrid_tools.soak.chance import chance
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.gathering import Gathering
from offgrid_transports.handshake import Hello, Own
from offgrid_transports.memory import MemoryNetwork, MemoryTransport
from offgrid_transports.noise import HandshakeFailed
from offgrid_transports.path import Path
from offgrid_transports.sealing import Sealer, Suite
from offgrid_transports.transport import BROADCAST

NAMES = {public_of(name): name for name in ("node", "friend", "mallory")}
STEPS_MAX = 40
KEPT_FRAMES = 64  # that who is between can play back
TIMEOUT_MS = 60_000
QUIET_MS = 1_200_000  # after which whatever was under way has ended
HELD_BYTES_MAX = 200_000


class _Call(msgspec.Struct):
    body: bytes
    ends: list[Reply] = msgspec.field(default_factory=list)


class _Radio(MemoryTransport):
    """An end of a medium that all share."""

    @property
    def shared(self) -> bool:
        return True

    @property
    def access_ms(self) -> float:
        return 50.0


class _Network(MemoryNetwork):
    """Hands every frame to who is between; `carry` of the base class is how it goes on."""

    def __init__(self, clock: VirtualClock, *, shared: bool) -> None:
        super().__init__(
            chance("network"),
            lambda delay_ms, fn: after_ms(clock, delay_ms, fn),
            mtu_bytes=254 if shared else 1200,
            bitrate_bps=5469 if shared else 0,
        )
        self.shared = shared
        self.script: Script | None = None
        self._kept: list[tuple[str, str, bytes]] = []
        self._heard: dict[str, MemoryTransport] = {}

    def end(self, name: str) -> MemoryTransport:
        end = self._heard[name] = _Radio(self, name) if self.shared else MemoryTransport(self, name)
        return end

    def carry(self, source: str, target: str, frame: bytes) -> None:
        script = self.script
        if script is None or script.ended:
            self.deliver(source, target, frame)
            return
        self._kept = [*self._kept[1 - KEPT_FRAMES :], (source, target, frame)]
        match script.byte() % 16:
            case 0:
                pass
            case 1:
                self.deliver(source, target, script.damaged(frame))
            case 2:
                for _ in range(1 + script.byte() % 4):
                    self.deliver(source, target, frame)
            case 3:
                self.deliver(source, target, frame, delay_ms=script.pick((1, 100, 5_000, 400_000)))
            case 4:  # reflected
                self.deliver(target, source, frame)
            case 5:  # from elsewhere
                self.deliver("elsewhere", target, frame)
            case 6:
                self.deliver(source, target, frame)
                self.deliver(*script.pick(self._kept))
            case 7:
                self.deliver(source, target, script.damaged(script.pick(self._kept)[2]))
                self.deliver(source, target, frame)
            case _:
                self.deliver(source, target, frame)

    def deliver(self, source: str, target: str, frame: bytes, *, delay_ms: int = 5) -> None:
        if not frame:
            return
        for name, end in self._heard.items():
            if name == target or (target == BROADCAST and name != source):
                self.schedule(delay_ms, partial(self._arrives, end, BROADCAST if self.shared else source, frame))

    def _arrives(self, end: MemoryTransport, source: str, frame: bytes) -> None:
        end.on_frame(source, frame)


class _Node:
    def __init__(self, clock: VirtualClock, network: _Network, name: str) -> None:
        self.calls: list[_Call] = []
        self.ran: Counter[bytes] = Counter()
        self._name, self._clock = name, clock
        self.gathering = Gathering(peer_bytes_max=HELD_BYTES_MAX, bytes_max=HELD_BYTES_MAX)
        self._end = network.end(name)
        self.endpoint = Endpoint(
            Own(key_of(name), PSK),
            NAMES.get,
            lambda: now_ms(clock),
            lambda delay_ms, fn: after_ms(clock, delay_ms, fn),
            chance(name),
            lambda: now_ms(clock),
            gathering=self.gathering,
        )
        self.endpoint.on_request = self._on_request
        self.endpoint.attach(self._end)

    def knows(self, *others: str) -> None:
        for other in others:
            path = Path(self._end, BROADCAST if self._end.shared else other)
            self.endpoint.introduce(other, public_of(other), path)

    def call(self, other: str, size: int) -> None:
        call = _Call(f"{self._name} {len(self.calls)} ".encode().ljust(size, b"."))
        self.calls.append(call)
        self.endpoint.call(other, 1, call.body, TIMEOUT_MS, call.ends.append)

    def _on_request(self, request: Request) -> None:
        self.ran[request.body] += 1
        after_ms(self._clock, 3, lambda: self.endpoint.respond(request, b"re:" + request.body))


def between(data: bytes) -> None:
    """Frames are dropped, damaged, doubled, delayed, reflected, played back and sent from elsewhere. Each call ends,
    once; none is carried out twice; an answer is that of its call; and once it is over, calls get through."""
    script, clock = Script(data), VirtualClock()
    network = _Network(clock, shared=bool(script.below(2)))
    nodes = {name: _Node(clock, network, name) for name in ("node", "friend")}
    nodes["node"].knows("friend")
    nodes["friend"].knows("node")
    network.script = script
    for _ in range(STEPS_MAX):
        if script.ended:
            break
        _pass(clock, script.pick((0, 1, 20, 300, 3_000)))
        if script.below(3):
            one, other = script.pick((("node", "friend"), ("friend", "node")))
            nodes[one].call(other, script.pick((0, 0, 10, 300, 3_000)))
    network.script = None
    _pass(clock, QUIET_MS)
    for one, other in (("node", "friend"), ("friend", "node")):
        nodes[one].call(other, 10)
        _pass(clock, TIMEOUT_MS)
        assert nodes[one].calls[-1].ends[0].end is End.OK, nodes[one].calls[-1].ends[0].detail
    ran = nodes["node"].ran + nodes["friend"].ran
    for call in (*nodes["node"].calls, *nodes["friend"].calls):
        assert len(call.ends) == 1, f"{call.body[:20]!r} ended {len(call.ends)} times"
        assert ran[call.body] <= 1, f"{call.body[:20]!r} was carried out {ran[call.body]} times"
        assert call.ends[0].end is not End.OK or call.ends[0].body == b"re:" + call.body
        assert call.ends[0].end is not End.REFUSED or not ran[call.body]
    assert nodes["node"].gathering.held_bytes == nodes["friend"].gathering.held_bytes == 0


class _Mallory:
    """Of the mesh, with a session of its own making each time it says hello; keeps to nothing."""

    def __init__(self, network: _Network) -> None:
        self._network, self._stamp = network, 0
        self._hello: Hello | None = None
        self._sealer: Sealer | None = None
        self._head = b""
        self.end = network.end("mallory")
        self.end.on_frame = self._on_frame

    def greets(self, records: bytes, suite: Suite) -> None:
        self._stamp += 1
        self._hello = Hello(Own(key_of("mallory"), PSK), public_of("node"), suite, 7, self._stamp, records)
        self.sends(self._hello.frame)

    def says(self, records: bytes) -> None:
        if self._sealer is not None:
            self.sends(self._sealer.seal(self._head, records))

    def sends(self, frame: bytes) -> None:
        frame = frame[: self.end.mtu_bytes()]
        if frame:
            self._network.deliver("mallory", BROADCAST if self.end.shared else "node", frame)

    def _on_frame(self, address: str, frame: bytes) -> None:
        if self._hello is not None:
            try:
                theirs, keys = self._hello.welcomed(frame)
            except HandshakeFailed:
                return
            self._head, self._sealer = b"\0" + theirs.to_bytes(2), Sealer(self._hello.suite, keys.sending)
            self._hello = None


def members(data: bytes) -> None:
    """A member begins sessions and says anything in them, and frames of its own that are of none. The others' calls get
    through; calls to it end; what it has half said is held within the budget, and in the end let go."""
    script, clock = Script(data), VirtualClock()
    network = _Network(clock, shared=bool(script.below(2)))
    node, friend = _Node(clock, network, "node"), _Node(clock, network, "friend")
    node.knows("friend", "mallory")
    friend.knows("node")
    mallory = _Mallory(network)
    mallory.greets(b"", Suite.CHACHA20_POLY1305)
    _pass(clock, 2_000)
    for _ in range(STEPS_MAX):
        if script.ended:
            break
        match script.below(8):
            case 0:
                mallory.greets(script.take(), script.pick((*Suite,)))
            case 1:
                mallory.sends(script.take())
            case 2:
                node.call("mallory", script.pick((0, 300, 3_000)))
            case 3:
                _pass(clock, script.pick((1, 20, 300, 3_000, 100_000)))
            case 4:
                mallory.says(script.take() * (1 + script.byte()))
            case _:
                mallory.says(script.take())
        assert node.gathering.held_bytes <= HELD_BYTES_MAX
    friend.call("node", 300)
    _pass(clock, TIMEOUT_MS)
    assert friend.calls[-1].ends[0].end is End.OK, friend.calls[-1].ends[0].detail
    _pass(clock, QUIET_MS)
    assert all(len(call.ends) == 1 for call in node.calls), "a call does not end, or twice"
    assert node.gathering.held_bytes == 0


def _pass(clock: VirtualClock, ms: int) -> None:
    clock.run(clock.now_us + 1000 * ms)
