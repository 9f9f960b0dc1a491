"""Missions and tasks: what jobs belong to. Only active missions are kept in memory; ended ones are rows."""

from __future__ import annotations

from collections import OrderedDict

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import fresh_id
from offgrid_node.protocol.jobs.commands import CreateMission, CreateTask, UpdateMission
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.rng import Rng

MISSIONS, TASKS, REQUESTS = "missions", "tasks", "requests"
ACTIVE, COMPLETED = "active", "completed"
REQUESTS_REMEMBERED = 10_000  # those not committed yet are among them; older ones are found in the rows


class Requests:
    """Which request id made what, so that a repeated call finds the first one's fruit."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._recent: OrderedDict[str, str] = OrderedDict()

    def made(self, request_id: str) -> str | None:
        return self._recent.get(request_id) if request_id else None

    def remember(self, request_id: str, made_id: str) -> None:
        if not request_id:
            return
        self._recent[request_id] = made_id
        if len(self._recent) > REQUESTS_REMEMBERED:
            self._recent.popitem(last=False)
        self._post.put_bytes(REQUESTS, request_id.encode(), made_id.encode())


class Catalogue:
    """Creates and changes missions, creates tasks."""

    def __init__(self, post: Post, requests: Requests) -> None:
        self._post, self._requests = post, requests
        self._active: dict[str, jobs_pb2.Mission] = {}
        self._tasks: OrderedDict[str, jobs_pb2.Task] = OrderedDict()

    def load(self, rows: Rows) -> None:
        for _, value in rows.scan(MISSIONS):
            mission = jobs_pb2.Mission.FromString(value)
            if mission.status == ACTIVE:
                self._active[mission.mission_id] = mission

    def on_create_mission(self, ticket: int, command: CreateMission, now: Now, rng: Rng) -> None:
        known = self._active.get(self._requests.made(command.request_id) or "")
        if known is None:
            known = jobs_pb2.Mission(
                mission_id=fresh_id("m", rng),
                title=command.title,
                description=command.description,
                status=ACTIVE,
                created_us=now.utc_us,
                updated_us=now.utc_us,
            )
            self._active[known.mission_id] = known
            self._requests.remember(command.request_id, known.mission_id)
            self._post.put(MISSIONS, known.mission_id.encode(), known)
            self._post.record(EventType.MISSION_CREATED, known.mission_id, mission=known)
        self._post.reply(ticket, jobs_pb2.CreateMissionResponse(mission=known))

    def on_update_mission(self, ticket: int, command: UpdateMission, now: Now) -> None:
        mission = self._active.get(command.mission_id)
        if mission is None:
            fault = FailedPrecondition(
                f"mission {command.mission_id} is completed and cannot be changed", reason="MissionCompleted"
            )
            self._post.reply(ticket, fault)
            return
        if command.title is not None:
            mission.title = command.title
        if command.description is not None:
            mission.description = command.description
        if command.status is not None:
            mission.status = command.status
        mission.updated_us = now.utc_us
        if mission.status != ACTIVE:
            del self._active[mission.mission_id]
        self._post.put(MISSIONS, mission.mission_id.encode(), mission)
        self._post.record(EventType.MISSION_UPDATED, mission.mission_id, mission=mission)
        self._post.reply(ticket, jobs_pb2.UpdateMissionResponse(mission=mission))

    def on_create_task(self, ticket: int, command: CreateTask, now: Now, rng: Rng) -> None:
        known = self._tasks.get(self._requests.made(command.request_id) or "")
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
            self._requests.remember(command.request_id, known.task_id)
            self._post.put(TASKS, known.task_id.encode(), known)
            self._post.record(EventType.TASK_CREATED, known.task_id, task=known)
        self._post.reply(ticket, jobs_pb2.CreateTaskResponse(task=known))


def clash(request_id: str, wanted: type[Message], made_id: str) -> AlreadyExists:
    """The request id was used for something else."""
    return AlreadyExists(
        f"request_id {request_id!r} made {made_id}, which is no {wanted.DESCRIPTOR.name}", reason="RequestIdReused"
    )
