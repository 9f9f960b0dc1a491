"""What a job's story says, in every state that a job can be found in."""

from __future__ import annotations

from job_bench import MARKET, OTHER, WORKER, CoreBench, award
from test_core import report_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs.story import story_of


def story(bench: CoreBench, job_id: str) -> str:
    return story_of(bench.row(job_id), bench.core.jobs, bench.now)


def created(bench: CoreBench, **terms: object) -> str:
    made = bench.create(**terms)
    assert isinstance(made, jobs_pb2.CreateJobResponse)
    return made.job.job_id


def test_of_one_that_nobody_has_sent() -> None:
    bench = CoreBench()
    assert story(bench, created(bench)) == "It has not been dispatched."


def test_of_one_that_waits_for_others() -> None:
    bench = CoreBench()
    first = bench.submitted()
    waiting = created(bench, after=(first,))
    assert story(bench, waiting) == f"It waits until these have completed: {first}. It has not been dispatched."
    many = created(bench, after=tuple(bench.submitted() for _ in range(7)))
    bench.dispatch(many, jobs_pb2.DISPATCH_MODE_OFFGRID)
    assert story(bench, many).endswith(" and 2 more.")


def test_of_one_whose_input_is_put_together() -> None:
    bench = CoreBench()
    first = bench.awarded()
    last = created(bench, after=(first,), input_job=first)
    bench.dispatch(last, jobs_pb2.DISPATCH_MODE_OFFGRID)
    bench.report(report_of(bench.job(first)))
    assert story(bench, last) == f"Its input is being put together from the output of job {first}."


def test_of_one_that_is_queued() -> None:
    bench = CoreBench()
    job_id = bench.submitted()
    assert story(bench, job_id) == f"Attempt 1 has been sent to broker {MARKET.node_id}."
    bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED))
    assert story(bench, job_id) == f"Its order waits at broker {MARKET.node_id} for a free slot."
    bench.restart()
    assert "This core has restarted, and asks broker" in story(bench, job_id)
    bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_NO_HOST, detail="nobody"))
    assert story(bench, job_id) == "No host was found for it (nobody); try 1 of 3 follows in 2.0 s."


def test_of_one_in_this_nodes_own_queue() -> None:
    bench = CoreBench()
    job_id = created(bench)
    bench.dispatch(job_id, jobs_pb2.DISPATCH_MODE_DISABLED)
    assert "It waits in this node's own queue: the mesh is switched off" in story(bench, job_id)


def test_of_one_that_is_under_way_and_of_what_went_before() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    assert f"Host {WORKER.node_id} won attempt 1, at 0.000005" in story(bench, job_id)
    bench.answers_start(job_id, refusal="busy")
    assert "1 hosts would not take it; attempt 2 follows in 0.2 s. How attempts went: 1 at" in story(bench, job_id)
    bench.wait(200)
    bench.clears(award(job_id, OTHER.node_id, attempt=2))
    bench.wait(1_000)
    told = story(bench, job_id)
    assert told.startswith(f"Host {OTHER.node_id} won attempt 2")
    assert "refused: busy" in told


def test_of_one_that_has_ended() -> None:
    bench = CoreBench()
    done, dropped = bench.awarded(), bench.submitted()
    bench.report(report_of(bench.job(done)))
    assert story(bench, done) == f"It has completed at {WORKER.node_id}, in attempt 1, 0.000 s after it was made."
    bench.cancel(dropped, reason="enough")
    assert story(bench, dropped) == "It has ended as cancelled: Cancelled: enough."


def test_of_one_that_lost_its_hosts_names_the_last_few() -> None:
    bench = CoreBench()
    job_id = bench.submitted()
    for number in range(1, 6):
        bench.clears(award(job_id, attempt=number))
        bench.down(WORKER)
        bench.seen(HOST, WORKER)
    told = story(bench, job_id)
    assert told.count("HostDied") == 3
    assert "5 at" in told


def test_a_call_that_failed_is_no_part_of_it() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    bench.answers_start(job_id, fault=Unavailable("connection refused"))
    assert "won attempt 1" in story(bench, job_id)
