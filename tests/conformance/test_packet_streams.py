"""A stream over lossy packets brings each message once and in order, and what is kept of it is bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from test_packet_carrier import MEMBER, NODE, World, raw_call

from offgrid.v1 import lane_pb2, state_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    Fault,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.services.caller import ANONYMOUS, Caller
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_streams import (
    BATCH_MESSAGES,
    CURSORS_PER_PEER,
    IDLE_MS,
    NEXT_BATCH,
    WAIT_MS_MAX,
    PacketStreams,
)
from offgrid_node.services.packet_watch import PacketWatch
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream

WATCH = "offgrid.v1.StateService/WatchEvents"
FAR_MS = 10**9


class Watched:
    """A world whose node gives `stream` to who watches events, and what a watcher there was told."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.stream = Stream()
        self.world.router._handlers[WATCH] = lambda caller, request: self.stream
        self.told: list[int] = []
        self.ends: list[Fault | None] = []

    def watch(self, who: str = "admin") -> PacketWatch:
        def told(message: Message) -> None:
            assert isinstance(message, state_pb2.WatchEventsResponse)
            self.told.append(message.event.seq)

        return self.world.roads[who].watch(NODE, WATCH, state_pb2.WatchEventsRequest(), told, self.ends.append)

    def push(self, *numbers: int) -> None:
        for number in numbers:
            self.stream.push(event(number))

    def run_until(self, condition: Callable[[], bool]) -> None:
        self.world.clock.run_until(condition, self.world.clock.mono_ms + 600_000)


def event(number: int) -> Message:
    return state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=number))


@pytest.mark.parametrize("seed", range(5))
def test_each_message_comes_once_and_in_order(seed: int) -> None:
    watched = Watched(seed)
    watched.watch()
    watched.push(*range(10))
    watched.run_until(lambda: len(watched.told) == 10)
    watched.push(10, 11)
    watched.run_until(lambda: len(watched.told) == 12)
    watched.stream.end()
    watched.run_until(lambda: bool(watched.ends))
    assert watched.told == list(range(12))
    assert watched.ends == [None]


def test_many_share_a_batch_and_no_batch_is_endless() -> None:
    watched = Watched()
    watched.push(*range(STREAM_BACKLOG_MAX))
    watched.stream.end()
    watched.watch()
    watched.run_until(lambda: bool(watched.ends))
    assert watched.told == list(range(STREAM_BACKLOG_MAX))
    assert STREAM_BACKLOG_MAX > 2 * BATCH_MESSAGES


def test_a_fault_at_its_end_comes_behind_what_was_said_before() -> None:
    watched = Watched()
    watched.watch()
    watched.push(*range(STREAM_BACKLOG_MAX + 1))
    watched.run_until(lambda: bool(watched.ends))
    assert watched.told == list(range(STREAM_BACKLOG_MAX))
    assert isinstance(watched.ends[0], Exhausted)
    assert watched.ends[0].reason == "SlowReader"


def test_it_outlives_its_session() -> None:
    watched = Watched()
    watched.watch()
    watched.push(1)
    watched.run_until(lambda: watched.told == [1])
    for endpoint, peer in ((watched.world.node, "admin"), (watched.world.endpoints["admin"], NODE)):
        session = endpoint.session_of(peer)
        assert session is not None
        endpoint._sessions.end(watched.world.clock.mono_ms, endpoint._sessions._bounds[session.ours], "killed")
    watched.push(2, 3)
    watched.run_until(lambda: len(watched.told) == 3)
    assert (watched.told, watched.ends) == ([1, 2, 3], [])


def test_one_that_is_cancelled_says_nothing_more_and_ends_at_both_ends() -> None:
    watched = Watched()
    watch = watched.watch()
    watched.push(1)
    watched.run_until(lambda: watched.told == [1])
    watch.cancel()
    watched.run_until(lambda: watched.stream.ended)
    assert (watched.told, watched.ends) == ([1], [])


def test_who_may_not_watch_is_told_so() -> None:
    watched = Watched()
    watched.watch("member")
    watched.run_until(lambda: bool(watched.ends))
    assert isinstance(watched.ends[0], PermissionDenied)


def test_whoever_may_no_longer_watch_gets_no_further_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    watched.watch()
    watched.push(1)
    watched.run_until(lambda: watched.told == [1])
    monkeypatch.setitem(callers(), "admin", MEMBER)
    watched.push(2)
    watched.push(3)
    watched.run_until(lambda: bool(watched.ends))
    assert isinstance(watched.ends[0], PermissionDenied)


def callers() -> dict[str, Caller]:
    from test_packet_carrier import CALLERS

    return CALLERS


def test_a_node_that_does_not_answer_ends_it_as_unknown() -> None:
    watched = Watched()
    watched.watch()
    watched.world.net.detach("node")
    watched.run_until(lambda: bool(watched.ends))
    assert isinstance(watched.ends[0], OutcomeUnknown | Unavailable)


