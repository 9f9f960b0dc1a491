"""ledger: accounts and their witnesses."""

from __future__ import annotations

from offgrid.client.calls import Calls
from offgrid.v1 import ledger_pb2


class Ledger:
    """LedgerService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def genesis(self) -> ledger_pb2.GetGenesisResponse:
        """The mesh's genesis, its root key and the witnesses it names."""
        return self._calls.unary(
            "LedgerService/GetGenesis", ledger_pb2.GetGenesisRequest(), ledger_pb2.GetGenesisResponse
        )
