"""What GetCapacity answers: to this node's own admin its disk and store, to an owner what it may still bring here."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.flow import Flow
from offgrid_node.services.objects.replicas import Replicas
from offgrid_node.storage.blobs import BlobStore
from offgrid_node.storage.store import Store

LIFE_BYTES = 16


class Capacity:
    """The figures of now."""

    def __init__(
        self,
        runtime: Runtime,
        replicas: Replicas,
        blobs: BlobStore,
        bulk: Bulk,
        drains: Callable[[], bool],
        data_dir: Path,
        inline_limit_bytes: int,
        rng: Rng,
    ) -> None:
        """`drains`: whether this host is being emptied; `inline_limit_bytes` is the largest payload that travels inside
        a job."""
        self._runtime, self._replicas, self._blobs, self._bulk = runtime, replicas, blobs, bulk
        self._drains, self._data_dir, self._inline_limit_bytes = drains, data_dir, inline_limit_bytes
        self._life = rng.randbytes(LIFE_BYTES)

    def answer(self, caller: Caller) -> Flow[Message]:
        """Raises Unavailable (reason DiskError)."""
        free_bytes = yield self._bulk.run(self._blobs.free_bytes)
        own = caller.kind is Kind.ADMIN
        made = objects_pb2.GetCapacityResponse(
            inline_limit_bytes=self._inline_limit_bytes,
            owner_free_bytes=free_bytes if own else self._replicas.admission.room_for(caller.node_id, free_bytes),
            keeps_replicas=self._replicas.enabled,
            drained=self._drains(),
            life=self._life,
        )
        if own:
            made.MergeFrom(disk_and_store(self._runtime.store, self._data_dir))
        return made


def disk_and_store(store: Store, data_dir: Path) -> objects_pb2.GetCapacityResponse:
    """Of the file system that holds the data folder. Raises Unavailable (reason DiskError)."""
    try:
        disk = shutil.disk_usage(data_dir)
    except OSError as error:
        raise Unavailable(f"{data_dir}: {error.strerror}", reason="DiskError") from error
    return objects_pb2.GetCapacityResponse(
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        store_bytes=store.size_bytes(),
        store_limit_bytes=store.limit_bytes(),
    )
