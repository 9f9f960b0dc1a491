"""Which way a job goes, through a broker or by this node's own queue, and why."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.offering import unmet
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.settings import JobsSettings

ROUTE_REASONS = {
    "disabled": "the mesh is switched off for this job (mode disabled)",
    "no broker": "no broker of the mesh is alive",
    "broker": "a broker is alive",
    "wait": "no broker of the mesh is alive, and this node cannot run it itself; it waits for one",
}

Way = tuple[jobs_pb2.Route.ValueType, str]  # and why


class Routes:
    """Decides by what is alive now."""

    def __init__(self, settings: JobsSettings, peers: Peers) -> None:
        self._settings, self._peers = settings, peers

    def check(self, mode: jobs_pb2.DispatchMode.ValueType) -> None:
        """Raises Unavailable (BrokerUnavailable) where the mode allows no way that is open now."""
        if (mode or self._settings.mode) == jobs_pb2.DISPATCH_MODE_OFFGRID and not self._peers.with_role(BROKER):
            why = f"{ROUTE_REASONS['no broker']}; mode offgrid uses nothing else"
            raise Unavailable(why, reason="BrokerUnavailable", retry_ms=2_000)

    def way(self, mode: jobs_pb2.DispatchMode.ValueType, needs: str, requirements: str) -> Way:
        """What this node could not run itself is worth waiting for a broker, and so is what may go no other way."""
        if mode == jobs_pb2.DISPATCH_MODE_DISABLED:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["disabled"]
        if self._peers.with_role(BROKER):
            return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["broker"]
        here = needs in self._settings.executors and not unmet(requirements, self._settings, self._peers)
        if (here or self._settings.drop) and mode != jobs_pb2.DISPATCH_MODE_OFFGRID:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["no broker"]
        return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["wait"]
