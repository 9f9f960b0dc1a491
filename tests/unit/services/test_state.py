"""The journal by RPC: pages that lose and repeat nothing, and watchers who see each event once, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.parts import never
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Call, Effect, Execute, Record, Rows
from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, InvalidRequest, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Pending, Runtime
from offgrid_node.services import state
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.objects.capacity import disk_and_store
from offgrid_node.services.paging import PAGE_BYTES_MAX
from offgrid_node.services.retention import Budget, Retention
from offgrid_node.services.state import StateHandlers
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

CREATED, QUEUED = EventType.JOB_CREATED, EventType.JOB_QUEUED


class Recorder:
    """A machine that records whatever events it is asked to."""

    def load(self, rows: Rows, now: Now) -> None: ...

    def deadline_ms(self) -> int | None:
        return None

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        asked = [event.command for event in inputs if isinstance(event, Asked)]
        return [Record(event) for events in asked if isinstance(events, list) for event in events]


class Ticking:
    """A clock that moves on by a microsecond at each look."""

    def __init__(self) -> None:
        self.utc_us = 0

    def now(self) -> Now:
        self.utc_us += 1
        return Now(0, self.utc_us)


class Nowhere:
    def call(self, call: Call) -> None: ...

    def execute(self, work: Execute) -> None: ...


class Journal:
    """A runtime over a store in memory, and the handlers under test."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.runtime = Runtime(lambda: {"state": Recorder()}, self.store, Ticking(), Random(1), Nowhere())
        self.handlers = StateHandlers(self.runtime, Retention(self.runtime, Budget(), cast(Any, None), never))

    def ask(self, *events: state_pb2.Event) -> None:
        self.runtime.ask("state", "test", list(events))

    def record(self, *events: state_pb2.Event) -> None:
        self.ask(*events)
        self.runtime.turn()

    def gathered(self) -> Pending:
        pending = self.runtime.gather()
        assert pending is not None
        return pending

    def page(self, **request: Any) -> state_pb2.ListEventsResponse:
        return self.handlers.list_events(ADMIN, state_pb2.ListEventsRequest(**request))

    def pages(self, **request: Any) -> list[list[int]]:
        """The numbers on each page, until there is no next one."""
        found, token = [], ""
        while True:
            page = self.page(page_token=token, **request)
            found.append([event.seq for event in page.events])
            if not (token := page.next_page_token):
                return found

    def watch(self, after_seq: int = 0, etypes: Iterable[int] = ()) -> Stream:
        return self.handlers.watch_events(ADMIN, state_pb2.WatchEventsRequest(after_seq=after_seq, etypes=etypes))


def job_event(etype: EventType = CREATED, subject: str = "j-1", output: bytes = b"") -> state_pb2.Event:
    return state_pb2.Event(
        etype=etype, subject=subject, job=jobs_pb2.Job(result=jobs_pb2.JobResult(output=output)) if output else None
    )


def seqs(messages: Iterable[Message]) -> list[int]:
    return [message.event.seq for message in messages if isinstance(message, state_pb2.WatchEventsResponse)]


def drain(stream: Stream) -> list[int]:
    """All that there is to take now."""
    found, ready = [], [True]
    stream.when_ready(lambda: ready.append(True))
    while ready:
        ready.clear()
        found += seqs(stream.take())
    return found


def flat(pages: list[list[int]]) -> list[int]:
    return [seq for page in pages for seq in page]


# ---- lists


def test_an_event_carries_its_number_its_type_and_its_time() -> None:
    journal = Journal()
    journal.record(job_event())
    (event,) = journal.page().events
    assert (event.seq, event.type, event.subject) == (1, "JOB_CREATED", "j-1")
    assert event.timestamp_us > 0


def test_an_empty_journal_is_one_empty_page() -> None:
    assert Journal().pages() == [[]]
    assert Journal().pages(newest_first=True) == [[]]


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_last_page_that_is_just_full_names_no_next_one(newest_first: bool) -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(6)))
    assert [len(page) for page in journal.pages(page_size=3, newest_first=newest_first)] == [3, 3]


