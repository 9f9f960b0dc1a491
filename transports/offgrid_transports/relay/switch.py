"""Labelled frames handed on: from hop to hop under the label of whoever takes them next, and repaired on each hop.

On a shared medium a frame is kept until the next hop was heard to hand it on, or anything came back; the last hop of a
frame that asks for word waits for that. What was missed before a frame that asks is wanted again by whoever takes it.
So where nothing is lost, nothing is said. On links with addresses the session itself repairs, end to end.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from offgrid_transports.handshake import HELLO
from offgrid_transports.path import Path
from offgrid_transports.relay.arrivals import Arrival
from offgrid_transports.relay.circuits import Circuit, Circuits, Way
from offgrid_transports.relay.custody import TRIES_MAX, Turn, mark_of
from offgrid_transports.relay.frames import Heard, Kind, Short, end_of, hop_of
from offgrid_transports.relay.ground import Ground
from offgrid_transports.session import ASKS, FRAME_TYPE, MORE
from offgrid_transports.transport import Priority

ON_AIR_MAX = 1024
WAITING_MAX = 64  # directions of circuits of which frames are held
SLACK_MS = 30.0
ACCESSES = 3.0  # a wait for the medium may be near twice what it is as a rule, here and at the next hop
BACKLOG_MAX = 8  # frames that the next hop is known to have yet to hand on, before an end sends more
LATE_FRAMES = 2  # that are sent again where an end finds that they are late
RELAYED_FOR = "relayed for "  # begins the name of whose frames are handed on: its hop follows, in hexadecimal digits


class Switch:
    """`arrive(circuit, frame)` takes what ends here; `give_up(circuit, way)` learns that a way leads on no more."""

    def __init__(
        self,
        ground: Ground,
        circuits: Circuits,
        arrive: Callable[[Circuit, bytes], None],
        give_up: Callable[[Circuit, Way], None],
    ) -> None:
        self._ground, self._circuits, self._arrive, self._give_up = ground, circuits, arrive, give_up
        self.on_room: Callable[[Circuit], None] = lambda circuit: None
        """This end may send more."""
        self._on_air: OrderedDict[bytes, tuple[Circuit, Way]] = OrderedDict()  # by what no hop changes
        self._waiting: dict[Way, Circuit] = {}  # for word, on shared media

    # ---- out

    def carry(self, circuit: Circuit, way: Way, frame: bytes, priority: Priority) -> bool:
        """On its way from here, under the next hop's label. False for no room."""
        if way.path is None or way.out is None:
            return False
        ground, now_ms = self._ground, self._ground.now_ms()
        link = ground.link(way.path.transport)
        frame = frame[:1] + way.out.to_bytes(2) + frame[3:]
        from_air = way.before is not None and way.before.shared
        if from_air and not link.carried.take(now_ms, way, way.path.transport.airtime_ms(len(frame))):
            ground.counts["relay_refused"] += 1
            return False
        others = way.label is not None
        sent_ms = link.sent_ms(len(frame), priority, handed_on=others)
        if not link.send(way.path.address, frame, priority, self._who(circuit, way), way, handed_on=others):
            return False
        way.priority = priority
        self._circuits.use(now_ms, circuit)
        ground.set(("word", circuit), math.inf)  # this is word enough
        asks = bool(frame[0] & ASKS) or frame[0] & 0xF0 == HELLO
        if way.path.shared:
            expected = asks or not way.last
            wait_ms = self._word_ms(way.path, len(frame), last=way.last) if expected else math.inf
            way.custody.hold(now_ms, frame, asks=asks, sent_ms=sent_ms, wait_ms=wait_ms)
            self._wait(circuit, way)
            self._on_air[end_of(frame)] = circuit, way
            if len(self._on_air) > ON_AIR_MAX:
                self._on_air.popitem(last=False)
            if asks and way.label is None:
                ground.set(("late", circuit, way), now_ms + sent_ms + circuit.metric.trip_ms(len(frame)))
        return True

    def is_full(self, circuit: Circuit, way: Way) -> bool:
        """More would only wait at the next hop, or keep those behind it from being heard."""
        if way.path is None or not way.path.shared or way.last:
            return False
        return len(way.custody.backlog) >= BACKLOG_MAX or circuit.quiet_ms > self._ground.now_ms()

    def backlog_ms(self, circuit: Circuit, way: Way) -> float:
        """What the hops behind the first one have yet to do."""
        return 0.0 if way.last else sum(circuit.metric.airtime_ms(len(frame)) for frame in way.custody.backlog)

    # ---- in

    def on_frame(self, circuit: Circuit, way: Way, path: Path, frame: bytes) -> None:
        """One that bears a label of this node."""
        now_ms = self._ground.now_ms()
        self._circuits.use(now_ms, circuit)
        counted = frame[0] & 0xF0 == FRAME_TYPE
        asks = bool(frame[0] & ASKS)
        forget_ms = 2 * TRIES_MAX * self._word_ms(path, len(frame), last=True)
        arrival = way.arrivals.on_frame(now_ms, frame, counted=counted, asks=asks, forget_ms=forget_ms)
        if arrival is not Arrival.AGAIN:
            self._on_word(circuit, circuit.other(way))
        match arrival:
            case Arrival.AGAIN:
                self._ground.counts["relay_doubled"] += 1
                if path.shared:
                    self._say_heard(way, path, mark_of(frame))
            case Arrival.KEPT if not path.shared:
                self._release(circuit, way)
            case Arrival.KEPT:
                if ("want", circuit, way) not in self._ground.timers:
                    self._want(circuit, way, path, frame)
            case Arrival.NEW:
                self._on_new(circuit, way, path, frame, asks=asks)

    def _on_new(self, circuit: Circuit, way: Way, path: Path, frame: bytes, *, asks: bool) -> None:
        if way.path is None:
            if asks and path.shared:
                due_ms = self._ground.now_ms() + path.ack_delay_ms + SLACK_MS
                self._ground.set(("word", circuit), due_ms)
                circuit.asked = mark_of(frame)
            self._arrive(circuit, frame)
        elif not self.carry(circuit, way, frame, way.urgency(frame)):
            self._ground.counts["relay_dropped"] += 1
        else:
            self._ground.counts["relayed_frames"] += 1
        if way.arrivals.keeps and way.arrivals.complete:
            self._release(circuit, way)

    def on_other(self, frame: bytes) -> None:
        """Somebody else's on a shared medium: perhaps it is the next hop that hands something on."""
        found = self._on_air.get(end_of(frame))
        if found is not None and found[1].custody.on_forwarded(self._ground.now_ms(), frame):
            del self._on_air[end_of(frame)]
            self._wait(*found)
            self._on_room(*found, frame)

    def on_air(self, path: Path, length: int) -> None:
        """The medium was taken: nobody could say anything."""
        air_ms = path.transport.airtime_ms(length)
        for way, circuit in list(self._waiting.items()):
            if way.path == path:
                way.custody.defer(air_ms)
                self._wait(circuit, way)

    def on_heard(self, path: Path, heard: Heard) -> None:
        found = self._circuits.by_out(path, heard.label)
        if found is not None:
            circuit, way = found
            self._send_again(circuit, way, way.custody.on_heard(self._ground.now_ms(), heard.mark, heard.missing))
            self._wait(circuit, way)
            self._make_room(circuit, way)

    def on_late(self, path: Path, label: int) -> None:
        """Whoever sends frames with that label waits for some that come back: what left for there last, once more."""
        found = self._circuits.by_label(label)
        if found is None or found[1].before != path:
            return
        circuit, way = found[0], found[0].other(found[1])
        if way.path is not None and way.last:
            self._send_again(circuit, way, way.custody.last(LATE_FRAMES))

    # ---- time

    def on_timer(self, what: str, circuit: Circuit, way: Way | None) -> None:
        now_ms = self._ground.now_ms()
        if what == "word":
            inward = next((each for each in circuit.ways if each.path is None), None)
            if inward is not None and inward.before is not None and circuit.asked:
                self._say_heard(inward, inward.before, circuit.asked)
        elif what == "want" and way is not None and way.before is not None:
            if way.arrivals.keeps and not way.arrivals.complete and way.arrivals.want():
                self._say_wanted(circuit, way, way.before, circuit.asked)
            else:
                self._release(circuit, way)
        elif what == "quiet":
            self.on_room(circuit)
        elif what == "late" and way is not None and way.path is not None and way.out is not None:
            self._ground.counts["relay_late"] += 1
            self._ground.say(way.path, Short(Kind.LATE, way.out))
        elif what == "custody" and way is not None and way.path is not None:
            turn = way.custody.on_time(now_ms)
            if isinstance(turn, bytes):
                self._send_again(circuit, way, [turn])
            elif turn is Turn.GIVEN_UP:
                self._ground.counts["relay_given_up"] += 1
                self._give_up(circuit, way)
            self._wait(circuit, way)
            if way.label is None:
                self.on_room(circuit)

    def forget(self, circuit: Circuit) -> None:
        for way in circuit.ways:
            self._waiting.pop(way, None)
            for what in ("custody", "want", "late", "quiet"):
                self._ground.timers.set((what, circuit, way), None)
        self._ground.timers.set(("word", circuit), None)

    # ---- inside

    def _on_room(self, circuit: Circuit, way: Way, frame: bytes) -> None:
        """The next hop has handed a frame on. Where one behind it does so too, that one is not heard here, and whoever
        spoke meanwhile would not be heard by the next hop."""
        if way.label is not None or way.path is None:
            return
        if len(circuit.hops) >= 2 and frame[0] & MORE:
            now_ms, transport = self._ground.now_ms(), way.path.transport
            idle = circuit.quiet_ms <= now_ms
            begin_ms = now_ms + transport.access_ms if idle else circuit.quiet_ms
            circuit.quiet_ms = begin_ms + transport.airtime_ms(len(frame))
            self._ground.set(("quiet", circuit, way), circuit.quiet_ms)
        else:
            self.on_room(circuit)

    def _on_word(self, circuit: Circuit, way: Way) -> None:
        """Something came from where that way leads."""
        self._ground.timers.set(("late", circuit, way), None)
        if way.custody:
            way.custody.on_word(self._ground.now_ms(), last=way.last)
            self._wait(circuit, way)
            self._make_room(circuit, way)

    def _make_room(self, circuit: Circuit, way: Way) -> None:
        """There may be some, once what has just come was read."""
        if way.label is None:
            self._ground.set(("quiet", circuit, way), max(self._ground.now_ms(), circuit.quiet_ms))

    def _want(self, circuit: Circuit, way: Way, path: Path, frame: bytes) -> None:
        circuit.asked = mark_of(frame)
        if not way.arrivals.want():
            self._release(circuit, way)
            return
        self._say_wanted(circuit, way, path, mark_of(frame))

    def _say_wanted(self, circuit: Circuit, way: Way, path: Path, mark: bytes) -> None:
        missing = way.arrivals.missing
        self._ground.counts["relay_wanted"] += len(missing)
        assert way.label is not None
        self._ground.say(path, Heard(way.label, mark, missing))
        transport = path.transport
        took_ms = (len(missing) + 1) * transport.airtime_ms(min(200, path.frame_bytes)) + 4 * transport.access_ms
        self._ground.set(("want", circuit, way), self._ground.now_ms() + took_ms + SLACK_MS)

    def _release(self, circuit: Circuit, way: Way) -> None:
        self._ground.timers.set(("want", circuit, way), None)
        for frame in way.arrivals.take_kept():
            path = way.before
            assert path is not None
            self._on_new(circuit, way, path, frame, asks=True)

    def _say_heard(self, way: Way, path: Path, mark: bytes) -> None:
        assert way.label is not None
        self._ground.counts["relay_heard_said"] += 1
        self._ground.reply(path, Heard(way.label, mark, ()), way)

    def _send_again(self, circuit: Circuit, way: Way, frames: list[bytes]) -> None:
        assert way.path is not None
        link, now_ms = self._ground.link(way.path.transport), self._ground.now_ms()
        for frame in frames:
            self._ground.counts["relay_repeated"] += 1
            others, who = way.label is not None, self._who(circuit, way)
            sent_ms = link.sent_ms(len(frame), way.priority, handed_on=others)
            if link.send(way.path.address, frame, way.priority, who, way, handed_on=others):
                way.custody.again(now_ms, frame, sent_ms)
                self._on_air[end_of(frame)] = circuit, way

    def _who(self, circuit: Circuit, way: Way) -> str:
        """For whom that way takes a link's time."""
        if way.label is None:
            return (circuit.target if way is circuit.forth else circuit.source).hex()
        return RELAYED_FOR + hop_of(self._ground.hop_before(circuit, way)).hex()

    def _wait(self, circuit: Circuit, way: Way) -> None:
        self._ground.set(("custody", circuit, way), way.custody.due_ms)
        self._waiting.pop(way, None)
        if way.custody:
            self._waiting[way] = circuit
            if len(self._waiting) > WAITING_MAX:
                self._let_go(next(iter(self._waiting)))

    def _let_go(self, way: Way) -> None:
        """The ends repair what it held."""
        circuit = self._waiting.pop(way)
        way.custody.clear()
        self._ground.timers.set(("custody", circuit, way), None)

    def _word_ms(self, path: Path, length: int, *, last: bool) -> float:
        """How long word of a frame may take, once it has left: until it was handed on; or, at the last hop, until there
        was an answer or a word that there will be one."""
        transport = path.transport
        if not last:
            return ACCESSES * transport.access_ms + transport.airtime_ms(length) + SLACK_MS
        answer_ms = transport.airtime_ms(min(200, path.frame_bytes))
        return path.ack_delay_ms + ACCESSES * transport.access_ms + answer_ms + 2 * SLACK_MS
