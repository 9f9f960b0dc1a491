"""A feed's reader and what is behind it: whoever is slow, one too many, or silent for long."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_handlers import Answer, router_of
from google.protobuf.message import Message
from log_lines import lines
from serving_app import OPEN, app_of, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.gateway import connection, feed, looking, sign_ins
from offgrid_node.gateway.access import Policy, policy_of
from offgrid_node.gateway.feed import feed_routes
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.picture import Picture
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.protocol.clock import Now
from offgrid_node.services.router import Router
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream

SEQ, TOKEN = 7, "correct-horse-battery"
HAPPENED = state_pb2.Event(etype=14, timestamp_us=1795408200000000).SerializeToString()


class Behind:
    """The node behind a feed: its journal, of which each reader has a stream, and its status."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.status = mesh_pb2.GetStatusResponse(name="attic")
        self.looks = 0
        self.port = 0
        answers: dict[str, Answer] = {
            "MeshService/GetStatus": self._look,
            "StateService/WatchEvents": self._watch,
        }
        runtime = SimpleNamespace(
            store=SimpleNamespace(journal_seq=SEQ, events=lambda after: iter([(after + 1, HAPPENED)])),
            clock=SimpleNamespace(now=lambda: Now(0, 0)),
            watch=lambda watcher: lambda: None,
        )
        parts = SimpleNamespace(router=router_of(answers), runtime=runtime, stopping=asyncio.Event())
        self.routes = feed_routes(cast(NodeView, parts))

    def _look(self, request: object) -> mesh_pb2.GetStatusResponse:
        self.looks += 1
        return self.status

    def _watch(self, request: state_pb2.WatchEventsRequest) -> Stream:
        self.streams.append(Stream())
        return self.streams[-1]

    def happens(self, number: int) -> None:
        for stream in self.streams:
            stream.push(state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=number, etype=14)))

    def reader(self, asked: str = "", **fields: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/v1/feed{asked}", max_size=2**24, additional_headers=fields)


def play(scenario: Callable[[Behind], Awaitable[None]], policy: Policy = OPEN) -> None:
    behind = Behind()

    async def talk(port: int) -> None:
        behind.port = port
        await scenario(behind)

    serving(app_of(behind.routes, policy), talk)


def handshake(port: int) -> bytes:
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    fields = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}")
    return "\r\n".join(("GET /v1/feed HTTP/1.1", f"Host: 127.0.0.1:{port}", *fields, "", "")).encode()


async def said(reader: ClientConnection) -> dict[str, Any]:
    return dict(json.loads(await asyncio.wait_for(reader.recv(), 10)))


async def closed(reader: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """What is said until the end, and the code of that."""
    heard = []
    try:
        while True:
            heard.append(await said(reader))
    except ConnectionClosed as end:
        return heard, end.rcvd.code if end.rcvd else 0


def test_who_reads_too_slowly_is_told_where_to_go_on_and_let_go() -> None:
    async def scenario(behind: Behind) -> None:
        async with behind.reader() as reader:
            assert (await said(reader))["number"] == SEQ
            while not behind.streams:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)
            for number in range(SEQ + 1, SEQ + 2 + STREAM_BACKLOG_MAX):
                behind.happens(number)
            heard, code = await closed(reader)
        *events, last = heard
        assert [each["number"] for each in events] == list(range(SEQ + 1, SEQ + 1 + STREAM_BACKLOG_MAX))
        assert (last["error"]["code"], last["error"]["details"][0]["reason"]) == (429, "SlowReader")
        assert code == 1013

    play(scenario)


@pytest.mark.parametrize(
    ("frames_max", "end", "patience_s"), [(connection.FRAMES_MAX, ConnectionError, 20), (2**40, TimeoutError, 0.5)]
)
def test_who_pings_without_end_is_cut_off_and_who_reads_nothing_is_not_read(
    frames_max: int, end: type[OSError], patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "FRAMES_MAX", frames_max)

    def flood(port: int) -> None:
        """Until no more is taken; systems take tens of MB that nobody has read."""
        pings, sent = (b"\x89\xfd" + bytes(4 + 125)) * 500, 0
        with socket.create_connection(("127.0.0.1", port)) as reader:
            reader.sendall(handshake(port))
            assert reader.recv(12) == b"HTTP/1.1 101"
            reader.settimeout(patience_s)
            while sent <= 2**28:
                sent += reader.send(pings)

    async def scenario(behind: Behind) -> None:
        with pytest.raises(end):
            await asyncio.to_thread(flood, behind.port)

    play(scenario)


def test_one_too_many_is_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FEEDS_MAX", 1)

    async def scenario(behind: Behind) -> None:
        async with behind.reader() as first:
            await said(first)
            async with behind.reader() as second:
                heard, code = await closed(second)
            assert (heard[0]["error"]["details"][0]["reason"], code) == ("TooManyFeeds", 1013)
        async with behind.reader() as third:
            assert (await said(third))["type"] == "state.sync"

    play(scenario)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?aftre=7", "aftre: is no parameter here; allowed: after, etypes; did you mean after?"),
        ("?session=s&etypes=14", "etypes: is no parameter here; allowed: session, after, reducer, kinds"),
        ("?after=now", "after: 'now' is no cursor as the feed's messages have it"),
        ("?etypes=JOB", "etypes: 'JOB' is no number"),
    ],
)
def test_what_a_feed_cannot_be_asked_for_is_named(query: str, says: str) -> None:
    async def scenario(behind: Behind) -> None:
        async with behind.reader(query) as reader:
            heard, code = await closed(reader)
            assert (heard[-1]["error"]["message"], code) == (says, 1008)

    play(scenario)


