"""Roads between simulated nodes: requests and replies are bytes that may be late, doubled, lost or cut off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.message import Message

from offgrid_node.protocol.errors import Fault, Internal, OutcomeUnknown, Unavailable
from offgrid_node.services.client import Done
from offgrid_node.services.router import METHODS
from offgrid_tools.sim.engine import Engine

Respond = Callable[[Message | Fault], None]


class Listener(Protocol):
    """A node as the network sees it."""

    @property
    def up(self) -> bool: ...

    def on_request(self, source: str, method: str, request: bytes, respond: Respond) -> None: ...


class Tap(Protocol):
    """Sees every request and reply that leaves a node, before any fault befalls it."""

    def on_request(self, source: str, target: str, method: str, request: Message) -> None: ...

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None: ...


@dataclass(slots=True)
class Faults:
    """Chances per message and the longest delay. Partitioned nodes are those in different groups."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_max_us: int = 2_000
    group_of: dict[str, int] = field(default_factory=dict)


class Network:
    """All nodes by id, and the faults that befall what they send."""

    def __init__(self, engine: Engine, tap: Tap) -> None:
        self._engine, self._tap = engine, tap
        self.faults = Faults()
        self.nodes: dict[str, Listener] = {}
        self.carried = 0

    def cut(self, source: str, target: str) -> bool:
        groups = self.faults.group_of
        return groups.get(source, 0) != groups.get(target, 0)

    def call(self, source: str, target: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """One call: `done` runs once, with the reply, a fault, or OutcomeUnknown after the time-out."""
        self._tap.on_request(source, target, method, request)
        data = request.SerializeToString()
        ended = False

        def finish(outcome: Message | Fault) -> None:
            nonlocal ended
            if not ended:
                ended = True
                done(outcome)

        def respond(outcome: Message | Fault) -> None:
            self._tap.on_reply(target, source, method, outcome)
            known = outcome if isinstance(outcome, Fault) else METHODS[method].response.FromString(_bytes(outcome))
            self._carry(target, source, lambda: finish(known))

        def arrive() -> None:
            listener = self.nodes.get(target)
            if listener is None or not listener.up:
                # The machine answers, its daemon does not: connection refused.
                self._carry(target, source, lambda: finish(Unavailable("connection refused", reason="NotSent")))
            else:
                listener.on_request(source, method, data, respond)

        self._carry(source, target, arrive)
        late = OutcomeUnknown(f"no answer to {method} within {timeout_ms} ms")
        self._engine.after(timeout_ms * 1000, lambda: finish(late))

    def _carry(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        rng, faults = self._engine.rng, self.faults
        copies = 2 if rng.random() < faults.duplicate else 1
        for _ in range(copies):
            if rng.random() >= faults.loss:
                self.carried += 1
                # Whether the link is cut is asked on arrival: what was under way when it was cut is lost.
                delay = rng.randint(50, faults.delay_max_us)
                self._engine.after(delay, lambda: None if self.cut(source, target) else arrive())


def _bytes(message: Message) -> bytes:
    try:
        return message.SerializeToString()
    except ValueError as error:
        raise Internal(f"a handler answered what cannot be carried: {error}") from error


class SimRoad:
    """`services.client.Road` for one node."""

    def __init__(self, network: Network, self_id: str, alive: Callable[[], bool]) -> None:
        self._network, self._self_id, self._alive = network, self_id, alive

    def reaches(self, node: str) -> bool:
        return node in self._network.nodes

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        # What comes back to a process that has died in the meantime is nobody's.
        self._network.call(
            self._self_id, node, method, request, timeout_ms, lambda outcome: done(outcome) if self._alive() else None
        )
