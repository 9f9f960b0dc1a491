"""The road that `bench jobs` measures: three real nodes, 64 jobs in flight, each awaited; without its peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid.client.courier import JobFuture
from offgrid.v1 import jobs_pb2
from offgrid_tools.bench.jobs_ours import OurMesh, finish

pytestmark = pytest.mark.e2e


def test_every_job_comes_back_durable_with_its_output_and_a_receipt(tmp_path: Path) -> None:
    with OurMesh(tmp_path / "mesh") as ours:
        assert ours.pids.keys() == {"core", "broker", "host"}
        assert ours.run(300, 64) > 0
        assert ours.run_one() > 0


@pytest.mark.parametrize("lacking", ["state", "output", "receipt"])
def test_a_job_that_lacks_anything_is_not_counted(lacking: str) -> None:
    result = jobs_pb2.JobResult(output=b"7", receipt=jobs_pb2.Receipt(body=b"signed"))
    job = jobs_pb2.Job(state=jobs_pb2.JOB_STATE_COMPLETED, result=result)
    match lacking:
        case "state":
            job.state = jobs_pb2.JOB_STATE_FAILED
        case "output":
            job.result.output = b"8"
        case _:
            job.result.ClearField("receipt")
    future: JobFuture = JobFuture()
    future.set_result(job)
    with pytest.raises(RuntimeError, match="did not end as it should"):
        finish(b"7", future)