@given(
    kinds=st.lists(st.sampled_from([CREATED, QUEUED]), max_size=150),
    page_size=st.integers(1, 50),
    newest_first=st.booleans(),
    wanted=st.sampled_from([(), (CREATED,), (CREATED, QUEUED)]),
)
def test_pages_together_are_the_filtered_journal(
    kinds: list[EventType], page_size: int, newest_first: bool, wanted: tuple[EventType, ...]
) -> None:
    journal = Journal()
    journal.record(*(job_event(kind) for kind in kinds))
    expected = [seq for seq, kind in enumerate(kinds, 1) if not wanted or kind in wanted]
    found = flat(journal.pages(page_size=page_size, newest_first=newest_first, etypes=wanted))
    assert found == (expected[::-1] if newest_first else expected)


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_begin_and_end_with_what_is_kept(newest_first: bool) -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(200)))
    journal.store.commit(Batch(floor=150))

    found = flat(journal.pages(newest_first=newest_first, page_size=20))

    assert found == sorted(range(151, 201), reverse=newest_first)


def test_subject_and_time_narrow_the_list_and_the_time_is_inclusive() -> None:
    journal = Journal()
    for number in range(10):
        journal.record(job_event(subject=f"j-{number % 2}"))
    times = [event.timestamp_us for event in journal.page().events]
    assert flat(journal.pages(subject="j-1", since_us=times[5])) == [6, 8, 10]
    assert flat(journal.pages(since_us=times[5], until_us=times[7])) == [6, 7, 8]


def test_events_that_come_while_pages_are_read_are_neither_lost_nor_repeated() -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(4)))
    first = journal.page(page_size=3)
    back = journal.page(page_size=3, newest_first=True)
    journal.record(job_event())
    assert [e.seq for e in journal.page(page_size=3, page_token=first.next_page_token).events] == [4, 5]
    older = journal.page(page_size=3, page_token=back.next_page_token, newest_first=True)
    assert [e.seq for e in older.events] == [1]


def test_a_page_stays_below_the_message_limit_whatever_events_weigh() -> None:
    journal = Journal()
    for _ in range(4):
        journal.record(job_event(output=bytes(1024 * 1024)))
    pages = journal.pages()
    assert flat(pages) == [1, 2, 3, 4]
    assert len(pages) == 2
    assert journal.page().ByteSize() <= PAGE_BYTES_MAX


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_rare_filter_over_a_long_journal_answers_in_bounded_steps(newest_first: bool) -> None:
    journal = Journal()
    journal.record(job_event(QUEUED), *(job_event() for _ in range(2 * state.SCAN_EVENTS_MAX)), job_event(QUEUED))
    first = journal.page(etypes=[QUEUED], newest_first=newest_first)
    assert len(first.events) == 1
    assert first.next_page_token
    pages = journal.pages(etypes=[QUEUED], newest_first=newest_first)
    assert sorted(flat(pages)) == [1, 2 * state.SCAN_EVENTS_MAX + 2]
    assert len(pages) == 3


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"page_size": -1}, "page_size"),
        ({"page_token": "nonsense!"}, "page_token"),
        ({"page_token": "AAAA"}, "page_token"),
        ({"etypes": [CREATED, 99, 0]}, "etypes[2]"),
        ({"etypes": range(1, state.ETYPES_MAX + 2)}, "etypes"),
    ],
)
def test_a_wrong_request_names_the_field(request_: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Journal().page(**request_)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_token_is_of_no_use_with_other_filters() -> None:
    journal = Journal()
    journal.record(job_event(), job_event())
    token = journal.page(page_size=1).next_page_token
    with pytest.raises(InvalidRequest):
        journal.page(page_size=1, page_token=token, subject="j-1")


# ---- watchers


@pytest.mark.parametrize("before", [0, 1, 3 * state.CATCH_UP_EVENTS + 1])
def test_a_watcher_gets_the_past_and_then_the_present_each_once(before: int) -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(before)))
    stream = journal.watch()
    assert drain(stream) == list(range(1, before + 1))
    journal.record(job_event(), job_event())
    journal.record(job_event())
    assert drain(stream) == [before + 1, before + 2, before + 3]


def test_a_watcher_may_begin_in_the_middle_and_choose_types() -> None:
    journal = Journal()
    journal.record(job_event(), job_event(QUEUED), job_event(), job_event(QUEUED))
    stream = journal.watch(after_seq=2, etypes=[QUEUED])
    assert drain(stream) == [4]
    journal.record(job_event(), job_event(QUEUED))
    assert drain(stream) == [6]


