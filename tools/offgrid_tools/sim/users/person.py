"""A person at one node, as all users are: whoever gets no answer calls again with the same request, as the client
library does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process

RETRY_US = 400 * MS
HANG_UP_US = 3 * SECOND
HUNG_UP = Fault("no answer")


class Person:
    """Asks the node at hand, over its own socket; `wants` says what."""

    wants: str

    def __init__(self, engine: Engine, monitor: Monitor, process: Process) -> None:
        self._engine, self._monitor, self._process = engine, monitor, process

    @property
    def node(self) -> str:
        return self._process.node_id

    @property
    def content(self) -> bool:
        """Whether everything this person wanted has been done and seen."""
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def _call(
        self,
        method: str,
        request: Message,
        done: Callable[[Message], None],
        refused: Callable[[Fault], bool] = lambda fault: False,
    ) -> None:
        """Until it is answered; the run's own end bounds it. `refused` says of a fault whether it ends the matter."""
        answered = False

        def ended(outcome: Message | Fault) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            if not isinstance(outcome, Fault):
                done(outcome)
            elif not refused(outcome):
                self._engine.after(RETRY_US, lambda: self._call(method, request, done, refused))

        self._process.admin(f"offgrid.v1.{method}", request, ended)
        # A daemon that dies takes the answer with it; its client sees the socket close, here by this time.
        self._engine.after(HANG_UP_US, lambda: ended(HUNG_UP))


class JobOwner(Person):
    """A person with a mission and a task for the jobs to come; `_begin` follows once there is one."""

    def __init__(
        self, engine: Engine, monitor: Monitor, core: Process, name: str, sizes_tokens: Sequence[int] = (0,)
    ) -> None:
        """`sizes_tokens` are those that jobs may have; 0: what is made of their inputs."""
        super().__init__(engine, monitor, core)
        self._name, self._task = name, ""
        self._sizes_tokens, self._dice = sizes_tokens, Random(f"size {name}")  # noqa: S311 - to be repeatable

    def start(self) -> None:
        request = jobs_pb2.CreateMissionRequest(title="m", request_id=f"{self._name}-m")
        self._call("JobService/CreateMission", request, self._on_mission)

    def _on_mission(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateMissionResponse)
        request = jobs_pb2.CreateTaskRequest(
            mission_id=reply.mission.mission_id, name="t", kind="compute", request_id=f"{self._name}-t"
        )
        self._call("JobService/CreateTask", request, self._on_task)

    def _on_task(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateTaskResponse)
        self._task = reply.task.task_id
        self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    def _size_tokens(self) -> int:
        """Of the next job."""
        return self._dice.choice(self._sizes_tokens)

    def _payload(self, work: bytes, program_chance: float) -> jobs_pb2.JobPayload:
        """New work, of which the monitor knows what must come: a module, or a program with that chance."""
        payload = jobs_pb2.JobPayload(input=work)
        if self._engine.rng.random() < program_chance:
            payload.process.command = "tool"
        else:
            payload.wasm.module = b"(module)"
        self._monitor.jobs.expect(payload)
        return payload
