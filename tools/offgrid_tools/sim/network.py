"""Roads between simulated nodes: requests and replies are bytes that may be late, doubled, lost or cut off, and on
connections that are reset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import Piece
from offgrid_node.protocol.errors import CONNECTION_REFUSED, Fault, Internal, OutcomeUnknown, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.client import Done
from offgrid_node.services.router import METHODS
from offgrid_tools.sim.connections import Connections
from offgrid_tools.sim.crypto import SimSigner, sim_certificate
from offgrid_tools.sim.engine import Engine

DELAY_MIN_US = 50
ARRIVED_CHANCE = 0.5  # that a request was received before its connection broke

Respond = Callable[[Message | Fault], None]
Ear = Callable[[str, str, Any], None]  # source, target, request


class Listener(Protocol):
    """A node as the network sees it."""

    @property
    def up(self) -> bool: ...

    @property
    def address(self) -> str: ...

    @property
    def keys(self) -> Sequence[SimSigner]:
        """Its identities, the newest first."""
        ...

    @property
    def refuses(self) -> bool:
        """While it is down: whether the machine still answers that nobody listens there."""
        ...

    def on_request(self, source: str, method: str, request: bytes, respond: Respond) -> None: ...

    def on_road_lost(self, node: str) -> None:
        """The connection to that node was reset."""
        ...


class Tap(Protocol):
    """Sees every request and reply that leaves a node, before any fault befalls it."""

    def on_request(self, source: str, target: str, method: str, request: Message) -> None: ...

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None: ...

    def on_answered(self, source: str, target: str, request: Message, reply: Message | Fault) -> None:
        """As on_reply, with what it answers."""
        ...

    def on_bytes(self, source: str, target: str, data: bytes) -> None:
        """A request or a reply as it is on the road."""
        ...

    def on_parted(self, request: Message) -> None:
        """A request is lost between nodes that are parted."""
        ...

    def on_reset(self, calls: int) -> None:
        """A connection was reset under so many calls."""
        ...

    def on_lie(self, source: str, target: str, method: str, lie: Message) -> None:
        """A liar's request or reply leaves it: nobody vouches for what it says, but its signatures are out."""
        ...


class LyingListener(Protocol):
    """Stands before a node that lies and answers in its place."""

    def answer(self, source: str, method: str, request: bytes) -> Message | None:
        """The lie, or None where the node itself may answer."""
        ...