@given(st.lists(st.sampled_from(["ask", "gather", "commit", "settle", "take"]), max_size=60), st.integers(0, 5))
def test_no_interleaving_with_a_commit_loses_or_repeats_an_event(steps: list[str], before: int) -> None:
    """The commit may run in a thread, so a watcher may read what is durable before it is announced."""
    journal = Journal()
    journal.record(*(job_event() for _ in range(before)))
    stream, found = journal.watch(), list[int]()
    pending, committed = None, False
    for step in [*steps, "commit", "settle", "take", "ask", "gather", "commit", "settle", "take"]:
        match step:
            case "ask":
                journal.ask(job_event())
            case "gather" if pending is None:
                pending, committed = journal.runtime.gather(), False
            case "commit" if pending is not None and not committed:
                journal.runtime.commit(pending)
                committed = True
            case "settle" if pending is not None and committed:
                journal.runtime.settle(pending)
                pending = None
            case "take":
                found += seqs(stream.take())
    found += drain(stream)
    assert found == list(range(1, journal.store.journal_seq + 1))


def test_who_reads_too_slowly_is_cut_off_and_told() -> None:
    journal = Journal()
    stream = journal.watch()
    assert drain(stream) == []
    for _ in range(STREAM_BACKLOG_MAX + 1):
        journal.record(job_event())
    assert isinstance(stream.fault, Exhausted)
    assert stream.fault.reason == "SlowReader"


def test_a_slow_reader_of_heavy_events_holds_only_so_many_bytes() -> None:
    journal = Journal()
    stream = journal.watch()
    assert drain(stream) == []
    for _ in range(9):
        journal.record(job_event(output=bytes(1024 * 1024)))
    assert stream.fault is not None
    assert stream.fault.reason == "SlowReader"
    assert sum(message.ByteSize() for message in stream.take()) <= state.BACKLOG_BYTES_MAX


def test_a_reader_who_takes_what_comes_is_never_cut_off() -> None:
    journal = Journal()
    stream = journal.watch()
    taken = []
    for _ in range(2 * STREAM_BACKLOG_MAX):
        journal.record(job_event())
        taken += drain(stream)
    assert taken == list(range(1, 2 * STREAM_BACKLOG_MAX + 1))


def test_a_slow_reader_of_the_past_costs_nothing_and_misses_nothing() -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(200)))
    stream = journal.watch()
    first = seqs(stream.take())
    for _ in range(2 * STREAM_BACKLOG_MAX):
        journal.record(job_event())
    assert stream.fault is None
    assert first + drain(stream) == list(range(1, 200 + 2 * STREAM_BACKLOG_MAX + 1))


def test_a_cancelled_watcher_is_forgotten() -> None:
    journal = Journal()
    stream = journal.watch()
    stream.cancel()
    journal.record(job_event())
    assert stream.take() == []
    assert journal.runtime._watchers == []


def test_waiting_for_what_lies_behind_the_journals_end_is_refused() -> None:
    journal = Journal()
    journal.record(job_event())
    with pytest.raises(FailedPrecondition) as caught:
        journal.watch(after_seq=2)
    assert caught.value.metadata == {"journal_seq": "1"}


def test_a_watcher_of_all_begins_with_what_is_kept_and_one_who_would_miss_some_is_refused() -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(5)))
    journal.store.commit(Batch(floor=3))

    assert drain(journal.watch()) == [4, 5]
    assert drain(journal.watch(after_seq=3)) == [4, 5]
    with pytest.raises(FailedPrecondition) as caught:
        journal.watch(after_seq=2)
    assert (caught.value.reason, caught.value.metadata) == ("EventsGone", {"journal_floor": "3"})


def test_a_slow_watcher_of_what_goes_is_told() -> None:
    journal = Journal()
    journal.record(*(job_event() for _ in range(5)))
    stream = journal.watch()

    journal.store.commit(Batch(floor=2))

    assert stream.take() == []
    assert stream.fault is not None
    assert stream.fault.reason == "EventsGone"


def test_a_damaged_journal_ends_the_watch_with_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal()
    journal.record(job_event())
    stream = journal.watch()

    def damaged(after_seq: int = 0, *, reverse: bool = False) -> Iterable[tuple[int, bytes]]:
        raise Corrupt("event 1 fails its checksum")

    monkeypatch.setattr(journal.store, "events", damaged)
    assert stream.take() == []
    assert isinstance(stream.fault, Corrupt)


# ---- capacity


def test_capacity_is_what_the_disk_and_the_store_say(tmp_path: Path) -> None:
    journal = Journal()
    empty = disk_and_store(journal.store, tmp_path)
    journal.record(job_event(output=bytes(10_000)))
    held = disk_and_store(journal.store, tmp_path)
    assert held.store_bytes >= empty.store_bytes + 10_000
    assert 0 < held.disk_free_bytes <= held.disk_total_bytes
    assert held.store_limit_bytes == journal.store.limit_bytes()


def test_capacity_of_a_folder_that_has_gone_is_a_clear_fault(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="gone"):
        disk_and_store(Journal().store, tmp_path / "gone")
