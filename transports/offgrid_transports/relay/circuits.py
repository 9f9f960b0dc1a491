"""Circuits: what a label on a frame means here, and what it becomes. Soft, bounded, and nothing of it is secret.

A circuit serves one session between two nodes. Each node on the way gives its neighbours labels out of the numbers of
its own sessions; a frame bears the one of who is to take it, in the two bytes where a session's number stands, so it is
not a byte longer for the hops it takes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable

import msgspec

from offgrid_transports.path import Path
from offgrid_transports.relay.arrivals import Arrivals
from offgrid_transports.relay.custody import Custody
from offgrid_transports.relay.metric import Metric
from offgrid_transports.session import ASKS, FRAME_TYPE, MORE, POLL_FRAMES
from offgrid_transports.transport import Priority

CIRCUITS_MAX = 1024
OF_ONE_MAX = 128  # that come from one neighbour
SHORT_FRAME_BYTES = 48  # an acknowledgement, a question, a small answer
IDLE_MS = 3 * 3_600_000.0


class Way(msgspec.Struct, eq=False):
    """One direction. `label`: on frames that come, None where they begin here; `path` and `out`: where they go, and
    their label there, None where they end here or that is not known yet. `last`: the next one is the end."""

    label: int | None = None
    before: Path | None = None
    path: Path | None = None
    out: int | None = None
    last: bool = False
    priority: Priority = Priority.JOB  # of what left last
    ending: int = 0  # frames to come that end a burst
    ends_as: Priority = Priority.JOB  # as urgent as the burst
    arrivals: Arrivals = msgspec.field(default_factory=Arrivals)
    custody: Custody = msgspec.field(default_factory=Custody)

    def urgency(self, frame: bytes) -> Priority:
        """Of one that is handed on, by what a relay can see of it. What is said in many frames is bulk, and what is as
        short as an acknowledgement holds nothing up, but that which ends a burst is as urgent as the rest of it."""
        if frame[0] & 0xF0 != FRAME_TYPE:
            return Priority.CONTROL
        if not frame[0] & MORE and self.ending:
            self.ending -= 1
            return self.ends_as
        if frame[0] & MORE:
            self.ending, self.ends_as = POLL_FRAMES, Priority.BULK
            return Priority.BULK
        if len(frame) <= SHORT_FRAME_BYTES:
            return Priority.CONTROL
        if frame[0] & ASKS:
            self.ending, self.ends_as = POLL_FRAMES - 1, Priority.JOB
        return Priority.JOB


class Circuit(msgspec.Struct, eq=False):
    """`forth` leads from the source to the target. `ours`: this end's number of the session, `theirs` the other's, 0
    while it is not known; at a relay the source's and the target's."""

    source: bytes
    target: bytes
    hops: tuple[bytes, ...]
    ours: int
    theirs: int
    metric: Metric
    forth: Way = msgspec.field(default_factory=Way)
    back: Way = msgspec.field(default_factory=Way)
    opened: bool = False
    opens: int = 0  # OPENs that the source has begun
    first: bytes = b""  # what goes with each of them
    turn: int = 0
    turned: int = -1  # that OPENED was seen of
    used_ms: float = 0.0
    asked_ms: float = -math.inf  # when the source last sent OPEN
    put_off: int = 0  # how often its OPEN was to come later,
    put_off_ms: float = -math.inf  # and until when
    trip_ms: float | None = None  # there and back, as OPEN and OPENED took; None where that was not seen
    quiet_ms: float = 0.0  # until then this end leaves the medium to the hops
    proved: bool = False  # word of the other end has come
    place: int = 0  # of this node on the way: 0 for the source
    who: Hashable = None  # for whom it counts; None for this node
    silent: int = 0  # questions since a frame came
    silent_ms: float = 0.0
    asked: bytes = b""  # the mark of the last frame that came and asks for word

    def other(self, way: Way) -> Way:
        return self.back if way is self.forth else self.forth

    def beyond(self, way: Way) -> tuple[bytes, tuple[bytes, ...]]:
        """The end that it leads to, and the hops from here to there."""
        if way is self.forth:
            return self.target, self.hops[self.place :]
        return self.source, self.hops[: max(0, self.place - 1)][::-1]

    @property
    def used(self) -> bool:
        """Frames have come both ways, or word of the other end has."""
        return self.proved or (self.forth.arrivals.any and self.back.arrivals.any)

    @property
    def ways(self) -> tuple[Way, Way]:
        return self.forth, self.back


class Circuits:
    """By label, and by what opened them. `new_label` gives one that nothing else bears here."""

    def __init__(self, new_label: Callable[[], int], on_dropped: Callable[[Circuit], None]) -> None:
        self._new_label, self._on_dropped = new_label, on_dropped
        self._labels: dict[int, tuple[Circuit, Way]] = {}
        self._outs: dict[tuple[Path, int], tuple[Circuit, Way]] = {}
        self._all: OrderedDict[tuple[bytes, bytes, int, tuple[bytes, ...]], Circuit] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def labels(self) -> int:
        """How many mean something here."""
        return len(self._labels)

    def all(self) -> list[Circuit]:
        return list(self._all.values())

    def has(self, label: int) -> bool:
        return label in self._labels

    def by_label(self, label: int) -> tuple[Circuit, Way] | None:
        return self._labels.get(label)

    def find(self, source: bytes, target: bytes, ours: int, hops: tuple[bytes, ...]) -> Circuit | None:
        """One that the same words opened."""
        return self._all.get((source, target, ours, hops))

    def add(self, now_ms: float, circuit: Circuit) -> bool:
        """In the place of what was used longest ago, where there are too many; rather of one that has served nobody.
        False where it is somebody else's and all the others are in use."""
        if (before := self._all.get(_key(circuit))) is not None:
            self.drop(before)
        while self._all and self._idle(now_ms):
            self.drop(next(iter(self._all.values())))
        same = [each for each in self._all.values() if each.who == circuit.who]
        if circuit.who is not None and len(same) >= OF_ONE_MAX:
            self.drop(next((each for each in same if not each.used), same[0]))
        if len(self._all) >= CIRCUITS_MAX:
            unused = next((each for each in self._all.values() if not each.used), None)
            if unused is None and circuit.who is not None:
                return False
            self.drop(unused or next(iter(self._all.values())))
        circuit.used_ms = now_ms
        self._all[_key(circuit)] = circuit
        return True

    def label(self, circuit: Circuit, way: Way) -> int:
        """The one that frames of that direction bear when they come here."""
        if way.label is None:
            way.label = self._new_label()
            self._labels[way.label] = circuit, way
        return way.label

    def aim(self, way: Way, path: Path) -> None:
        """Frames of that direction will go there, once the next hop's label is known."""
        if way.path != path:
            self._forget_out(way)
            way.path, way.out = path, None

    def lead(self, circuit: Circuit, way: Way, path: Path, out: int) -> None:
        """Frames of that direction go there, under that label of the next hop."""
        self._forget_out(way)
        way.path, way.out = path, out
        self._outs[path, out] = circuit, way

    def by_out(self, path: Path, out: int) -> tuple[Circuit, Way] | None:
        """Whose frames leave there under that label."""
        return self._outs.get((path, out))

    def use(self, now_ms: float, circuit: Circuit) -> None:
        circuit.used_ms = now_ms
        if _key(circuit) in self._all:
            self._all.move_to_end(_key(circuit))

    def drop(self, circuit: Circuit) -> None:
        if self._all.get(_key(circuit)) is not circuit:
            return
        del self._all[_key(circuit)]
        for way in circuit.ways:
            way.custody.clear()
            if way.label is not None:
                del self._labels[way.label]
            self._forget_out(way)
        self._on_dropped(circuit)

    def _forget_out(self, way: Way) -> None:
        if way.path is not None and way.out is not None:
            found = self._outs.get((way.path, way.out))
            if found is not None and found[1] is way:
                del self._outs[way.path, way.out]

    def _idle(self, now_ms: float) -> bool:
        return next(iter(self._all.values())).used_ms + IDLE_MS < now_ms


def _key(circuit: Circuit) -> tuple[bytes, bytes, int, tuple[bytes, ...]]:
    """The source's number of the session tells circuits between the same two apart."""
    return circuit.source, circuit.target, circuit.ours, circuit.hops
