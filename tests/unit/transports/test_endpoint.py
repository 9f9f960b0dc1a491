"""Calls between nodes over lossy packet links: exactly once, or the truth that the outcome is unknown."""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import seeds
from virtual_link import CLEAN, Node, VirtualTime, key_of, network

from offgrid_transports.answers import Kept
from offgrid_transports.calls import CALLS_MAX, End, Reply
from offgrid_transports.deadlines import SILENT_WAITS
from offgrid_transports.endpoint import UnknownPeer
from offgrid_transports.gathering import MESSAGE_BYTES_MAX, Gathering, MessageTooLarge
from offgrid_transports.handshake import HELLO, HELLO_BYTES, WELCOME_BYTES, Own
from offgrid_transports.memory import Faults, MemoryNetwork, MemoryTransport
from offgrid_transports.peers import WAITING_MAX
from offgrid_transports.reception import SESSIONS_PER_PEER, STRANGERS_MAX
from offgrid_transports.transport import Priority

ROUGH = Faults(loss=0.2, duplicate=0.1, delay_ms=10, jitter_ms=20)
NEAR = Faults(delay_ms=10)


def echo_pair(
    seed: int = 1, *, mtu_bytes: int = 1200, faults: Faults = CLEAN, bitrate_bps: int = 0, work_ms: int = 0
) -> tuple[VirtualTime, MemoryNetwork, Node, Node]:
    world = VirtualTime()
    net = network(world, seed, mtu_bytes=mtu_bytes, faults=faults, bitrate_bps=bitrate_bps)
    server = Node(world, net.attach("server"), "server", handle=lambda request: b"re:" + request.body, work_ms=work_ms)
    client = Node(world, net.attach("client"), "client")
    client.knows("server")
    return world, net, client, server


class Radio(MemoryTransport):
    """An end of a medium that all share; takes the place of one of that name."""

    def __init__(self, net: MemoryNetwork, name: str) -> None:
        super().__init__(net, name)
        net.detach(name)
        net._ends[name] = self

    @property
    def shared(self) -> bool:
        return True


def silent_pair(*, kept: Kept | None = None) -> tuple[VirtualTime, MemoryNetwork, Node, Node]:
    """The server answers nothing by itself."""
    world = VirtualTime()
    net = network(world)
    client, server = Node(world, net.attach("client"), "client"), Node(world, net.attach("server"), "server", kept=kept)
    client.knows("server")
    return world, net, client, server


def warm(world: VirtualTime, client: Node) -> None:
    """There is a session."""
    client.call("server", b"warm")
    world.run(world.now_ms + 5_000)
    client.replies.clear()


