"""Handlers of ObjectService: what this node's disk can hold."""

from __future__ import annotations

import shutil
from pathlib import Path

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.runtime import Runtime
from offgrid_node.services.caller import Caller


class ObjectHandlers:
    """Reads the disk and the store; changes nothing."""

    def __init__(self, runtime: Runtime, data_dir: Path, inline_limit_bytes: int) -> None:
        """`inline_limit_bytes` is the largest payload that travels inside a job."""
        self._runtime = runtime
        self._data_dir = data_dir
        self._inline_limit_bytes = inline_limit_bytes

    def get_capacity(self, caller: Caller, request: objects_pb2.GetCapacityRequest) -> objects_pb2.GetCapacityResponse:
        """The figures of now, of the file system that holds the data folder."""
        try:
            disk = shutil.disk_usage(self._data_dir)
        except OSError as error:
            raise Unavailable(f"{self._data_dir}: {error.strerror}", reason="DiskError") from error
        store = self._runtime.store
        return objects_pb2.GetCapacityResponse(
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            store_bytes=store.size_bytes(),
            store_limit_bytes=store.limit_bytes(),
            inline_limit_bytes=self._inline_limit_bytes,
        )
