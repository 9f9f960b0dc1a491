"""The object services put together, as the daemon and the simulator both have them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

from google.protobuf.message import DecodeError

from offgrid.v1 import objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import Corrupt, PeerFault
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_node.protocol.jobs.held import HELD
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.result_blobs import RESULT_BLOBS
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, replica_prefix
from offgrid_node.protocol.pace import FREE, Pace, Paces
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Later
from offgrid_node.services.jobs.results import PULL_PREFIX
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.objects.fetching import STAGED_PREFIX
from offgrid_node.services.objects.handlers import ObjectHandlers
from offgrid_node.services.objects.holders import Carrier, Trust
from offgrid_node.services.objects.inventories import Inventories, replicas_lost
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.services.objects.sealing import UPLOAD_PREFIX
from offgrid_node.services.objects.sides import Ground, HostSide, ObjectParts, OwnerSide
from offgrid_node.storage.blobs import BlobStore, sweep
from offgrid_node.storage.row_blobs import RowBlobs
from offgrid_node.storage.store import Store

ID_CHARS = 12

_log = logging.getLogger(__name__)


class ObjectRoom:
    """`handlers` for the router; `shipping`, `repairing` and `fetching` for the runtime's outlet; `sealer`, `uploads`
    and `reading` for the jobs' inputs and results; `scrub` for whoever has a clock that ticks by itself."""

    def __init__(
        self,
        parts: ObjectParts,
        runtime: Runtime,
        carrier: Carrier,
        signer: Signer,
        verify: Verifier,
        rng: Rng,
        directory: Callable[[], Directory],
        later: Later,
        data_dir: Path,
        inline_limit_bytes: int,
        paces: Paces,
    ) -> None:
        """Sweeps what an earlier life left half done, and finds what is gone that should be here. Raises what the disk
        raises."""
        files, self_id = parts.blobs, signer.node_id
        _clear_up(runtime, files)
        self.salt = cache(lambda: directory().salt)  # it never changes, and is needed while machines are loaded anew
        self.keeping = Keeping(files, parts.bulk, lambda name: is_known(runtime.store, name))
        self.repair_pace = RepairPace(lambda: runtime.clock.now().mono_ms, later, parts.repair_bytes_per_s)
        ground = Ground(
            parts,
            runtime,
            carrier,
            signer,
            verify,
            rng,
            directory,
            later,
            called=lambda node: called(directory(), node),
            salt=self.salt,
            trust=trust_of(runtime, self_id, directory, paces),
            kept=RowBlobs(files, runtime.store, self_id, parts.small_bytes),
            keeping=self.keeping,
            pace=self.repair_pace,
        )
        owner = OwnerSide(ground)
        host = HostSide(ground, owner.source, lambda: drains(runtime), data_dir, inline_limit_bytes)
        self.inventories = Inventories(runtime, carrier, rng, parts.bulk)
        self.handlers = _handlers(runtime, parts.bulk, owner, host, self.inventories)
        self.sealer, self.uploads, self.reading, self.segments = (
            owner.sealer,
            owner.uploads,
            owner.reading,
            owner.segments,
        )
        self.shipping, self.repairing, self.fetching = owner.shipping, owner.repairing, owner.fetching
        self.auditing, self.rewrapping, self.resealing = owner.auditing, owner.rewrapping, owner.resealing
        self.regaining = owner.regaining
        self.checking, self.scrub, self.sweeping = host.checking, host.scrub, host.sweeping


def _handlers(
    runtime: Runtime, bulk: Bulk, owner: OwnerSide, host: HostSide, inventories: Inventories
) -> ObjectHandlers:
    return ObjectHandlers(
        runtime,
        owner.uploads,
        owner.reading,
        host.replicas,
        host.serving,
        owner.sharing,
        bulk,
        host.capacity,
        inventories,
        owner.placing,
        owner.auditing,
        host.proving,
        owner.rewrapping,
        host.combining,
        host.pulling,
        owner.puts,
        owner.watching,
        host.small,
        owner.segments,
        host.scrub_now,
        owner.resealing,
    )


def _clear_up(runtime: Runtime, files: BlobStore) -> None:
    """After an earlier life."""
    swept = sweep(
        files,
        lambda name: is_known(runtime.store, name),
        lambda staged: staged.startswith((UPLOAD_PREFIX, PULL_PREFIX, STAGED_PREFIX)),
    )
    if swept:
        _log.info("what an earlier life of this node left half done is deleted", extra=fields("swept_own", blobs=swept))
    for lost in replicas_lost(runtime.store, files):
        runtime.deliver("objects", lost)


def trust_of(runtime: Runtime, self_id: str, directory: Callable[[], Directory], paces: Paces) -> Trust:
    """Answers come, and are judged, while machines are loaded anew as well: then nobody is known to be alive."""

    def is_alive(node: str) -> bool:
        return bool(runtime.machines) and mesh_of(runtime).liveness(node) == ALIVE

    def pace(node: str) -> Pace:
        return paces(node) if runtime.machines else FREE

    return Trust(runtime, self_id, is_alive, lambda node: name_of(directory(), node), pace)


def drains(runtime: Runtime) -> bool:
    """Whether this host's owner empties it."""
    return runtime.machine("jobs", JobsMachine).host.duty.asked == DRAIN


def called(directory: Directory, node_id: str) -> str:
    """What people call a member; "" where they call it nothing."""
    record = directory.member(node_id)
    return record.name if record is not None else ""


def name_of(directory: Directory, node_id: str) -> str:
    """For sentences: its name, with as much of its id as tells two of that name apart."""
    record = directory.member(node_id)
    return f"{record.name} ({node_id[:ID_CHARS]})" if record is not None and record.name else node_id


def is_known(store: Store, name: str) -> bool:
    """Whether a row says that this blob is here: an object of this node's own, a replica for another, a result that its
    core has not taken over, or one that waits for its job to accept it. A row that cannot be read may say so.

    The one rule: nothing is swept or dropped by any other."""
    try:
        value = store.get(OBJECTS, name.encode())
        if value is not None and objects_pb2.ObjectRow.FromString(value).object.local:
            return True
        if any(store.get(table, name.encode()) is not None for table in (RESULT_BLOBS, HELD)):
            return True
        rows = store.scan(REPLICAS, prefix=replica_prefix(name.partition(".")[0]))
        return any(_is_file_of(store, name, objects_pb2.ReplicaRow.FromString(value)) for _, value in rows)
    except (Corrupt, PeerFault, DecodeError):
        return True


def _is_file_of(store: Store, name: str, row: objects_pb2.ReplicaRow) -> bool:
    """Of two owners of the same bytes one may have them here as a row: that wants no file."""
    return name in _names_of(row) and store.get(SMALL, small_key(name, Epoch.decode(row.epoch.body).owner)) is None


def _names_of(row: objects_pb2.ReplicaRow) -> list[str]:
    manifest = Manifest.decode(row.manifest.signed.body)
    return [blob_name(manifest, shard) for shard in shards_of(row)]
