"""UDP: addresses of both families, what is the link's own, how long a datagram may be, and what strangers send."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ipv6 import needs_six

from offgrid_transports import udp, udp_sockets
from offgrid_transports.conformance.live import End, Live
from offgrid_transports.mtu_search import BASE, ECHO, LEAST, PROBE
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST, LINK_BYTE, BadSpec, TransportError
from offgrid_transports.udp_sockets import name_of, parse_address


@pytest.fixture
def live() -> Iterator[Live]:
    lives = Live(TransportRegistry({"udp": udp.open_transport}))
    yield lives
    lives.close()
    assert lives.faults == []


def address(end: End, family: int = 0) -> str:
    return str(end.transport.figures()["listens"]).split(" ")[family].replace(udp_sockets.ANY, "127.0.0.1")


def figure(end: End, name: str) -> int:
    return int(end.transport.figures()[name])


def stranger(end: End, *datagrams: bytes) -> socket.socket:
    """A plain socket that has sent this."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(5)
    target = parse_address(address(end)).sockaddr
    for datagram in datagrams:
        sock.sendto(datagram, target)
    return sock


@pytest.mark.parametrize("text", ["192.0.2.7:7700", "[2001:db8::7]:1", "[fe80::1]:65535"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert name_of(parse_address(text).sockaddr) == text


def test_a_link_local_address_names_its_interface() -> None:
    number, name = socket.if_nameindex()[0]
    text = f"[fe80::1%{name}]:7"
    assert parse_address(text).scope == number
    assert name_of(parse_address(text).sockaddr) == text
    assert name_of(("fe80::1%x", 7, 0, number)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "192.0.2.7",
        "192.0.2.777:1",
        "host.example:7700",
        "192.0.2.7:65536",
        "2001:db8::7:1",
        "[::1]",
        "[::1%no.such]:7",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|no interface"):
        parse_address(text)


@pytest.mark.parametrize(
    ("own", "named", "numbers"),
    [
        ("0.0.0.0:7", (), {2, 3}),
        ("0.0.0.0:7", ("eth0",), {2}),
        ("0.0.0.0:7", ("eth0", "gone0"), {2}),
        ("192.0.2.7:7", (), {0}),
        ("[::]:7", (), {2, 3}),
        ("[::1]:7", (), {1}),
        ("[fe80::1%3]:7", (), {3}),
    ],
)
def test_multicast_uses_the_interfaces_that_it_should(
    own: str, named: tuple[str, ...], numbers: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (3, "lowpan0")])
    assert udp_sockets.places(parse_address(own), named) == numbers


def test_where_there_is_only_loopback_multicast_uses_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    assert udp_sockets.places(parse_address("0.0.0.0:7"), ()) == {1}


@needs_six
def test_one_link_has_both_families(live: Live) -> None:
    end, four, six = live.open("udp:*:0"), live.open("udp:127.0.0.1:0"), live.open("udp:[::1]:0")
    port = address(end, 1).rpartition(":")[2]
    assert four.send(address(end), b"four")
    assert six.send(f"[::1]:{port}", b"six")
    assert live.waits(lambda: len(end.heard) == 2)
    assert sorted(end.heard) == sorted([(address(four), b"four"), (address(six), b"six")])
    end.send(address(four), b"back")
    end.send(address(six), b"back")
    assert live.waits(lambda: four.heard and six.heard)
    with pytest.raises(ValueError, match="listens on"):
        four.send(address(six), b"other family")


def test_a_longer_datagram_is_found_to_go_through_and_is_then_carried(live: Live) -> None:
    a, b = live.open("udp:127.0.0.1:0"), live.open("udp:127.0.0.1:0?mtu=1300")
    to = address(b)
    assert a.transport.mtu_bytes(to) == BASE
    with pytest.raises(ValueError, match=f"{BASE}"):
        a.send(to, bytes(BASE + 1))
    a.send(to, b"first")
    b.send(address(a), b"first")
    assert live.waits(lambda: a.transport.mtu_bytes(to) == udp.MTU_BYTES)
    assert live.waits(lambda: b.transport.mtu_bytes(address(a)) == 1300), "each end's own bound holds"
    assert a.changes > 0
    a.send(to, bytes(udp.MTU_BYTES))
    assert live.waits(lambda: len(b.heard) == 2)


def test_a_short_bound_leaves_the_search_out_of_longer_ones(live: Live) -> None:
    a, b = live.open("udp:127.0.0.1:0?mtu=600"), live.open("udp:127.0.0.1:0")
    a.send(address(b), b"x")
    assert live.waits(lambda: figure(a, "probes_sent"))
    live.run(0.3)
    assert (a.transport.mtu_bytes(address(b)), figure(a, "probes_sent")) == (600, 1)


def test_probes_of_strangers_get_short_echoes_and_no_more_than_so_many(live: Live) -> None:
    end = live.open("udp:127.0.0.1:0")
    probe = bytes((PROBE,)) + b"12345678" + bytes(LEAST)
    with stranger(end, *[probe] * (3 * udp.ECHOES_A_TICK)) as sock:
        assert live.waits(lambda: figure(end, "echoes_sent") >= udp.ECHOES_A_TICK)
        echo = sock.recv(2000)
        assert echo[0] == ECHO
        assert len(echo) == 11
    live.run(0.01)
    assert udp.ECHOES_A_TICK <= figure(end, "echoes_sent") <= 2 * udp.ECHOES_A_TICK
    assert figure(end, "addresses") == 0, "strangers take no memory"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes((PROBE,)),
        bytes((PROBE,)) + bytes(LEAST - 2),
        bytes((ECHO,)) + bytes(10),
        b"\xf2" + bytes(8) + b"frame",
        b"\xff" * 100,
    ],
)
def test_garbage_is_counted_and_hurts_nobody(live: Live, datagram: bytes) -> None:
    end = live.open("udp:127.0.0.1:0")
    with stranger(end, datagram, b"\xef after"):
        assert live.waits(lambda: end.heard)
    assert [frame for _, frame in end.heard] == [b"\xef after"]
    assert figure(end, "garbage") == 1
    assert figure(end, "echoes_sent") == 0


