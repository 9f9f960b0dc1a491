"""`client.jobs.output` and `write_output`: a job's output, wherever it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from offgrid.client.jobs import Jobs
from offgrid.v1 import jobs_pb2

SMALL = jobs_pb2.Job(result=jobs_pb2.JobResult(output=b"small"))
LARGE = jobs_pb2.Job(result=jobs_pb2.JobResult(output_object="o-large", output_bytes=5))


class HoldsOne:
    """Objects, of which there is one."""

    def read(self, wanted: str) -> bytes:
        assert wanted == "o-large"
        return b"large"

    def fetch(self, wanted: str, target: str | BinaryIO) -> int:
        if isinstance(target, str):
            return Path(target).write_bytes(self.read(wanted))
        return target.write(self.read(wanted))


def jobs() -> Jobs:
    nothing: Any = None
    holds: Any = HoldsOne()
    return Jobs(nothing, nothing, nothing, holds, nothing)


@pytest.mark.parametrize(("job", "output"), [(SMALL, b"small"), (LARGE, b"large"), (jobs_pb2.Job(), b"")])
def test_an_output_is_read_from_where_it_is(job: jobs_pb2.Job, output: bytes, tmp_path: Path) -> None:
    assert jobs().output(job) == output
    stream = io.BytesIO()
    assert jobs().write_output(job, stream) == len(output)
    assert stream.getvalue() == output
    assert jobs().write_output(job, str(tmp_path / "out")) == len(output)
    assert (tmp_path / "out").read_bytes() == output
