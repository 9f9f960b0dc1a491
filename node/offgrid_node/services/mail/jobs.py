"""TakeJob: a job that another member has this core run, on the core's account, and whose end is the answer.

Only for whom mail.jobs_from names. It becomes a job of this core's own, in a task of that member's; nothing of this
core's may be named in it.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, mail_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, PermissionDenied
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import ADMIN, Caller
from offgrid_node.services.checks import REQUEST_ID_CHARS_MAX, check_request_id
from offgrid_node.services.flow import Flow, Step, asked, ticket_of
from offgrid_node.services.jobs.handlers import JobHandlers
from offgrid_node.services.shelf import Shelf

ANYBODY = "*"


class MailedJobs:
    """Jobs for others, by a core."""

    def __init__(
        self, runtime: Runtime, jobs: JobHandlers, directory: Callable[[], Directory], senders: tuple[str, ...]
    ) -> None:
        """`senders` are names or ids of members, or "*"."""
        self._runtime, self._jobs, self._directory = runtime, jobs, directory
        self._shelf, self._senders = Shelf(runtime.store), frozenset(senders)

    def take(self, caller: Caller, request: mail_pb2.TakeJobRequest) -> Ticket:
        """Raises PermissionDenied (NoJobsFromThere), InvalidRequest."""
        self._check_sender(caller.node_id)
        check_mailed("", request)
        if not check_request_id(request.request_id):
            raise InvalidRequest.field("request_id", "must not be empty: by it one job is made")
        room = REQUEST_ID_CHARS_MAX - len(_own_request_id(caller.node_id, ""))
        if len(request.request_id) > room:
            raise InvalidRequest.field("request_id", f"{len(request.request_id)} characters; {room} are allowed here")
        return ticket_of(self._take(caller.node_id, request))

    def _check_sender(self, node_id: str) -> None:
        record = self._directory().member(node_id)
        if not self._senders & {ANYBODY, node_id, record.name if record is not None else node_id}:
            text = "this core takes no jobs of yours by mail; mail.jobs_from in its offgrid.toml names whose it takes"
            raise PermissionDenied(text, reason="NoJobsFromThere")

    def _take(self, source: str, request: mail_pb2.TakeJobRequest) -> Flow[Message]:
        jobs, kind = self._jobs, "llm_call" if request.job.payload.HasField("llm") else "compute"
        mission = yield asked(
            jobs.create_mission(
                ADMIN,
                jobs_pb2.CreateMissionRequest(
                    title=f"Mail of {source}", description="Jobs that it has sent.", request_id=f"mail.{source}"
                ),
            )
        )
        assert isinstance(mission, jobs_pb2.CreateMissionResponse)
        task = yield asked(
            jobs.create_task(
                ADMIN,
                jobs_pb2.CreateTaskRequest(
                    mission_id=mission.mission.mission_id, name=kind, kind=kind, request_id=f"mail.{source}:{kind}"
                ),
            )
        )
        assert isinstance(task, jobs_pb2.CreateTaskResponse)
        request_id = _own_request_id(source, request.request_id)
        run = jobs_pb2.RunJobsRequest(
            task_id=task.task.task_id, jobs=[request.job], mode=request.mode, request_id=request_id
        )
        made = yield asked(jobs.run_jobs(ADMIN, run))
        assert isinstance(made, jobs_pb2.RunJobsResponse)
        (job_id,) = made.job_ids
        yield self._ended(job_id)
        found = jobs.get_job(ADMIN, jobs_pb2.GetJobRequest(job_id=job_id))
        assert isinstance(found, jobs_pb2.GetJobResponse)
        found.job.ClearField("attempts")  # output and log, 64 KiB each at most, fit into a parcel
        return mail_pb2.TakeJobResponse(job=found.job)

    def _ended(self, job_id: str) -> Step[None]:
        def start(done: Callable[[Fault | None], None]) -> None:
            def look() -> None:
                job = self._shelf.find(JOBS, jobs_pb2.Job, job_id)
                if job is not None and job.state in ENDED:
                    stop()
                    done(None)

            stop = self._runtime.watch_row(JOBS, job_id.encode(), look)
            look()

        return start


def _own_request_id(source: str, request_id: str) -> str:
    """By which this core's jobs are made: apart from its owner's ids, and from other members'."""
    return f"mail.{source}.{request_id}"


def check_mailed(field: str, request: mail_pb2.TakeJobRequest) -> None:
    """Raises InvalidRequest for a job that names what is another node's."""
    spec, payload = request.job, request.job.payload
    named = {
        "after": bool(spec.after),
        "payload.input_object_id": bool(payload.input_object_id),
        "payload.input_object": payload.HasField("input_object"),
        "payload.input_job": bool(payload.input_job),
        "payload.files": bool(payload.files),
    }
    for name, is_set in named.items():
        if is_set:
            text = "a job that is sent by mail brings all that it needs itself; leave it out"
            raise InvalidRequest.field(f"{field}job.{name}", text)
