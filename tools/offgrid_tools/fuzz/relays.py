"""The target that is a small mesh of whole relays, in virtual time: what passes between them is dropped, damaged,
doubled, delayed and played back, and a member that keeps to nothing says whatever relays may say."""

from __future__ import annotations

from collections import Counter
from functools import partial

import msgspec

from offgrid_tools.emulators.relay_mesh import PSK, MemoryMesh, RadioMesh, RelayNode
from offgrid_tools.fuzz.script import Script
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.memory import Faults
from offgrid_transports.relay import frames
from offgrid_transports.relay.circuits import CIRCUITS_MAX
from offgrid_transports.relay.discovery import SEEKING_MAX, SEEN_MAX
from offgrid_transports.relay.ends import RELAYED_MAX
from offgrid_transports.relay.ground import FLOODS_MAX, name_of
from offgrid_transports.relay.metric import Metric
from offgrid_transports.relay.neighbours import NEIGHBOURS_MAX
from offgrid_transports.relay.opening import REPEATING_MAX
from offgrid_transports.relay.pending import WAITING_MAX
from offgrid_transports.relay.relay import LABELLED
from offgrid_transports.relay.routes import ROUTES_MAX
from offgrid_transports.relay.seeking import PASSED_MAX
from offgrid_transports.relay.shunned import SHUNNED_MAX
from offgrid_transports.transport import Priority, Transport

EDGES = {(0, 1), (0, 2), (1, 3), (2, 3), (1, 2), (3, 4)}  # n4 behind n3, and two ways there
ENDS = ("n0", "n3", "n4")
STEPS_MAX = 24
KEPT_FRAMES = 48  # that can be played back
TIMEOUT_MS = 60_000
QUIET_S = 7_200.0  # after which whatever was under way has ended
CALM_S = 1_800.0
WORDS_A_STEP = 60  # frames about ways that one thing that happens may bring about, hops' repeats and all
STRANGE = (b"zzzz", b"yyyy")  # names that nobody has
BOUNDS = {
    "circuits": CIRCUITS_MAX,
    "labels": 2 * CIRCUITS_MAX,
    "neighbours": NEIGHBOURS_MAX,
    "routes": ROUTES_MAX,
    "shunned": SHUNNED_MAX,
    "opens": REPEATING_MAX,
    "answers": PASSED_MAX,
    "searches": SEEN_MAX + SEEKING_MAX,
    "waiting": RELAYED_MAX * WAITING_MAX,
    "floods": FLOODS_MAX,
}
UNDER_WAY = ("opens", "answers", "searches", "waiting", "floods", "timers")  # of which nothing is left in the end


class _Call(msgspec.Struct):
    body: bytes
    ends: list[Reply] = msgspec.field(default_factory=list)


