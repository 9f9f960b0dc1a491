"""Flows and bulk: what waits without an event loop, and what blocks in bounded lanes."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, Internal, NotFound, Unavailable
from offgrid_node.services.bulk import Bulk, Threads, inline
from offgrid_node.services.flow import Flow, Step, run, settled, ticket_of, together


class Later:
    """A step that ends when the test says so."""

    def __init__(self) -> None:
        self.end: Callable[[Any], None] = lambda value: None

    def __call__(self, done: Callable[[Any], None]) -> None:
        self.end = done


def now(value: Any) -> Step[Any]:
    return lambda done: done(value)


def ended(flow: Flow[Any]) -> list[Any]:
    """Where the end will be."""
    ends: list[Any] = []
    run(flow, ends.append)
    return ends


class TestAFlow:
    def test_waits_for_each_step_and_ends_with_what_it_returns(self) -> None:
        first, second = Later(), Later()

        def flow() -> Flow[int]:
            a = yield first
            b = yield second
            return a + b

        ends = ended(flow())
        first.end(1)
        assert ends == []
        second.end(2)
        assert ends == [3]

    def test_meets_a_fault_where_it_waits(self) -> None:
        def flow() -> Flow[str]:
            try:
                yield now(NotFound("gone"))
            except NotFound as fault:
                return f"caught {fault.message}"
            return "not caught"

        assert ended(flow()) == ["caught gone"]

    def test_ends_with_the_fault_that_it_does_not_catch(self) -> None:
        def flow() -> Flow[None]:
            yield now(NotFound("gone"))

        (end,) = ended(flow())
        assert isinstance(end, NotFound)

    def test_ends_with_internal_where_it_is_wrong_itself(self) -> None:
        def flow() -> Flow[int]:
            yield now(1)
            return 1 // 0

        (end,) = ended(flow())
        assert isinstance(end, Internal)
        assert "ZeroDivisionError" in end.message

    def test_takes_any_number_of_steps_that_end_at_once(self) -> None:
        def flow() -> Flow[int]:
            total = 0
            for _ in range(100_000):
                total += yield now(1)
            return total

        assert ended(flow()) == [100_000], "the stack did not grow"

    def test_is_a_step_of_another(self) -> None:
        def inner() -> Flow[int]:
            return (yield now(2))

        def outer() -> Flow[int]:
            return 1 + (yield settled(inner()))

        assert ended(outer()) == [3]

    def test_answers_a_handlers_ticket(self) -> None:
        later, reply = Later(), objects_pb2.WriteReplicaResponse(offset=1)

        def flow() -> Flow[Any]:
            return (yield later)

        ticket = ticket_of(flow())
        assert ticket.outcome is None
        later.end(reply)
        assert ticket.outcome == reply


class TestTogether:
    def test_waits_for_all_and_keeps_their_places(self) -> None:
        steps = [Later(), Later(), Later()]
        ends: list[Any] = []
        together(steps)(ends.append)
        fault = NotFound("gone")
        for index, value in ((2, "c"), (0, "a"), (1, fault)):
            assert ends == []
            steps[index].end(value)
        assert ends == [["a", fault, "c"]]

    def test_of_nothing_is_at_once(self) -> None:
        ends: list[Any] = []
        together([])(ends.append)
        assert ends == [[]]


class Waiter:
    """For a flow's end, which it keeps."""

    end: object = None

    def take(self, end: object) -> None:
        self.end = end


def test_what_a_flow_has_ended_with_is_not_kept_until_the_collector_of_cycles_comes_by() -> None:
    """A piece of an object is a mebibyte."""
    waiter, first = Waiter(), Later()

    def flow() -> Flow[Any]:
        return (yield first)

    gc.disable()
    try:
        run(flow(), waiter.take)
        first.end("a piece")
        first.end = lambda value: None
        held = weakref.ref(waiter)
        assert waiter.end == "a piece"
        del waiter
        assert held() is None
    finally:
        gc.enable()


