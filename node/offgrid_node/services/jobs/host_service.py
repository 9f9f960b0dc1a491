"""Handlers of HostService: what a host's owner says to it, and how a drain goes on.

A drain is over when no work is left and nothing is kept here any more: owners bring what they have here to other hosts,
and have it dropped once those have acked it.
"""

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
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.objects.commands import DropKept, HostDrains
from offgrid_node.protocol.objects.inventory import count_of, sum_key
from offgrid_node.protocol.objects.tables import GONE, INVENTORY_SUMS, KEPT, KEPT_BYTES, number_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.stream import Stream

AWAY_TOLD = 3  # owners that are named


class HostHandlers:
    """One method per RPC of HostService."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def toggle_host(self, caller: Caller, request: jobs_pb2.ToggleHostRequest) -> Ticket:
        ticket = self._runtime.ask("jobs", str(caller), commands.ToggleHost(request.state))
        if request.state == DRAIN:
            self._runtime.deliver("objects", HostDrains())
        return ticket.map(self._toggled)

    def _toggled(self, answer: Message) -> Message:
        assert isinstance(answer, jobs_pb2.ToggleHostResponse)
        self._add_kept(answer.host)
        return answer

    def get_host(self, caller: Caller, request: jobs_pb2.GetHostRequest) -> Message:
        """From memory, ahead of the disk by the batch in commit, as all that only looks on."""
        return jobs_pb2.GetHostResponse(host=self._describe())

    def watch_drain(self, caller: Caller, request: jobs_pb2.WatchDrainRequest) -> Stream:
        """The host now and when work of it ends or something is moved; ends once it is drained, or drains no more. That
        segments of a journal go, no event says: the rows do."""
        if self._host.duty.asked != DRAIN:
            text = f"this host is {self._host.duty.asked!r}, not draining; toggle it to {DRAIN!r} first"
            raise FailedPrecondition(text, reason="NotDraining")
        stream, shown = Stream(), jobs_pb2.HostState()

        def push(events: Sequence[Record] = ()) -> None:
            state = self._describe()
            if state == shown:
                return
            shown.CopyFrom(state)
            stream.push(jobs_pb2.WatchDrainResponse(host=state))
            if state.state != "draining":
                stream.end()

        stream.when_closed(self._runtime.watch(push))
        for key, _ in self._runtime.store.scan(INVENTORY_SUMS, prefix=sum_key(KEPT, "")):
            stream.when_closed(self._runtime.watch_row(INVENTORY_SUMS, key, push))
        push()
        return stream

    def drop_kept(self, caller: Caller, request: jobs_pb2.DropKeptRequest) -> Ticket:
        directory = mesh_of(self._runtime).directory
        owner = directory.resolve(request.owner, removed=True)
        if directory.is_member(owner):
            text = (
                f"{owner} is a member of the mesh: only it has what is kept for it dropped; a drain moves it elsewhere"
            )
            raise FailedPrecondition(text, reason="StillMember", metadata={"node": owner})
        return self._runtime.ask("objects", str(caller), DropKept(owner))

    def _describe(self) -> jobs_pb2.HostState:
        state = self._host.describe(self._runtime.clock.now())
        self._add_kept(state)
        return state

    def _add_kept(self, state: jobs_pb2.HostState) -> None:
        """What is kept here, which is committed; and what that means for a drain."""
        state.kept.extend(self._kept())
        left = [kept for kept in state.kept if not kept.removed]
        if state.state == "drained" and left:
            state.state = "draining"
            state.detail = "holds no work, and waits until owners have brought elsewhere what they keep here"
        if state.state == "draining" and left:
            away = [kept.owner for kept in left if not kept.alive]
            objects, size_bytes = sum(kept.objects for kept in left), sum(kept.bytes for kept in left)
            state.detail += f"; objects left: {objects}, {size_bytes} bytes"
            if away:
                more = f" and {len(away) - AWAY_TOLD} more" if len(away) > AWAY_TOLD else ""
                state.detail += f"; owners that are away: {', '.join(away[:AWAY_TOLD])}{more}"

    def _kept(self) -> list[jobs_pb2.KeptFor]:
        store, mesh, prefix = self._runtime.store, mesh_of(self._runtime), sum_key(KEPT, "")
        found = list[jobs_pb2.KeptFor]()
        for key, summary in store.scan(INVENTORY_SUMS, prefix=prefix):
            if objects := count_of(summary):
                owner = key[len(prefix) :]
                found.append(
                    jobs_pb2.KeptFor(
                        owner=owner.decode(),
                        objects=objects,
                        bytes=number_of(store.get(KEPT_BYTES, owner) or b""),
                        alive=mesh.liveness(owner.decode()) == ALIVE,
                        removed=not mesh.directory.is_member(owner.decode()),
                        gone_us=number_of(store.get(GONE, owner) or b""),
                    )
                )
        return found

    @property
    def _host(self) -> Host:
        return self._runtime.machine("jobs", JobsMachine).host
