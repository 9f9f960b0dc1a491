"""Who owns a host: switches it off, or drains it, and on again some time later."""

from __future__ import annotations

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.duty import DRAIN, OFF, ON
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

TIMES_MAX = 3
UP_MAX_US, DOWN_US = 8 * SECOND, (100 * MS, 8 * SECOND)


class HostOwner(Person):
    """At one host; content once it is on for good."""

    wants = "a host that is on"

    def __init__(self, engine: Engine, monitor: Monitor, host: Process) -> None:
        super().__init__(engine, monitor, host)
        self._left = engine.rng.randint(1, TIMES_MAX)

    @property
    def content(self) -> bool:
        return self._left == 0

    def start(self) -> None:
        self._engine.after(int(self._engine.rng.random() * UP_MAX_US), self._switch_off)

    def _switch_off(self) -> None:
        self._say(self._engine.rng.choice((OFF, DRAIN)))

    def _say(self, state: str) -> None:
        self._monitor.duty.on_toggling(self.node, state)
        request = jobs_pb2.ToggleHostRequest(state=state)
        self._call("HostService/ToggleHost", request, lambda reply: self._said(state, reply))

    def _said(self, state: str, reply: Message) -> None:
        self._monitor.duty.on_toggled(self.node, state)
        if state != ON:
            self._engine.after(self._engine.rng.randint(*DOWN_US), lambda: self._say(ON))
            return
        self._left -= 1
        if self._left:
            self.start()