class TestCalls:
    @pytest.mark.parametrize("seed", seeds(1))
    def test_2000_at_20_percent_loss_complete_exactly_once(self, seed: int) -> None:
        world, _, client, server = echo_pair(seed, faults=ROUGH)
        began: dict[bytes, int] = {}
        took: list[int] = []

        def next_call() -> None:
            if len(began) < 2000:
                body = b"n%d" % len(began)
                began[body] = world.now_ms
                client.endpoint.call("server", 1, body, 60_000, lambda reply: ended(body, reply.end))

        def ended(body: bytes, end: End) -> None:
            assert end is End.OK
            took.append(world.now_ms - began[body])
            next_call()

        for _ in range(50):
            next_call()
        world.run(400_000)
        executed = Counter(request.body for request in server.requests)
        assert (len(took), len(executed), set(executed.values())) == (2000, 2000, {1})
        assert sorted(took)[1980] <= 600, "p99 of a call whose round trip takes 20 to 60 ms"

    @pytest.mark.parametrize(("mtu_bytes", "loss"), [(1200, 0.0), (1200, 0.2), (254, 0.1)])
    def test_a_megabyte_each_way_arrives_whole(self, mtu_bytes: int, loss: float) -> None:
        faults = Faults(loss=loss, duplicate=loss / 2, delay_ms=10, jitter_ms=5)
        world, net, client, _ = echo_pair(mtu_bytes=mtu_bytes, faults=faults)
        body = Random(7).randbytes(1_000_000)
        client.call("server", body, timeout_ms=600_000)
        world.run(600_000)
        assert client.replies[0].end is End.OK
        assert hashlib.sha256(client.replies[0].body).digest() == hashlib.sha256(b"re:" + body).digest()
        frames = 2 * len(body) / (mtu_bytes - 32)
        assert net.frames_sent < frames * (1.15 + 2 * loss) + 200, "only what is missing is sent again"

    def test_a_small_one_on_a_quiet_link_takes_three_frames(self) -> None:
        world, net, client, _ = echo_pair(faults=Faults(delay_ms=20))
        warm(world, client)
        before = net.frames_sent
        client.call("server", b"hello")
        world.run(world.now_ms + 10_000)
        assert client.replies[0].body == b"re:hello"
        assert net.frames_sent - before == 3, "request, response, acknowledgement"

    def test_timers_follow_the_airtime_of_a_slow_link(self) -> None:
        world, net, client, _ = echo_pair(mtu_bytes=254, bitrate_bps=5469)
        warm(world, client)
        before = net.frames_sent
        client.call("server", bytes(10_000), timeout_ms=600_000)
        world.run(world.now_ms + 600_000)
        assert client.replies[0].end is End.OK
        assert net.frames_sent - before <= 1.6 * 2 * 10_000 / 225, "every second one is acknowledged, none is repeated"

    def test_slow_work_is_waited_for_without_repeating_the_request(self) -> None:
        world, net, client, server = echo_pair(faults=NEAR, work_ms=50_000)
        client.call("server", bytes(5000))
        world.run(60_000)
        assert client.replies[0].end is End.OK
        assert len(server.requests) == 1
        assert net.frames_sent < 60

    def test_an_error_is_answered_as_bytes(self) -> None:
        world, _, client, server = silent_pair()
        client.call("server", b"", method=77)
        world.run(100)
        request = server.requests[0]
        assert (request.method, request.body, request.peer) == (77, b"", "client")
        assert server.endpoint.respond(request, b"no such thing", error=True)
        assert not server.endpoint.respond(request, b"again"), "one answer per request"
        world.run(200)
        assert (client.replies[0].end, client.replies[0].body) == (End.ERROR, b"no such thing")

    def test_without_an_answer_the_outcome_is_unknown_at_the_deadline(self) -> None:
        world, _, client, server = silent_pair()
        warm(world, client)
        began_ms = world.now_ms
        client.call("server", b"x", timeout_ms=4000)
        world.run(began_ms + 3999)
        assert client.replies == []
        world.run(began_ms + 4000)
        assert [reply.end for reply in client.replies] == [End.UNKNOWN]
        assert server.requests[1].deadline_ms <= began_ms + 4001
        world.run(began_ms + 60_000)
        assert not server.endpoint.respond(server.requests[1], b"late"), "nobody waits any more"

    def test_an_outage_in_the_middle_is_survived(self) -> None:
        world, net, client, server = echo_pair(faults=NEAR)
        warm(world, client)
        client.call("server", bytes(200_000), timeout_ms=120_000)
        world.run(world.now_ms + 25)
        net.cut = lambda source, target: True
        world.run(world.now_ms + 40_000)
        net.cut = lambda source, target: False
        world.run(world.now_ms + 80_000)
        assert client.replies[0].end is End.OK
        assert len(server.requests) == 2

    def test_an_answer_that_is_lost_in_an_outage_comes_after_it(self) -> None:
        world, net, client, server = echo_pair(faults=NEAR, work_ms=1000)
        warm(world, client)
        client.call("server", b"x", timeout_ms=600_000)
        world.run(world.now_ms + 900)
        net.cut = lambda source, target: source == "server"
        world.run(world.now_ms + 100_000)
        net.cut = lambda source, target: False
        world.run(world.now_ms + 200_000)
        assert client.replies[0].end is End.OK
        assert len(server.requests) == 2

    def test_frames_that_are_heard_again_run_nothing_again(self) -> None:
        world, _, client, server = echo_pair()
        heard: list[bytes] = []
        hear = server.end.on_frame

        def listen(address: str, frame: bytes) -> None:
            heard.append(frame)
            hear(address, frame)

        server.end.on_frame = listen
        client.call("server", b"pay")
        world.run(1000)
        for frame in heard * 3:
            hear("client", frame)
            hear("eve", frame)
        world.run(2000)
        assert [request.body for request in server.requests] == [b"pay"]
        assert server.endpoint.counts["frames_not_opened"] > 0

    def test_urgent_ones_overtake_bulk(self) -> None:
        world, _, client, _ = echo_pair(mtu_bytes=254, bitrate_bps=20_000)
        warm(world, client)
        began_ms = world.now_ms
        client.call("server", bytes(100_000), timeout_ms=600_000, priority=Priority.BULK)
        world.run(began_ms + 2_000)
        client.call("server", b"now", priority=Priority.CONTROL)
        world.run(began_ms + 12_000)
        assert [reply.body for reply in client.replies] == [b"re:now"]


