"""Several hops: calls over relays, and a day of 200 nodes that look for each other on one LoRa channel.

All in virtual time, on the emulated channel with the medium access of RNode's firmware, SF7 and 125 kHz. The airtime of
calls is of bodies that cannot be packed. The 200 nodes stand in a grid of 10 by 20, each hears its up to 8 neighbours;
20 times an hour, in the whole mesh, one looks for a member to whom it knows no way, and calls it once. Control is all
that relays say of ways, labels and single frames, without the frames they carry, and a beacon of each node an hour. Its
share of the air is what the node that hears most of it hears and says, of the day.
"""

from __future__ import annotations

import statistics

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.emulators.relay_mesh import SF7, RadioMesh
from offgrid_tools.soak.chance import chance
from offgrid_transports.beacons import BEACON_BYTES_MAX
from offgrid_transports.calls import End, Reply

BODY_BYTES = 32
RELAYS, LOSS = 3, 0.13
CALLS, CALLS_QUICK = 5_000, 300
BULK_BYTES, BULK_ROUNDS = 10_000, 5
COLUMNS, ROWS = 20, 10
SEARCHES_AN_HOUR = 20
DAY_H, DAY_H_QUICK = 24, 2
PAIRS_MAX = 50  # that are drawn until one knows no way


def measure(plan: Plan) -> list[Figure]:
    """All figures of several hops."""
    plan.say("transports: calls over relays")
    figures = [Figure("relay_two_hops_air_s", _air_of_a_call(3) / 1000), *_lossy(plan), *_bulk()]
    plan.say("transports: a day of 200 nodes on one channel")
    return figures + _day(plan)


def _echoing(count: int, seed: int = 1) -> RadioMesh:
    mesh = RadioMesh(count, seed)
    for node in mesh.nodes:
        node.handle = lambda request: request.body
    mesh.beacons()
    return mesh


def _warm(mesh: RadioMesh) -> None:
    """There is a session from the first to the last."""
    mesh.asked(mesh.nodes[0], mesh.nodes[-1].name, b"")
    mesh.run(60)


def _air_of_a_call(count: int) -> float:
    """In milliseconds, with a session and without loss."""
    mesh = _echoing(count)
    _warm(mesh)
    before_ms = mesh.air_ms
    mesh.asked(mesh.nodes[0], mesh.nodes[-1].name, chance("air").randbytes(BODY_BYTES))
    mesh.run(60)
    return mesh.air_ms - before_ms


