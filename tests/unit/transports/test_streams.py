"""TCP and unix sockets: who comes back, who is slow, who talks nonsense."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from offgrid_transports import stream, tcp, unix
from offgrid_transports.conformance.live import End, Live
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.stream_frames import framed, hello
from offgrid_transports.transport import BROADCAST, BadSpec, TransportError

needs_unix = pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets on Windows")


@pytest.fixture
def live() -> Iterator[Live]:
    openers = {
        "tcp": tcp.open_transport,
        "tcp-listen": tcp.open_listening,
        "unix": unix.open_transport,
        "unix-listen": unix.open_listening,
    }
    lives = Live(TransportRegistry(openers))
    yield lives
    lives.close()
    assert lives.faults == []


def listening(live: Live, parameters: str = "") -> tuple[End, int]:
    end = live.open(f"tcp-listen:127.0.0.1:0{parameters}")
    assert live.waits(lambda: end.transport.up)
    return end, int(str(end.transport.figures()["listens"]).rpartition(":")[2])


def dialled(live: Live, port: int) -> socket.socket:
    """A plain socket that has said hello."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(hello(1000))
    return sock


def figure(end: End, name: str) -> int:
    return int(end.transport.figures()[name])


def test_who_dials_comes_back_when_the_other_end_does(live: Live) -> None:
    first, port = listening(live)
    far = live.open(f"tcp:127.0.0.1:{port}")
    assert live.waits(lambda: far.transport.up)
    assert far.transport.neighbours() == (f"127.0.0.1:{port}",)
    first.close()
    assert live.waits(lambda: not far.transport.up)
    assert not far.send(f"127.0.0.1:{port}", b"\1nobody")
    changes = far.changes
    second = live.open(f"tcp-listen:127.0.0.1:{port}")
    assert live.waits(lambda: far.transport.up)
    assert far.changes > changes
    live.meet(far, second)


def test_dials_that_fail_come_more_and_more_seldom(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BACKOFF_S_MAX", 0.05)
    monkeypatch.setattr(stream, "BACKOFF_S_MIN", 0.001)
    far = live.open("tcp:127.0.0.1:1")
    live.run(0.3)
    assert 6 <= figure(far, "dials_failed") <= 30
    assert not far.transport.up


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", hello(1000) + b"\0\0", hello(1000) + b"\xff\xffxxx", hello(9)]
)
def test_who_talks_nonsense_is_cut_and_counted(live: Live, said: bytes) -> None:
    end, port = listening(live)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(said)
        assert live.waits(lambda: figure(end, "garbage") == 1)
        assert live.waits(lambda: not end.transport.neighbours())
    assert end.frames == []


def test_who_says_nothing_is_cut(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HELLO_S", 0.01)
    end, port = listening(live)
    with socket.create_connection(("127.0.0.1", port)):
        assert live.waits(lambda: figure(end, "silent") == 1)


def test_no_more_connect_than_are_allowed(live: Live) -> None:
    end, port = listening(live, "?connections=2")
    socks = [dialled(live, port) for _ in range(4)]
    assert live.waits(lambda: figure(end, "connections_refused") == 2)
    assert len(end.transport.neighbours()) == 2
    for sock in socks:
        sock.close()
    assert live.waits(lambda: not end.transport.neighbours())
    with dialled(live, port):
        assert live.waits(lambda: len(end.transport.neighbours()) == 1)


def test_a_slow_reader_is_waited_for_and_one_who_reads_nothing_is_cut(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, port = listening(live)
    with dialled(live, port) as sock:
        assert live.waits(end.transport.neighbours)
        (name,) = end.transport.neighbours()

        def flood() -> int:
            return sum(iter(lambda: end.transport.send(name, bytes(1000)), False))

        def fill() -> None:
            """Until the system takes nothing more either."""
            idle = 0
            while idle < 3:
                idle = 0 if end.call(flood) else idle + 1
                live.run(0.005)

        fill()
        assert figure(end, "queued_bytes") <= stream.QUEUE_BYTES_MAX + 1002
        rooms = end.rooms
        sock.setblocking(False)
        for _ in range(200):
            try:
                sock.recv(1 << 20)
            except BlockingIOError:
                break
            live.run(0.001)
        assert live.waits(lambda: end.rooms > rooms)
        monkeypatch.setattr(stream, "STALL_S", 0.05)
        fill()
        assert live.waits(lambda: figure(end, "stalled") == 1)
        assert end.transport.neighbours() == ()


def test_a_flood_is_handed_over_in_turns(live: Live) -> None:
    end, port = listening(live)
    with dialled(live, port) as sock:
        assert live.waits(end.transport.neighbours)
        turns: list[int] = []

        def count() -> None:
            turns.append(len(end.heard))
            live.loop.call_soon(count)

        live.loop.call_soon(count)
        sock.sendall(framed(b"x") * 5000)
        assert live.waits(lambda: len(end.heard) == 5000)
        assert max(late - soon for soon, late in pairwise(turns)) <= 2 * stream.FRAMES_A_TURN


def test_a_broadcast_reaches_all_and_the_shorter_of_two_limits_holds(live: Live) -> None:
    end, port = listening(live, "?mtu=500")
    one, two = live.open(f"tcp:127.0.0.1:{port}"), live.open(f"tcp:127.0.0.1:{port}?mtu=200")
    assert live.waits(lambda: len(end.transport.neighbours()) == 2 and one.transport.up and two.transport.up)
    assert (one.mtu_bytes(), two.mtu_bytes(), end.transport.mtu_bytes()) == (500, 200, 200)
    assert end.send(BROADCAST, b"all")
    assert live.waits(lambda: one.heard and two.heard)
    with pytest.raises(ValueError, match="200"):
        end.send(BROADCAST, bytes(201))


@needs_unix
def test_a_socket_that_a_killed_process_left_is_taken_over_and_a_live_one_is_not(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "link"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    first = live.open(f"unix-listen:{path}")
    assert path.stat().st_mode & 0o077 == 0
    assert live.waits(lambda: first.transport.up)
    with pytest.raises(TransportError, match="in use"):
        live.open(f"unix-listen:{path}")
    far = live.open(f"unix:{path}")
    live.meet(first, far)
    assert far.peer == str(path)
    first.close()
    assert not path.exists()


@needs_unix
def test_a_file_is_never_taken_for_a_socket(live: Live, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TransportError, match="in use"):
        live.open(f"unix-listen:{tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tcp:somewhere", "HOST:PORT"),
        ("tcp:host:99999", "HOST:PORT"),
        ("tcp:host:80?mtu=9", "from 64 to 65507"),
        ("tcp:host:80?connections=9", "allowed: mtu"),
        ("tcp-listen:host.example:80", "one of this machine"),
        ("unix:/" + "x" * 200, "at most 103"),
    ],
)
def test_a_bad_description_says_what_is_allowed(live: Live, text: str, says: str) -> None:
    with pytest.raises(BadSpec, match=re.escape(says)):
        live.open(text)


def test_an_address_that_is_not_ours_says_so(live: Live) -> None:
    with pytest.raises(TransportError, match=r"cannot listen"):
        live.open("tcp-listen:192.0.2.77:80")


@needs_unix
def test_on_windows_unix_is_refused_clearly(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix.sys, "platform", "win32")
    for scheme, instead in (("unix", "tcp:127.0.0.1:PORT"), ("unix-listen", "tcp-listen:127.0.0.1:PORT")):
        with pytest.raises(BadSpec, match=instead):
            live.open(f"{scheme}:/tmp/x")
