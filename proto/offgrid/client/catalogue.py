"""jobs: missions and the tasks in them."""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.paging import pages
from offgrid.v1 import jobs_pb2


class Missions:
    """The missions of JobService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, title: str, description: str = "", *, request_id: str = "") -> jobs_pb2.Mission:
        """A new mission; the same `request_id` twice makes one."""
        request = jobs_pb2.CreateMissionRequest(
            title=title, description=description, request_id=request_id or fresh_request_id()
        )
        return self._calls.unary("JobService/CreateMission", request, jobs_pb2.CreateMissionResponse).mission

    def show(self, mission_id: str) -> jobs_pb2.Mission:
        request = jobs_pb2.GetMissionRequest(mission_id=mission_id)
        return self._calls.unary("JobService/GetMission", request, jobs_pb2.GetMissionResponse).mission

    def list(self, *, limit: int | None = None) -> Iterator[jobs_pb2.Mission]:
        """Every mission, page by page as it is read."""

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.Mission], str]:
            request = jobs_pb2.ListMissionsRequest(page_size=size, page_token=token)
            page = self._calls.unary("JobService/ListMissions", request, jobs_pb2.ListMissionsResponse)
            return [*page.missions], page.next_page_token

        return pages(fetch, limit)

    def update(
        self,
        mission_id: str,
        *,
        title: str | None = None,
        description: str | None = None,
        status: str | None = None,
    ) -> jobs_pb2.Mission:
        """Changes what is given; `status` is "active" or "completed"."""
        request = jobs_pb2.UpdateMissionRequest(
            mission_id=mission_id, title=title, description=description, status=status
        )
        return self._calls.unary("JobService/UpdateMission", request, jobs_pb2.UpdateMissionResponse).mission


class Tasks:
    """The tasks of JobService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(self, mission_id: str, name: str, kind: str = "compute", *, request_id: str = "") -> jobs_pb2.Task:
        """A new task of a mission; its jobs inherit `kind`."""
        request = jobs_pb2.CreateTaskRequest(
            mission_id=mission_id, name=name, kind=kind, request_id=request_id or fresh_request_id()
        )
        return self._calls.unary("JobService/CreateTask", request, jobs_pb2.CreateTaskResponse).task

    def show(self, task_id: str) -> jobs_pb2.Task:
        request = jobs_pb2.GetTaskRequest(task_id=task_id)
        return self._calls.unary("JobService/GetTask", request, jobs_pb2.GetTaskResponse).task

    def counts(self, task_id: str) -> dict[str, int]:
        """How many of the task's jobs are in each state: {"completed": 12, "running": 3}."""
        request = jobs_pb2.GetTaskRequest(task_id=task_id)
        answer = self._calls.unary("JobService/GetTask", request, jobs_pb2.GetTaskResponse)
        return {
            jobs_pb2.JobState.Name(count.state).removeprefix("JOB_STATE_").lower(): count.jobs
            for count in answer.counts
            if count.jobs
        }

    def list(self, *, mission_id: str = "", limit: int | None = None) -> Iterator[jobs_pb2.Task]:
        """Every task, or those of one mission."""

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.Task], str]:
            request = jobs_pb2.ListTasksRequest(page_size=size, page_token=token, mission_id=mission_id)
            page = self._calls.unary("JobService/ListTasks", request, jobs_pb2.ListTasksResponse)
            return [*page.tasks], page.next_page_token

        return pages(fetch, limit)
