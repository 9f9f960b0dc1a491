"""QuorumService: the weights that membership gives, and how much of them is alive."""

from __future__ import annotations

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.runtime import Runtime
from offgrid_node.services.caller import Caller
from offgrid_node.services.mesh import mesh_of


class QuorumHandlers:
    """Handlers of offgrid.v1.QuorumService."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def list_weights(self, caller: Caller, request: quorum_pb2.ListWeightsRequest) -> quorum_pb2.ListWeightsResponse:
        mesh = mesh_of(self._runtime)
        weights = [
            quorum_pb2.NodeWeight(
                node_id=node_id,
                name=record.name,
                weight_milli=record.weight_milli,
                failure_domain=record.failure_domain,
                alive=mesh.liveness(node_id) == ALIVE,
            )
            for node_id in mesh.directory.live()
            if (record := mesh.directory.member(node_id))
        ]
        return quorum_pb2.ListWeightsResponse(
            weights=weights,
            total_milli=sum(weight.weight_milli for weight in weights),
            alive_milli=sum(weight.weight_milli for weight in weights if weight.alive),
        )
