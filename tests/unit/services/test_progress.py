"""What jobs say on its way: gathered at the host, muted where nobody watches, told to each watcher once."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.executors.executor import Progress
from offgrid_node.executors.said import LINE_BYTES_MAX, ProgressLines, parse
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Fault, InvalidRequest, Unavailable
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.services.jobs.progress import Known, ProgressHub, Watcher, check_progress
from offgrid_node.services.jobs.speech import CALL_BYTES_MAX, GATHER_MS, MUTED_MS, OUTPUT_BYTES_MAX, Speech
from offgrid_node.services.stream import Stream

KEY = ("core", "job", 1)
Said = jobs_pb2.JobProgress


class Core:
    """The other side: its answers, and the time that passes for the host."""

    def __init__(self) -> None:
        self.speech = Speech(self, self.later)  # type: ignore[arg-type]
        self.known, self.watched, self.fault = Known(), True, None
        self.timers: list[tuple[int, Callable[[], None]]] = []
        self.asked: list[jobs_pb2.ReportProgressRequest] = []
        self.pending: list[Callable[[Message | Fault], None]] = []
        self.fault: Fault | None = None
        self.hold = False

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        self.timers.append((delay_ms, callback))

    def tick(self) -> int:
        """The next timer; how long it waited."""
        delay_ms, callback = self.timers.pop(0)
        callback()
        return delay_ms

    def request(self, node: str, method: str, request: Any, timeout_ms: int, done: Any) -> None:
        self.asked.append(request)
        if self.hold:
            self.pending.append(done)
            return
        for said in request.progress:
            self.known.add(said)
        unwatched = (
            [] if self.watched else [jobs_pb2.LeaseKey(job_id=said.job_id, attempt=1) for said in request.progress]
        )
        done(self.fault or jobs_pb2.ReportProgressResponse(unwatched=unwatched))


def test_what_is_said_at_once_shares_one_call() -> None:
    core = Core()
    for text in ("a", "b", "c"):
        core.speech.on_said(KEY, Progress(0.5, text, log=text.encode()))
    assert core.tick() == GATHER_MS
    assert len(core.asked) == 1
    assert core.asked[0].progress[0] == Said(job_id="job", attempt=1, fraction=0.5, message="c"), "no log yet"
    core.tick()
    assert core.asked[1].progress[0].log == b"abc"
    assert core.timers == []


def test_of_what_nobody_watches_no_log_is_sent_and_who_comes_later_hears_it_all() -> None:
    core = Core()
    core.watched = False
    core.speech.on_said(KEY, Progress(log=b"first "))
    core.tick()
    for _ in range(3):
        core.speech.on_said(KEY, Progress(log=b"more "))
    assert [core.tick() for _ in range(2)] == [MUTED_MS] * 2
    assert all(not said.log for request in core.asked for said in request.progress)
    core.watched = True
    while core.timers:
        core.tick()
    assert core.known.log == b"first more more more "


def test_a_core_that_does_not_answer_is_asked_now_and_then() -> None:
    core = Core()
    core.fault = Unavailable("gone", reason="NotConnected")
    core.speech.on_said(KEY, Progress(log=b"x"))
    core.tick()
    assert core.tick() == MUTED_MS
    core.fault = None
    while core.timers:
        core.tick()
    assert core.known.log == b"x"


def test_one_call_to_a_core_is_under_way_at_a_time() -> None:
    core = Core()
    core.hold = True
    core.speech.on_said(KEY, Progress(log=b"x"))
    core.tick()
    core.speech.on_said(KEY, Progress(log=b"y"))
    core.tick()
    assert len(core.asked) == 1
    core.hold = False
    core.pending.pop()(jobs_pb2.ReportProgressResponse())
    while core.timers:
        core.tick()
    assert core.known.log == b"xy"


def test_what_has_ended_says_no_more_and_nothing_is_kept() -> None:
    core = Core()
    core.speech.on_said(KEY, Progress(log=b"x"))
    core.speech.on_end(KEY)
    core.tick()
    assert core.asked == []


def test_a_flood_is_bounded_in_memory_and_by_the_call() -> None:
    core = Core()
    for _ in range(20):
        core.speech.on_said(KEY, Progress(log=bytes(LOG_BYTES_MAX // 4), output=bytes(OUTPUT_BYTES_MAX // 4)))
    while core.timers:
        core.tick()
    assert (len(core.known.log), len(core.known.output)) == (LOG_BYTES_MAX, OUTPUT_BYTES_MAX)
    assert max(request.ByteSize() for request in core.asked) < CALL_BYTES_MAX + 1000


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=30))
def test_parts_that_overlap_are_taken_once_and_gaps_not_at_all(parts: list[tuple[int, int]]) -> None:
    whole, known = bytes(range(60)), Known()
    for offset, length in parts:
        known.add(Said(attempt=1, log=whole[offset : offset + length], log_offset=offset))
        assert whole.startswith(bytes(known.log))


def test_a_new_attempt_begins_anew_and_an_old_one_is_not_heard() -> None:
    known, watcher = Known(), Watcher(Stream())
    known.add(Said(attempt=1, log=b"first", fraction=0.9))
    watcher.tell("job", known)
    assert known.add(Said(attempt=2, log=b"second"))
    assert not known.add(Said(attempt=1, log=b"first and more"))
    watcher.tell("job", known)
    told = [message.progress for message in watcher.stream.take()]  # type: ignore[attr-defined]
    assert [(each.attempt, each.log, each.log_offset) for each in told] == [(1, b"first", 0), (2, b"second", 0)]
    assert [each.HasField("fraction") for each in told] == [True, False]


class Jobs:
    """A runtime with one job, awarded to "host", and no rows but that one."""

    def __init__(self) -> None:
        self.job = jobs_pb2.Job(job_id="job", host="host", attempt=1, state=jobs_pb2.JOB_STATE_RUNNING)
        self.watchers: list[Any] = []
        self.store = SimpleNamespace(get=lambda table, key: self.job.SerializeToString() if key == b"job" else None)

    def watch(self, watcher: Any) -> Callable[[], None]:
        self.watchers.append(watcher)
        return lambda: None

    def machine(self, *_: object) -> Any:
        jobs = SimpleNamespace(current=lambda key: SimpleNamespace(job=self.job) if key == ("job", 1) else None)
        return SimpleNamespace(core=SimpleNamespace(jobs=jobs))

    def end(self) -> None:
        self.job.state = jobs_pb2.JOB_STATE_COMPLETED
        self.watchers[0]([Record(state_pb2.Event(subject=self.job.job_id, job=self.job))])


def report(hub: ProgressHub, host: str = "host", **said: Any) -> list[str]:
    """The jobs that are answered as unwatched."""
    request = jobs_pb2.ReportProgressRequest(progress=[Said(**{"job_id": "job", "attempt": 1, **said})])
    return [key.job_id for key in hub.report(host, request).unwatched]


def test_watchers_hear_what_is_known_what_comes_and_the_end() -> None:
    jobs = Jobs()
    hub = ProgressHub(jobs)  # type: ignore[arg-type]
    assert report(hub, log=b"unheard") == ["job"]
    first = hub.watch("job")
    assert report(hub, log=b"a", fraction=0.5) == []
    second = hub.watch("job")
    assert report(hub, log=b"b", log_offset=1) == []
    logs = [b"".join(m.progress.log for m in stream.take()) for stream in (first, second)]  # type: ignore[attr-defined]
    assert logs == [b"ab", b"ab"]
    jobs.job.result.log = b"abc"
    jobs.end()
    [last] = first.take()
    assert isinstance(last, jobs_pb2.WatchProgressResponse)
    assert (last.progress.log, last.progress.log_offset) == (b"c", 2), "what was not told yet"
    assert (last.job.state, first.ended) == (jobs_pb2.JOB_STATE_COMPLETED, True)
    [only] = hub.watch("job").take()
    assert isinstance(only, jobs_pb2.WatchProgressResponse)
    assert only.HasField("job"), "of one that has ended already"


def test_another_host_is_not_heard() -> None:
    hub = ProgressHub(Jobs())  # type: ignore[arg-type]
    stream = hub.watch("job")
    stream.take()
    report(hub, "liar", log=b"lies")
    report(hub, attempt=2, log=b"lies")
    assert stream.take() == []


def test_who_has_gone_is_told_no_more() -> None:
    hub = ProgressHub(Jobs())  # type: ignore[arg-type]
    hub.watch("job").cancel()
    assert report(hub, log=b"a") == ["job"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("job_id", Said(job_id="j" * 65)),
        ("message", Said(message="m" * 201)),
        ("log", Said(log=bytes(CALL_BYTES_MAX + 1))),
        ("fraction", Said(fraction=1.1)),
        ("fraction", Said(fraction=float("nan"))),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(field: str, said: Said) -> None:
    with pytest.raises(InvalidRequest, match=f"progress\\[0\\].{field}"):
        check_progress(jobs_pb2.ReportProgressRequest(progress=[said]))


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (b"::progress 0.42 half done", Progress(0.42, "half done")),
        (b"::progress 1", Progress(1.0)),
        (b"::progress nearly", Progress(None, "nearly")),
        (b"::progress 1.5 much", Progress(None, "1.5 much")),
        (b"::progress nan", Progress(None, "nan")),
        (b"::progress ", None),
        (b"progress 0.5", None),
        (b"::progress " + b"x" * LINE_BYTES_MAX, None),
    ],
)
def test_lines_that_tell_of_progress(line: bytes, progress: Progress | None) -> None:
    assert parse(line) == progress


@given(
    st.lists(st.sampled_from([b"::progress 0.5 a", b"\n", b":", b"noise", b"::progress ", b"0.25"]), max_size=40),
    st.data(),
)
def test_however_a_stream_is_cut_its_lines_are_found(pieces: list[bytes], data: st.DataObject) -> None:
    whole, at_once, cut = b"".join(pieces), ProgressLines(), ProgressLines()
    expected = at_once.feed(whole) or Progress()
    fraction, message, at = None, "", 0
    while at < len(whole):
        step = data.draw(st.integers(1, 12))
        if news := cut.feed(whole[at : at + step]):
            fraction = news.fraction if news.fraction is not None else fraction
            message = news.message or message
        at += step
    assert (fraction, message) == (expected.fraction, expected.message)
