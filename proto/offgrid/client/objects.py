"""objects: sealed, coded and placed data."""

from __future__ import annotations

from offgrid.client.calls import Calls
from offgrid.v1 import objects_pb2


class Objects:
    """ObjectService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def capacity(self) -> objects_pb2.GetCapacityResponse:
        """What this node's disk can hold."""
        return self._calls.unary(
            "ObjectService/GetCapacity", objects_pb2.GetCapacityRequest(), objects_pb2.GetCapacityResponse
        )
