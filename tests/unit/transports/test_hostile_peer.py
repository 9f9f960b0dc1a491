"""A peer that proves itself and then says whatever it likes: nothing is raised, and others are served as before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_records import FRAMES
from virtual_link import PSK, Node, VirtualTime, key_of, network, public_of

from offgrid_tools.fuzz.frames import write_record
from offgrid_transports.calls import End
from offgrid_transports.handshake import Hello, Own
from offgrid_transports.memory import MemoryNetwork
from offgrid_transports.records import ACK_BITS_MAX, Ack, Part, Poll, Record, Said, Signal, Whole, write_signal
from offgrid_transports.sealing import Sealer, Suite

CALLS = st.sampled_from((0, 1, 2, 3, 4, 2**32 - 1))
OFFSETS = st.sampled_from((0, 1, 5, 100, 2**22 - 1, 2**22, 2**28 - 1))
PLAUSIBLE: st.SearchStrategy[Record] = st.one_of(
    st.builds(Ack, st.integers(0, 40), st.integers(0, 255), st.integers(0, ACK_BITS_MAX), st.just(())),
    st.builds(Poll, st.integers(0, 31), st.integers(0, ACK_BITS_MAX)),
    st.builds(Said, st.sampled_from(Signal), CALLS),
    st.builds(Whole, st.booleans(), CALLS, st.integers(0, 31), st.binary(max_size=4)),
    st.builds(Part, st.booleans(), CALLS, OFFSETS, st.booleans(), st.binary(min_size=1, max_size=20)),
)
SAID = st.lists(
    st.one_of(PLAUSIBLE.map(write_record), FRAMES.map(lambda f: b"".join(map(write_record, f))), st.binary(max_size=20))
)


class Mallory:
    """Of the mesh, with a session of its own making; never answers, and says what it is told to."""

    def __init__(self, net: MemoryNetwork) -> None:
        self._end = net.attach("mallory")
        self._end.on_frame = self._on_frame
        self._hello = Hello(Own(key_of("mallory"), PSK), public_of("node"), Suite.CHACHA20_POLY1305, 7, 1)
        self._end.send("node", self._hello.frame)
        self._sealer: Sealer | None = None

    def _on_frame(self, address: str, frame: bytes) -> None:
        if self._sealer is None:
            theirs, keys = self._hello.welcomed(frame)
            self._head, self._sealer = b"\x00" + theirs.to_bytes(2), Sealer(Suite.CHACHA20_POLY1305, keys.sending)

    def says(self, records: bytes) -> None:
        assert self._sealer is not None
        self._end.send("node", self._sealer.seal(self._head, records))


@settings(max_examples=12)
@given(SAID)
def test_whatever_it_says_nothing_is_raised_and_others_are_served(said: list[bytes]) -> None:
    world = VirtualTime()
    net = network(world)
    node = Node(world, net.attach("node"), "node", handle=lambda request: request.body[:100])
    friend = Node(world, net.attach("friend"), "friend")
    node.knows("mallory", "friend")
    friend.knows("node")
    mallory = Mallory(net)
    world.run(100)
    for number in range(2):
        node.call("mallory", b"%d" % number * 3000, timeout_ms=30_000)
    for at, records in enumerate(said):
        mallory.says(records)
        world.run(100 + 20 * at)
    friend.call("node", b"well?")
    world.run(200_000)
    assert [reply.body for reply in friend.replies] == [b"well?"]
    assert len(node.replies) == 2, "every call ends"


def test_the_answer_to_its_questions_is_bounded() -> None:
    world = VirtualTime()
    net = network(world)
    node = Node(world, net.attach("node"), "node")
    node.knows("mallory")
    mallory = Mallory(net)
    world.run(100)
    before = net.frames_sent
    for _ in range(50):
        mallory.says(b"".join(write_signal(Signal.PROBE, call) for call in range(400)))
    world.run(10_000)
    assert net.frames_sent - before <= 100


def answered_slowly(piece_bytes: int, apart_ms: int, *, again: bool = False) -> tuple[Node, int]:
    """A call that is given a second, and its answer in such pieces; when it ended, within two minutes."""
    world = VirtualTime()
    net = network(world)
    node = Node(world, net.attach("node"), "node")
    node.knows("mallory")
    mallory = Mallory(net)
    world.run(100)
    node.call("mallory", b"well?", timeout_ms=1_000)
    for number in range(120_000 // apart_ms):
        world.run(world.now_ms + apart_ms)
        if node.replies:
            break
        offset = 0 if again else number * piece_bytes
        mallory.says(write_record(Part(False, 1, offset, False, bytes(piece_bytes))))
    return node, world.now_ms


@pytest.mark.parametrize(("piece_bytes", "again"), [(1, False), (200, True)])
def test_who_answers_a_byte_at_a_time_or_the_same_again_holds_no_call_up(piece_bytes: int, again: bool) -> None:
    node, ended_ms = answered_slowly(piece_bytes, 100, again=again)
    assert [reply.end for reply in node.replies] == [End.UNKNOWN]
    assert node.replies[0].detail.endswith("bytes of its answer within the time given")
    assert ended_ms < 4_000


def test_an_answer_that_comes_on_is_waited_for_beyond_the_time_given() -> None:
    node, ended_ms = answered_slowly(200, 200)
    assert (node.replies, ended_ms) == ([], 120_100)