def test_silence_is_broken_by_a_heartbeat_that_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.02)

    async def scenario(behind: Behind) -> None:
        async with behind.reader() as reader:
            await said(reader)
            beat = await said(reader)
            assert beat == {
                "type": "heartbeat",
                "number": SEQ,
                "cursor": f"{SEQ}:1795408200000000",
                "timestamp": "1970-01-01T00:00:00.000000Z",
            }

    play(scenario)


def test_the_node_is_looked_at_once_for_all_readers_and_not_at_all_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOOK_LEAST_S", 0.01)
    monkeypatch.setattr(looking, "LOOK_S", 0.02)

    async def scenario(behind: Behind) -> None:
        async with behind.reader() as first, behind.reader() as second:
            assert [(await said(reader))["status"]["name"] for reader in (first, second)] == ["attic", "attic"]
            behind.status = mesh_pb2.GetStatusResponse(name="attic", jobs_open=3)
            for reader in (first, second):
                change = await said(reader)
                assert (change["type"], change["status"]) == ("change", {"jobs_open": 3})
        looked = -1
        while looked != behind.looks:  # until nobody looks any more
            looked = behind.looks
            await asyncio.sleep(0.1)

    play(scenario)


def test_a_look_that_fails_by_a_defect_is_logged_and_is_not_the_last_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(looking, "LOOK_LEAST_S", 0.01)
    monkeypatch.setattr(looking, "LOOK_S", 0.02)
    look, defects = looking.look, iter([RuntimeError("a defect"), ValueError("another")])

    async def broken_for_a_while(router: Router, seq: int, before: Picture) -> Picture:
        if (defect := next(defects, None)) is not None:
            raise defect
        return await look(router, seq, before)

    async def scenario(behind: Behind) -> None:
        async with behind.reader() as reader:
            await said(reader)
            monkeypatch.setattr(looking, "look", broken_for_a_while)
            behind.status = mesh_pb2.GetStatusResponse(name="attic", jobs_open=3)
            assert (await said(reader))["status"] == {"jobs_open": 3}
        assert lines(caplog) == ["the page is not told what changes event=feed_failed"] * 2

    play(scenario)


@pytest.mark.parametrize("how", ["signed out", "not used"])
def test_a_sign_in_that_is_over_ends_the_feeds_that_came_by_it_and_no_others(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "SESSION_MS", 1_200 if how == "not used" else sign_ins.SESSION_MS)
    signs = SignIns(TOKEN, "cookie")
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.2)  # a client that is not asked for them takes few

    async def scenario(behind: Behind) -> None:
        value = signs.sign_in(TOKEN, "", time.monotonic_ns() // 1_000_000)
        assert isinstance(value, str)
        async with (
            behind.reader(Cookie=f"cookie={value}") as browser,
            behind.reader(Authorization=f"Bearer {TOKEN}") as program,
        ):
            assert [(await said(reader))["type"] for reader in (browser, program)] == ["state.sync"] * 2
            if how == "signed out":
                signs.sign_out([value])
            heard, code = await closed(browser)
            assert (heard[-1]["error"]["code"], heard[-1]["error"]["details"][0]["reason"]) == (401, "SignedOut")
            assert code == 1008
            while (await said(program))["type"] != "heartbeat":
                pass

    play(scenario, policy_of((), signs))


def test_a_reader_who_breaks_off_while_much_is_said_is_worth_no_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    form = feed._event

    async def scenario(behind: Behind) -> None:
        reader = socket.create_connection(("127.0.0.1", behind.port))
        reader.sendall(handshake(behind.port))

        def breaking_off(message: Message) -> dict[str, Any]:
            found = form(message)
            if found["number"] == SEQ + 3:
                reader.close()  # with much that it has not read: a reset
            return found

        monkeypatch.setattr(feed, "_event", breaking_off)
        while not behind.streams:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        for number in range(SEQ + 1, SEQ + 20):
            behind.happens(number)
        while not behind.streams[0].ended:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        assert lines(caplog) == []

    play(scenario)


def test_streams_are_given_back_when_a_reader_goes() -> None:
    async def scenario(behind: Behind) -> None:
        async with behind.reader("?after=3:1795408200000000") as reader:
            assert (await said(reader))["type"] == "state.resumed"
        while not behind.streams[0].ended:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)

    play(scenario)


@pytest.mark.parametrize(
    ("after", "first"),
    [
        ("3", "state.resumed"),
        ("3:1795408200000000", "state.resumed"),
        ("3:1795408200000001", "state.sync"),
        ("0:1795408200000000", "state.sync"),
    ],
)
def test_a_cursor_goes_on_where_that_very_event_was(after: str, first: str) -> None:
    """A node that was put back from a backup had another one of that number."""

    async def scenario(behind: Behind) -> None:
        async with behind.reader(f"?after={after}") as reader:
            assert (await said(reader))["type"] == first

    play(scenario)
