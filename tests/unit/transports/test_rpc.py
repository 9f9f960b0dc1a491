"""Calls over a lossy packet link: exactly once, or the truth that the outcome is unknown."""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virtual_link import CLEAN, Node, VirtualTime, network

from offgrid_transports.fragment import MESSAGE_BYTES_MAX, Reassembly
from offgrid_transports.framing import Frame, Kind, Reset, decode, encode
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.rpc import CallRefused, End, LinkProfile, MessageTooLarge, RpcEndpoint
from offgrid_transports.rpc_client import CALLS_MAX

ROUGH = Faults(loss=0.2, duplicate=0.1, delay_ms=10, jitter_ms=20)


def echo_pair(
    seed: int = 1, *, mtu_bytes: int = 1200, faults: Faults = CLEAN, bitrate_bps: int = 0, work_ms: int = 0
) -> tuple[VirtualTime, MemoryNetwork, Node, Node]:
    world = VirtualTime()
    net = network(world, seed, mtu_bytes=mtu_bytes, faults=faults, bitrate_bps=bitrate_bps)
    server = Node(world, net, "server", handle=lambda request: b"re:" + request.body, work_ms=work_ms)
    return world, net, Node(world, net, "client"), server


@pytest.mark.parametrize("seed", range(3))
def test_2000_calls_at_20_percent_loss_complete_exactly_once(seed: int) -> None:
    world, _, client, server = echo_pair(seed, faults=ROUGH)
    began: dict[int, int] = {}
    ends: dict[int, int] = {}

    def next_calls() -> None:
        for _ in range(min(50, 2000 - len(began))):
            number = client.call("server", b"n%d" % len(began))
            began[number] = world.now_ms
        if len(began) < 2000:
            world.schedule(100, next_calls)

    next_calls()
    for tick in range(0, 120_000, 10):
        world.run(tick)
        for reply in client.replies[len(ends) :]:
            ends[reply.call] = world.now_ms
        if len(ends) == 2000:
            break
    assert [reply.end for reply in client.replies] == [End.OK] * 2000
    assert len({reply.call for reply in client.replies}) == 2000
    executed = Counter(request.body for request in server.requests)
    assert len(executed) == 2000
    assert set(executed.values()) == {1}
    took = sorted(ends[number] - began[number] for number in began)
    assert took[int(0.99 * len(took))] <= 1500, "p99 of a call whose round trip takes 20 to 60 ms"
    world.run(300_000)
    assert client.endpoint.calls_open == 0
    assert server.endpoint.answers_open == 0, "every answer was acknowledged or given up"
    assert server.endpoint.held_bytes == client.endpoint.held_bytes == 0


