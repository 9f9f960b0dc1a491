"""What an application records on its way to the node: in order, once, however often the node fails, and never waited
for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from offgrid.client import breaker, recording
from offgrid.client.backlog import Waiting
from offgrid.client.breaker import OPEN_S, RETRIES, Breaker
from offgrid.client.errors import OffgridError, Violation
from offgrid.client.recording import BATCH_MIN, Figures, Recorder


class Node:
    """Takes what it is sent, once by writer and number, as the real one does; fails as it is told."""

    def __init__(self) -> None:
        self.taken: list[Waiting] = []
        self.faults: list[OffgridError | None] = []  # of the next calls; after taking what it is sent where `late`
        self.late = False
        self.calls = 0
        self.dropped: Mapping[str, int] = {}
        self.gate = threading.Event()
        self.gate.set()

    def send(self, writer: bytes, sent: int, events: list[Waiting], figures: Figures) -> None:
        self.gate.wait(10)
        self.calls += 1
        self.dropped, self.figures = figures.dropped, figures
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or self.late:
            assert sent <= len(self.taken)
            if sent < len(self.taken):
                assert self.taken[sent:] == events, "what may be there is sent again as it was"
            self.taken[sent:] = events
        if fault is not None:
            raise fault


def away() -> OffgridError:
    return OffgridError("UNAVAILABLE", "NoAnswer", "it does not answer")


def event(number: int, kind: str = "word") -> Waiting:
    return Waiting(number, kind, None, None, b"{}")


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def start(node: Node) -> Iterator[Callable[[], Recorder]]:
    recorders = []

    def begin() -> Recorder:
        recorders.append(Recorder(node.send, frozenset({"beat"})))
        return recorders[-1]

    yield begin
    node.gate.set()
    for each in recorders:
        each.close(5)


def test_all_comes_in_order_and_is_durable_once_flushed(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    for number in range(100):
        recorder.add(event(number))
    assert recorder.flush(10)
    assert [each.timestamp_us for each in node.taken] == [*range(100)]
    figures = recorder.figures()
    assert (figures.accepted, figures.durable, figures.waiting, figures.breaker) == (100, 100, 0, "closed")


def test_a_few_go_without_being_asked_for(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    recorder.add(event(1))
    deadline = time.monotonic() + 10
    while not node.taken and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(node.taken) == 1


@pytest.mark.parametrize("late", [False, True])
def test_what_failed_is_sent_again_whether_it_came_or_not(
    node: Node, start: Callable[[], Recorder], late: bool
) -> None:
    recorder, node.late = start(), late
    node.faults = [away(), away()]
    for number in range(40):
        recorder.add(event(number))
    assert recorder.flush(10)
    assert [each.timestamp_us for each in node.taken] == [*range(40)]


def test_nobody_waits_for_a_node_that_hangs_and_it_is_told_what_was_dropped(
    node: Node, start: Callable[[], Recorder]
) -> None:
    recorder = start()
    node.gate.clear()
    for number in range(5_000):
        recorder.add(event(number, "beat" if number % 5 else "word"))
    figures = recorder.figures()
    assert (figures.accepted + figures.turned_away, figures.durable) == (5_000, 0)
    assert figures.waiting <= 2 * recording.BATCH_MAX + 1_000
    node.gate.set()
    assert not recorder.flush(10), "some were dropped"
    assert sum(each.kind == "word" for each in node.taken) == 1_000, "none of them is dropped"
    dropped = recorder.figures().dropped["beat"]
    assert len(node.taken) + dropped == 5_000
    recorder.add(event(0))
    assert recorder.flush(10)
    assert node.dropped == {"beat": dropped}
    assert (node.figures.accepted + node.figures.turned_away, node.figures.waiting) == (5_001, 1)
    assert node.figures.write_ms > 0


def test_a_batch_of_which_one_is_wrong_and_nobody_says_which_loses_that_one_alone(
    node: Node, start: Callable[[], Recorder]
) -> None:
    recorder, send = start(), node.send

    def picky(writer: bytes, sent: int, events: list[Waiting], figures: Figures) -> None:
        if any(each.timestamp_us == 7 for each in events):
            raise OffgridError("INVALID_ARGUMENT", "InvalidRequest", "no", [Violation("events", "cannot be read")])
        send(writer, sent, events, figures)

    recorder._send = picky
    for number in range(20):
        recorder.add(event(number))
    assert not recorder.flush(10), "one was refused"
    assert [each.timestamp_us for each in node.taken] == [number for number in range(20) if number != 7]
    assert recorder.figures().refused == {"word": 1}
    recorder.add(event(20))
    assert recorder.flush(10), "and since then none"


def test_a_defect_ends_it_and_is_told(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()

    def broken(*args: object) -> None:
        raise KeyError("defect")

    recorder._send = broken
    recorder.add(event(1))
    assert not recorder.flush(10)
    with pytest.raises(OffgridError, match="a defect of the recorder"):
        recorder.add(event(2))


def test_it_takes_nothing_once_it_is_closed(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    recorder.add(event(1))
    assert recorder.close(10)
    assert len(node.taken) == 1
    with pytest.raises(OffgridError, match="closed"):
        recorder.add(event(2))


def test_a_flush_waits_for_what_came_before_it_and_no_longer(node: Node, start: Callable[[], Recorder]) -> None:
    recorder, ended = start(), threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            recorder.add(event(0, "beat"))
            time.sleep(0.0005)

    talking = threading.Thread(target=go_on)
    talking.start()
    try:
        assert recorder.flush(5)
    finally:
        ended.set()
        talking.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_process_records_nothing_by_its_parents_thread(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    recorder._pid += 1  # as it looks to a child
    with pytest.raises(OffgridError, match="forked"):
        recorder.add(event(1))
    assert not recorder.close(0.1)
    recorder._pid -= 1


def test_the_breaker_opens_and_what_waits_goes_once_the_node_is_back(
    node: Node, start: Callable[[], Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "OPEN_S", 1.0)
    recorder = start()
    node.faults = [away() for _ in range(RETRIES + 2)]
    for number in range(BATCH_MIN):
        recorder.add(event(number))
    deadline = time.monotonic() + 10
    while recorder.figures().breaker != "open" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert recorder.figures().breaker == "open"
    assert recorder.flush(10)
    assert recorder.figures().breaker == "closed"
    assert node.calls == RETRIES + 3


def test_an_event_that_the_node_refuses_is_counted_and_the_others_go_on(
    node: Node, start: Callable[[], Recorder]
) -> None:
    recorder = start()
    node.gate.clear()
    wrong = OffgridError("INVALID_ARGUMENT", "InvalidRequest", "no", [Violation("events[2]/energy", "no number")])
    node.faults = [wrong]
    for number in range(BATCH_MIN):
        recorder.add(event(number))
    time.sleep(0.05)
    node.gate.set()
    assert not recorder.flush(10), "one was refused"
    assert len(node.taken) == BATCH_MIN - 1
    assert recorder.figures().refused == {"word": 1}


def test_a_session_that_has_ended_takes_nothing_more(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    node.faults = [OffgridError("FAILED_PRECONDITION", "SessionEnded", "it has ended")]
    recorder.add(event(1))
    assert not recorder.flush(10)
    with pytest.raises(OffgridError, match="it has ended"):
        recorder.add(event(2))


def test_a_flush_that_is_not_done_in_time_says_so(node: Node, start: Callable[[], Recorder]) -> None:
    recorder = start()
    node.gate.clear()
    recorder.add(event(1))
    assert not recorder.flush(0.05)


class TestTheBreaker:
    def test_tries_again_after_growing_pauses_and_then_now_and_then(self) -> None:
        tried, now_s, waits = Breaker(), 100.0, []
        for _ in range(RETRIES + 3):
            tried.on_failure(now_s)
            waits.append(tried.wait_s(now_s))
            assert tried.state(now_s) == ("closed" if len(waits) <= RETRIES else "open")
            now_s += waits[-1]
            assert tried.wait_s(now_s) == 0
        assert waits == pytest.approx([0.1, 0.2, 0.4, OPEN_S, OPEN_S, OPEN_S])
        assert tried.state(now_s) == "half-open"
        tried.on_success()
        assert (tried.state(now_s), tried.wait_s(now_s)) == ("closed", 0)
