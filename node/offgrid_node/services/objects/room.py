"""The object services put together, as the daemon and the simulator both have them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from google.protobuf.message import DecodeError

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import Corrupt, PeerFault
from offgrid_node.protocol.jobs.duty import DRAIN
from offgrid_node.protocol.jobs.held import HELD
from offgrid_node.protocol.jobs.host import RESULT_BLOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.manifest import STRIPE_BYTES, Manifest
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, replica_prefix
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Later
from offgrid_node.services.jobs.results import PULL_PREFIX
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.objects.capacity import Capacity
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy
from offgrid_node.services.objects.fetching import STAGED_PREFIX, Fetching
from offgrid_node.services.objects.handlers import ObjectHandlers
from offgrid_node.services.objects.holders import Carrier, Trust
from offgrid_node.services.objects.inventories import Inventories, replicas_lost
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.placing import Placing
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.replicas import OWNER_SHARE_PERCENT, PIECE_BYTES_MAX, Replicas
from offgrid_node.services.objects.scrub import Pace, Scrub
from offgrid_node.services.objects.sealing import UPLOAD_PREFIX, Sealer, Wraps
from offgrid_node.services.objects.serving import Serving
from offgrid_node.services.objects.sharing import Sharing
from offgrid_node.services.objects.shipping import Shipping
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.storage.blobs import BlobStore, sweep
from offgrid_node.storage.store import Store

ID_CHARS = 12

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ObjectParts:
    """What objects need besides a node's other parts. `keeps_replicas`: whether anything new is kept for others, and of
    the room for that one owner may take `owner_share_percent`."""

    blobs: BlobStore
    bulk: Bulk
    wraps: Wraps
    keeps_replicas: bool = True
    owner_share_percent: int = OWNER_SHARE_PERCENT
    stripe_bytes: int = STRIPE_BYTES
    piece_bytes: int = PIECE_BYTES_MAX  # of a replica that comes in
    coder: Coder = field(default_factory=Fallback)
    coding: CodePolicy = NEVER_CODED
    scrub: Pace = field(default_factory=Pace)


class ObjectRoom:
    """`handlers` for the router, `shipping` and `fetching` for the runtime's outlet; `sealer`, `uploads` and `reading`
    for the jobs' inputs and results; `scrub` for whoever has a clock that ticks by itself."""

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
    ) -> None:
        """Sweeps what an earlier life left half done, and finds what is gone that should be here. Raises what the disk
        raises."""
        blobs, bulk, self_id = parts.blobs, parts.bulk, signer.node_id
        swept = sweep(
            blobs,
            lambda name: is_known(runtime.store, name),
            lambda staged: staged.startswith((UPLOAD_PREFIX, PULL_PREFIX, STAGED_PREFIX)),
        )
        if swept:
            _log.info("deleted %d blobs that an earlier life of this node left half done", swept)
        for lost in replicas_lost(runtime.store, blobs):
            runtime.deliver("objects", lost)
        self.salt = cache(lambda: directory().salt)  # it never changes, and is needed while machines are loaded anew
        self.sealer = Sealer(blobs, parts.wraps, signer, rng, runtime.clock, self.salt, parts.stripe_bytes, parts.coder)
        trust = Trust(
            runtime,
            self_id,
            lambda node: mesh_of(runtime).liveness(node) == ALIVE,
            lambda node: name_of(directory(), node),
        )
        self.reading = Reading(trust, carrier, later, parts.wraps, blobs, bulk, parts.coder, self.salt)
        self.keeping = Keeping(blobs, bulk, lambda name: is_known(runtime.store, name))
        source = ShardSource(blobs, parts.coder)
        self.shipping = Shipping(runtime, carrier, directory, verify, source, bulk, self.keeping)
        self.uploads = Uploads(runtime, self.sealer, bulk, self.keeping, parts.coding)
        self.inventories = Inventories(runtime, carrier, rng, bulk)
        replicas = Replicas(
            runtime,
            self_id,
            directory,
            verify,
            blobs,
            bulk,
            self.keeping,
            enabled=parts.keeps_replicas,
            owner_share_percent=parts.owner_share_percent,
            piece_bytes=parts.piece_bytes,
        )
        self.scrub = Scrub(runtime, self.salt, blobs, bulk, later, rng, parts.scrub)
        serving = Serving(runtime, directory, blobs, source, bulk)
        capacity = Capacity(runtime, replicas, blobs, bulk, lambda: drains(runtime), data_dir, inline_limit_bytes, rng)
        placing = Placing(runtime, self_id, parts.coding, lambda node: called(directory(), node))
        sharing = Sharing(runtime, self_id, directory, verify, parts.wraps, rng, bulk)
        self.handlers = ObjectHandlers(
            runtime, self.uploads, self.reading, replicas, serving, sharing, bulk, capacity, self.inventories, placing
        )
        self.fetching = Fetching(runtime, self.reading, blobs, bulk, self.keeping)


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
        return any(name in _names_of(objects_pb2.ReplicaRow.FromString(value)) for _, value in rows)
    except (Corrupt, PeerFault, DecodeError):
        return True


def _names_of(row: objects_pb2.ReplicaRow) -> list[str]:
    manifest = Manifest.decode(row.manifest.signed.body)
    return [blob_name(manifest, shard) for shard in shards_of(row)]
