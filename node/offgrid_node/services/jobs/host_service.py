"""Handlers of HostService: what a host's owner says to it, and how a drain goes on."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.stream import Stream


class HostHandlers:
    """One method per RPC of HostService."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def toggle_host(self, caller: Caller, request: jobs_pb2.ToggleHostRequest) -> Ticket:
        return self._runtime.ask("jobs", str(caller), commands.ToggleHost(request.state))

    def get_host(self, caller: Caller, request: jobs_pb2.GetHostRequest) -> Message:
        """From memory, ahead of the disk by the batch in commit, as all that only looks on."""
        return jobs_pb2.GetHostResponse(host=self._host.describe(self._runtime.clock.now()))

    def watch_drain(self, caller: Caller, request: jobs_pb2.WatchDrainRequest) -> Stream:
        """The host now and when work of it ends; ends once it is drained, or drains no more."""
        if self._host.duty.asked != DRAIN:
            text = f"this host is {self._host.duty.asked!r}, not draining; toggle it to {DRAIN!r} first"
            raise FailedPrecondition(text, reason="NotDraining")
        stream, shown = Stream(), jobs_pb2.HostState()

        def push(events: Sequence[Record] = ()) -> None:
            state = self._host.describe(self._runtime.clock.now())
            if state == shown:
                return
            shown.CopyFrom(state)
            stream.push(jobs_pb2.WatchDrainResponse(host=state))
            if state.state != "draining":
                stream.end()

        stream.when_closed(self._runtime.watch(push))
        push()
        return stream

    @property
    def _host(self) -> Host:
        return self._runtime.machine("jobs", JobsMachine).host
