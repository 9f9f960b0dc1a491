"""The payload of a job whose input is another job's output: put together when that one has completed, at the core.

A small output is in the rows and becomes part of the payload; a large one is an object, and the payload refers to it.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Fill, Filled
from offgrid_node.protocol.errors import Fault, NotFound
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.services.flow import Flow, run
from offgrid_node.services.jobs.ends import with_result
from offgrid_node.services.jobs.inputs import InputPlacing
from offgrid_node.services.shelf import Shelf


class Filling:
    """Carries out Fill."""

    def __init__(self, shelf: Shelf, inputs: InputPlacing, deliver: Callable[[Filled], None]) -> None:
        self._shelf, self._inputs, self._deliver = shelf, inputs, deliver

    def fill(self, work: Fill) -> None:
        """`deliver` is called once."""

        def done(outcome: Filled | Fault) -> None:
            if isinstance(outcome, Fault):
                outcome = Filled(work.job_id, b"", 0, outcome.message)
            self._deliver(outcome)

        run(self._fill(work), done)

    def _fill(self, work: Fill) -> Flow[Filled]:
        source = self._shelf.find(JOBS, jobs_pb2.Job, work.source)
        if source is None:
            raise NotFound("its row is gone", reason="JobNotFound")
        result, payload = with_result(source, self._shelf).result, jobs_pb2.JobPayload.FromString(work.payload)
        if result.output_object:
            payload.input_object_id = result.output_object
        else:
            payload.input = result.output
        yield from self._inputs.place(payload, "", "", b"")
        size = self._inputs.refer(payload)
        return Filled(work.job_id, payload.SerializeToString(deterministic=True), size)