@pytest.mark.parametrize(("mtu_bytes", "loss"), [(1200, 0.0), (1200, 0.2), (254, 0.1)])
def test_a_megabyte_each_way_arrives_whole(mtu_bytes: int, loss: float) -> None:
    faults = Faults(loss=loss, duplicate=loss / 2, delay_ms=10, jitter_ms=5)
    world, net, client, _ = echo_pair(mtu_bytes=mtu_bytes, faults=faults)
    body = Random(7).randbytes(1_000_000)
    client.call("server", body, timeout_ms=600_000)
    world.run(600_000)
    assert client.replies[0].end is End.OK
    assert hashlib.sha256(client.replies[0].body).digest() == hashlib.sha256(b"re:" + body).digest()
    fragments = 2 * (len(body) // (mtu_bytes - 14))
    assert net.frames_sent < fragments * (1.15 + 2 * loss) + 200, "only what is missing is sent again"


def test_a_small_call_on_a_quiet_link_takes_three_frames() -> None:
    world, net, client, _ = echo_pair(faults=Faults(delay_ms=20))
    client.call("server", b"hello")
    world.run(10_000)
    assert client.replies[0].body == b"re:hello"
    assert net.frames_sent == 3, "request, response, acknowledgement"


def test_timers_follow_the_airtime_of_a_slow_link() -> None:
    world, net, client, _ = echo_pair(mtu_bytes=254, bitrate_bps=5469)
    client.call("server", bytes(10_000), timeout_ms=600_000)
    world.run(600_000)
    assert client.replies[0].end is End.OK
    frames = 2 * -(-10_006 // 240)
    assert net.frames_sent <= frames + 8, "nothing is repeated on a link that loses nothing"


def test_slow_work_is_waited_for_without_repeating_the_request() -> None:
    world, net, client, server = echo_pair(faults=Faults(delay_ms=10), work_ms=50_000)
    client.call("server", bytes(5000))
    world.run(60_000)
    assert client.replies[0].end is End.OK
    assert len(server.requests) == 1
    assert net.frames_sent < 40


def test_an_error_is_answered_as_bytes() -> None:
    world = VirtualTime()
    net = network(world)
    client, server = Node(world, net, "client"), Node(world, net, "server")
    client.call("server", b"", method=77)
    world.run(10)
    request = server.requests[0]
    assert (request.method, request.body, request.peer) == (77, b"", "client")
    assert server.respond(request, b"no such thing", error=True)
    assert not server.respond(request, b"again"), "one answer per request"
    world.run(20)
    assert (client.replies[0].end, client.replies[0].body) == (End.ERROR, b"no such thing")


def test_without_an_answer_the_outcome_is_unknown_at_the_deadline() -> None:
    world = VirtualTime()
    net = network(world)
    client, server = Node(world, net, "client"), Node(world, net, "server")
    client.call("server", b"x", timeout_ms=5000)
    client.call("nobody", b"x", timeout_ms=5000)
    world.run(4999)
    assert client.replies == []
    world.run(5000)
    assert [reply.end for reply in client.replies] == [End.UNKNOWN, End.UNKNOWN]
    assert server.requests[0].deadline_ms == 5000
    world.run(60_000)
    assert not server.respond(server.requests[0], b"late"), "nobody waits any more"
    assert server.endpoint.answers_open == 0


def test_an_outage_in_the_middle_is_survived() -> None:
    world, net, client, server = echo_pair(faults=Faults(delay_ms=10))
    client.call("server", bytes(200_000), timeout_ms=120_000)
    world.run(25)
    net.cut = lambda source, target: True
    world.run(40_000)
    net.cut = lambda source, target: False
    world.run(120_000)
    assert client.replies[0].end is End.OK
    assert len(server.requests) == 1


def test_an_answer_given_up_in_an_outage_is_fetched_by_the_clients_question() -> None:
    world, net, client, server = echo_pair(faults=Faults(delay_ms=10), work_ms=1000)
    client.call("server", b"x", timeout_ms=600_000)
    world.run(900)
    net.cut = lambda source, target: source == "server"
    world.run(400_000)
    assert server.endpoint.answers_open == 1
    net.cut = lambda source, target: False
    world.run(600_000)
    assert client.replies[0].end is End.OK
    assert len(server.requests) == 1


def test_a_repeated_request_never_runs_again() -> None:
    world, _, client, server = echo_pair()
    heard: list[bytes] = []

    def listen(peer: str, data: bytes) -> None:
        heard.append(data)
        server.hear(peer, data)

    server.transport.on_frame = listen
    client.call("server", b"pay")
    world.run(1000)
    requests = [data for data in heard if decode(data).kind is Kind.REQUEST]
    answers: list[bytes] = []
    client.transport.on_frame = lambda peer, data: answers.append(data)
    for data in requests * 3:
        server.hear("client", data)
    world.run(2000)
    assert len(server.requests) == 1
    assert {decode(data).payload for data in answers} == {bytes([Reset.GONE])}


def test_an_answer_counts_only_from_the_peer_that_was_asked() -> None:
    world = VirtualTime()
    net = network(world)
    client, server, eve = Node(world, net, "client"), Node(world, net, "server"), net.attach("eve")
    client.call("server", b"who are you?")
    world.run(10)
    asked = server.requests[0].key
    eve.send("client", encode(Frame(Kind.RESPONSE, asked.session, asked.call, 0, 1, 1, True, b"\0me")))
    eve.send("client", encode(Frame(Kind.RESET, asked.session, asked.call, payload=bytes([Reset.REFUSED]))))
    world.run(20)
    assert client.replies == []
    server.respond(server.requests[0], b"the server")
    world.run(30)
    assert client.replies[0].body == b"the server"


def test_a_refused_call_is_burnt_so_that_a_straggler_cannot_run_later() -> None:
    world = VirtualTime()
    net = network(world)
    server = Node(world, net, "server", reassembly=Reassembly(peer_bytes_max=2000, idle_ms=10_000))
    client = Node(world, net, "client")
    half = Frame(Kind.REQUEST, 1, 1, 0, 2, 1, False, bytes(1000))
    server.hear("client", encode(half))
    client.call("server", bytes(1100), timeout_ms=1000)
    world.run(500)
    assert client.replies[0].end is End.REFUSED
    straggler = Frame(Kind.REQUEST, client.endpoint._calls._session, 1, 0, 1, 1, True, bytes(1106))
    world.run(60_000)
    server.hear("client", encode(straggler))
    assert server.requests == []


def test_too_much_in_flight_or_too_long_is_refused_at_once() -> None:
    world, _, client, _ = echo_pair()
    with pytest.raises(CallRefused, match="takes"):
        client.call("server", bytes(MESSAGE_BYTES_MAX))
    for _ in range(CALLS_MAX):
        client.endpoint.call(0, "server", 1, b"", 1000)
    with pytest.raises(CallRefused, match="in flight"):
        client.endpoint.call(0, "server", 1, b"", 1000)
    world.run(1)


def test_an_answer_too_long_for_the_link_is_refused_to_the_handler() -> None:
    world = VirtualTime()
    net = network(world)
    client, server = Node(world, net, "client"), Node(world, net, "server")
    client.call("server", b"")
    world.run(10)
    with pytest.raises(MessageTooLarge):
        server.respond(server.requests[0], bytes(server.endpoint.body_bytes_max + 64))
    assert server.respond(server.requests[0], b"too long", error=True), "the request is still open"


def test_answers_that_nobody_fetches_are_bounded_in_bytes() -> None:
    world = VirtualTime()
    net = network(world)
    client, server = Node(world, net, "client"), Node(world, net, "server", answer_bytes_max=50_000)
    for _ in range(8):
        client.call("server", b"", timeout_ms=60_000)
    world.run(10)
    net.cut = lambda source, target: True
    for request in server.requests:
        server.respond(request, bytes(10_000))
    assert server.endpoint.answers_open == 4
    net.cut = lambda source, target: False
    world.run(60_000)
    ends = Counter(reply.end for reply in client.replies)
    assert ends == {End.OK: 4, End.UNKNOWN: 4}, "what was dropped is said to be gone"


def test_more_answers_than_the_client_has_room_for_come_one_after_another() -> None:
    world = VirtualTime()
    net = network(world, faults=Faults(delay_ms=5))
    client = Node(world, net, "client", reassembly=Reassembly(peer_bytes_max=1_000_000))
    Node(world, net, "server", handle=lambda request: bytes(400_000))
    for _ in range(40):
        client.call("server", b"", timeout_ms=600_000)
    world.run(600_000)
    assert [reply.end for reply in client.replies] == [End.OK] * 40
    assert net.frames_sent < 5 * 40 * 400_000 // 1186, "who finds no room is slowed down by silence"


FIELDS = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    session=st.integers(0, 2),
    call=st.integers(1, 5),
    index=st.integers(0, 6),
    total=st.integers(0, 6),
    round=st.integers(0, 3),
    poll=st.booleans(),
    payload=st.binary(max_size=12),
).map(encode)


PATIENT = b" " + bytes(7) + b"\x00\x01"  # a REQUEST of two fragments whose caller would wait for twelve days


@settings(max_examples=150)
@example([("a", PATIENT + bytes(4), 0), ("a", PATIENT + b"\x00\x00\x00\x01\x00\x00\x3b\x9a\x54\xd1", 0)])
@given(
    st.lists(st.tuples(st.sampled_from("abc"), FIELDS | st.binary(max_size=40), st.integers(0, 40_000)), max_size=60)
)
def test_whatever_comes_in_nothing_breaks_and_nothing_grows(steps: list[tuple[str, bytes, int]]) -> None:
    small = Reassembly(peers_max=2, sets_per_peer_max=2, peer_bytes_max=600, bytes_max=1000, idle_ms=1000)
    endpoint = RpcEndpoint(LinkProfile(64, lambda length: 0.0), Random(1), reassembly=small)
    now_ms = 0
    for peer, data, wait_ms in steps:
        now_ms += wait_ms
        endpoint.on_frame(now_ms, peer, data)
        for request in endpoint.take_requests():
            endpoint.respond(now_ms, request.key, bytes(200))
        endpoint.on_timer(now_ms)
        assert endpoint.held_bytes <= 1000
        assert endpoint.answers_open <= 15
        endpoint.take_frames()
        assert endpoint.take_replies() == [], "it made no call, so nothing can end"
    endpoint.on_timer(now_ms + 10**9)
    for _ in range(20):
        endpoint.on_timer(now_ms + 10**9)
    assert endpoint.answers_open == 0, "everything begun is given up in time"


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.binary(max_size=60) | FIELDS, max_size=30))
def test_forged_frames_cannot_double_a_call(seed: int, forged: list[bytes]) -> None:
    world = VirtualTime()
    net = MemoryNetwork(Random(seed), world.schedule, mtu_bytes=64, faults=ROUGH)
    server = Node(world, net, "server", handle=lambda request: request.body)
    client, eve = Node(world, net, "client"), net.attach("eve")
    client.call("server", bytes(range(200)))
    for data in forged:
        eve.send("client", data)
        eve.send("server", data)
    world.run(60_000)
    assert [(reply.end, reply.body) for reply in client.replies] == [(End.OK, bytes(range(200)))]
    assert sum(request.peer == "client" for request in server.requests) == 1
