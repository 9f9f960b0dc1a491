"""How programs that record fare, as they say it themselves: counted once, whatever is said again, forgotten or new."""

from __future__ import annotations

from typing import Any

from offgrid.kinds import KNOWN
from offgrid.v1 import state_pb2
from offgrid_node.meters import Counter
from offgrid_node.meters.writers import WRITERS_MAX, WriterMeters

WRITER = b"writer-1"


def said(sent: int, writer: bytes = WRITER, dropped: dict[str, int] | None = None, **figures: Any) -> Any:
    return state_pb2.RecordEventsRequest(
        writer=writer, sent=sent, dropped=dropped, figures=state_pb2.WriterFigures(**figures)
    )


def counts(counter: Counter) -> dict[tuple[str, ...], int]:
    return {labels: count for labels, count in counter.samples() if count}


def test_what_a_writer_says_of_all_is_counted_by_what_is_new() -> None:
    meters = WriterMeters()
    first = said(0, accepted=20, waiting=5, failures=2, write_us=0)
    meters.on_recorded("s", first, {"energy.update": 15})
    assert (counts(meters.accepted), meters.waiting) == ({(): 20}, 5)
    second = said(
        15,
        dropped={"energy.update": 7},
        accepted=30,
        turned_away=3,
        refused={"user.prompt": 1},
        failures=6,
        openings=1,
        waiting=0,
        write_us=2_500,
    )
    meters.on_recorded("s", second, {"energy.update": 7, "user.prompt": 3})
    assert counts(meters.recorded) == {("energy.update",): 22, ("user.prompt",): 3}
    assert counts(meters.accepted) == {(): 30}
    assert counts(meters.dropped) == {("energy.update",): 7}
    assert counts(meters.turned_away) == {(): 3}
    assert counts(meters.refused) == {("user.prompt",): 1}
    assert (counts(meters.failures), counts(meters.openings)) == ({(): 6}, {(): 1})
    assert [(sum(each.counts), each.total) for _, each in meters.write_time.samples()] == [(1, 0.0025)]
    assert meters.waiting == 0


def test_what_it_had_counted_before_this_start_is_left_out() -> None:
    meters = WriterMeters()
    meters.on_recorded("s", said(900, accepted=1_000, dropped={"energy.update": 50}), {})
    meters.on_recorded("s", said(915, accepted=1_016, dropped={"energy.update": 51}), {})
    assert (counts(meters.accepted), counts(meters.dropped)) == ({(): 16}, {("energy.update",): 1})


def test_figures_that_fall_count_nothing() -> None:
    meters = WriterMeters()
    meters.on_recorded("s", said(0, accepted=20), {})
    meters.on_recorded("s", said(15, accepted=3), {})
    assert counts(meters.accepted) == {(): 20}


def test_writers_are_told_apart_and_those_of_a_session_that_ended_wait_for_nothing() -> None:
    meters = WriterMeters()
    meters.on_recorded("s", said(0, b"writer-1", accepted=1, waiting=1), {})
    meters.on_recorded("s", said(0, b"writer-2", accepted=2, waiting=2), {})
    meters.on_recorded("t", said(0, b"writer-1", accepted=4, waiting=4), {})
    assert (counts(meters.accepted), meters.waiting) == ({(): 7}, 7)
    meters.on_ended("s")
    assert meters.waiting == 4


def test_of_too_many_the_one_that_was_silent_the_longest_is_forgotten() -> None:
    meters = WriterMeters()
    for number in range(WRITERS_MAX):
        meters.on_recorded("s", said(0, number.to_bytes(8, "big"), waiting=1), {})
    meters.on_recorded("s", said(1, bytes(8), waiting=1), {})  # the first is heard again
    meters.on_recorded("t", said(0, waiting=1), {})
    assert meters.waiting == WRITERS_MAX
    meters.on_recorded("s", said(15, (1).to_bytes(8, "big"), accepted=100), {})
    assert counts(meters.accepted) == {}, "the second begins anew, from where it is"


def test_what_is_dropped_first_of_a_kind_is_an_increase() -> None:
    meters = WriterMeters()
    assert dict(meters.dropped.samples()) == dict(meters.refused.samples()) == {(kind,): 0 for kind in KNOWN}
    meters.on_recorded("s", said(0), {"own.kind": 1})
    assert dict(meters.dropped.samples())["own.kind",] == 0
