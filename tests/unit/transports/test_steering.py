"""Two nodes joined by several links: calls go over the best one, and go on when it fails."""

from __future__ import annotations

from random import Random

import pytest
from virtual_link import Node, VirtualTime, public_of

from offgrid_transports.calls import End
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.path import Path
from offgrid_transports.steering import CHECK_MS, SETTLED_MS
from offgrid_transports.transport import Priority


class Town:
    """A client and a server with a fast link and a slow one; both say on each that they are there, every 10 s."""

    def __init__(self, seed: int = 1, *, work_ms: int = 0, price: float | None = None) -> None:
        self.world = VirtualTime()
        self.nets = {
            name: MemoryNetwork(Random(seed), self.world.schedule, bitrate_bps=bitrate_bps, faults=Faults(delay_ms=5))
            for name, bitrate_bps in (("fast", 0), ("slow", 100_000))
        }
        fast, slow = self.nets["fast"], self.nets["slow"]
        self.client = Node(self.world, fast.attach("client"), "client")
        self.server = Node(
            self.world, fast.attach("server"), "server", handle=lambda request: b"re:" + request.body, work_ms=work_ms
        )
        self.slow_ends = {name: slow.attach(name) for name in ("client", "server")}
        for node in (self.client, self.server):
            node.endpoint.attach(self.slow_ends[node.name], price)
        self.beacons = True
        self.beacon()

    def beacon(self) -> None:
        for node, other in ((self.client, self.server), (self.server, self.client)):
            for net, end in (("fast", node.end), ("slow", self.slow_ends[node.name])):
                if not self.nets[net].cut(other.name, node.name):
                    node.endpoint.learn(other.name, public_of(other.name), Path(end, other.name))
        self.world.schedule(10_000, self.beacon)

    def run(self, ms: int) -> None:
        self.world.run(self.world.now_ms + ms)

    def cut(self, net: str) -> None:
        self.nets[net].cut = lambda source, target: True

    def mend(self, net: str) -> None:
        self.nets[net].cut = lambda source, target: False

    @property
    def over(self) -> str:
        session = self.client.endpoint.session_of("server")
        assert session is not None
        return "fast" if session.path.transport is self.client.end else "slow"


def warm(town: Town) -> None:
    town.client.call("server", b"warm")
    town.run(2_000)
    assert [reply.end for reply in town.client.replies] == [End.OK]
    town.client.replies.clear()


def test_the_fast_one_is_taken() -> None:
    town = Town()
    warm(town)
    assert town.over == "fast"


@pytest.mark.parametrize("seed", range(5))
def test_when_it_fails_the_calls_under_way_go_on_over_the_other_one(seed: int) -> None:
    town = Town(seed)
    warm(town)
    bodies = [b"%d" % number * 200 for number in range(20)]
    for body in bodies:
        town.client.call("server", body)
    town.world.run(town.world.now_ms + 3)  # they have left, and nobody has answered
    town.cut("fast")
    town.run(20_000)
    assert town.over == "slow"
    assert sorted(reply.body for reply in town.client.replies) == sorted(b"re:" + body for body in bodies)
    assert sorted(request.body for request in town.server.requests if request.body != b"warm") == sorted(bodies)


def test_an_answer_that_is_worked_at_while_the_road_fails_comes_over_the_other_one() -> None:
    town = Town(work_ms=8_000)
    town.client.call("server", b"long")
    town.run(2_000)
    town.cut("fast")
    town.run(30_000)
    assert [(reply.end, reply.body) for reply in town.client.replies] == [(End.OK, b"re:long")]
    assert len(town.server.requests) == 1


def test_a_link_that_goes_down_is_left_at_once() -> None:
    town = Town()
    warm(town)
    town.client.end.close()
    town.client.end.on_change()
    town.client.call("server", b"now")
    town.run(1_000)
    assert [reply.body for reply in town.client.replies] == [b"re:now"]


def test_it_goes_back_when_the_fast_one_answers_again() -> None:
    town = Town()
    warm(town)
    town.cut("fast")
    town.client.call("server", b"x" * 100)
    town.run(15_000)
    assert town.over == "slow"
    town.mend("fast")
    town.run(int(SETTLED_MS) + 11_000)
    assert town.over == "fast"


def test_one_that_is_heard_but_hears_nothing_is_not_gone_back_to() -> None:
    town = Town()
    warm(town)
    town.nets["fast"].cut = lambda source, target: source == "client"
    town.client.call("server", b"x" * 100)
    town.run(15_000)
    assert [reply.body for reply in town.client.replies] == [b"re:" + b"x" * 100]
    for _ in range(12):
        assert town.over == "slow"
        town.run(5_000)


def test_the_first_call_finds_the_road_that_leads_there() -> None:
    town = Town()
    town.cut("fast")
    town.client.call("server", b"first")
    town.run(15_000)
    assert [reply.body for reply in town.client.replies] == [b"re:first"]
    assert town.over == "slow"


def test_an_echo_tells_how_long_each_road_takes_and_moves_nothing() -> None:
    town = Town()
    warm(town)
    told: list[float | None] = []
    for end in (town.client.end, town.slow_ends["client"]):
        town.client.endpoint.echo("server", Path(end, "server"), told.append, 500)
    town.run(1_000)
    assert [round(rtt_ms) for rtt_ms in told if rtt_ms is not None] == [10, 14]
    assert town.over == "fast"
    town.cut("slow")
    town.client.endpoint.echo("server", Path(town.slow_ends["client"], "server"), told.append, 700)
    town.run(699)
    assert told[2:] == [], "as long as it was given"
    town.run(1)
    assert told[2:] == [None]


def test_idle_roads_are_looked_at_while_calls_are_made_and_not_otherwise() -> None:
    town = Town()
    warm(town)
    for _ in range(4):
        town.client.call("server", b"more")
        town.run(int(CHECK_MS))
    slow = next(road for road in town.client.endpoint.roads("server") if road.path.transport is not town.client.end)
    assert slow.measured is not None
    assert round(slow.measured.delay_ms) == 10
    sent = town.nets["slow"].frames_sent
    town.run(10 * int(CHECK_MS))
    assert town.nets["slow"].frames_sent <= sent + 2


def test_an_owner_may_say_what_a_links_air_is_worth() -> None:
    for price, taken in ((0.0, "slow"), (1_000.0, "fast")):
        town = Town(price=price)
        town.nets["fast"].faults = Faults(delay_ms=100)
        warm(town)
        for _ in range(3):
            town.client.call("server", b"small", priority=Priority.BULK)
            town.run(int(SETTLED_MS))
        assert town.over == taken


def test_where_there_is_no_other_road_it_is_taken_at_any_price() -> None:
    town = Town(price=1_000.0)
    town.cut("fast")
    town.client.call("server", b"only")
    town.run(15_000)
    assert [reply.body for reply in town.client.replies] == [b"re:only"]
