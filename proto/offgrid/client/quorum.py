"""quorum: weights."""

from __future__ import annotations

from offgrid.client.calls import Calls
from offgrid.v1 import quorum_pb2


class Quorum:
    """QuorumService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def weights(self) -> quorum_pb2.ListWeightsResponse:
        """The weights that membership gives, and how much of it is alive."""
        return self._calls.unary(
            "QuorumService/ListWeights", quorum_pb2.ListWeightsRequest(), quorum_pb2.ListWeightsResponse
        )