class TestBounds:
    def test_too_much_in_flight_or_too_long_is_refused(self) -> None:
        world, _, client, _ = silent_pair()
        warm(world, client)
        client.call("server", bytes(MESSAGE_BYTES_MAX))
        for _ in range(CALLS_MAX):  # the one before is open as well
            client.call("server", b"")
        world.run(world.now_ms + 1)
        assert [(reply.end, reply.detail.split()[0]) for reply in client.replies] == [
            (End.REFUSED, "a"),
            (End.REFUSED, str(CALLS_MAX)),
        ]

    def test_so_are_calls_beyond_those_that_may_wait_for_a_session(self) -> None:
        world, _, client, _ = silent_pair()
        client.knows("nobody")
        for _ in range(WAITING_MAX + 2):  # one of them leaves with the hello
            client.call("nobody", b"", timeout_ms=5000)
        world.run(1)
        assert [reply.end for reply in client.replies] == [End.REFUSED]
        world.run(5000)
        ends = Counter(reply.end for reply in client.replies)
        assert ends == {End.REFUSED: WAITING_MAX + 1, End.UNKNOWN: 1}

    def test_an_answer_too_long_is_refused_to_the_handler(self) -> None:
        world, _, client, server = silent_pair()
        client.call("server", b"")
        world.run(100)
        with pytest.raises(MessageTooLarge):
            server.endpoint.respond(server.requests[0], bytes(MESSAGE_BYTES_MAX))
        assert server.endpoint.respond(server.requests[0], b"too long", error=True), "the request is still open"

    def test_answers_that_nobody_fetches_are_bounded_in_bytes(self) -> None:
        world, net, client, server = silent_pair(kept=Kept(50_000))
        for _ in range(8):
            client.call("server", b"", timeout_ms=60_000)
        world.run(1_000)
        net.cut = lambda source, target: True
        for request in server.requests:
            server.endpoint.respond(request, bytes(10_000))
        net.cut = lambda source, target: False
        world.run(120_000)
        ends = Counter(reply.end for reply in client.replies)
        assert ends == {End.OK: 4, End.UNKNOWN: 4}, "what was dropped is said to be gone"

    def test_who_has_no_room_for_what_comes_slows_the_other_down(self) -> None:
        world = VirtualTime()
        net = network(world, faults=NEAR)
        room = Gathering(peer_bytes_max=1_000_000)
        server = Node(world, net.attach("server"), "server", handle=lambda request: b"", gathering=room)
        client = Node(world, net.attach("client"), "client")
        client.knows("server")
        for _ in range(10):
            client.call("server", bytes(400_000), timeout_ms=3_600_000)
        world.run(3_600_000)
        ends = Counter(reply.end for reply in client.replies)
        assert ends[End.OK] >= 2
        assert set(ends) <= {End.OK, End.REFUSED}, "whoever was pushed out is told that nothing was done"
        assert len(server.requests) == ends[End.OK]
        assert room.held_bytes == 0

    def test_nobody_said_how_to_reach_it(self) -> None:
        with pytest.raises(UnknownPeer, match="nobody"):
            silent_pair()[2].call("nobody", b"")