def test_what_is_no_stream_is_refused_at_once() -> None:
    world = World()
    with pytest.raises(InvalidRequest, match="is no stream"):
        world.roads["admin"].watch(NODE, "offgrid.v1.MeshService/Ping", event(1), print, print)
    assert isinstance(world.begin("admin", WATCH, state_pb2.WatchEventsRequest())[0], InvalidRequest)


def test_a_cursor_is_its_callers_alone() -> None:
    watched = Watched()
    watched.watch()
    watched.push(1)
    watched.run_until(lambda: watched.told == [1])
    asked = lane_pb2.NextBatchRequest(cursor=1, number=2).SerializeToString()
    fault = raw_call(watched.world, "member", NEXT_BATCH, asked)
    assert (type(fault), fault.reason) == (NotFound, "NoCursor")


class Desk:
    """The cursors of a node, in time that the test moves."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.streams = PacketStreams(lambda: self.now_ms, self._later)

    def _later(self, delay_ms: int, fn: Callable[[], object]) -> None:
        self.later.append((self.now_ms + delay_ms, fn))

    def pass_ms(self, passed_ms: int) -> None:
        end_ms = self.now_ms + passed_ms
        while due := [each for each in self.later if each[0] <= end_ms]:
            first = min(due, key=lambda each: each[0])
            self.later.remove(first)
            self.now_ms = first[0]
            first[1]()
        self.now_ms = end_ms

    def next(self, number: int) -> object:
        body = lane_pb2.NextBatchRequest(cursor=1, number=number).SerializeToString()
        outcome = self.streams.next("peer", body, self.now_ms + FAR_MS, lambda method: None)
        return outcome if isinstance(outcome, Message) else outcome.outcome


def test_a_batch_is_kept_until_the_next_one_is_asked_for() -> None:
    desk, stream = Desk(), Stream()
    stream.push(event(1))
    first = desk.streams.begin("peer", WATCH, stream, FAR_MS).outcome
    assert isinstance(first, lane_pb2.StreamBatch)
    assert desk.next(1) == first
    stream.push(event(2))
    second = desk.next(2)
    assert isinstance(second, lane_pb2.StreamBatch)
    assert (second.number, len(second.messages)) == (2, 1)
    with pytest.raises(InvalidRequest):
        desk.next(1)


def test_whoever_waits_hears_in_time_that_there_is_nothing() -> None:
    desk = Desk()
    ticket = desk.streams.begin("peer", WATCH, Stream(), FAR_MS)
    desk.pass_ms(WAIT_MS_MAX - 1)
    assert ticket.outcome is None
    desk.pass_ms(1)
    assert ticket.outcome == lane_pb2.StreamBatch(cursor=1, number=1)


def test_a_cursor_that_nobody_asks_for_is_closed() -> None:
    desk, stream = Desk(), Stream()
    stream.push(event(1))
    desk.streams.begin("peer", WATCH, stream, FAR_MS)
    desk.pass_ms(IDLE_MS - 1)
    desk.next(1)
    desk.pass_ms(IDLE_MS - 1)
    assert not stream.ended
    desk.pass_ms(1)
    assert stream.ended
    assert not len(desk.streams)


def test_so_many_streams_of_one_caller_and_no_more() -> None:
    desk = Desk()
    for _ in range(CURSORS_PER_PEER):
        desk.streams.begin("peer", WATCH, Stream(), FAR_MS)
    one_too_many = Stream()
    with pytest.raises(Exhausted):
        desk.streams.begin("peer", WATCH, one_too_many, FAR_MS)
    assert one_too_many.ended
    desk.streams.begin("another", WATCH, Stream(), FAR_MS)


def test_a_stream_whose_first_batch_is_its_last_leaves_nothing_behind() -> None:
    desk, stream = Desk(), Stream()
    stream.push(event(1))
    stream.end()
    first = desk.streams.begin("peer", WATCH, stream, FAR_MS).outcome
    assert isinstance(first, lane_pb2.StreamBatch)
    assert first.ended
    assert not len(desk.streams)


def test_streams_that_have_ended_make_room_for_others_and_are_asked_for_again_until_then() -> None:
    desk, streams = Desk(), [Stream() for _ in range(CURSORS_PER_PEER)]
    for stream in streams:
        stream.push(event(1))
        desk.streams.begin("peer", WATCH, stream, FAR_MS)
    streams[0].end()
    last = desk.next(2)
    assert isinstance(last, lane_pb2.StreamBatch)
    assert last.ended
    assert desk.next(2) == last
    desk.streams.begin("peer", WATCH, Stream(), FAR_MS)
    with pytest.raises(NotFound):
        desk.next(2)
    with pytest.raises(Exhausted):
        desk.streams.begin("peer", WATCH, Stream(), FAR_MS)
    assert len(desk.streams) == CURSORS_PER_PEER


def test_strangers_open_none() -> None:
    world = World()
    assert callers().get("stranger", ANONYMOUS) is ANONYMOUS
    assert isinstance(raw_call(world, "stranger", METHOD_NUMBERS[WATCH], b""), PermissionDenied)
