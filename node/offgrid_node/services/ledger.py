"""LedgerService: the mesh's genesis, from which everybody can check everything else."""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.mesh.views import genesis_message
from offgrid_node.runtime import Runtime
from offgrid_node.services.caller import Caller
from offgrid_node.services.mesh import mesh_of


class LedgerHandlers:
    """Handlers of offgrid.v1.LedgerService."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def get_genesis(self, caller: Caller, request: ledger_pb2.GetGenesisRequest) -> ledger_pb2.GetGenesisResponse:
        return genesis_message(mesh_of(self._runtime).directory)