class TestSessions:
    def test_the_handshake_is_two_frames_of_160_bytes(self) -> None:
        world, net, client, _ = silent_pair()
        lengths: list[int] = []
        carry = net.carry
        net.carry = lambda source, target, frame: (lengths.append(len(frame)), carry(source, target, frame))[1]  # type: ignore[method-assign]
        client.call("server", bytes(2000))
        world.run(5)
        assert lengths[:2] == [HELLO_BYTES, WELCOME_BYTES]
        assert sum(lengths[:2]) == 160

    @pytest.mark.parametrize("seed", seeds(8))
    def test_it_succeeds_at_20_percent_loss(self, seed: int) -> None:
        world, _, client, _ = echo_pair(seed, faults=ROUGH)
        client.call("server", b"x", timeout_ms=20_000)
        world.run(20_000)
        assert [reply.end for reply in client.replies] == [End.OK]

    def test_both_may_begin_at_once(self) -> None:
        world = VirtualTime()
        net = network(world, faults=NEAR)
        nodes = [Node(world, net.attach(name), name, handle=lambda request: request.body) for name in ("a", "b")]
        nodes[0].knows("b")
        nodes[1].knows("a")
        for _ in range(5):
            nodes[0].call("b", b"from a")
            nodes[1].call("a", b"from b")
        world.run(10_000)
        assert [reply.body for reply in nodes[0].replies] == [b"from a"] * 5
        assert [reply.body for reply in nodes[1].replies] == [b"from b"] * 5

    def test_a_hello_that_is_heard_again_disturbs_nothing(self) -> None:
        world, _, client, server = echo_pair(faults=NEAR)
        hellos: list[bytes] = []
        hear = server.end.on_frame

        def listen(address: str, frame: bytes) -> None:
            if frame[0] & 0xF0 == HELLO:
                hellos.append(frame)
            hear(address, frame)

        server.end.on_frame = listen
        warm(world, client)
        session = server.endpoint.session_of("client")
        hear("eve", hellos[0])
        hear("eve", hellos[0])
        client.call("server", b"still there?")
        world.run(world.now_ms + 1000)
        assert client.replies[0].end is End.OK
        assert server.endpoint.session_of("client") is session

    def test_a_peer_that_began_anew_is_found_again(self) -> None:
        world, net, client, server = echo_pair(faults=NEAR)
        warm(world, client)
        server.endpoint.close()
        again = Node(world, net.attach("server"), "server", handle=lambda request: b"anew")
        for _ in range(2 * SILENT_WAITS):
            client.call("server", b"x", timeout_ms=20_000)
            world.run(world.now_ms + 20_000)
        assert client.replies[-1].body == b"anew"
        assert {reply.end for reply in client.replies} == {End.UNKNOWN, End.OK}
        assert len(again.requests) == sum(reply.end is End.OK for reply in client.replies)

    def test_one_that_began_anew_and_was_silent_since_its_answer_came_is_heard_at_once(self) -> None:
        """On a shared medium nobody acknowledges a short answer, so the hello is all that it has sent."""
        world = VirtualTime()
        net = network(world, faults=NEAR)
        server = Node(world, Radio(net, "server"), "server", handle=lambda request: b"re:" + request.body)
        client = Node(world, Radio(net, "client"), "client")
        server.knows("client")
        client.knows("server")
        server.call("client", b"the session before")
        world.run(5_000)
        again = Node(world, Radio(net, "client"), "client")
        again.knows("server")
        for body in (b"first", b"an hour later"):
            again.call("server", body)
            world.run(world.now_ms + 3_600_000)
        assert [reply.body for reply in again.replies] == [b"re:first", b"re:an hour later"]

    @pytest.mark.parametrize("shared", [False, True])
    def test_who_gave_a_welcome_that_may_never_have_come_says_hello_itself(self, shared: bool) -> None:
        world = VirtualTime()
        net = network(world, bitrate_bps=5_469 if shared else 0)
        ends = [Radio(net, name) if shared else net.attach(name) for name in ("client", "server")]
        client, server = (
            Node(world, end, name, handle=lambda request: b"re:" + request.body)
            for end, name in zip(ends, ("client", "server"), strict=True)
        )
        client.knows("server")
        server.knows("client")
        net.cut = lambda source, target: source == "server"
        client.call("server", b"in vain")
        world.run(600_000)
        net.cut = lambda source, target: False
        server.call("client", b"well?")
        world.run(660_000)
        assert server.replies == [Reply(End.OK, b"re:well?")]

    def test_a_session_that_was_welcomed_and_not_heard_of_since_is_used_for_a_while(self) -> None:
        world, _, client, server = echo_pair(faults=NEAR)
        server.knows("client")
        client.call("server", b"1")
        world.run(1_000)
        session = server.endpoint.session_of("client")
        server.call("client", b"2")
        world.run(2_000)
        assert server.endpoint.session_of("client") is session

    def test_of_a_peer_that_begins_anew_time_and_again_only_so_many_are_kept(self) -> None:
        world, net, client, server = echo_pair(faults=NEAR)
        for _ in range(SESSIONS_PER_PEER + 3):
            warm(world, client)
            client.endpoint.close()
            client = Node(world, net.attach("client"), "client")
            client.knows("server")
        warm(world, client)
        assert len(server.endpoint._sessions._bounds) <= SESSIONS_PER_PEER + 1

    def test_without_the_meshs_secret_there_is_none(self) -> None:
        world = VirtualTime()
        net = network(world)
        server = Node(world, net.attach("server"), "server", strangers=True)
        server.endpoint._reception._door._own = Own(key_of("server"), bytes(32))
        client = Node(world, net.attach("client"), "client")
        client.knows("server")
        client.call("server", b"x", timeout_ms=5_000)
        client.call("server", b"y", timeout_ms=5_000)
        world.run(10_000)
        assert [reply.end for reply in client.replies] == [End.UNKNOWN, End.REFUSED], "the first left with the hello"
        assert server.requests == []

    def test_a_first_call_leaves_with_the_hello_and_is_answered_with_the_welcome(self) -> None:
        world, net, client, _ = echo_pair(faults=Faults(delay_ms=20))
        client.call("server", b"first")
        world.run(40)
        assert [reply.body for reply in client.replies] == [b"re:first"]
        assert net.frames_sent == 3

    def test_what_a_stranger_says_with_the_hello_waits_until_it_is_there(self) -> None:
        world = VirtualTime()
        net = network(world, faults=Faults(delay_ms=20))
        server = Node(world, net.attach("server"), "server", handle=lambda request: b"", strangers=True)
        client = Node(world, net.attach("client"), "client")
        client.knows("server")
        client.call("server", b"first", timeout_ms=5_000)
        world.run(39)
        assert server.requests == []
        world.run(1_000)
        assert [reply.end for reply in client.replies] == [End.OK]

    def test_strangers_are_named_so_and_few(self) -> None:
        world = VirtualTime()
        net = network(world)
        server = Node(world, net.attach("server"), "server", handle=lambda request: b"", strangers=True)
        clients = [Node(world, net.attach(f"c{n}"), f"c{n}") for n in range(STRANGERS_MAX + 5)]
        for client in clients:
            client.knows("server")
            client.call("server", b"", timeout_ms=3000)
        world.run(4_000)
        assert sum(client.replies[0].end is End.OK for client in clients) == STRANGERS_MAX
        assert all(request.peer.startswith("stranger ") for request in server.requests)

    def test_a_call_goes_on_over_another_link(self) -> None:
        world = VirtualTime()
        nets = [network(world, faults=NEAR), network(world, mtu_bytes=254, faults=Faults(delay_ms=40, loss=0.1))]
        server = Node(world, nets[0].attach("server"), "server", handle=lambda request: b"re:" + request.body)
        client = Node(world, nets[0].attach("client"), "client")
        second = nets[1].attach("client")
        server.endpoint.attach(nets[1].attach("server"))
        client.endpoint.attach(second)
        client.knows("server")
        warm(world, client)
        session, body = client.endpoint.session_of("server"), Random(1).randbytes(300_000)
        client.call("server", body, timeout_ms=600_000)
        world.run(world.now_ms + 60)
        nets[0].cut = lambda source, target: True
        client.end = second
        client.knows("server")
        world.run(world.now_ms + 600_000)
        assert [reply.body for reply in client.replies] == [b"re:" + body]
        assert client.endpoint.session_of("server") is session
        assert len(server.requests) == 2


