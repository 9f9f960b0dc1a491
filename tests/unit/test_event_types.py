"""The one table of event types: whole, as the journal's form has it, as the documents show it; and what is not in."""

from __future__ import annotations

import pytest

from offgrid.client.events import etype_of
from offgrid.event_types import ETYPE_MAX, SEMANTIC, EventType, type_name
from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2, state_pb2
from offgrid_tools.sim.monitor.event_types import must_carry_what_its_type_says
from offgrid_tools.sim.monitor.evidence import Violation

CASES = {field.name for field in state_pb2.Event.DESCRIPTOR.oneofs_by_name["data"].fields}


def test_none_of_the_promised_numbers_is_left_out() -> None:
    numbers = [etype.value for etype in EventType]
    assert numbers == [*range(1, max(numbers) + 1)]
    assert (SEMANTIC[0], SEMANTIC[-1]) == (10, 30)


@pytest.mark.parametrize(
    ("number", "name"),
    [(10, "MISSION_CREATED"), (11, "MISSION_UPDATED"), (12, "TASK_CREATED"), (14, "JOB_CREATED")],
)
def test_what_was_promised_by_number_has_it(number: int, name: str) -> None:
    assert EventType(number).name == name


@pytest.mark.parametrize("etype", EventType)
def test_each_has_a_meaning_and_data_that_events_have(etype: EventType) -> None:
    assert etype.meaning
    assert set(etype.data) <= CASES


def test_all_that_events_have_is_of_some_type() -> None:
    assert {case for etype in EventType for case in etype.data} == CASES


def test_a_type_is_named_by_what_its_event_says_and_one_of_a_newer_node_by_its_number() -> None:
    assert type_name(14) == "JOB_CREATED"
    assert type_name(14, "AS_IT_WAS_CALLED") == "AS_IT_WAS_CALLED"
    assert type_name(99, "FROM_LATER") == "99"


@pytest.mark.parametrize(("said", "number"), [("JOB_CREATED", 14), ("job-created", 14), (14, 14), ("99", 99), (99, 99)])
def test_it_is_asked_for_by_name_or_number(said: str | int, number: int) -> None:
    assert etype_of(said) == number


@pytest.mark.parametrize("said", ["", "0", 0, -1, "JOB", "9.0", "²", ETYPE_MAX + 1, "9" * 40])
def test_what_is_neither_is_refused(said: str | int) -> None:
    with pytest.raises(ValueError, match="is no event type"):
        etype_of(said)


def event(etype: int, **data: object) -> state_pb2.Event:
    names = {each.value: each.name for each in EventType}
    return state_pb2.Event(etype=etype, type=names.get(etype, ""), **data)  # type: ignore[arg-type]


class TestWhatTheSimulatorHolds:
    @pytest.mark.parametrize(
        "said",
        [
            event(EventType.JOB_CREATED, job=jobs_pb2.Job()),
            event(EventType.JOB_AWARDED, attempt=jobs_pb2.AttemptEvent()),
            event(EventType.HOST_CHANGED),
            event(EventType.TX_CREATED, object=objects_pb2.ObjectEvent()),  # of an application's own
        ],
    )
    def test_what_a_type_carries_is_right(self, said: state_pb2.Event) -> None:
        must_carry_what_its_type_says(said)

    @pytest.mark.parametrize(
        ("said", "why"),
        [
            (event(99), "nobody is told of"),
            (state_pb2.Event(etype=14, type="JOB_QUEUED", job=jobs_pb2.Job()), "nobody is told of"),
            (event(EventType.JOB_CREATED), "JOB_CREATED carries nothing; it may carry job"),
            (event(EventType.JOB_CREATED, alert=mesh_pb2.Alert()), "carries alert"),
            (event(EventType.HOST_CHANGED, job=jobs_pb2.Job()), "it may carry nothing"),
            (event(EventType.NODE_STARTED, object=objects_pb2.ObjectEvent()), "carries object"),
        ],
    )
    def test_all_else_is_a_violation(self, said: state_pb2.Event, why: str) -> None:
        with pytest.raises(Violation, match=why):
            must_carry_what_its_type_says(said)
