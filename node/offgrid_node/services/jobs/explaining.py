"""ExplainJob: the job's own story, and what its broker says of each host, asked for now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX, ID_CHARS_MAX
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.story import story_of
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Flow
from offgrid_node.services.shelf import Shelf

EXPLAIN_ORDER = "offgrid.v1.MarketService/ExplainOrder"
ASK_TIMEOUT_MS = 3_000  # a person waits for it
VERDICTS_MAX = 1_024

Ended = Callable[[Message | Fault], None]


class Calls(Protocol):
    """`services.client`."""

    def request(self, node: str, method: str, request: Message, timeout_ms: int, done: Ended) -> None: ...


class Explaining:
    """Nothing of it changes anything."""

    def __init__(self, runtime: Runtime, shelf: Shelf, calls: Calls) -> None:
        self._runtime, self._shelf, self._calls = runtime, shelf, calls

    def explain(self, job_id: str) -> Flow[Message]:
        """Raises NotFound for a job that is none. A broker that does not answer is named in the story."""
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, job_id)
        core, now = self._runtime.machine("jobs", JobsMachine).core, self._runtime.clock.now()
        ended = job.state in ENDED
        job.ClearField("kept_payload")
        answer = jobs_pb2.ExplainJobResponse(job=job, story=story_of(job, core.jobs, now))
        answer.broker = core.broker_to_ask(job)
        if not answer.broker:
            answer.story += " No broker of the mesh is alive."
            return answer
        order = core.jobs.order(job)._replace(attempt=max(1, job.attempt), size_tokens=max(1, job.size_tokens))
        request = jobs_pb2.ExplainOrderRequest(order=order.encode())

        def ask(done: Ended) -> None:
            self._calls.request(answer.broker, EXPLAIN_ORDER, request, ASK_TIMEOUT_MS, done)

        try:
            said = yield ask
        except Fault as fault:
            answer.story += f" Broker {answer.broker} does not say more: {fault.message}"
            return answer
        assert isinstance(said, jobs_pb2.ExplainOrderResponse)
        if ended and said.verdicts:
            answer.story += " What is said of hosts is of now: who would get such a job if it were sent again."
        for verdict in said.verdicts[:VERDICTS_MAX]:
            verdict.host, verdict.reason = verdict.host[:ID_CHARS_MAX], verdict.reason[:DETAIL_CHARS_MAX]
            answer.verdicts.append(verdict)
        return answer