FRAMES = st.binary(max_size=200) | st.builds(
    lambda kind, rest: bytes((kind,)) + rest, st.sampled_from((0x00, 0x10, 0x11, 0x20, 0x21)), st.binary(max_size=150)
)


@given(st.integers(0, 2**32), st.lists(FRAMES, max_size=30))
def test_forged_frames_change_nothing(seed: int, forged: list[bytes]) -> None:
    world, net, client, server = echo_pair(seed, mtu_bytes=254, faults=ROUGH)
    eve = net.attach("eve")
    client.call("server", bytes(range(200)))
    for frame in forged:
        eve.send("client", frame)
        eve.send("server", frame)
    world.run(60_000)
    assert [(reply.end, reply.body) for reply in client.replies] == [(End.OK, b"re:" + bytes(range(200)))]
    assert len(server.requests) == 1


def test_a_hello_that_comes_again_after_its_session_has_ended_carries_its_call_out_no_second_time() -> None:
    world = VirtualTime()
    net = network(world)
    client = Node(world, net.attach("client"), "client")
    server = Node(world, net.attach("server"), "server", handle=lambda request: b"re:" + request.body)
    client.knows("server")
    net.cut = lambda source, target: source == "server"
    client.call("server", b"once")
    world.run(100)
    assert [request.body for request in server.requests] == [b"once"]
    [bound] = server.endpoint._sessions
    server.endpoint._sessions.end(world.now_ms, bound, "it was silent for long")
    net.cut = lambda source, target: False
    world.run(60_000)
    assert [request.body for request in server.requests] == [b"once"]
    assert [reply.end for reply in client.replies] == [End.UNKNOWN]
    client.call("server", b"more")
    world.run(70_000)
    assert client.replies[-1].body == b"re:more"
