"""What a node's config says, as its state machines want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offgrid.v1 import jobs_pb2
from offgrid_node import __version__
from offgrid_node.coding.coder import Coder
from offgrid_node.executors.pool import ExecutorPool, Offered
from offgrid_node.host_rules import local_offset_s, rules_of
from offgrid_node.machine_facts import machine_profile
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.jobs.settings import DROP_ALL, DROP_REST, JobsSettings
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.small import SMALL_BYTES_MAX
from offgrid_node.services.access import ROLE_NAMES
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.objects.codes import CodePolicy
from offgrid_node.services.objects.scrub import Pace
from offgrid_node.services.objects.sealing import Wraps
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.storage.blobs import BlobStore

if TYPE_CHECKING:
    from offgrid_node.config import Config

ROLE_VALUES = {name: value for value, name in ROLE_NAMES.items()}
MODES = {
    "auto": jobs_pb2.DISPATCH_MODE_AUTO,
    "offgrid": jobs_pb2.DISPATCH_MODE_OFFGRID,
    "disabled": jobs_pb2.DISPATCH_MODE_DISABLED,
}
LLM_KIND = "llm_call"


def mesh_settings(config: Config) -> MeshSettings:
    """Without its addresses, which are known once it listens."""
    return MeshSettings(
        roles=frozenset(ROLE_VALUES[role] for role in config.node.roles),
        addresses=(),
        door_addresses=(),
        version=__version__,
        probe_interval_ms=config.mesh.probe_interval_ms,
    )


def jobs_settings(config: Config, signer: Signer, pool: ExecutorPool) -> JobsSettings:
    """Without the salt, which is in the store."""
    jobs, host = config.jobs, config.host
    return JobsSettings(
        signer=signer,
        salt=b"",
        mode=MODES[jobs.mode],
        queue_max=jobs.queue_max,
        drop=_drop_of(config),
        price_max_micro=jobs.price_max_micro,
        slots=host.slots,
        price_micro=host.price_micro,
        executors=Offered(pool),
        kinds=_kinds_of(config),
        labels=dict(host.labels),
        profile=machine_profile(config, pool.isolation),
        rules=rules_of(config),
        utc_offset_s=local_offset_s,
    )


def object_parts(config: Config, blobs: BlobStore, bulk: Bulk, wraps: Wraps, coder: Coder) -> ObjectParts:
    """What this node keeps, its own and others', and by what rules."""
    storage = config.storage
    return ObjectParts(
        blobs=blobs,
        bulk=bulk,
        wraps=wraps,
        coder=coder,
        scrub=Pace(storage.scrub_bytes_per_s, storage.scrub_days),
        repair_bytes_per_s=storage.repair_bytes_per_s,
        reencrypt_bytes_per_s=storage.reencrypt_bytes_per_s,
        coding=CodePolicy(Code(storage.shards_needed, storage.shards_total), storage.coded_from_bytes, storage.padded),
        keeps_replicas=storage.enabled,
        owner_share_percent=storage.owner_share_percent,
        small_bytes=min(storage.chunk_threshold, SMALL_BYTES_MAX),
        cuts_journal="core" in config.node.roles and storage.journal_interval_ms > 0,
    )


def _drop_of(config: Config) -> str:
    """Which jobs of the local queue go to the drop folder."""
    if not config.jobs.drop_dir:
        return ""
    return DROP_ALL if config.jobs.drop_all else DROP_REST


def _kinds_of(config: Config) -> tuple[str, ...]:
    """The kinds of job that this host takes: an owner who names an endpoint wants it used."""
    kinds = config.host.kinds
    return kinds if not config.host.llm.endpoint or LLM_KIND in kinds else (*kinds, LLM_KIND)
