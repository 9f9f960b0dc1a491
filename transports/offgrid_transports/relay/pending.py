"""Frames that wait for a way: a circuit is opened for each session that has some, over a way that is known or found.

Where no OPENED comes though there was time for it, OPEN is said again; after OPENS_MAX the way is given up and looked
for anew, and after WAYS_MAX ways all that waits is dropped: whoever has sent it learns that nobody is reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from offgrid_transports.relay.bindings import Bindings
from offgrid_transports.relay.circuits import Circuit, Circuits
from offgrid_transports.relay.ground import Ground
from offgrid_transports.relay.opening import PUT_OFF_MAX, Opening
from offgrid_transports.relay.seeking import Seeking
from offgrid_transports.transport import Priority

WAITING_MAX = 16  # frames to one node until there is a way
OPENS_MAX = 2  # of one way, each of which every hop repeats until the next one has it
WAYS_MAX = 4  # in a row that do not open


class Waiting(NamedTuple):
    """`ours`, `theirs`: the two ends' numbers of its session; `theirs` 0 for a hello. `priority` is for what leaves
    behind OPEN."""

    ours: int
    theirs: int
    frame: bytes
    priority: Priority = Priority.CONTROL


class _Queue(msgspec.Struct):
    """`failed`: ways in a row that did not open."""

    frames: deque[Waiting] = msgspec.field(default_factory=lambda: deque(maxlen=WAITING_MAX))
    failed: int = 0


class Pending:
    """Of those that this node talks to over others. `carry` takes what goes by an open circuit, `lost` learns who
    cannot be reached."""

    def __init__(
        self,
        ground: Ground,
        circuits: Circuits,
        bindings: Bindings,
        opening: Opening,
        seeking: Seeking,
        carry: Callable[[bytes, Circuit, Waiting], None],
        lost: Callable[[bytes], None],
    ) -> None:
        self._ground, self._circuits, self._bindings = ground, circuits, bindings
        self._opening, self._seeking, self._carry, self._lost = opening, seeking, carry, lost
        self._queues: dict[bytes, _Queue] = {}

    def __len__(self) -> int:
        """Frames that wait."""
        return sum(len(queue.frames) for queue in self._queues.values())

    def wait(self, name: bytes, waiting: Waiting) -> None:
        queue, circuit = self._queues.setdefault(name, _Queue()), self._bindings.get(name, waiting.ours)
        goes_already = circuit is not None and circuit.first == waiting.frame
        if not goes_already and waiting not in queue.frames:
            queue.frames.append(waiting)
        self.proceed(name)

    def proceed(self, name: bytes) -> None:
        """Opens a circuit for each session that waits, where a way is known; else one is looked for."""
        queue = self._queues.get(name)
        if queue is None or not queue.frames:
            return
        hops, ground = self._ground.hops_to(name), self._ground
        homeless = False
        for ours in dict.fromkeys(waiting.ours for waiting in queue.frames):
            circuit = self._bindings.get(name, ours)
            if circuit is not None and circuit.opened:
                self._carry_all(name, circuit, ours)
            elif circuit is None and hops is not None:
                self._begin(name, hops, next(each for each in queue.frames if each.ours == ours))
            homeless |= circuit is None
        if homeless and hops is None and not self._seeking.seek(name, fresh=ground.routes.is_distrusted(name)):
            self._drop(name)

    def on_opened(self, name: bytes, circuit: Circuit) -> None:
        """The frames of its session may leave, when its words have left."""
        self._ground.timers.set(("unopened", circuit), None)
        circuit.first = b""
        if (queue := self._queues.get(name)) is not None:
            queue.failed = 0
            self._ground.set(("proceed", name), self._ground.now_ms())

    def on_no_route(self, name: bytes) -> None:
        """Nobody has found it."""
        self._drop(name)

    def forget(self, circuit: Circuit) -> None:
        """It was dropped: what should have gone with its OPEN waits for the next one."""
        self._ground.timers.set(("unopened", circuit), None)
        queue = self._queues.get(circuit.target)
        if circuit.opened or queue is None or circuit.source != self._ground.name:
            return
        if circuit.first:
            queue.frames.appendleft(Waiting(circuit.ours, circuit.theirs, circuit.first))
        queue.failed += 1
        self._ground.set(("proceed", circuit.target), self._ground.now_ms())

    def forget_all(self, name: bytes) -> None:
        """Nobody talks to it any more."""
        self._queues.pop(name, None)
        self._ground.timers.set(("proceed", name), None)

    # ---- time

    def on_proceed(self, name: bytes) -> None:
        """A circuit to it was dropped before it had opened."""
        queue = self._queues.get(name)
        if queue is not None and queue.failed >= WAYS_MAX:
            self._ground.counts["ways_all_failed"] += 1
            self._seeking.fail(name)
            self._drop(name)
        else:
            self.proceed(name)

    def on_unopened(self, circuit: Circuit) -> None:
        """There was time for OPENED."""
        if circuit.opened:
            return
        if self._opening.repeats(circuit):  # the first hop has not got it yet, or is given up soon
            self._expect(circuit)
        elif circuit.opens >= OPENS_MAX:
            self._ground.counts["ways_given_up"] += 1
            if not circuit.hops and circuit.forth.path is not None:
                self._ground.neighbours.lost(circuit.target, circuit.forth.path)
            self._ground.distrust(circuit.target, circuit.hops, blamed=True)
            self._circuits.drop(circuit)
        else:
            self._say(circuit)

    def on_put_off(self, circuit: Circuit) -> None:
        """Somebody on the way takes the OPEN later. Where that is too often another way is looked for, and nobody
        blamed."""
        if circuit.put_off > PUT_OFF_MAX:
            self._ground.distrust(circuit.target, circuit.hops, blamed=False)
        else:
            self._ground.set(("unopened", circuit), circuit.put_off_ms + self._opening.opens_ms(circuit))

    # ---- inside

    def _carry_all(self, name: bytes, circuit: Circuit, ours: int) -> None:
        frames = self._queues[name].frames
        for waiting in [each for each in frames if each.ours == ours]:
            frames.remove(waiting)
            self._carry(name, circuit, waiting)

    def _begin(self, name: bytes, hops: tuple[bytes, ...], waiting: Waiting) -> None:
        circuit = self._opening.begin(name, hops, waiting.ours, waiting.theirs)
        if circuit is None:
            return
        self._bindings.bind(name, waiting.ours, circuit)
        circuit.first = waiting.frame
        if self._say(circuit):
            self._queues[name].frames.remove(waiting)
        else:
            circuit.first = b""

    def _say(self, circuit: Circuit) -> bool:
        circuit.opens += 1
        circuit.asked_ms = self._ground.now_ms()
        self._expect(circuit)
        return self._opening.say_open(circuit, circuit.first)

    def _expect(self, circuit: Circuit) -> None:
        self._ground.set(("unopened", circuit), self._ground.now_ms() + self._opening.opens_ms(circuit))

    def _drop(self, name: bytes) -> None:
        self.forget_all(name)
        self._lost(name)
