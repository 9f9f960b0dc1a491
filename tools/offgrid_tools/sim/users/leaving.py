"""Who owns a host and wants it back: drains it, waits until it is empty, and takes the machine away."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

COME_US, POLL_US = (3 * SECOND, 15 * SECOND), SECOND


class LeavingOwner(Person):
    """At one host."""

    wants = "a host that is drained"

    def __init__(self, engine: Engine, monitor: Monitor, host: Process) -> None:
        super().__init__(engine, monitor, host)
        self._left = False

    @property
    def content(self) -> bool:
        return self._left

    def start(self) -> None:
        self._engine.after(self._engine.rng.randint(*COME_US), self._drain)

    def _drain(self) -> None:
        request = jobs_pb2.ToggleHostRequest(state=DRAIN)
        self._call("HostService/ToggleHost", request, lambda _: self._look())

    def _look(self) -> None:
        self._call("HostService/GetHost", jobs_pb2.GetHostRequest(), self._on_host)

    def _on_host(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.GetHostResponse)
        if reply.host.state != "drained":
            self._engine.after(POLL_US, self._look)
            return
        self._monitor.handovers.on_drained(self.node)
        self._monitor.met.counts["hosts drained"] += 1
        self._left = True
        # Not within the answer: its node is still at work with the rest of that step.
        self._engine.after(0, partial(self._process.die, refuses=True))
