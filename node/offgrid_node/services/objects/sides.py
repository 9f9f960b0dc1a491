"""The object services of a node as an owner, and as a host: which of them there are, and what each stands on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.objects.manifest import STRIPE_BYTES
from offgrid_node.protocol.objects.small import SMALL_BYTES_MAX
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.state.machine import StateMachine
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Later
from offgrid_node.services.objects.auditing import Auditing
from offgrid_node.services.objects.capacity import Capacity
from offgrid_node.services.objects.checking import Checking
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy
from offgrid_node.services.objects.combining import Combining
from offgrid_node.services.objects.fetching import Fetching
from offgrid_node.services.objects.holders import Carrier, Trust
from offgrid_node.services.objects.incoming import OWNER_SHARE_PERCENT
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.patience import Patience
from offgrid_node.services.objects.placing import Placing
from offgrid_node.services.objects.proving import Proving
from offgrid_node.services.objects.pulling import Pulling
from offgrid_node.services.objects.puts import Puts
from offgrid_node.services.objects.rate import UNLIMITED
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.regaining import Regaining
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.services.objects.repairing import Repairing
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX, Replicas
from offgrid_node.services.objects.resealing import BYTES_PER_S as REENCRYPT_BYTES_PER_S
from offgrid_node.services.objects.resealing import Resealing
from offgrid_node.services.objects.rewrapping import Rewrapping
from offgrid_node.services.objects.scrub import Pace, Scrub
from offgrid_node.services.objects.scrub_now import ScrubNow
from offgrid_node.services.objects.sealing import Sealer, Wraps
from offgrid_node.services.objects.segments import Segments
from offgrid_node.services.objects.serving import Serving
from offgrid_node.services.objects.sharing import Sharing
from offgrid_node.services.objects.shipping import Shipping
from offgrid_node.services.objects.small_replicas import PUT_REPLICA_BYTES_MAX, SmallReplicas
from offgrid_node.services.objects.small_shipping import SmallShipping
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.services.objects.sweeping import Sweeping
from offgrid_node.services.objects.uploads import Uploads
from offgrid_node.services.objects.watching import Watching
from offgrid_node.storage.blobs import BlobStore
from offgrid_node.storage.row_blobs import RowBlobs


class ObjectParts(msgspec.Struct, frozen=True):
    """What objects need besides a node's other parts. `keeps_replicas`: whether anything new is kept for others, and of
    the room for that one owner may take `owner_share_percent`. `cuts_journal`: its segments become objects."""

    blobs: BlobStore
    bulk: Bulk
    wraps: Wraps
    keeps_replicas: bool = True
    owner_share_percent: int = OWNER_SHARE_PERCENT
    stripe_bytes: int = STRIPE_BYTES
    piece_bytes: int = PIECE_BYTES_MAX  # of a replica that comes in
    coder: Coder = msgspec.field(default_factory=Fallback)
    coding: CodePolicy = NEVER_CODED
    small_bytes: int = SMALL_BYTES_MAX  # kept in rows, not files
    one_call_bytes: int = PUT_REPLICA_BYTES_MAX  # of a replica, that an owner brings in one call
    scrub: Pace = msgspec.field(default_factory=Pace)
    repair_bytes_per_s: int = UNLIMITED
    reencrypt_bytes_per_s: int = REENCRYPT_BYTES_PER_S
    cuts_journal: bool = False


class Ground(msgspec.Struct, frozen=True):
    """What services of both sides stand on. `kept` is for whoever only reads; `called` is what people call a node."""

    parts: ObjectParts
    runtime: Runtime
    carrier: Carrier
    signer: Signer
    verify: Verifier
    rng: Rng
    directory: Callable[[], Directory]
    later: Later
    called: Callable[[str], str]
    salt: Callable[[], bytes]
    trust: Trust
    kept: RowBlobs
    keeping: Keeping
    pace: RepairPace

    @property
    def self_id(self) -> str:
        return self.signer.node_id


class OwnerSide:
    """What becomes of this node's own objects, and of what others let it read."""

    def __init__(self, ground: Ground) -> None:
        parts, runtime, carrier, bulk = ground.parts, ground.runtime, ground.carrier, ground.parts.bulk
        files, kept, keeping, coder = parts.blobs, ground.kept, ground.keeping, parts.coder
        directory, verify, rng, later = ground.directory, ground.verify, ground.rng, ground.later
        self_id, trust, salt, wraps = ground.self_id, ground.trust, ground.salt, parts.wraps
        self.sealer = _sealer(ground)
        self.reading = Reading(trust, carrier, later, wraps, kept, bulk, coder, salt)
        self.source = ShardSource(kept, coder)
        small, patience = _small_shipping(ground, self.source), Patience(runtime, later)
        self.shipping = Shipping(runtime, carrier, directory, verify, self.source, bulk, keeping, small, patience)
        self.uploads = Uploads(runtime, self.sealer, bulk, keeping, later, parts.coding)
        self.watching = Watching(runtime, later, self.shipping.sending)
        self.shipping.on_sent = self.watching.on_sent
        self.puts = Puts(runtime, self.sealer, bulk, self.uploads, self.watching, kept.takes, parts.coding)
        self.placing = Placing(runtime, self_id, parts.coding, ground.called)
        self.sharing = Sharing(runtime, self_id, directory, verify, wraps, rng, bulk)
        self.auditing = Auditing(runtime, carrier, trust, rng, self.source, coder, bulk, salt)
        self.rewrapping = Rewrapping(runtime, self_id, directory, wraps, rng, bulk)
        self.segments = _segments(ground, self.sealer)
        self.resealing = _resealing(ground, self.sealer, self.uploads, self.reading)
        self.repairing = Repairing(runtime, carrier, directory, verify, later)
        self.fetching = Fetching(runtime, self.reading, files, bulk, keeping, ground.pace)
        self.regaining = Regaining(
            runtime,
            self_id,
            carrier,
            directory,
            verify,
            wraps,
            self.reading,
            self.fetching,
            self.source,
            bulk,
            keeping,
            cuts=parts.cuts_journal,
        )