class Faults(msgspec.Struct):
    """Chances per message and the longest delays. Nodes of different groups are parted; `cuts` holds one-way cuts.

    With the chance `reset` a message's connection is reset about when it arrives, before or after. At `bytes_per_s` a
    message takes its time by its size, whatever else is under way; 0: none at all.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    delay_max_us: int = 2_000
    duplicate_late_us: int = 2_000  # a copy may come this much later than the first
    bytes_per_s: int = 0
    reset: float = 0.0
    group_of: dict[str, int] = msgspec.field(default_factory=dict)
    cuts: dict[tuple[str, str], bool] = msgspec.field(default_factory=dict)
    paces: dict[str, Pace] = msgspec.field(default_factory=dict)
    """Of all that a node calls, as it sees it; its peers may see it otherwise."""


class Network:
    """All nodes by id, and the faults that befall what they send."""

    def __init__(self, engine: Engine, tap: Tap, name_of: Callable[[str], str]) -> None:
        self._engine, self.tap, self._name_of = engine, tap, name_of
        self.faults = Faults()
        self.places: dict[str, int] = {}  # of nodes that are out of each other's reach, whatever the roads are like
        self.nodes: dict[str, Listener] = {}
        self.liars: dict[str, LyingListener] = {}
        self._ears: dict[type[Message], list[Ear]] = {}
        self._connections = Connections()
        self.carried = 0
        self.lost = 0

    def cut(self, source: str, target: str) -> bool:
        faults, places = self.faults, self.places
        if places and places.get(source) != places.get(target):
            return True
        if faults.cuts and (source, target) in faults.cuts:
            return True
        return bool(faults.group_of) and faults.group_of.get(source, 0) != faults.group_of.get(target, 0)

    def overhear(self, kind: type[Message], ear: Ear) -> None:
        """From now on `ear` is told of every honest request of that kind as it leaves."""
        self._ears.setdefault(kind, []).append(ear)

    def call(
        self,
        source: str,
        target: str,
        method: str,
        request: Message,
        timeout_ms: int,
        done: Done,
        *,
        honest: bool = True,
    ) -> None:
        """One call: `done` runs once, with the reply, a fault, or OutcomeUnknown after the time-out.

        A liar's requests are not `honest`: nobody vouches for them.
        """
        if isinstance(request, Piece):  # whoever listens knows messages by their types
            request = METHODS[method].request.FromString(request.SerializeToString())
        if honest:
            self.tap.on_request(source, target, method, request)
            for ear in self._ears.get(type(request), ()):
                ear(source, target, request)
        else:
            self.tap.on_lie(source, target, method, request)
        call = _Call(self, source, target, method, request, done)
        call.over = self._connections.open(source, target, call.on_broken)
        if self.cut(source, target):
            self.tap.on_parted(request)
        self.tap.on_bytes(source, target, call.data)
        self.carry(source, target, len(call.data), call.arrive)
        late = OutcomeUnknown(f"no answer to {method} within {timeout_ms} ms")
        self._engine.after(timeout_ms * 1000, lambda: call.finish(late))

    def note(self, mark: str, source: str, target: str, said: str, data: bytes = b"") -> None:
        """For the trace."""
        self._engine.note(f"{mark} {self._name_of(source)} {self._name_of(target)} {said}", data)

    def reset(self, one: str, other: str) -> None:
        """The connection between them breaks, and both ends see it."""
        if one == other:
            return
        self._engine.note(f"reset {self._name_of(one)} {self._name_of(other)}")
        self._break(one, other, lambda: self._engine.rng.random() < ARRIVED_CHANCE)

    def reset_all(self, node: str) -> None:
        """All connections of a node break, as when a switch starts anew."""
        for other in list(self.nodes):
            self.reset(node, other)

    def hang_up(self, node: str) -> None:
        """Its process is gone, and its machine says so to all whom it reaches; what it had sent is on its way."""
        for other in list(self.nodes):
            if other != node and not self.cut(node, other):
                self._break(node, other, lambda: True)

    def _break(self, one: str, other: str, may_arrive: Callable[[], bool]) -> None:
        self.tap.on_reset(self._connections.reset(one, other, may_arrive))
        for node, peer in ((one, other), (other, one)):
            self._tell_lost(node, peer)

    def _tell_lost(self, node: str, peer: str) -> None:
        listener = self.nodes.get(node)
        if listener is not None and listener.up:
            listener.on_road_lost(peer)

    def call_nowhere(self, done: Done) -> None:
        """A call to an address where its node is no longer."""
        self._engine.after(DELAY_MIN_US, lambda: done(Unavailable("nobody listens there", reason=CONNECTION_REFUSED)))

    def carry(self, source: str, target: str, size_bytes: int, arrive: Callable[[], None]) -> None:
        """A message, or two of it, or none, with all that may befall it."""
        rng, faults = self._engine.rng, self.faults
        transfer_us = size_bytes * 1_000_000 // faults.bytes_per_s if faults.bytes_per_s else 0
        copies = 2 if faults.duplicate and rng.random() < faults.duplicate else 1
        for copy in range(copies):
            if faults.loss and rng.random() < faults.loss:
                self.lost += 1
                continue
            self.carried += 1
            delay_us = DELAY_MIN_US + transfer_us + int(rng.random() * faults.delay_max_us)
            if faults.reset and rng.random() < faults.reset:
                self._engine.after(int(rng.random() * 2 * delay_us), partial(self.reset, source, target))
            if copy:
                delay_us += int(rng.random() * faults.duplicate_late_us)
            # Whether the link is cut is asked on arrival: what was under way when it was cut is lost.
            self._engine.after(delay_us, lambda: None if self.cut(source, target) else arrive())


class _Call:
    """One request, until its caller has an outcome."""

    def __init__(self, network: Network, source: str, target: str, method: str, request: Message, done: Done) -> None:
        self._network, self._source, self._target, self._method = network, source, target, method
        self._request, self._done = request, done
        self.data = request.SerializeToString(deterministic=True)
        self.over: Callable[[], None] = lambda: None  # the connection has one call less
        self._ended = self._vanished = False
        network.note(">", source, target, method, self.data)

    def finish(self, outcome: Message | Fault) -> None:
        """The first outcome is the one."""
        if not self._ended:
            self._ended = True
            self.over()
            self._done(outcome)

    def on_broken(self, may_arrive: bool) -> None:
        self._vanished = not may_arrive
        self.finish(OutcomeUnknown(f"the connection was reset under {self._method}", reason="ConnectionLost"))

    def arrive(self) -> None:
        """At its target, should it still be there."""
        if self._vanished:
            return
        network, listener = self._network, self._network.nodes.get(self._target)
        if listener is not None and listener.up:
            liar = network.liars.get(self._target)
            lie = liar.answer(self._source, self._method, self.data) if liar else None
            if lie is not None:
                self._lie(lie)
            else:
                listener.on_request(self._source, self._method, self.data, self._respond)
        elif listener is None or listener.refuses:
            self._answer(Unavailable("connection refused", reason=CONNECTION_REFUSED), 0)

    def _respond(self, outcome: Message | Fault) -> None:
        known, size_bytes = self._as_sent(outcome)
        self._network.tap.on_reply(self._target, self._source, self._method, known)
        self._network.tap.on_answered(self._target, self._source, self._request, known)
        self._answer(known, size_bytes)

    def _lie(self, lie: Message) -> None:
        known, size_bytes = self._as_sent(lie)
        if not isinstance(known, Fault):
            self._network.tap.on_lie(self._target, self._source, self._method, known)
        self._answer(known, size_bytes)

    def _as_sent(self, outcome: Message | Fault) -> tuple[Message | Fault, int]:
        """What the caller will read, and how many bytes that takes."""
        if isinstance(outcome, Fault):
            self._network.note("!", self._target, self._source, f"{self._method} {outcome.reason}")
            return outcome, 0
        answer = _bytes(outcome)
        self._network.note("<", self._target, self._source, self._method, answer)
        self._network.tap.on_bytes(self._target, self._source, answer)
        return METHODS[self._method].response.FromString(answer), len(answer)

    def _answer(self, known: Message | Fault, size_bytes: int) -> None:
        self._network.carry(self._target, self._source, size_bytes, lambda: self.finish(known))


def _bytes(message: Message) -> bytes:
    try:
        return message.SerializeToString(deterministic=True)
    except ValueError as error:
        raise Internal(f"a handler answered what cannot be carried: {error}") from error


class SimRoad:
    """`services.client.Road` for one process; it knows of others what the node's directory says, as gRPC's does."""

    def __init__(
        self, network: Network, self_id: str, directory: Callable[[], Directory], alive: Callable[[], bool]
    ) -> None:
        self._network, self._self_id, self._directory, self._alive = network, self_id, directory, alive

    @property
    def name(self) -> str:
        return "sim"

    @property
    def kin(self) -> str:
        return "sim"

    def ready(self, node: str) -> bool:
        return True

    def reaches(self, node: str) -> bool:
        view = self._directory()
        return bool(view.addresses(node)) and view.certificate(node) is not None

    def pace(self, node: str) -> Pace:
        return self._network.faults.paces.get(self._self_id, FREE)

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        def ended(outcome: Message | Fault) -> None:
            if self._alive():  # what comes back to a process that has died in the meantime is nobody's
                done(outcome)

        view, target = self._directory(), self._network.nodes[node]
        if view.certificate(node) != sim_certificate(target.keys[0]):  # it has another identity since
            self._network.call_nowhere(ended)
        elif target.address in view.addresses(node):
            self._network.call(self._self_id, node, method, request, timeout_ms, ended)
        else:
            self._network.call_nowhere(ended)