def _lossy(plan: Plan) -> list[Figure]:
    calls, lossless_ms = plan.rounds(CALLS, CALLS_QUICK), _air_of_a_call(RELAYS + 2)
    mesh, rng, right, took_ms = _echoing(RELAYS + 2), chance("lossy"), 0, list[int]()
    _warm(mesh)
    mesh.channel.loss, before_ms = LOSS, mesh.air_ms
    for _ in range(calls):
        body, began_ms = rng.randbytes(BODY_BYTES), mesh.now_ms()
        reply = mesh.asked(mesh.nodes[0], mesh.nodes[-1].name, body)
        right += reply.end is End.OK and reply.body == body
        took_ms.append(mesh.now_ms() - began_ms)
        mesh.run(1)
    mesh.run(60)
    took_ms.sort()
    return [
        Figure("relay_delivered_percent", 100 * right / calls, note=f"{calls} calls"),
        Figure("relay_air_vs_lossless", (mesh.air_ms - before_ms) / calls / lossless_ms, "no loss", lossless_ms),
        Figure("relay_call_p50_s", took_ms[calls // 2] / 1000),
        Figure("relay_call_p99_s", took_ms[calls * 99 // 100] / 1000),
    ]


def _bulk() -> list[Figure]:
    shares = []
    for seed in range(1, BULK_ROUNDS + 1):
        mesh = _echoing(3, seed)
        mesh.nodes[-1].handle = lambda request: b""
        _warm(mesh)
        began_ms = mesh.now_ms()
        mesh.asked(mesh.nodes[0], mesh.nodes[-1].name, chance(f"mesh {seed}").randbytes(BULK_BYTES), 3_600_000)
        shares.append(100 * 8000 * BULK_BYTES / (mesh.now_ms() - began_ms) / SF7.bitrate_bps)
    return [Figure("relay_two_hops_phy_percent", statistics.median(shares), note="of which 50 are to be had")]


class GridDay:
    """The 200 nodes; `places` are counted row by row."""

    def __init__(self, hours: int, seed: int = 1, *, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self._hours, self._columns = hours, columns
        self.mesh = RadioMesh(columns * rows, seed)
        self.mesh.hears = self._hears
        self._rng = chance(f"day {seed}")
        self.found_s: list[float] = []
        self.failed = self.right = self.calls = 0

    def run(self) -> None:
        """Searches come at random; the last ones have ten minutes to end."""
        mesh, rng = self.mesh, self._rng
        for hour in range(self._hours):
            times = sorted(rng.uniform(0, 3_600_000) for _ in range(SEARCHES_AN_HOUR))
            for node in mesh.nodes:
                mesh.schedule(rng.randrange(3_600_000) if hour else rng.randrange(60_000), node.beacon)
            for at_ms in times:
                mesh.run((3_600_000 * hour + at_ms - mesh.now_ms()) / 1000 if at_ms > 120_000 or hour else 6)
                self._search()
            mesh.run(3_600 * (hour + 1) - mesh.now_ms() / 1000)
        mesh.run(600)

    @property
    def control_share(self) -> float:
        """Of the air, where most of it is heard."""
        return max(self._heard_us(place) for place in range(len(self.mesh.nodes))) / (self._hours * 3_600_000_000)

    @property
    def control_sent_share(self) -> float:
        """Of the time, by the node that says most."""
        return max(self._control_us(place) for place in range(len(self.mesh.nodes))) / (self._hours * 3_600_000_000)

    def _search(self) -> None:
        mesh, rng = self.mesh, self._rng
        for _ in range(PAIRS_MAX):
            source, target = rng.sample(mesh.nodes, 2)
            if source.relay.hops_to(target.public) is None:
                break
        began_ms = mesh.now_ms()
        body = rng.randbytes(BODY_BYTES)

        def ended(reply: Reply) -> None:
            self.calls += 1
            self.right += reply.end is End.OK and reply.body == b"re:" + body

        def look() -> None:
            if source.relay.hops_to(target.public) is not None:
                self.found_s.append((mesh.now_ms() - began_ms) / 1000)
            elif mesh.now_ms() - began_ms < 600_000:
                mesh.schedule(50, look)
            else:
                self.failed += 1

        source.call(target.name, body, 300_000, ended)
        look()

    def _hears(self, a: int, b: int) -> bool:
        (row, column), (other_row, other_column) = divmod(a, self._columns), divmod(b, self._columns)
        return a != b and abs(row - other_row) <= 1 and abs(column - other_column) <= 1

    def _control_us(self, place: int) -> float:
        beacons_us = self._hours * 1000 * self.mesh.radios[place].airtime_ms(BEACON_BYTES_MAX)
        return self.mesh.nodes[place].relay.counts["control_air_us"] + beacons_us

    def _heard_us(self, place: int) -> float:
        near = [other for other in range(len(self.mesh.nodes)) if self._hears(other, place)]
        return sum(map(self._control_us, [place, *near]))


def _day(plan: Plan) -> list[Figure]:
    day = GridDay(plan.rounds(DAY_H, DAY_H_QUICK))
    day.run()
    found_s, searches = sorted(day.found_s), len(day.found_s) + day.failed
    return [
        Figure("mesh200_control_percent", 100 * day.control_share, note=f"{searches} searches"),
        Figure("mesh200_control_sent_percent", 100 * day.control_sent_share),
        Figure("mesh200_route_median_s", statistics.median(found_s)),
        Figure("mesh200_route_p95_s", found_s[len(found_s) * 95 // 100]),
        Figure("mesh200_found_percent", 100 * len(found_s) / searches),
        Figure("mesh200_called_percent", 100 * day.right / day.calls),
    ]