class HostSide:
    """What this node keeps for others."""

    def __init__(
        self,
        ground: Ground,
        source: ShardSource,
        drains: Callable[[], bool],
        data_dir: Path,
        inline_limit_bytes: int,
    ) -> None:
        parts, runtime, bulk = ground.parts, ground.runtime, ground.parts.bulk
        files, kept, rng, salt = parts.blobs, ground.kept, ground.rng, ground.salt
        self.replicas = _replicas(ground)
        self.sweeping = Sweeping(self.replicas.admission, files, bulk, ground.later)
        self.small = SmallReplicas(runtime, ground.self_id, self.replicas, salt, files, kept.takes)
        self.checking = Checking(runtime, salt, kept.of, bulk)
        self.scrub = Scrub(self.checking, ground.later, rng, parts.scrub)
        self.scrub_now = ScrubNow(runtime, self.checking, bulk, ground.later)
        self.serving = Serving(runtime, ground.directory, kept, source, bulk)
        self.capacity = Capacity(runtime, self.replicas, files, bulk, drains, data_dir, inline_limit_bytes, rng)
        self.proving = Proving(runtime, kept.of, bulk, parts.coder)
        self.combining = Combining(ground.self_id, ground.carrier, kept, parts.coder, bulk, ground.pace)
        self.pulling = Pulling(runtime, self.replicas, self.combining, ground.pace)


def _sealer(ground: Ground) -> Sealer:
    parts, signer = ground.parts, ground.signer
    return Sealer(
        parts.blobs,
        parts.wraps,
        signer,
        ground.rng,
        ground.runtime.clock,
        ground.salt,
        parts.stripe_bytes,
        parts.coder,
        lambda: ground.directory().wrapping_key(signer.node_id) or signer.wrapping_key(0),
    )


def _segments(ground: Ground, sealer: Sealer) -> Segments:
    parts, directory = ground.parts, ground.directory
    return Segments(
        ground.runtime,
        sealer,
        ground.signer,
        parts.bulk,
        ground.salt,
        lambda node: directory().current_key(node),
        lambda node: directory().key_number(node),
        ground.verify,
        ground.keeping.drop,
        cuts=parts.cuts_journal,
    )


def _resealing(ground: Ground, sealer: Sealer, uploads: Uploads, reading: Reading) -> Resealing:
    parts = ground.parts
    return Resealing(
        ground.runtime,
        ground.self_id,
        ground.directory,
        sealer,
        uploads,
        reading,
        parts.wraps,
        ground.rng,
        parts.bulk,
        ground.later,
        lambda: ground.runtime.machine("state", StateMachine).safe_events if parts.cuts_journal else None,
        parts.reencrypt_bytes_per_s,
    )


def _small_shipping(ground: Ground, source: ShardSource) -> SmallShipping:
    parts = ground.parts
    return SmallShipping(ground.carrier, source, parts.bulk, ground.kept.own, parts.one_call_bytes)


def _replicas(ground: Ground) -> Replicas:
    parts = ground.parts
    return Replicas(
        ground.runtime,
        ground.self_id,
        ground.directory,
        ground.verify,
        parts.blobs,
        parts.bulk,
        ground.keeping,
        enabled=parts.keeps_replicas,
        owner_share_percent=parts.owner_share_percent,
        piece_bytes=parts.piece_bytes,
    )