@pytest.mark.parametrize(
    "datagram", [b"", b"\1no tag", b"\xf2", b"\xf212345678", b"\xf212345678\xf0", b"\xf0" + bytes(600)]
)
def test_garbage_in_the_group_is_counted(live: Live, datagram: bytes) -> None:
    end = live.open("udp:127.0.0.1:0?multicast=239.192.119.9:7739")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sock.sendto(datagram, ("239.192.119.9", 7739))
        assert live.waits(lambda: figure(end, "garbage") == 1)
        sock.sendto(b"\xf212345678fine", ("239.192.119.9", 7739))
        assert live.waits(lambda: end.heard)
    assert [frame for _, frame in end.heard] == [b"fine"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([b"", b"\xf0", b"\xf1", b"\xf2", b"\xf2"]), st.binary(max_size=700))))
def test_no_datagram_breaks_a_link(live: Live, datagrams: list[tuple[bytes, bytes]]) -> None:
    end = live.ends[0] if live.ends else live.open("udp:127.0.0.1:0?multicast=239.192.119.9:7740")
    link, heard = end.transport, len(end.heard)
    assert isinstance(link, udp.UdpTransport)

    def hear() -> None:
        for first, rest in datagrams:
            link._heard(first + rest, ("127.0.0.1", 9))
            link._heard_group(first + rest, ("127.0.0.1", 9))

    live.call(hear)
    assert all(frame and frame[0] < LINK_BYTE for _, frame in end.heard[heard:])
    assert figure(end, "addresses") == 0


def test_its_own_broadcasts_are_left_out_and_everybody_elses_heard(live: Live) -> None:
    ends = [live.open("udp:127.0.0.1:0?multicast=239.192.119.9:7741") for _ in range(3)]
    ends[0].send(BROADCAST, b"all")
    assert live.waits(lambda: ends[1].heard and ends[2].heard)
    live.run(0.05)
    assert [end.heard for end in ends] == [[], *[[(address(ends[0]), b"all")]] * 2]


