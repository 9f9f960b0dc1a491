"""Threads that carry out what they are handed."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue

import pytest
from log_lines import lines

from offgrid_node.executors.workers import Workers


def until(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waits(free: threading.Event) -> None:
    free.wait(5)


def test_as_many_jobs_run_at_once_as_there_may_be_threads() -> None:
    workers, meet, free = Workers(3, "w"), threading.Barrier(4), threading.Event()
    after = list[int]()

    def job() -> None:
        meet.wait(5)
        free.wait(5)

    for _ in range(3):
        workers.submit(job)
    workers.submit(lambda: after.append(1))
    meet.wait(5)
    assert (workers.threads, after) == (3, [])
    free.set()
    until(lambda: after)
    workers.close()
    until(lambda: workers.threads == 0)


def test_one_after_another_they_take_one_thread() -> None:
    workers, seen = Workers(4, "w"), set[int]()
    for count in range(20):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            seen.add(threading.get_ident())
            done.set()

        workers.submit(job)
        done.wait(5)
        until(lambda: workers._open == 0)
        assert len(seen) == 1, count
    workers.close()


def test_jobs_start_in_their_order() -> None:
    workers, order, free = Workers(1, "w"), list[int](), threading.Event()
    workers.submit(lambda: waits(free))
    for number in range(50):
        workers.submit(lambda number=number: order.append(number))  # type: ignore[misc]
    free.set()
    until(lambda: len(order) == 50)
    assert order == list(range(50))
    workers.close()


def test_a_job_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    workers, done = Workers(1, "w"), threading.Event()

    def broken() -> None:
        raise ValueError("broken")

    workers.submit(broken)
    workers.submit(done.set)
    assert done.wait(5)
    assert lines(caplog) == ["work of a thread failed event=thread_work_failed threads=w"]
    workers.close()


def test_a_thread_with_nothing_to_do_ends_and_another_one_comes() -> None:
    workers, done = Workers(2, "w", idle_s=0.01), threading.Event()
    workers.submit(lambda: None)
    until(lambda: workers.threads == 0)
    workers.submit(done.set)
    assert done.wait(5)
    workers.close()


def test_no_job_is_forgotten_while_threads_end_and_begin() -> None:
    workers, lock, count = Workers(3, "w", idle_s=0.0001), threading.Lock(), [0]

    def job() -> None:
        with lock:
            count[0] += 1

    for number in range(3_000):
        workers.submit(job)
        if number % 50 == 0:
            time.sleep(0.0005)
    until(lambda: count[0] == 3_000)
    workers.close()
    until(lambda: workers.threads == 0)


def test_what_waits_when_it_is_closed_is_done_all_the_same() -> None:
    workers, done, free = Workers(1, "w"), threading.Event(), threading.Event()
    workers.submit(lambda: waits(free))
    workers.submit(done.set)
    workers.close()
    free.set()
    assert done.wait(5)
    until(lambda: workers.threads == 0)


def test_a_thread_that_is_about_to_end_waits_for_no_job_that_another_one_takes() -> None:
    """It holds the lock then, without which nothing can be handed over: all would stand still."""

    class Raced(SimpleQueue):  # type: ignore[type-arg]
        """Its one job is there when somebody looks, and gone when he takes it."""

        def empty(self) -> bool:
            return False

        def get(self, block: bool = True, timeout: float | None = None) -> None:
            assert not block or timeout is not None, "it waits for ever"
            raise Empty

    workers = Workers(2, "w", idle_s=0.01)
    workers._jobs, workers._threads = Raced(), 1
    assert workers._next() is None
    assert workers.threads == 0