class _Between:
    """Has its way with all that leaves a link, while the script lasts."""

    def __init__(self, mesh: MemoryMesh | RadioMesh, script: Script) -> None:
        self._mesh, self._script, self.over = mesh, script, False
        self._kept: list[tuple[RelayNode, str, bytes]] = []
        self.done = 0
        for node in mesh.nodes:
            for link in node.links:
                self._listen(node, link)

    @property
    def labels(self) -> list[int]:
        """That frames have borne lately."""
        labelled = (frame for _, _, frame in self._kept if frame[0] & 0xF0 in LABELLED)
        return [int.from_bytes(frame[1:3]) for frame in labelled] or [1]

    def replay(self) -> None:
        """Something that was said, to whomever."""
        if self._kept:
            node, address, frame = self._script.pick(self._kept)
            self._arrive(self._script.pick(self._mesh.nodes), node.name if address else address, frame)

    def _listen(self, node: RelayNode, link: Transport) -> None:
        send = link.send

        def through(address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
            if self.over or self._script.ended:
                return send(address, frame, priority)
            self._kept = [*self._kept[1 - KEPT_FRAMES :], (node, address, frame)]
            return self._pass(partial(send, address), frame, priority)

        link.send = through  # type: ignore[method-assign]

    def _pass(self, send: partial[bool], frame: bytes, priority: Priority) -> bool:
        script, what = self._script, self._script.byte() % 16
        self.done += what < 5
        match what:
            case 0:
                return True
            case 1:
                damaged = script.damaged(frame)[: len(frame)]
                return send(damaged, priority) if damaged else True
            case 2:
                for _ in range(1 + script.below(3)):
                    send(frame, priority)
                return send(frame, priority)
            case 3:
                self._mesh.schedule(script.pick((50, 1_000, 20_000, 600_000)), lambda: send(frame, priority))
                return True
            case 4:
                sent = send(frame, priority)
                self.replay()
                return sent
            case _:
                return send(frame, priority)

    def _arrive(self, node: RelayNode, address: str, frame: bytes) -> None:
        link = node.links[0]
        self._mesh.schedule(1, lambda: link.on_frame("" if link.shared else address, frame))


def relays(data: bytes) -> None:
    """Nothing raises, tables keep their bounds, each call ends once and is carried out once at most, what relays say to
    each other is in proportion to what has happened, and in the end all fall silent, keep nothing that is under way,
    and reach each other."""
    script = Script(data)
    radio = not script.below(3)
    mesh = RadioMesh(5) if radio else MemoryMesh(5, faults=Faults(delay_ms=5))
    mesh.hears = lambda a, b: (a, b) in EDGES or (b, a) in EDGES
    calls, ran = list[_Call](), Counter[bytes]()
    for node in mesh.nodes:
        node.handle = partial(_count, ran)
    mesh.beacons()
    between, happened = _Between(mesh, script), 0
    for _ in range(STEPS_MAX):
        if script.ended:
            break
        happened += 1
        _step(mesh, script, between, calls)
        _check_bounds(mesh)
    between.over = True
    mesh.run(TIMEOUT_MS / 1000)
    said = mesh.total("control_frames")
    assert said <= WORDS_A_STEP * (happened + between.done + 1), f"{said} words for {happened} + {between.done}"
    mesh.run(QUIET_S)
    _check_quiet(mesh)
    for call in calls:
        assert len(call.ends) == 1, f"{call.body[:20]!r} ended {len(call.ends)} times"
        end = call.ends[0]
        assert ran[call.body] <= 1, f"{call.body[:20]!r} was carried out {ran[call.body]} times"
        assert end.end is not End.OK or end.body == b"re:" + call.body
        assert end.end is not End.REFUSED or not ran[call.body], f"refused, though it was carried out: {end.detail}"
    mesh.beacons()
    for one, other in ((0, "n4"), (4, "n0")):
        reply = mesh.asked(mesh.nodes[one], other, b"after all", 600_000)
        if reply.end is End.UNKNOWN:  # of their session one side alone knew still: it takes that call to find out
            reply = mesh.asked(mesh.nodes[one], other, b"and again", 600_000)
        assert reply.end is End.OK, f"{other} is not reached from n{one}: {reply.end.name}, {reply.detail}"


def _check_bounds(mesh: MemoryMesh | RadioMesh) -> None:
    for node in mesh.nodes:
        kept = node.relay.kept
        over = {what: kept[what] for what, most in BOUNDS.items() if kept[what] > most}
        assert not over, f"{node.name} keeps {over}"
        assert kept["labels"] <= 2 * kept["circuits"], f"{node.name} has labels of circuits that are gone: {kept}"


def _check_quiet(mesh: MemoryMesh | RadioMesh) -> None:
    for node in mesh.nodes:
        left = {what: node.relay.kept[what] for what in UNDER_WAY if node.relay.kept[what]}
        assert not left, f"{node.name} never ends {left}"
    before = _sent(mesh)
    mesh.run(CALM_S)
    assert _sent(mesh) == before, f"{_sent(mesh) - before} frames in the silence after all"


def _sent(mesh: MemoryMesh | RadioMesh) -> int:
    return mesh.channel.counts.frames if isinstance(mesh, RadioMesh) else mesh.network.frames_sent


def _count(ran: Counter[bytes], request: Request) -> bytes:
    ran[request.body] += 1
    return b"re:" + request.body


def _step(mesh: MemoryMesh | RadioMesh, script: Script, between: _Between, calls: list[_Call]) -> None:
    match script.below(6):
        case 0:
            mesh.run(script.pick((0.01, 0.3, 5, 60, 2_000)))
        case 1:
            one, other = script.pick([(a, b) for a in ENDS for b in ENDS if a != b])
            call = _Call(f"{one} {len(calls)} ".encode().ljust(script.pick((0, 10, 300, 2_000)), b"."))
            calls.append(call)
            mesh.nodes[int(one[1:])].call(other, call.body, TIMEOUT_MS, call.ends.append)
        case 2:
            script.pick(mesh.nodes).beacon()
        case 3:
            between.replay()
        case _:
            link = script.pick(mesh.nodes).links[0]
            frame = frames.write(PSK, _word(mesh, script, between), shared=link.shared)[: link.mtu_bytes()]
            link.on_frame("" if link.shared else script.pick(("n0", "n1", "n2", "n9")), frame)
    mesh.run(0.02)


def _word(mesh: MemoryMesh | RadioMesh, script: Script, between: _Between) -> frames.Said:
    """Of a member that makes things up: names and hops are those of nodes, as a rule, and labels such as are given."""
    names = [*(name_of(node.public) for node in mesh.nodes), *STRANGE]
    source, target = script.pick(names), script.pick(names)
    hops = tuple(dict.fromkeys(frames.hop_of(script.pick(names)) for _ in range(script.below(4))))
    number, left, fresh, cost_ms = (
        script.below(1 << 16),
        script.below(25 - len(hops)),
        bool(script.below(2)),
        script.byte(),
    )
    label = script.pick(between.labels) if script.below(4) else script.below(1 << 16)
    match script.below(5):
        case 0:
            return frames.Ask(number, left, fresh, target, source, hops, cost_ms)
        case 1:
            return frames.Answer(number, script.below(len(hops) + 1), target, source, hops, cost_ms)
        case 2:
            to, turn, metric = script.below(len(hops) + 2), script.below(8), Metric(1_000, 10, 10, 254, False)
            numbers = script.below(1 << 16), script.below(1 << 16)
            return frames.Open(fresh, to, turn, source, target, *numbers, label, metric, hops, script.take())
        case 3:
            return frames.Heard(label, script.cut(2).ljust(2, b"\0"), (b"\0\1",) * script.below(3))
        case _:
            kinds = (frames.Kind.UNKNOWN, frames.Kind.BROKEN, frames.Kind.HELD, frames.Kind.LATE)
            return frames.Short(script.pick(kinds), label)
