"""Meshes whose nodes relay for each other, under loss, movement, nodes that begin anew, and relays that do harm.

A seed draws who hears whom (a row, a grid, or scattered), over which medium, how bad it is, who calls whom when and
with how much, and what befalls the mesh meanwhile. In virtual time, on real endpoints and relays. Promised is what
holds on a single link: each call ends, once; none is carried out twice, unless its server began anew in between; an
answer is that of its call; what is said to be refused was not carried out; and when all have ended the mesh falls
silent. Where nothing befalls it, every call of somebody in reach is answered. Where one relay opens ways and hands on
nothing of what follows, those whom others connect as well reach each other, at the third call at the latest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from offgrid_tools.emulators.relay_mesh import MemoryMesh, RadioMesh, RelayNode
from offgrid_tools.soak.chance import chance
from offgrid_transports.answers import Request
from offgrid_transports.calls import End, Reply
from offgrid_transports.memory import Faults
from offgrid_transports.relay.relay import LABELLED
from offgrid_transports.transport import Priority, Transport

CALLS = 12
HOLE = 8  # each so many trials one is of a relay that hands on nothing
HOLE_PAIRS, HOLE_CALLS, HOLE_BEACONS, HOLE_LOSS = 4, 3, 4, 0.05
TAG_BYTES = 8
QUIET_S = 7_200.0  # after the last call's time is up
STEP = 50


class Call(msgspec.Struct):
    client: str
    server: str
    tag: bytes
    ends: list[Reply] = msgspec.field(default_factory=list)


class Trial:
    """One seed's. `calm`: nothing befalls it."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = chance(f"{seed}/relays")
        self.radio, self.calm = rng.random() < 0.4, rng.random() < 0.25
        self._places = self._placed(rng.choice(("row", "grid", "scattered")))
        count = len(self._places)
        loss = 0.0 if self.calm else rng.choice((0.0, 0.05, 0.15, 0.25))
        faults = Faults(loss, 0.0 if self.calm else rng.choice((0.0, 0.1)), rng.choice((1, 20)), rng.choice((0, 30)))
        self._mesh = RadioMesh(count, seed, loss=loss) if self.radio else MemoryMesh(count, seed, faults=faults)
        self._mesh.hears = self._hears
        self._calls: list[Call] = []
        self._ran: Counter[tuple[int, bytes]] = Counter()  # by the life of the node
        self._harmed = False
        for node in self._mesh.nodes:
            self._serve(node)

    def run(self) -> list[str]:
        """What was promised and is not so."""
        mesh, rng, slow = self._mesh, self._rng, 10 if self.radio else 1
        mesh.beacons()
        if not self.calm and rng.random() < 0.4:
            self._do_harm(rng.choice(mesh.nodes).links[0])
        for number in range(CALLS):
            mesh.run(slow * rng.choice((0, 0.1, 2, 20)))
            if not self.calm:
                self._befall()
            client, server = rng.sample(mesh.nodes, 2)
            call = Call(client.name, server.name, number.to_bytes(TAG_BYTES))
            self._calls.append(call)
            body = call.tag + rng.randbytes(rng.choice((0, 0, 20, 400, 3_000)))
            timeout_ms = 3_600_000 if self.calm else slow * rng.choice((2_000, 30_000, 300_000))
            client.call(server.name, body, timeout_ms, call.ends.append)
        mesh.run(3_700)
        return [*self._broken(), *self._unquiet()]

    def run_hole(self) -> list[str]:
        """As `run`, where one node is such a relay; nothing else befalls the mesh."""
        mesh, rng, slow = self._mesh, self._rng, 10 if self.radio else 1
        if isinstance(mesh, MemoryMesh):  # whose links have no repair but that from end to end
            faults = mesh.network.faults
            mesh.network.faults = replace(faults, loss=min(HOLE_LOSS, faults.loss))
        hole = rng.choice(mesh.nodes)
        self._swallow(hole.links[0])
        for _ in range(HOLE_BEACONS):  # some may be lost
            mesh.beacons()
        others = [node for node in mesh.nodes if node is not hole]
        drawn = [rng.sample(others, 2) for _ in range(HOLE_PAIRS)]
        pairs = [(one, other) for one, other in drawn if self._connected(one.name, other.name, but=hole.name)]
        last: dict[tuple[str, str], Reply] = {}
        for number in range(HOLE_CALLS):
            for one, other in pairs:
                last[one.name, other.name] = mesh.asked(one, other.name, number.to_bytes(TAG_BYTES), 600_000)
                mesh.run(5 * slow)
        return [
            f"{one} does not reach {other} past {hole.name}: {reply.end.name}, {reply.detail}"
            for (one, other), reply in last.items()
            if reply.end is not End.OK
        ]

    # ---- what is looked at

    def _broken(self) -> list[str]:
        found = []
        for call in self._calls:
            ran = max((count for (_, tag), count in self._ran.items() if tag == call.tag), default=0)
            said = f"call {int.from_bytes(call.tag)} of {call.server} by {call.client}"
            if len(call.ends) != 1:
                found.append(f"{said} ended {len(call.ends)} times")
                continue
            end = call.ends[0]
            if ran > 1:
                found.append(f"{said} was carried out {ran} times, and ended {end.end.name}")
            elif end.end is End.OK and (not ran or not end.body.startswith(call.tag)):
                found.append(f"{said} got an answer that is not its own: {end.body[:TAG_BYTES].hex()}")
            elif end.end is End.REFUSED and ran:
                found.append(f"{said} was carried out, though refused: {end.detail}")
            elif self.calm and end.end is not End.OK and self._connected(call.client, call.server):
                found.append(f"{said} was not answered, though nothing was wrong: {end.end.name}, {end.detail}")
        return found

    def _unquiet(self) -> list[str]:
        mesh = self._mesh
        mesh.run(QUIET_S)
        before = self._sent
        mesh.run(QUIET_S)
        return [f"{self._sent - before} frames in the silence after all"] if self._sent > before else []

    @property
    def _sent(self) -> int:
        mesh = self._mesh
        return mesh.channel.counts.frames if isinstance(mesh, RadioMesh) else mesh.network.frames_sent

    def _connected(self, one: str, other: str, but: str = "") -> bool:
        places = [place for place in range(len(self._places)) if f"n{place}" != but]
        reached, ahead = {int(one[1:])}, [int(one[1:])]
        while ahead:
            at = ahead.pop()
            new = {place for place in places if self._hears(at, place)} - reached
            reached |= new
            ahead += new
        return int(other[1:]) in reached

    # ---- the world

    def _placed(self, how: str) -> list[tuple[float, float]]:
        rng = self._rng
        if how == "row":
            return [(float(at), 0.0) for at in range(rng.randint(3, 7))]
        if how == "grid":
            return [(float(at % 4), float(at // 4)) for at in range(rng.choice((8, 12)))]
        return [(rng.uniform(0, 4), rng.uniform(0, 3)) for _ in range(rng.randint(4, 12))]

    def _hears(self, a: int, b: int) -> bool:
        (x, y), (other_x, other_y) = self._places[a], self._places[b]
        return a != b and (x - other_x) ** 2 + (y - other_y) ** 2 <= 1.5

    def _befall(self) -> None:
        mesh, rng = self._mesh, self._rng
        if rng.random() < 0.2:  # somebody moves
            self._places[rng.randrange(len(self._places))] = (rng.uniform(0, 4), rng.uniform(0, 3))
            if isinstance(mesh, RadioMesh):
                mesh.channel.forget_reach()
            rng.choice(mesh.nodes).beacon()
        if isinstance(mesh, MemoryMesh) and rng.random() < 0.1:
            self._restart(mesh, rng.randrange(len(mesh.nodes)))

    def _restart(self, mesh: MemoryMesh, place: int) -> None:
        name = mesh.nodes[place].name
        mesh.nodes[place].close()
        mesh.nodes[place] = RelayNode(mesh, name, [mesh.network.attach(name)])
        self._serve(mesh.nodes[place])
        mesh.nodes[place].beacon()

    def _do_harm(self, link: Transport) -> None:
        """What this node sends is dropped, doubled, held up or altered now and then."""
        send, mesh, rng = link.send, self._mesh, self._rng
        drops, doubles, alters, holds = (rng.choice((0.0, 0.2)) for _ in range(4))

        def harmful(address: str, frame: bytes, *priority: int) -> bool:
            if rng.random() < drops:
                return True
            if rng.random() < alters:
                at = rng.randrange(len(frame))
                frame = frame[:at] + bytes((frame[at] ^ 1 + rng.randrange(255),)) + frame[at + 1 :]
            if rng.random() < holds:
                mesh.schedule(rng.randrange(5_000), lambda: send(address, frame))
                return True
            if rng.random() < doubles:
                send(address, frame)
            return send(address, frame)

        link.send = harmful  # type: ignore[method-assign, assignment]

    def _swallow(self, link: Transport) -> None:
        """Of what this node sends all labelled frames."""
        send = link.send

        def some(address: str, frame: bytes, *priority: Priority) -> bool:
            return frame[0] & 0xF0 in LABELLED or send(address, frame, *priority)

        link.send = some  # type: ignore[method-assign, assignment]

    def _serve(self, node: RelayNode) -> None:
        long = self._rng.choice((0, 0, 300, 2_000))

        def handle(request: Request) -> bytes:
            tag = request.body[:TAG_BYTES]
            self._ran[id(node), tag] += 1
            return tag + bytes(long)

        node.handle = handle


def soak_relays(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """So many trials from that seed on; what was broken, each with its seed."""
    broken: list[str] = []
    for number in range(seed, seed + rounds):
        trial = Trial(number)
        broken += [f"trial {number}: {wrong}" for wrong in (trial.run_hole() if number % HOLE == 0 else trial.run())]
        if (number - seed + 1) % STEP == 0:
            say(f"   {number - seed + 1:6} trials, {len(broken)} violations")
    return broken
