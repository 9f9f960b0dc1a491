"""A node that falls silent under who follows it: waited for, told of once, given up in clear words."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest
from small_node import SmallNode

import offgrid
from offgrid.client import OffgridError, payloads, silence
from offgrid.client.following import follow
from offgrid.client.silence import Outages, Silence
from offgrid.v1 import jobs_pb2

LOST = OffgridError("UNAVAILABLE", "NoAnswer", "no node answers at here")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.pauses_s = 0.0, list[float]()
        monkeypatch.setattr(silence.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(silence.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def a_silence(said: list[str], call_s: float = 10.0, reconnect_s: float = 60.0) -> Silence:
    return Silence("job j-1", Outages("here", said.append), call_s, reconnect_s)


def wait_for_ever(follower: Silence) -> None:
    while True:
        follower.wait(LOST)
        follower.opening()


def states(*streams: list[object]) -> Iterator[object]:
    """What is told when the stream is opened again after each of these; then there is no node any more."""
    waiting = list(streams)

    def opened(for_s: float | None) -> Iterator[object]:
        if not waiting:
            raise LOST
        for each in waiting.pop(0):
            if isinstance(each, OffgridError):
                raise each
            yield each

    said: list[str] = []
    yield from follow(opened, lambda state: state == "end", a_silence(said))


def test_no_state_is_lost_or_told_twice_over_a_break(clock: Clock) -> None:
    assert list(states(["a", "b", LOST], [LOST], [LOST], ["b", "c", LOST], ["end"])) == ["a", "b", "c", "end"]


def test_whom_it_concerns_hears_of_an_outage_once_and_of_the_next_one_again(clock: Clock) -> None:
    said: list[str] = []
    follower = a_silence(said)
    follower.heard()
    for outage in (1, 2):
        for _ in range(5):
            follower.wait(LOST)
        assert len(said) == outage
        follower.heard()
    assert said[0] == "the node at here is silent; job j-1 goes on, waiting for the node 60 s"


def test_all_who_wait_for_one_node_say_so_once() -> None:
    said: list[str] = []
    outages = Outages("here", said.append)
    for what in ("job j-1", "job j-2"):
        outages.began(what, 60)
    assert len(said) == 1


def test_a_mere_break_is_not_told_of_nor_what_nobody_waits_for(clock: Clock) -> None:
    said: list[str] = []
    follower = a_silence(said)
    for _ in range(3):
        follower.heard()
        follower.wait(LOST)
    follower.wait(matters=False)
    assert said == []


def test_a_node_that_was_heard_is_given_up_later_than_one_that_never_was(clock: Clock) -> None:
    never, heard = a_silence([]), a_silence([])
    with pytest.raises(OffgridError) as caught:
        wait_for_ever(never)
    assert caught.value is LOST
    assert 10 <= clock.now_s < 12
    heard.heard()
    began_s = clock.now_s
    with pytest.raises(OffgridError, match=r"silent for 60 s \(no node answers at here\); job j-1 may go on") as caught:
        wait_for_ever(heard)
    assert caught.value.reason == "WatchEnded"
    assert 60 <= clock.now_s - began_s < 62
    assert max(clock.pauses_s) == 1.0


def test_a_stream_that_said_nothing_for_a_while_was_open_all_the_same(clock: Clock) -> None:
    follower = a_silence([])
    follower.opening()
    clock.now_s += 30
    began_s = clock.now_s
    with pytest.raises(OffgridError, match="60 s"):
        wait_for_ever(follower)
    assert clock.now_s - began_s >= 60


def test_a_closed_client_waits_for_nothing(clock: Clock) -> None:
    follower = a_silence([])
    follower.heard()
    with pytest.raises(OffgridError, match="closed"):
        follower.wait(OffgridError("CANCELLED", "ClientClosed", "the client was closed"))
    assert clock.pauses_s == []


def test_a_future_outlives_its_node_and_says_what_it_waits_for(
    node: SmallNode, caplog: pytest.LogCaptureFixture
) -> None:
    let_go, run = threading.Event(), node._run
    node._run = lambda job: (let_go.wait(10), run(job))
    with offgrid.connect(node.address) as client, caplog.at_level(logging.WARNING, "offgrid"):
        future = client.jobs.submit(payloads.command("wc", input=b"a b"))
        future.wait_sent(10)  # a submission without its answer would be repeated, and fail in other words
        node.stop()
        while not caplog.messages:
            pass
        node.awaited.clear()
        node.start()
        let_go.set()
        assert future.result(10).state == jobs_pb2.JOB_STATE_COMPLETED
    assert len(caplog.messages) == 1
    assert "what was submitted goes on" in caplog.messages[0]


def test_a_future_whose_node_stays_away_fails_and_says_so(node: SmallNode) -> None:
    let_go = threading.Event()
    node._run = lambda job: let_go.wait(10)
    said: list[str] = []
    with offgrid.connect(node.address, reconnect_s=0.2, on_silence=said.append) as client:
        future = client.jobs.submit(payloads.command("wc", input=b"a b"))
        future.wait_sent(10)  # a submission without its answer would be repeated, and fail in other words
        node.stop()
        with pytest.raises(OffgridError, match=r"silent for 0\.2 s") as caught:
            future.result(10)
    let_go.set()
    assert caught.value.reason == "WatchEnded"
    assert len(said) == 1