def test_the_table_of_addresses_is_bounded(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "ADDRESSES_MAX", 10)
    end, other = live.open("udp:127.0.0.1:0"), live.open("udp:127.0.0.1:0")
    used = address(other)
    end.send(used, b"x")
    assert live.waits(lambda: end.transport.mtu_bytes(used) > BASE)
    for port in range(2000, 2050):
        end.send(f"127.0.0.1:{port}", b"x")
        end.send(used, b"x")
    assert figure(end, "addresses") == 10
    assert end.transport.mtu_bytes(used) > BASE, "the one that was used last is known still"


def test_while_the_socket_takes_nothing_frames_wait_in_a_short_queue(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = live.open("udp:127.0.0.1:0"), live.open("udp:127.0.0.1:0")
    to = address(b)

    class Blocked:
        def __init__(self, sock: socket.socket) -> None:
            self.sock, self.takes = sock, 0

        def sendto(self, data: bytes, sockaddr: udp_sockets.Sockaddr) -> int:
            self.takes -= 1
            if self.takes < 0:
                raise BlockingIOError
            return self.sock.sendto(data, sockaddr)

        def __getattr__(self, name: str) -> object:
            return getattr(self.sock, name)

    assert isinstance(a.transport, udp.UdpTransport)
    blocked = Blocked(a.transport._sockets[socket.AF_INET])
    monkeypatch.setitem(a.transport._sockets, socket.AF_INET, blocked)  # type: ignore[arg-type]

    def flood() -> list[bool]:
        return [a.transport.send(to, bytes((1, n))) for n in range(udp.QUEUE_FRAMES_MAX + 5)]

    assert a.call(flood) == [True] * udp.QUEUE_FRAMES_MAX + [False] * 5
    live.run(0.02)
    assert (a.rooms, figure(a, "queued_frames")) == (0, udp.QUEUE_FRAMES_MAX)
    blocked.takes = 1000
    assert live.waits(lambda: a.rooms == 1)
    assert live.waits(lambda: len(b.heard) == udp.QUEUE_FRAMES_MAX)
    assert [frame[1] for _, frame in b.heard] == list(range(udp.QUEUE_FRAMES_MAX)), "in order"


def test_where_nothing_can_be_sent_to_is_counted_and_no_fault(live: Live) -> None:
    end = live.open("udp:127.0.0.1:0")
    assert end.send("192.0.2.1:9", b"from loopback there is no way out")
    assert figure(end, "frames_unsendable") + figure(end, "frames_sent") >= 1


@pytest.mark.parametrize("frame", [b"", b"\xf0", b"\xffx"])
def test_what_is_no_frame_is_refused(live: Live, frame: bytes) -> None:
    end = live.open("udp:127.0.0.1:0")
    with pytest.raises(ValueError, match="begins with a byte below 240"):
        end.send("127.0.0.1:9", frame)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("udp:7700", "192.0.2.7:7700"),
        ("udp:host.example:7700", "192.0.2.7:7700"),
        ("udp:127.0.0.1:0,127.0.0.1:0", "one address to listen on"),
        ("udp:127.0.0.1:0?mtu=100", "from 512 to 65507"),
        ("udp:127.0.0.1:0?multicast=yes", "no address"),
        ("udp:127.0.0.1:0?multicast=192.0.2.7:7", "no multicast group"),
        ("udp:127.0.0.1:0?multicast=[ff02::1]:7", "use *:PORT"),
        ("udp:127.0.0.1:0?peer=[::1]:7", "use *:PORT"),
        ("udp:127.0.0.1:0?interface=no-such0", "no interface 'no-such0'"),
        ("udp:127.0.0.1:0?pear=127.0.0.1:7", "did you mean 'peer'"),
        ("udp:127.0.0.1:0?peer=" + ",".join(["127.0.0.1:7"] * 33), "at most 32"),
    ],
)
def test_a_bad_description_says_what_is_allowed(live: Live, text: str, says: str) -> None:
    with pytest.raises(BadSpec, match=re.escape(says)):
        live.open(text)


def test_an_address_in_use_says_so(live: Live) -> None:
    end = live.open("udp:127.0.0.1:0")
    with pytest.raises(TransportError, match="cannot listen on 127"):
        live.open(f"udp:{address(end)}")
