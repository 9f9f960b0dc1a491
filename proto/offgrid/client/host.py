"""jobs: what a host's owner says of his own node."""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.following import follow
from offgrid.v1 import jobs_pb2

DRAINED = "drained"


class Host:
    """HostService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def show(self) -> jobs_pb2.HostState:
        """What the host is and has, what it offers, and what it is at."""
        return self._calls.unary("HostService/GetHost", jobs_pb2.GetHostRequest(), jobs_pb2.GetHostResponse).host

    def toggle(self, state: str) -> jobs_pb2.HostState:
        """ "on" takes work, "off" takes no more while what runs goes on, "drain" is "off" until the host is idle, all
        that it owes is settled, and what it keeps for others is acked elsewhere. It outlives restarts."""
        request = jobs_pb2.ToggleHostRequest(state=state)
        return self._calls.unary("HostService/ToggleHost", request, jobs_pb2.ToggleHostResponse).host

    def drop_kept(self, owner: str) -> Iterator[jobs_pb2.DropKeptResponse]:
        """Drops what this host keeps for an owner that was removed from the mesh (its id, the first characters of it,
        or the name that it had), and says how far it is, until nothing is left. Safe to repeat.

        Raises OffgridError: StillMember, OwnerMayReturn within 30 days of the removal, ClockLeapt while its clock may
        not be believed, RowsDamaged where what is left cannot be dropped."""
        while True:
            request = jobs_pb2.DropKeptRequest(owner=owner)
            answer = self._calls.unary("HostService/DropKept", request, jobs_pb2.DropKeptResponse)
            yield answer
            if not (answer.left or answer.more):
                return
            if answer.left and not answer.dropped:
                text = f"{answer.left} objects cannot be dropped: rows of this host's store are damaged"
                raise OffgridError("DATA_LOSS", "RowsDamaged", text)

    def watch_drain(self, *, within_s: float | None = None) -> Iterator[jobs_pb2.HostState]:
        """A draining host now and at each change; ends once it is drained, or after `within_s` seconds."""

        def states(for_s: float | None) -> Iterator[jobs_pb2.HostState]:
            request, answer = jobs_pb2.WatchDrainRequest(), jobs_pb2.WatchDrainResponse
            answers = self._calls.stream("HostService/WatchDrain", request, answer, timeout_s=for_s)
            return (each.host for each in answers)

        return follow(states, lambda host: host.state == DRAINED, self._calls.silence("the drain"), within_s)
