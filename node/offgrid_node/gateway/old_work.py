"""The prototype's paths for missions, tasks and jobs, over the same handlers as /v1 (docs/http.md)."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message
from starlette.requests import Request

from offgrid.v1 import jobs_pb2
from offgrid_node.gateway.calling import M, call
from offgrid_node.gateway.gateway_urls import GatewayUrls
from offgrid_node.gateway.job_end import job_within
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.offered_models import offered_models
from offgrid_node.gateway.old_bodies import WAIT_S_MAX, Bodies, Query
from offgrid_node.gateway.old_payloads import number_in, spec_of, text_in
from offgrid_node.gateway.old_shapes import Document, job_document, mission_document, task_document, without_output
from offgrid_node.protocol.errors import InvalidRequest

WAIT_S = 1.0  # for a job's end, so that the answer to its dispatch has the result of a short one
LIMIT, LIMIT_MAX = 100, 1_000
MODES = {
    "auto": jobs_pb2.DISPATCH_MODE_AUTO,
    "offgrid": jobs_pb2.DISPATCH_MODE_OFFGRID,
    "disabled": jobs_pb2.DISPATCH_MODE_DISABLED,
}


class OldWork:
    """One method per path."""

    def __init__(self, view: NodeView, bodies: Bodies, urls: GatewayUrls) -> None:
        self._view, self._bodies, self._urls = view, bodies, urls

    # ---- missions and tasks

    async def create_mission(self, request: Request) -> Document:
        said = await self._bodies.read(request)
        message = jobs_pb2.CreateMissionRequest(
            title=text_in(said, "title", "name"),
            description=text_in(said, "description"),
            request_id=text_in(said, "request_id"),
        )
        return mission_document((await self._ask("CreateMission", message, jobs_pb2.CreateMissionResponse)).mission)

    async def get_mission(self, request: Request) -> Document:
        message = jobs_pb2.GetMissionRequest(mission_id=_id(request))
        return mission_document((await self._ask("GetMission", message, jobs_pb2.GetMissionResponse)).mission)

    async def list_missions(self, request: Request) -> Document:
        query = Query(request)
        message = jobs_pb2.ListMissionsRequest(page_size=query.limit(LIMIT, LIMIT_MAX), page_token=query.page_token)
        found = await self._ask("ListMissions", message, jobs_pb2.ListMissionsResponse)
        return page_document("missions", map(mission_document, found.missions), found.next_page_token)

    async def update_mission(self, request: Request) -> Document:
        said = await self._bodies.read(request)
        message = jobs_pb2.UpdateMissionRequest(mission_id=_id(request))
        for name in ("title", "description", "status"):
            if name in said:
                setattr(message, name, text_in(said, name))
        return mission_document((await self._ask("UpdateMission", message, jobs_pb2.UpdateMissionResponse)).mission)

    async def create_task(self, request: Request) -> Document:
        said = await self._bodies.read(request)
        message = jobs_pb2.CreateTaskRequest(
            mission_id=_id(request),
            name=text_in(said, "name", "title"),
            kind=text_in(said, "kind", "type") or "compute",
            request_id=text_in(said, "request_id"),
        )
        return task_document((await self._ask("CreateTask", message, jobs_pb2.CreateTaskResponse)).task)

    async def get_task(self, request: Request) -> Document:
        message = jobs_pb2.GetTaskRequest(task_id=_id(request))
        return task_document((await self._ask("GetTask", message, jobs_pb2.GetTaskResponse)).task)

    async def list_tasks(self, request: Request) -> Document:
        query, mission_id = Query(request), _id(request)
        await self.get_mission(request)  # of a mission that is none there are not no tasks
        message = jobs_pb2.ListTasksRequest(
            mission_id=mission_id, page_size=query.limit(LIMIT, LIMIT_MAX), page_token=query.page_token
        )
        found = await self._ask("ListTasks", message, jobs_pb2.ListTasksResponse)
        return page_document("tasks", map(task_document, found.tasks), found.next_page_token)

    # ---- jobs

    async def create_job(self, request: Request) -> Document:
        said = await self._bodies.read(request)
        found = await self._ask("GetTask", jobs_pb2.GetTaskRequest(task_id=_id(request)), jobs_pb2.GetTaskResponse)
        message = jobs_pb2.CreateJobRequest(
            task_id=found.task.task_id,
            job=spec_of(found.task.kind, said, offered_models(self._view)),
            request_id=text_in(said, "request_id"),
        )
        made = await self._ask("CreateJob", message, jobs_pb2.CreateJobResponse)
        return await self._job(made.job)

    async def get_job(self, request: Request) -> Document:
        message = jobs_pb2.GetJobRequest(job_id=_id(request))
        return await self._job((await self._ask("GetJob", message, jobs_pb2.GetJobResponse)).job)

    async def list_jobs(self, request: Request) -> Document:
        """The newest first; without their outputs, which each job has itself."""
        query, task_id = Query(request), request.path_params.get("id", "")
        if task_id:
            await self.get_task(request)
        message = jobs_pb2.ListJobsRequest(
            task_id=task_id,
            states=query.states(),
            page_size=query.limit(LIMIT, LIMIT_MAX),
            page_token=query.page_token,
            newest_first=True,
        )
        found = await self._ask("ListJobs", message, jobs_pb2.ListJobsResponse)
        await self._urls.learn(job.host for job in found.jobs)
        jobs = (without_output(job_document(job, self._urls.url_of)) for job in found.jobs)
        return page_document("jobs", jobs, found.next_page_token)

    async def dispatch_job(self, request: Request) -> Document:
        """Which way it went, and why; the result too, if the job has ended within `wait` seconds."""
        said = await self._bodies.read(request)
        mode = text_in(said, "mode").lower()
        if mode and mode not in MODES:
            raise InvalidRequest.field("mode", f"{mode[:64]!r}; allowed: {', '.join(MODES)}")
        wait_s = number_in(said, "wait", high=WAIT_S_MAX) if "wait" in said else Query(request).wait_s(WAIT_S)
        message = jobs_pb2.DispatchJobRequest(
            job_id=_id(request), mode=MODES.get(mode, jobs_pb2.DISPATCH_MODE_UNSPECIFIED)
        )
        sent = await self._ask("DispatchJob", message, jobs_pb2.DispatchJobResponse)
        job = await job_within(self._view.router, sent.job.job_id, wait_s)
        document = await self._job(job)
        return document if job.waiting or not sent.reason else document | {"reason": sent.reason}

    # ---- inside

    async def _ask(self, method: str, message: Message, answer: type[M]) -> M:
        return await call(self._view.router, f"offgrid.v1.JobService/{method}", message, answer)

    async def _job(self, job: jobs_pb2.Job) -> Document:
        await self._urls.learn([job.host])
        return job_document(job, self._urls.url_of)


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def page_document(name: str, documents: Iterable[Document], token: str) -> Document:
    """A list; the token of the next page, null at its end."""
    return {name: list(documents), "next_page_token": token or None}
