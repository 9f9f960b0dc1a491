"""A job's event is put together from its row's bytes, and reads as if it had been built."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from job_bench import MARKET, PAYLOAD, TASK, CoreBench, new_job

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.commands import RunJobs
from offgrid_node.protocol.jobs.job_events import JobEvents, with_payload
from offgrid_node.protocol.jobs.table import QUEUED

OFFGRID = jobs_pb2.DISPATCH_MODE_OFFGRID
JOBS = st.builds(
    jobs_pb2.Job,
    job_id=st.text(min_size=1, max_size=200),
    attempt=st.integers(0, 2**32 - 1),
    error_detail=st.text(max_size=300),
    result=st.builds(jobs_pb2.JobResult, output=st.binary(max_size=20_000)),
)


@given(JOBS, st.sampled_from(EventType), st.integers(0, 2**62))
def test_an_event_is_what_it_would_have_been_built_as(job: jobs_pb2.Job, etype: EventType, at_us: int) -> None:
    record = JobEvents().of(etype, job.job_id, job, job.SerializeToString(), Now(0, at_us))
    built = state_pb2.Event(etype=etype, type=etype.name, timestamp_us=at_us, subject=job.job_id, job=job)
    assert (record.event, record.encoded) == (built, built.SerializeToString())
    assert (record.etype, record.subject, record.job) == (etype, job.job_id, job)


def test_an_event_stays_what_it_was_when_its_job_goes_on_and_has_its_number_once_that_is_known() -> None:
    job = jobs_pb2.Job(job_id="j-1", attempt=1)
    record = JobEvents().of(EventType.JOB_AWARDED, "j-1", job, job.SerializeToString(), Now(0, 1))
    job.attempt = 2
    assert (record.event.job.attempt, record.event.seq) == (1, 0)
    record.seq = 7
    assert record.event.seq == 7
    assert state_pb2.Event.FromString(record.encoded).seq == 0


def test_each_event_has_the_type_and_time_of_its_own_step() -> None:
    events, row = JobEvents(), b""
    for etype, at_us in ((EventType.JOB_CREATED, 1), (EventType.JOB_FAILED, 1), (EventType.JOB_CREATED, 2)):
        event = events.of(etype, "j-1", jobs_pb2.Job(), row, Now(0, at_us)).event
        assert (event.etype, event.type, event.timestamp_us) == (etype, etype.name, at_us)


@given(st.binary(max_size=20_000))
def test_a_payload_is_a_field_of_its_row(payload: bytes) -> None:
    row = jobs_pb2.Job(job_id="j-1", route_reason="because").SerializeToString()
    expected = jobs_pb2.Job(job_id="j-1", route_reason="because", kept_payload=payload)
    assert jobs_pb2.Job.FromString(with_payload(row, payload)) == expected


def test_a_small_payload_is_in_the_row_of_its_open_job_and_in_no_event() -> None:
    bench = CoreBench()
    row = bench.row(bench.submitted())
    assert row.kept_payload == PAYLOAD.SerializeToString()
    assert not any(job.kept_payload for job in bench.job_events())


def test_a_job_that_sets_out_as_it_is_made_is_told_of_once() -> None:
    bench = CoreBench()
    bench.intake.on_run(1, RunJobs(TASK, (new_job(),), OFFGRID, "", bytes(16)), bench.now, bench.rng)
    bench.settle()
    [event] = [effect.event for effect in bench.effects if isinstance(effect, Record)]
    job = event.job
    assert event.etype == EventType.JOB_CREATED
    assert (job.state, job.attempt, job.route, job.mode) == (QUEUED, 1, jobs_pb2.ROUTE_OFFGRID, OFFGRID)
    assert job.broker == MARKET.node_id