class Parked:
    """A Carry whose work runs when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.waiting.append(lambda: done(work()))

    def go(self) -> None:
        self.waiting.pop(0)()


class TestBulk:
    def test_gives_what_the_work_returns_or_raises(self) -> None:
        ends: list[Any] = []

        def fail() -> None:
            raise NotFound("gone")

        def break_down() -> None:
            raise OSError("what nobody thought of")

        bulk = Bulk(inline)
        for work in (lambda: 1, fail, break_down):
            bulk.run(work)(ends.append)
        assert ends[0] == 1
        assert isinstance(ends[1], NotFound)
        assert isinstance(ends[2], Internal)
        assert (bulk.tasks, bulk.held_bytes) == (0, 0)

    def test_what_has_one_key_runs_in_its_order_and_never_side_by_side(self) -> None:
        carry, done = Parked(), []
        bulk = Bulk(carry)
        for name in ("a1", "a2", "b1", "a3"):
            bulk.run(lambda name=name: name, key=name[0])(done.append)  # type: ignore[misc]
        assert len(carry.waiting) == 2, "one of each key"
        while carry.waiting:
            carry.go()
        assert [name for name in done if name[0] == "a"] == ["a1", "a2", "a3"]
        bulk.run(lambda: "a4", key="a")(done.append)
        assert len(carry.waiting) == 1, "the lane is free again"

    def test_what_has_no_key_waits_for_nobody(self) -> None:
        carry = Parked()
        bulk = Bulk(carry)
        for _ in range(3):
            bulk.run(lambda: None)(lambda end: None)
        assert len(carry.waiting) == 3

    @pytest.mark.parametrize("bounds", [{"tasks_max": 2}, {"bytes_max": 20}])
    def test_is_bounded_and_says_when_to_come_back(self, bounds: dict[str, int]) -> None:
        carry, ends = Parked(), []
        bulk = Bulk(carry, **bounds)
        for _ in range(3):
            bulk.run(lambda: "done", size_bytes=10)(ends.append)
        (refused,) = ends
        assert isinstance(refused, Exhausted)
        assert refused.retry_ms
        carry.go()
        bulk.run(lambda: "done", size_bytes=10)(ends.append)
        assert len(carry.waiting) == 2

    def test_one_task_larger_than_the_bound_runs_alone(self) -> None:
        ends: list[Any] = []
        Bulk(inline, bytes_max=1).run(lambda: 1, size_bytes=10)(ends.append)
        assert ends == [1]

    def test_begins_nothing_once_it_is_stopping_and_long_work_gives_up(self) -> None:
        carry, ends = Parked(), []
        bulk = Bulk(carry)

        def long_work() -> str:
            bulk.check_going()
            return "done"

        bulk.run(long_work)(ends.append)
        bulk.stop()
        bulk.run(long_work)(ends.append)
        carry.go()
        assert [type(end) for end in ends] == [Unavailable, Unavailable]
        assert not carry.waiting


class TestThreads:
    def test_work_runs_elsewhere_and_its_end_comes_back(self) -> None:
        posted: Queue[Callable[[], None]] = Queue()
        threads = Threads(posted.put, 1)
        ends: list[Any] = []
        threads(threading.get_ident, ends.append)
        posted.get(timeout=10)()
        assert ends != [threading.get_ident()]
        threads.close()

    def test_nothing_comes_back_once_they_are_closed(self) -> None:
        posted: Queue[Callable[[], None]] = Queue()
        threads, began, go_on = Threads(posted.put, 1), threading.Event(), threading.Event()
        ends: list[Any] = []

        def work() -> str:
            began.set()
            go_on.wait(60)
            return "too late"

        threads(work, ends.append)
        threads(lambda: "never begun", ends.append)
        assert began.wait(60)
        threading.Timer(0, go_on.set).start()
        threads.close()
        while not posted.empty():
            posted.get()()
        threads(lambda: "after the end", ends.append)
        assert ends == []
