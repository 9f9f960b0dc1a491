"""Missions and tasks: what jobs belong to. They are rows; memory has the latest alone, which may not be committed."""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, FailedPrecondition
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import fresh_id
from offgrid_node.protocol.jobs.commands import CreateMission, CreateTask, UpdateMission
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.requests import REQUESTS_REMEMBERED, Requests
from offgrid_node.protocol.rng import Rng

MISSIONS, TASKS = "missions", "tasks"
MISSION_TASKS = "mission_tasks"  # "<mission id>/<task id>", empty: the tasks of a mission without a look at all others
ACTIVE, COMPLETED = "active", "completed"
KINDS = ("compute", "llm_call")
MISSIONS_RECENT_MAX = 2_048  # as many inputs as two batches have, the one in commit and the one that gathers


class Catalogue:
    """Creates and changes missions, creates tasks."""

    def __init__(self, post: Post, requests: Requests) -> None:
        self._post, self._requests = post, requests
        self._missions: OrderedDict[str, jobs_pb2.Mission] = OrderedDict()
        self._tasks: OrderedDict[str, jobs_pb2.Task] = OrderedDict()

    def load(self, rows: Rows) -> None:
        self._requests.load(rows)

    def on_create_mission(self, ticket: int, command: CreateMission, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            known = self._mission(made)
        except (AlreadyExists, Corrupt) as fault:
            self._post.reply(ticket, fault)
            return
        if known is None:
            known = jobs_pb2.Mission(
                mission_id=fresh_id("m", rng),
                title=command.title,
                description=command.description,
                status=ACTIVE,
                created_us=now.utc_us,
                updated_us=now.utc_us,
            )
            self._requests.remember(command.request_id, command.digest, known.mission_id)
            self._keep(known)
            self._post.record(EventType.MISSION_CREATED, known.mission_id, mission=known)
        self._post.reply(ticket, jobs_pb2.CreateMissionResponse(mission=known))

    def on_update_mission(self, ticket: int, command: UpdateMission, now: Now) -> None:
        try:
            mission = self._changeable(command.mission_id)
        except (Corrupt, FailedPrecondition) as fault:
            self._post.reply(ticket, fault)
            return
        if command.title is not None:
            mission.title = command.title
        if command.description is not None:
            mission.description = command.description
        if command.status is not None:
            mission.status = command.status
        mission.updated_us = now.utc_us
        self._keep(mission)
        self._post.record(EventType.MISSION_UPDATED, mission.mission_id, mission=mission)
        self._post.reply(ticket, jobs_pb2.UpdateMissionResponse(mission=mission))

    def on_create_task(self, ticket: int, command: CreateTask, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            known = self._tasks.get(made) or self._requests.row(TASKS, jobs_pb2.Task, made)
        except (AlreadyExists, Corrupt) as fault:
            self._post.reply(ticket, fault)
            return
        if known is None:
            known = jobs_pb2.Task(
                task_id=fresh_id("t", rng),
                mission_id=command.mission_id,
                name=command.name,
                kind=command.kind,
                created_us=now.utc_us,
            )
            if command.request_id:
                self._tasks[known.task_id] = known
                if len(self._tasks) > REQUESTS_REMEMBERED:
                    self._tasks.popitem(last=False)
            self._requests.remember(command.request_id, command.digest, known.task_id)
            self._post.put(TASKS, known.task_id.encode(), known)
            self._post.put_bytes(MISSION_TASKS, f"{known.mission_id}/{known.task_id}".encode(), b"")
            self._post.record(EventType.TASK_CREATED, known.task_id, task=known)
        self._post.reply(ticket, jobs_pb2.CreateTaskResponse(task=known))

    # ---- inside

    def _mission(self, mission_id: str) -> jobs_pb2.Mission | None:
        """Raises Corrupt."""
        return self._missions.get(mission_id) or self._requests.row(MISSIONS, jobs_pb2.Mission, mission_id)

    def _changeable(self, mission_id: str) -> jobs_pb2.Mission:
        mission = self._mission(mission_id)
        if mission is None or mission.status != ACTIVE:
            raise FailedPrecondition(
                f"mission {mission_id} is completed and cannot be changed", reason="MissionCompleted"
            )
        return mission

    def _keep(self, mission: jobs_pb2.Mission) -> None:
        self._missions[mission.mission_id] = mission
        self._missions.move_to_end(mission.mission_id)
        if len(self._missions) > MISSIONS_RECENT_MAX:
            self._missions.popitem(last=False)
        self._post.put(MISSIONS, mission.mission_id.encode(), mission)
