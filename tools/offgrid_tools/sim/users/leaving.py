"""Who owns a host and wants it back: drains it, waits until it is empty, and comes to take the machine away, which is
on until then; or leaves it there where it is not empty by the time at which one that has died is taken for lost, and
waits for what nobody can prove."""

from __future__ import annotations

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

COME_US, POLL_US = (3 * SECOND, 15 * SECOND), SECOND
FETCH_US = (0, 60 * SECOND)
PATIENCE_US = REPAIR_AFTER_MS * MS


class LeavingOwner(Person):
    """At one host."""

    wants = "a host that is drained"

    def __init__(self, engine: Engine, monitor: Monitor, host: Process) -> None:
        super().__init__(engine, monitor, host)
        self._left, self._until_us = False, 0

    @property
    def content(self) -> bool:
        late = 0 < self._until_us <= self._engine.now_us
        return self._left or (late and self._monitor.handovers.waits_for_proof(self.node))

    def start(self) -> None:
        self._engine.after(self._engine.rng.randint(*COME_US), self._drain)

    def _drain(self) -> None:
        self._until_us = self._engine.now_us + PATIENCE_US
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
        self._until_us = 0
        # Not within the answer: its node is still at work with the rest of that step.
        self._engine.after(self._engine.rng.randint(*FETCH_US), self._fetch)

    def _fetch(self) -> None:
        self._left = True
        self._process.die(refuses=True)
