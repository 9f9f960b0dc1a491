"""Long messages come whole over sessions that are lost in the middle, and what is kept of them is bounded."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lora_world import World
from test_packed_calls import Air
from virtual_link import Node, VirtualTime, network

from offgrid_transports.answers import Request
from offgrid_transports.calls import CallRefused, End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_answers import LongAnswers
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.long_messages import (
    BLOCK_BYTES_MAX,
    BLOCK_BYTES_MIN,
    HELD_COST_BYTES,
    KEEP_MS,
    LONG_BYTES_MAX,
    READ,
    SHELF_BYTES_MAX,
    WRITE,
    Partial,
    Read,
    Shelf,
    Trouble,
    Write,
    block_bytes,
    digest_of,
    read_partial,
    read_read,
    read_write,
    write_partial,
    write_read,
    write_write,
)
from offgrid_transports.memory import Faults
from offgrid_transports.path import Path
from offgrid_transports.records import RecordError, varint
from offgrid_transports.transport import Priority

ROUGH = Faults(loss=0.05, delay_ms=10)
SHARD = Random(1).randbytes(5_000_000)
METHOD = 0x0509
DAY_MS = 86_400_000.0


class Asking:
    """Calls of a node, and how they ended."""

    def __init__(self, node: Node) -> None:
        self.node, self.calls, self.replies = node, LongCalls(node.endpoint), list[Reply]()

    def call(self, body: bytes, timeout_ms: float = 600_000) -> None:
        self.calls.call("b", METHOD, body, timeout_ms, self.replies.append, priority=Priority.BULK)


class Answering:
    """Answers each request with what `handle` makes of it; `asked` counts them, `arrived` all by method."""

    def __init__(self, endpoint: Endpoint, handle: Callable[[bytes], bytes]) -> None:
        self._handle = handle
        self.asked, self.arrived, self.blocks = list[bytes](), Counter[int](), list[Request]()
        self.restart(endpoint)

    def restart(self, endpoint: Endpoint) -> None:
        self.answers = LongAnswers(endpoint)
        endpoint.on_request = self._on_request

    def _on_request(self, arrived: Request) -> None:
        self.arrived[arrived.method] += 1
        self.blocks.append(arrived)
        request = self.answers.on_request(arrived)
        if request is not None:
            assert request.method == METHOD
            self.asked.append(request.body)
            self.answers.respond(request, self._handle(request.body), priority=Priority.BULK)


class Wire:
    """Two nodes on a network that loses frames."""

    def __init__(self, handle: Callable[[bytes], bytes], *, bitrate_bps: int = 0) -> None:
        self.time = VirtualTime()
        self.net = network(self.time, faults=ROUGH, bitrate_bps=bitrate_bps)
        self.a, self.b = (Node(self.time, self.net.attach(name), name) for name in "ab")
        self.a.knows("b")
        self.b.knows("a")
        self.asking, self.answering = Asking(self.a), Answering(self.b.endpoint, handle)

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert not self.time.idle, "nothing more will happen"
            self.time.run(self.time.now_ms + 5)

    def lose_session(self) -> None:
        """Some time from now, at both ends."""
        self.time.run(self.time.now_ms + 40)
        for node, peer in ((self.a, "b"), (self.b, "a")):
            session = node.endpoint.session_of(peer)
            assert session is not None
            node.endpoint._sessions.end(self.time.now_ms, node.endpoint._sessions._bounds[session.ours], "killed")


def test_a_shard_of_5_mb_comes_whole_though_its_session_is_lost() -> None:
    wire = Wire(lambda body: SHARD)
    wire.asking.call(b"the shard")
    wire.run_until(lambda: wire.answering.arrived[READ] == 1)
    wire.lose_session()
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies == [Reply(End.OK, SHARD)]
    assert wire.answering.asked == [b"the shard"]
    assert wire.answering.arrived[READ] == 3, "one block was asked for again"
    assert not len(wire.asking.calls.answers)


def test_a_request_of_5_mb_comes_whole_though_its_session_is_lost() -> None:
    wire = Wire(digest_of)
    wire.asking.call(SHARD)
    wire.run_until(lambda: wire.answering.arrived[WRITE] == 1)
    wire.lose_session()
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies == [Reply(End.OK, digest_of(SHARD))]
    assert wire.answering.asked == [SHARD]
    empty = [block for block in wire.answering.blocks if block.method == WRITE and not read_write(block.body).block]
    assert (wire.answering.arrived[WRITE], len(empty)) == (4, 1), "after the loss it asked how much is there"


def test_a_call_that_is_repeated_goes_on_where_it_was() -> None:
    """Though the answering node was started anew, and has forgotten all."""
    wire = Wire(lambda body: SHARD)
    wire.asking.call(b"the shard")
    wire.run_until(lambda: wire.answering.arrived[READ] == 2)
    wire.answering.restart(wire.b.endpoint)
    wire.lose_session()
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies == [Reply(End.UNKNOWN, detail="the rest of its answer: gone")]
    reads = wire.answering.arrived[READ]
    wire.asking.call(b"the shard")
    wire.run_until(lambda: len(wire.asking.replies) == 2)
    assert wire.asking.replies[1] == Reply(End.OK, SHARD)
    assert wire.answering.arrived[READ] - reads == 1, "two of three blocks were there already"


def test_of_a_request_that_is_repeated_only_the_rest_is_sent() -> None:
    wire = Wire(lambda body: b"thanks")
    wire.asking.call(SHARD, timeout_ms=400)
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies[0].end is End.REFUSED
    sent = sum(len(block.body) for block in wire.answering.blocks)
    assert BLOCK_BYTES_MAX < sent < len(SHARD)
    wire.asking.call(SHARD)
    wire.run_until(lambda: len(wire.asking.replies) == 2)
    assert wire.asking.replies[1] == Reply(End.OK, b"thanks")
    assert sum(len(block.body) for block in wire.answering.blocks) < len(SHARD) + 1_000


@pytest.mark.parametrize("there", [[0], [1, 0], [0, 0, 1]])
def test_who_never_says_that_more_of_a_request_is_there_ends_the_call(there: list[int]) -> None:
    wire = Wire(digest_of, bitrate_bps=8_000)

    def says(request: Request) -> None:
        wire.answering.arrived[WRITE] += 1
        said = there[wire.answering.arrived[WRITE] % len(there)]
        wire.time.schedule(1, lambda: wire.b.endpoint.respond(request, varint(said)))

    wire.b.endpoint.on_request = says
    wire.a.call("b", b"")
    wire.time.run(5_000)
    wire.asking.call(SHARD[:100_000], timeout_ms=60_000)
    wire.time.run(180_000)
    assert [reply.end for reply in wire.asking.replies] == [End.REFUSED]
    assert wire.asking.replies[0].detail.startswith(f"{max(there)} of 100000 bytes of its request")


def test_who_brings_an_answer_by_the_byte_ends_the_call() -> None:
    wire = Wire(digest_of, bitrate_bps=8_000)

    def says(request: Request) -> None:
        partial = request.method == METHOD
        body = write_partial(Partial(digest_of(SHARD), len(SHARD), b"1")) if partial else b"1"
        wire.time.schedule(1, lambda: wire.b.endpoint.respond(request, body, partial=partial))

    wire.b.endpoint.on_request = says
    wire.a.call("b", b"")
    wire.time.run(5_000)
    wire.asking.call(b"the shard", timeout_ms=60_000)
    wire.time.run(180_000)
    assert [reply.end for reply in wire.asking.replies] == [End.UNKNOWN]
    assert wire.asking.replies[0].detail.endswith(f"of {len(SHARD)} bytes of its answer came")


def test_what_was_written_is_asked_for_once_though_the_blocks_are_gone_meanwhile() -> None:
    wire = Wire(lambda body: b"thanks")
    wire.asking.call(SHARD)
    wire.run_until(lambda: wire.answering.arrived[WRITE] == 2)
    wire.answering.restart(wire.b.endpoint)
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies == [Reply(End.OK, b"thanks")]
    assert wire.answering.asked == [SHARD]


def test_20_kb_come_over_lora_though_the_modem_is_unplugged_in_the_middle() -> None:
    world = World(loss=0.05)
    links = {name: world.rnode(name) for name in "ab"}
    world.run(1)
    air = Air(world.clock)
    a, b = (Node(air, links[name], name) for name in "ab")
    a.knows("b")
    b.knows("a")
    text = Random(2).randbytes(20_000)
    asking, answering = Asking(a), Answering(b.endpoint, lambda body: text)
    asking.call(b"the text", DAY_MS)
    while not answering.arrived[READ]:
        world.run(1)
    world.run(5)
    world.lines["a"].unplug()
    world.run(60)
    assert not asking.replies
    world.lines["a"].plug(world.rnodes["a"])
    world.run(120)
    assert asking.replies == [Reply(End.OK, text)]
    assert answering.asked == [b"the text"]
    assert world.channel.counts.bytes < 1.8 * len(text), "bursts that were sent to nobody, and no more"


def test_what_was_announced_is_what_comes() -> None:
    wire = Wire(lambda body: SHARD)
    wire.asking.call(b"the shard")
    wire.run_until(lambda: wire.answering.arrived[READ] == 1)
    held = wire.answering.answers.answers.get("a", digest_of(SHARD))
    assert held is not None
    held.data[-1] ^= 1
    wire.run_until(lambda: bool(wire.asking.replies))
    assert wire.asking.replies == [Reply(End.UNKNOWN, detail="its answer's blocks are not what was announced")]


def test_longer_ones_are_refused_before_anything_is_sent() -> None:
    wire = Wire(lambda body: b"")
    with pytest.raises(CallRefused, match=f"{LONG_BYTES_MAX} are taken"):
        wire.asking.call(bytes(LONG_BYTES_MAX + 1))


def test_blocks_are_as_long_as_a_link_takes_some_seconds_for() -> None:
    world = World()
    fast = world.rnode("a")
    assert block_bytes(None) == BLOCK_BYTES_MAX
    assert BLOCK_BYTES_MIN < block_bytes(Path(fast, "*")) < 20_000


def test_a_shelf_holds_so_much_of_one_peer_and_of_all_and_for_so_long() -> None:
    now_ms = [0.0]
    shelf = Shelf(lambda: now_ms[0])
    for number in range(2 * SHELF_BYTES_MAX // LONG_BYTES_MAX):
        for half in range(3):
            shelf.open(f"peer {number}", bytes((half,)), LONG_BYTES_MAX // 2)
        assert shelf.get(f"peer {number}", bytes(1)) is None, "the oldest of its own gave way"
        assert shelf.bytes <= SHELF_BYTES_MAX
    assert len(shelf) == 2 * SHELF_BYTES_MAX // LONG_BYTES_MAX
    now_ms[0] = KEEP_MS + 1
    shelf.open("another", bytes(1), 1)
    assert (len(shelf), shelf.bytes) == (1, HELD_COST_BYTES)


def test_many_short_ones_are_not_free() -> None:
    shelf = Shelf(lambda: 0.0)
    for number in range(1_000):
        shelf.open("peer", number.to_bytes(2), 1)
    assert len(shelf) == LONG_BYTES_MAX // HELD_COST_BYTES


def test_nothing_is_kept_for_strangers() -> None:
    time = VirtualTime()
    net = network(time)
    stranger, node = Node(time, net.attach("a"), "a"), Node(time, net.attach("b"), "b", strangers=True)
    stranger.knows("b")
    answering = Answering(node.endpoint, lambda body: bytes(BLOCK_BYTES_MAX + 1))
    replies = list[Reply]()
    body = write_write(Write(bytes(16), 100, 0, b"some"))
    stranger.endpoint.call("b", WRITE, body, 10_000, replies.append)
    stranger.endpoint.call("b", METHOD, b"", 10_000, replies.append)
    time.run(10_000)
    assert Reply(End.ERROR, Trouble.MALFORMED.body, partial=True) in replies
    assert Reply(End.OK, bytes(BLOCK_BYTES_MAX + 1)) in replies
    assert not len(answering.answers.requests) + len(answering.answers.answers)


@pytest.mark.parametrize(
    "asked",
    [
        (WRITE, write_write(Write(digest_of(b"else"), 4, 0, b"some"))),
        (WRITE, bytes(16) + varint(3) + varint(0) + b"some"),
        (WRITE, bytes(16) + varint(LONG_BYTES_MAX + 1) + varint(0)),
        (READ, bytes(16)),
        (READ, write_read(Read(bytes(16), 0, 0))),
        (3, bytes(16) + varint(WRITE)),
        (3, bytes(18)),
    ],
)
def test_nonsense_is_answered_as_such(asked: tuple[int, bytes]) -> None:
    wire = Wire(lambda body: b"")
    replies = list[Reply]()
    wire.a.endpoint.call("b", *asked, 10_000, replies.append)
    wire.run_until(lambda: bool(replies))
    assert replies == [Reply(End.ERROR, Trouble.MALFORMED.body, partial=True)]


@pytest.mark.parametrize("asked", [(READ, write_read(Read(bytes(16), 0, 1))), (3, bytes(16) + varint(METHOD))])
def test_what_is_not_kept_is_gone(asked: tuple[int, bytes]) -> None:
    wire = Wire(lambda body: b"")
    replies = list[Reply]()
    wire.a.endpoint.call("b", *asked, 10_000, replies.append)
    wire.run_until(lambda: bool(replies))
    assert replies == [Reply(End.ERROR, Trouble.GONE.body, partial=True)]


@given(st.binary(max_size=60))
def test_any_bytes_are_of_a_long_message_or_an_error(garbage: bytes) -> None:
    for read, write in ((read_read, write_read), (read_write, write_write), (read_partial, write_partial)):
        with contextlib.suppress(RecordError):
            assert write(read(garbage)) == garbage  # type: ignore[arg-type]


@given(st.binary(min_size=16, max_size=16), st.integers(0, LONG_BYTES_MAX), st.binary(min_size=1, max_size=30))
def test_they_are_read_as_they_were_written(digest: bytes, number: int, block: bytes) -> None:
    assert read_read(write_read(Read(digest, number, len(block)))) == (digest, number, len(block))
    total = min(number + len(block), LONG_BYTES_MAX)
    assert read_write(write_write(Write(digest, total, total - len(block), block))).block == block
    assert read_partial(write_partial(Partial(digest, total, block))).total == total
