"""What a job says while it runs, each piece once, however often the stream breaks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.client import OffgridError, silence
from offgrid.client.progress import Heard, each_once
from offgrid.client.silence import Outages, Silence
from offgrid.v1.jobs_pb2 import Job, JobProgress, WatchProgressResponse

LOST = OffgridError("UNAVAILABLE", "ConnectionLost", "it broke off")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "PAUSE_MS", 0)
    monkeypatch.setattr(silence, "PAUSE_MS_MAX", 0)


def silent(call_s: float = 5.0) -> Silence:
    return Silence("job j-1", Outages("here", print), call_s)


def told(*streams: list[WatchProgressResponse | OffgridError]) -> list[JobProgress]:
    """What is said when the stream is opened again after each of these."""
    waiting = list(streams)

    def opened(for_s: float | None) -> Iterator[WatchProgressResponse]:
        for answer in waiting.pop(0):
            if isinstance(answer, OffgridError):
                raise answer
            yield answer

    return list(each_once(opened, silent()))


def says(**fields: object) -> WatchProgressResponse:
    return WatchProgressResponse(progress=JobProgress(job_id="j-1", attempt=1, **fields))


END = WatchProgressResponse(job=Job(job_id="j-1"))


@given(st.binary(min_size=1, max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_every_byte_comes_once_whatever_is_told_again(log: bytes, spans: list[tuple[int, int]]) -> None:
    """Each stream begins anywhere in what was told already and goes on from there; the last one tells all."""
    heard, said, reach = Heard(), b"", 0
    for start, length in [*spans, (0, len(log))]:
        start = min(start, reach)
        reach = max(reach, min(len(log), start + length))
        piece = JobProgress(attempt=1, log=log[start : start + length], log_offset=start)
        fresh = heard.take(piece)
        if fresh is not None and fresh.log:
            assert fresh.log_offset == len(said)
            said += fresh.log
    assert said == log


def test_a_stream_that_breaks_is_opened_again_until_the_job_has_ended() -> None:
    said = told(
        [says(fraction=0.5, message="half"), says(log=b"one "), LOST],
        [],
        [says(fraction=0.5, message="half", log=b"one two"), says(fraction=0.9, log=b"three", log_offset=7), END],
    )
    assert b"".join(each.log for each in said) == b"one twothree"
    assert [each.fraction for each in said if each.HasField("fraction")] == [0.5, 0.5, 0.9]


def test_the_same_said_again_is_not_news() -> None:
    assert len(told([says(message="at it"), says(message="at it"), says(message="at it", output=b"x"), END])) == 2


def test_another_attempt_begins_anew() -> None:
    again = WatchProgressResponse(progress=JobProgress(attempt=2, log=b"one "))
    assert [each.log for each in told([says(log=b"one "), again, END])] == [b"one ", b"one "]


def test_no_fraction_and_none_done_are_two_things() -> None:
    assert [each.HasField("fraction") for each in told([says(message="a"), says(message="a", fraction=0.0), END])] == [
        False,
        True,
    ]


def test_an_error_that_waiting_does_not_heal_is_raised() -> None:
    with pytest.raises(OffgridError, match="no job"):
        told([OffgridError("NOT_FOUND", "NotFound", "there is no job j-1")])


def test_a_node_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(for_s: float | None) -> Iterator[WatchProgressResponse]:
        raise LOST
        yield

    with pytest.raises(OffgridError, match="broke off"):
        list(each_once(opened, silent(0.01)))


def test_a_look_ends_when_its_time_is_over() -> None:
    def opened(for_s: float | None) -> Iterator[WatchProgressResponse]:
        yield says(message="at it")
        raise OffgridError("DEADLINE_EXCEEDED", "DeadlineExceeded", "too late")

    assert [each.message for each in each_once(opened, silent(), 0.5)] == ["at it"]
