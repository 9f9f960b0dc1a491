"""This node as an end of ways over several hops: what its sessions send goes onto circuits, what comes to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import HELLO, WELCOME
from offgrid_transports.path import Path
from offgrid_transports.relay.bindings import Bindings
from offgrid_transports.relay.circuits import Circuit, Circuits, Way
from offgrid_transports.relay.discovery import SLOTS
from offgrid_transports.relay.ground import Ground, name_of
from offgrid_transports.relay.metric import Metric
from offgrid_transports.relay.opening import Opening
from offgrid_transports.relay.pending import Pending, Waiting
from offgrid_transports.relay.relayed import Relayed
from offgrid_transports.relay.seeking import Seeking
from offgrid_transports.relay.switch import Switch
from offgrid_transports.session import ASKS, FRAME_TYPE
from offgrid_transports.transport import Priority, Transport, TransportError

RELAYED_MAX = 256  # nodes that are talked to over others lately
GUESS_HOPS = 3  # of a way that is not known yet
OPENING_MS = 500.0  # until a way is open, beside the air
SEARCH_HOPS = 6  # a search takes as long as so many, as a rule
SILENT_MAX = 6  # questions in a row without any frame back,
SILENT_TRIPS = 4.0  # for so many round trips, and the way is given up
SELDOM_MAX, SELDOM_MS, SELDOM_TRIPS = 2, 20_000.0, 12.0  # so is where they are asked seldom
TRIP_MS = 250.0  # at least, and
TRIP_MS_UNKNOWN = 2_000.0  # before it was seen


class Ends:
    """The `Ways` of what is relayed."""

    def __init__(
        self,
        ground: Ground,
        circuits: Circuits,
        opening: Opening,
        switch: Switch,
        endpoint: Endpoint,
        seeking: Seeking,
        hint: bytes,
    ) -> None:
        self._ground, self._circuits, self._opening, self._switch = ground, circuits, opening, switch
        self._endpoint, self._seeking, self._hint = endpoint, seeking, hint
        switch.on_room = lambda circuit: self.on_room(self._other(circuit))
        self._relayed: OrderedDict[bytes, Relayed] = OrderedDict()  # the one used longest ago first
        self._known = WeakValueDictionary[bytes, Relayed]()  # with those that sessions go on over
        self._bindings = Bindings()
        self.pending = Pending(ground, circuits, self._bindings, opening, seeking, self._carry_waited, self._on_lost)
        opening.on_put_off = self.pending.on_put_off
        self._refused: set[bytes] = set()
        self._arriving: Circuit | None = None  # whose frame the endpoint reads now
        self.on_sent: Callable[[], None] = lambda: None
        """Timers may be others now."""

    def path(self, name: bytes) -> Path:
        """Raises TransportError where too many are talked to so at once."""
        relayed = self._relayed.get(name)
        if relayed is None:
            self._make_room()
            relayed = self._known.get(name)
            if relayed is None:
                relayed = self._known[name] = Relayed(name, self)
                self._endpoint.attach(relayed)
            self._relayed[name] = relayed
        self._relayed.move_to_end(name)
        return Path(relayed, relayed.address)

    def name_behind(self, transport: Transport) -> bytes | None:
        return transport.name if isinstance(transport, Relayed) else None

    # ---- what a link says of itself

    def metric(self, name: bytes) -> Metric | None:
        circuit = self._bindings.newest(name)
        if circuit is not None:
            return circuit.metric
        hops = self._ground.hops_to(name)
        return self._ground.guess(GUESS_HOPS if hops is None else len(hops) + 1)

    def reaches(self, name: bytes) -> bool:
        ground = self._ground
        if name == ground.name or not ground.up:
            return False
        if self._bindings.newest(name) is not None or ground.hops_to(name) is not None:
            return True
        return len(ground.neighbours) > 0 and self._seeking.may_seek(name)

    def wait_ms(self, name: bytes, length: int, priority: Priority) -> float:
        ground = self._ground
        circuit = self._bindings.newest(name)
        if circuit is not None and circuit.opened and (way := self._outward(circuit)).path is not None:
            return way.path.transport.wait_ms(length, priority) + self._switch.backlog_ms(circuit, way)
        hops = ground.hops_to(name)
        if hops is None:
            return OPENING_MS + SEARCH_HOPS * ground.slot_ms * (SLOTS / 2 + 1)
        path = ground.next_path(hops[0] if hops else name)
        return OPENING_MS + (path.transport.wait_ms(length, priority) if path is not None else 0.0)

    def first_link(self, name: bytes) -> Transport | None:
        """Where no way is known, the slowest: whoever is looked for, it is looked for there too."""
        circuit, ground = self._bindings.newest(name), self._ground
        if circuit is not None and (path := self._outward(circuit).path) is not None:
            return path.transport
        hops = ground.hops_to(name)
        path = ground.next_path(hops[0] if hops else name) if hops is not None else None
        slowest = max(ground.up, key=lambda link: link.slot_ms, default=None)
        return path.transport if path is not None else slowest.transport if slowest is not None else None

    def over(self, transport: Transport) -> int:
        """How many are talked to over others, by that link first."""
        return sum(relayed.first_link is transport for relayed in self._relayed.values())

    # ---- out

    def send(self, name: bytes, frame: bytes, priority: Priority) -> bool:
        """What waits for a way counts as sent."""
        try:
            self.path(name)
        except TransportError:
            self._ground.counts["relay_too_many"] += 1
            return True
        try:
            return self._send(name, frame, priority)
        finally:
            self.on_sent()

    def _send(self, name: bytes, frame: bytes, priority: Priority) -> bool:
        ours, theirs = self._numbers(name, frame)
        if ours is None:
            self._ground.counts["relay_sessionless"] += 1
            return True
        answering, circuit = self._opening.answering, self._bindings.get(name, ours)
        if answering is not None and answering[0].source == name and answering[0].ours == theirs:
            circuit, asked = answering
            self._bind(circuit, ours)
            return self._opening.say_opened(circuit, asked, frame) or self._carry(name, circuit, frame, priority)
        if circuit is not None and circuit.opened:
            return self._carry(name, circuit, frame, priority)
        self.pending.wait(name, Waiting(ours, 0 if frame[0] & 0xF0 == HELLO else theirs, frame, priority))
        return True

    def _numbers(self, name: bytes, frame: bytes) -> tuple[int | None, int]:
        """This end's and the other one's."""
        if frame[0] & 0xF0 == HELLO:
            return int.from_bytes(frame[3:5]), 0
        theirs = int.from_bytes(frame[1:3])
        return self._endpoint.number_for(lambda public: name_of(public) == name, theirs), theirs

    def _carry(self, name: bytes, circuit: Circuit, frame: bytes, priority: Priority) -> bool:
        way = self._outward(circuit)
        assert way.path is not None
        if self._ground.link(way.path.transport).is_full(priority) or self._switch.is_full(circuit, way):
            self._refused.add(name)
            return False
        if frame[0] & ASKS and self._is_silent(circuit):
            self._ground.counts["circuits_silent"] += 1
            self.distrust(circuit, blamed=True)
            if not circuit.hops:
                self._ground.neighbours.lost(name, way.path)
            self._circuits.drop(circuit)
            return self._send(name, frame, priority)
        self._switch.carry(circuit, way, frame, priority)
        return True

    def _carry_waited(self, name: bytes, circuit: Circuit, waiting: Waiting) -> None:
        self._carry(name, circuit, waiting.frame, waiting.priority)

    def _is_silent(self, circuit: Circuit) -> bool:
        """It was asked often, and for long, and nothing came back."""
        now_ms = self._ground.now_ms()
        circuit.silent += 1
        if circuit.silent == 1:
            circuit.silent_ms = now_ms
        metric = circuit.metric
        air_ms = metric.airtime_ms(min(200, metric.mtu_bytes))
        seen_ms = TRIP_MS_UNKNOWN if circuit.trip_ms is None else circuit.trip_ms
        trip_ms = max(2 * (air_ms + 2 * metric.access_us / 1000), seen_ms, TRIP_MS)
        silent_ms = now_ms - circuit.silent_ms
        if circuit.silent > SILENT_MAX:
            return silent_ms > SILENT_TRIPS * trip_ms
        return circuit.silent > SELDOM_MAX and silent_ms > SELDOM_MS + SELDOM_TRIPS * trip_ms

    def distrust(self, circuit: Circuit, *, blamed: bool) -> None:
        """It leads there no more; `blamed`: as in Ground."""
        self._ground.distrust(self._other(circuit), self._hops(circuit), blamed=blamed)

    def on_route(self, name: bytes) -> None:
        if self._ground.hops_to(name) is None:  # whoever answers tells of no way that is one
            self._seeking.fail(name)
            self.on_no_route(name)
            return
        self._ground.routes.trust(name)
        self.pending.proceed(name)

    def on_no_route(self, name: bytes) -> None:
        self._ground.routes.trust(name)
        self.pending.on_no_route(name)

    def on_opened(self, circuit: Circuit) -> None:
        """Its labels are known up to here: what waits may leave."""
        if circuit.target == self._ground.name:
            if circuit.theirs:
                self._bind(circuit, circuit.theirs)
            return
        if circuit.trip_ms is None and circuit.turned == circuit.turn:  # of that OPEN, and no other
            circuit.trip_ms = self._ground.now_ms() - circuit.asked_ms
        self._seeking.reached(circuit.target)
        self.pending.on_opened(circuit.target, circuit)

    def on_room(self, name: bytes | None = None) -> None:
        """There may be some: to that one, or to all."""
        for each in [name] if name is not None else sorted(self._refused):
            relayed = self._relayed.get(each)
            if each in self._refused and relayed is not None:
                self._refused.discard(each)
                relayed.on_room()

    # ---- in

    def arrive(self, circuit: Circuit, frame: bytes, *, labelled: bool) -> None:
        """The two bytes where labels stood are what they were. `labelled`: it did not come inside OPEN or OPENED."""
        name, kind = self._other(circuit), frame[0] & 0xF0
        number = circuit.ours if circuit.source == self._ground.name else circuit.theirs
        if kind not in (HELLO, WELCOME, FRAME_TYPE) or (kind == FRAME_TYPE and not number):
            self._ground.counts["relay_sessionless"] += 1
            return
        try:
            path = self.path(name)
        except TransportError:
            self._ground.counts["relay_too_many"] += 1
            return
        restored = frame[:1] + (self._hint if kind == HELLO else number.to_bytes(2)) + frame[3:]
        self._arriving = circuit if labelled else None
        path.transport.on_frame(path.address, restored)
        self._arriving = None

    def on_read(self, path: Path) -> None:
        """A session's frame that came there was its peer's: only that, and nothing that anybody may say, counts as word
        of the other end. What comes inside OPEN and OPENED comes by whoever drops all that follows."""
        circuit = self._arriving
        if circuit is None or not isinstance(path.transport, Relayed) or path.transport.name != self._other(circuit):
            return
        circuit.silent = 0
        if not circuit.proved:
            circuit.proved = True
            self._ground.prove(path.transport.name, self._hops(circuit), circuit.metric.cost_ms)

    def forget(self, circuit: Circuit) -> None:
        """It was dropped."""
        if self._ground.name not in (circuit.source, circuit.target):
            return
        name = self._other(circuit)
        number = circuit.ours if circuit.source == self._ground.name else circuit.theirs
        self._bindings.release(name, number, circuit)
        self.pending.forget(circuit)
        if name in self._refused:
            self._ground.set(("room", name), self._ground.now_ms())

    # ---- inside

    def _bind(self, circuit: Circuit, ours: int) -> None:
        """Frames of that session go by this circuit."""
        if circuit.target == self._ground.name:
            circuit.theirs = ours
            self.pending.on_opened(circuit.source, circuit)
        self._bindings.bind(self._other(circuit), ours, circuit)

    def _other(self, circuit: Circuit) -> bytes:
        return circuit.target if circuit.source == self._ground.name else circuit.source

    def _hops(self, circuit: Circuit) -> tuple[bytes, ...]:
        """As they follow from this end."""
        return circuit.hops if circuit.source == self._ground.name else circuit.hops[::-1]

    def _outward(self, circuit: Circuit) -> Way:
        return circuit.forth if circuit.source == self._ground.name else circuit.back

    def _make_room(self) -> None:
        if len(self._relayed) < RELAYED_MAX:
            return
        busy = self._endpoint.busy_links
        idle = next((each for each in self._relayed.values() if each not in busy), None)
        if idle is None:
            raise TransportError(f"{RELAYED_MAX} nodes are talked to over others already")
        del self._relayed[idle.name]
        self._refused.discard(idle.name)
        self.pending.forget_all(idle.name)
        self._endpoint.detach(idle)

    def _on_lost(self, name: bytes) -> None:
        """Nobody reaches it: who sends there goes over something else, if there is anything."""
        relayed = self._relayed.get(name)
        if relayed is not None and not relayed.up:
            relayed.on_change()
