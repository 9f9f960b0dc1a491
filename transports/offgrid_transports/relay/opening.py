"""Circuits opened: labels given hop by hop while a handshake passes, and given anew when a way has broken.

Who opens one sends OPEN along the hops, with its first frame if there is room; each hop notes what label the next one
gets, and the target answers with OPENED. Until then further frames wait. Each hop repeats both until the next one has
them: on a shared medium that is heard, else it says so. Sent again while the source waits, OPEN finds the circuit as it
is. Who has no share of its link for one at the moment says that it is to come later: the source waits, and that is no
failure. A circuit that broke is forgotten by all who hear of it; the session goes on over the next one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from offgrid_transports.path import Path
from offgrid_transports.relay.circuits import Circuit, Circuits, Way
from offgrid_transports.relay.frames import TURNS, Kind, Open, Short, is_at, open_bytes, place
from offgrid_transports.relay.ground import Ground
from offgrid_transports.relay.metric import metric_of
from offgrid_transports.transport import Priority

REPEATS_MAX = 5  # of OPEN and OPENED, until the next hop has them
GROWTH = 0.5  # of a wait, from one to the next
REPEATS_WAITS = REPEATS_MAX * (1 + GROWTH * (REPEATS_MAX - 1) / 2)  # what all take together
WORD_MS = 300.0  # for which word of that is waited on a link with addresses
REPEATING_MAX = 64
BEGUN_MAX = 1024  # ways whose OPENs are counted
PUT_OFF_MS, PUT_OFF_MAX = 2_000.0, 5  # of an OPEN that is to come later: each time so much longer, and so often
OPEN_BYTES = 150  # of one with a hello in it
NO_TURN = -1


class _Sent(msgspec.Struct):
    path: Path
    said: Open
    wait_ms: float
    tries: int = 1


class Opening:
    """`arrive` takes frames that end here; `give_up(circuit, way)` learns that nobody takes what is to go that way."""

    def __init__(
        self,
        ground: Ground,
        circuits: Circuits,
        arrive: Callable[[Circuit, bytes], None],
        give_up: Callable[[Circuit, Way], None],
    ) -> None:
        self._ground, self._circuits, self._arrive, self._give_up = ground, circuits, arrive, give_up
        self._sent: OrderedDict[tuple[object, ...], _Sent] = OrderedDict()
        self._turns: OrderedDict[tuple[object, ...], int] = OrderedDict()  # the last OPEN's, by session and hops
        self.answering: tuple[Circuit, Open] | None = None
        """The circuit whose OPEN is being looked at: what this end says at once goes with OPENED."""
        self.on_opened: Callable[[Circuit], None] = lambda circuit: None
        self.on_put_off: Callable[[Circuit], None] = lambda circuit: None
        """This end's OPEN is said again at `put_off_ms`, or not any more."""

    def __len__(self) -> int:
        """Words that are repeated until the next hop has them."""
        return len(self._sent)

    # ---- at the source

    def begin(self, name: bytes, hops: tuple[bytes, ...], ours: int, theirs: int) -> Circuit | None:
        """None where the first hop is not heard any more."""
        ground, now_ms = self._ground, self._ground.now_ms()
        path = ground.next_path(hops[0] if hops else name)
        if path is None:
            return None
        circuit = Circuit(ground.name, name, hops, ours, theirs, metric_of(path).times(len(hops) + 1))
        self._circuits.aim(circuit.forth, path)
        circuit.forth.last = not hops
        circuit.back.before = path
        self._circuits.add(now_ms, circuit)
        self._circuits.label(circuit, circuit.back)
        return circuit

    def say_open(self, circuit: Circuit, frame: bytes) -> bool:
        """Whether `frame` went with it: it may be too long."""
        path, label = circuit.forth.path, circuit.back.label
        assert path is not None
        assert label is not None
        fits = self._fits(circuit, path, frame)
        circuit.turn = self._next_turn(circuit)
        said = Open(False, 1, circuit.turn, circuit.source, circuit.target, circuit.ours, circuit.theirs, label,
                    metric_of(path), circuit.hops, frame if fits else b"")  # fmt: skip
        self._say(path, said)
        return fits

    def _next_turn(self, circuit: Circuit) -> int:
        """One after the last, of circuits that were dropped as well: hops that still have those take it for a new one,
        and recordings for old ones."""
        key = _key(circuit)
        turn = self._turns[key] = (self._turns.pop(key, self._ground.rng.randrange(TURNS)) + 1) % TURNS
        if len(self._turns) > BEGUN_MAX:
            self._turns.popitem(last=False)
        return turn

    def say_opened(self, circuit: Circuit, asked: Open, frame: bytes) -> bool:
        """The target's answer; as `say_open`."""
        path = circuit.back.path
        assert path is not None
        fits = self._fits(circuit, path, frame)
        label = self._circuits.label(circuit, circuit.forth)
        said = asked._replace(opened=True, to=len(asked.hops), theirs=circuit.theirs, label=label,
                              metric=circuit.metric, frame=frame if fits else b"")  # fmt: skip
        self.answering = None
        self._say(path, said)
        return fits

    def repeats(self, circuit: Circuit) -> bool:
        """Its OPEN is said until the first hop has it."""
        return (False, *_key(circuit)) in self._sent

    def opens_ms(self, circuit: Circuit) -> float:
        """In which its OPENED is here, or word of the hop where nobody takes its OPEN."""
        path, metric = circuit.forth.path, circuit.metric
        assert path is not None
        length = min(OPEN_BYTES, metric.mtu_bytes)
        return metric.trip_ms(length) + (REPEATS_WAITS + 1) * _word_ms(path, length, last=False)

    # ---- what is heard

    def on_open(self, path: Path, said: Open) -> None:
        """OPEN or OPENED, for this node or heard by the way."""
        self._on_gone_on(said)
        if not is_at(self._ground.name, self._ground.hop, said):
            return
        before = place(said, said.to + 1 if said.opened else said.to - 1)
        self._ground.neighbours.on_heard(self._ground.now_ms(), before, path)
        if said.opened:
            self._on_opened(path, said)
        else:
            self._on_open(path, said)

    def _is_stale(self, path: Path, circuit: Circuit, said: Open, *, ends_here: bool) -> bool:
        """It may be a recording: of an earlier OPEN; or of the last one, and the answers would go elsewhere."""
        behind = (circuit.turn - said.turn) % TURNS
        return behind in range(1, TURNS // 2) or (behind == 0 and ends_here and path != circuit.back.path)

    def _is_known(self, path: Path, circuit: Circuit, said: Open) -> bool:
        """The hop before says again what was handed on: it did not hear that."""
        if (circuit.turned if said.opened else circuit.turn) != said.turn:
            return False
        self._say_held(path, said)
        return True

    def _say_held(self, path: Path, said: Open) -> None:
        before = place(said, said.to + 1 if said.opened else said.to - 1)
        self._ground.reply(path, Short(Kind.HELD, said.label), self._ground.known_as(before, path))

    def _on_open(self, path: Path, said: Open) -> None:
        ground, now_ms = self._ground, self._ground.now_ms()
        ends_here, who = said.to == len(said.hops) + 1, ground.known_as(place(said, said.to - 1), path)
        circuit = self._circuits.find(said.source, said.target, said.ours, said.hops)
        if circuit is not None and self._is_stale(path, circuit, said, ends_here=ends_here):
            ground.counts["opens_stale"] += 1
            return
        if circuit is not None and not ends_here and self._is_known(path, circuit, said):
            return
        onward = path if ends_here else ground.next_path(place(said, said.to + 1))
        if onward is None:
            if circuit is not None:
                self._circuits.drop(circuit)
            ground.reply(path, Short(Kind.BROKEN, said.label), who)
            return
        length = open_bytes(len(said.hops), shared=onward.shared) + len(said.frame)
        if not ground.link(onward.transport).opens.take(now_ms, who, onward.transport.airtime_ms(length)):
            ground.counts["opens_refused"] += 1
            ground.reply(path, Short(Kind.LATER, said.label), who)
            return
        if circuit is None:
            circuit = Circuit(
                said.source, said.target, said.hops, said.ours, said.theirs, said.metric, who=who, place=said.to
            )
            circuit.forth.before = path
            if not self._circuits.add(now_ms, circuit):
                ground.counts["circuits_refused"] += 1
                ground.reply(path, Short(Kind.BROKEN, said.label), who)
                return
        circuit.metric, circuit.turn, circuit.turned = said.metric, said.turn, NO_TURN
        circuit.back.last = said.to == 1
        self._circuits.lead(circuit, circuit.back, path, said.label)
        ground.learn(said.source, said.hops[: said.to - 1][::-1], said.metric.cost_ms)
        if ends_here:
            circuit.theirs = circuit.theirs or said.theirs
            circuit.opened = True
            self.answering = circuit, said
            self.on_opened(circuit)
            if said.frame:
                self._arrive(circuit, said.frame)
            if self.answering is not None:
                self.say_opened(circuit, said, b"")
            return
        self._circuits.aim(circuit.forth, onward)
        circuit.forth.last = said.to == len(said.hops)
        circuit.back.before = onward
        label = self._circuits.label(circuit, circuit.back)
        metric = said.metric.plus(metric_of(onward))
        self._say(onward, said._replace(to=said.to + 1, label=label, metric=metric))
        if not path.shared or onward.transport is not path.transport:  # nobody hears there that it goes on
            self._say_held(path, said)

    def _on_opened(self, path: Path, said: Open) -> None:
        ground = self._ground
        circuit = self._circuits.find(said.source, said.target, said.ours, said.hops)
        if circuit is None or circuit.forth.path != path:
            return
        if (circuit.turn - said.turn) % TURNS > 1:
            ground.counts["opens_stale"] += 1
            return
        if said.to and self._is_known(path, circuit, said):
            return
        again, circuit.turned = circuit.turned == said.turn, said.turn
        self._circuits.lead(circuit, circuit.forth, path, said.label)
        circuit.metric, circuit.opened, circuit.put_off = said.metric, True, 0
        circuit.theirs = circuit.theirs or said.theirs
        if said.to == 0:
            ground.learn(said.target, said.hops, said.metric.cost_ms)  # the cost is that of all of them
            ground.counts["opened_twice"] += again
            if again or not path.shared:
                self._say_held(path, said)
            self.on_opened(circuit)
            if said.frame:
                self._arrive(circuit, said.frame)
            return
        onward = circuit.back.path
        assert onward is not None
        label = self._circuits.label(circuit, circuit.forth)
        circuit.forth.before = onward
        self._say(onward, said._replace(to=said.to - 1, label=label))
        if not path.shared or onward.transport is not path.transport:
            self._say_held(path, said)

    def on_used(self, circuit: Circuit, way: Way) -> None:
        """A labelled frame of it has come: the one before knows the label."""
        if self._sent and way is circuit.forth:
            self._end((True, *_key(circuit)))

    def on_held(self, label: int) -> None:
        """Whoever has the OPEN or OPENED with that label says so."""
        found = self._circuits.by_label(label)
        if found is not None:
            circuit, way = found
            self._end((way is circuit.forth, *_key(circuit)))

    def on_later(self, path: Path, label: int) -> None:
        """Who should take the OPEN with that label has no share of its link for it now."""
        found, now_ms = self._circuits.by_label(label), self._ground.now_ms()
        if found is None or found[1].before != path or now_ms < found[0].put_off_ms:
            return
        circuit, back = found
        if back is not circuit.back or circuit.turned == circuit.turn:
            return
        key = False, *_key(circuit)
        circuit.put_off += 1
        circuit.put_off_ms = now_ms + PUT_OFF_MS * circuit.put_off
        if (sent := self._sent.get(key)) is not None:
            sent.tries = 1
            self._ground.set(("open", key), circuit.put_off_ms)
        if back.path is not None and back.out is not None:
            self._ground.reply(back.path, Short(Kind.LATER, back.out), back)
        else:
            self.on_put_off(circuit)
        if circuit.put_off > PUT_OFF_MAX:
            self._end(key)
            self._circuits.drop(circuit)

    # ---- repeated until they go on

    def on_timer(self, key: tuple[object, ...]) -> None:
        sent = self._sent.get(key)
        if sent is None:
            return
        if sent.tries >= REPEATS_MAX:
            self._ground.counts["opens_given_up"] += 1
            self._end(key)
            circuit = self._circuits.find(sent.said.source, sent.said.target, sent.said.ours, sent.said.hops)
            if circuit is not None and not sent.said.opened:
                self._give_up(circuit, circuit.forth)
            return
        sent.tries += 1
        self._ground.counts["opens_repeated"] += 1
        self._send(key, sent)

    def _say(self, path: Path, said: Open) -> None:
        key = said.opened, said.source, said.target, said.ours, said.hops
        length = open_bytes(len(said.hops), shared=path.shared) + len(said.frame)
        self._sent[key] = sent = _Sent(path, said, _word_ms(path, length, last=said.to in (0, len(said.hops) + 1)))
        if len(self._sent) > REPEATING_MAX:
            self._end(next(iter(self._sent)))
        self._send(key, sent)

    def _send(self, key: tuple[object, ...], sent: _Sent) -> None:
        link = self._ground.link(sent.path.transport)
        length = open_bytes(len(sent.said.hops), shared=sent.path.shared) + len(sent.said.frame)
        sent_ms = link.sent_ms(length, Priority.CONTROL)
        self._ground.say(sent.path, sent.said, len(sent.said.frame))
        due_ms = self._ground.now_ms() + sent_ms + sent.wait_ms * (1 + GROWTH * (sent.tries - 1))
        self._ground.set(("open", key), due_ms)

    def _on_gone_on(self, said: Open) -> None:
        """The next one hands it on, or what comes back tells that it got through."""
        key = said.opened, said.source, said.target, said.ours, said.hops
        sent = self._sent.get(key)
        further = sent is not None and (said.to < sent.said.to if said.opened else said.to > sent.said.to)
        if sent is not None and further and sent.said.turn == said.turn:
            self._end(key)
        asked = self._sent.get((False, *key[1:])) if said.opened else None
        if asked is not None and asked.said.turn == said.turn:
            self._end((False, *key[1:]))

    def _end(self, key: tuple[object, ...]) -> None:
        if self._sent.pop(key, None) is not None:
            self._ground.timers.set(("open", key), None)

    # ---- inside

    def _fits(self, circuit: Circuit, path: Path, frame: bytes) -> bool:
        """Into OPEN or OPENED on all hops, whichever media they are."""
        narrowest = min(path.frame_bytes, circuit.metric.mtu_bytes)
        return open_bytes(len(circuit.hops), shared=False) + len(frame) <= narrowest


def _word_ms(path: Path, length: int, *, last: bool) -> float:
    """How long word of an OPEN or OPENED may take. `last`: the next one is an end, whose answer may be longer, and who
    hands nothing on."""
    transport = path.transport
    answer_ms = transport.airtime_ms(min(200, path.frame_bytes) if last else length)
    wait_ms = answer_ms + 3 * transport.access_ms + 50.0
    return wait_ms if path.shared else max(wait_ms, WORD_MS)


def _key(circuit: Circuit) -> tuple[object, ...]:
    """As OPEN and OPENED name it."""
    return circuit.source, circuit.target, circuit.ours, circuit.hops
