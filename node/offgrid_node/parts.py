"""What a node is made of: a disk, keys, clocks and carriers, and the settings of its machines. The daemon gives real
ones, the simulator twins of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec

from offgrid.reducers import Reducer, SessionReducer
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.effects import Execute, Signer, Stop, Verifier
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.settings import TIMEOUT_MS, JobsSettings
from offgrid_node.protocol.ledger.settings import EPOCH_MS, KEEP_MS, SETTLEMENT_INTERVAL_MS
from offgrid_node.protocol.mail.settings import DAY_US, MAILBOX_MB, MAX_DAYS
from offgrid_node.protocol.mesh.held import CheckCertificate
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.protocol.objects.settings import AUDIT_DAYS, COPIES, REPAIR_AFTER_MS, REQUIRED_MILLI
from offgrid_node.protocol.state.machine import INTERVAL_MS
from offgrid_node.runtime import Monitor
from offgrid_node.services.backups.sides import BackupParts
from offgrid_node.services.client import Road
from offgrid_node.services.flow import Later
from offgrid_node.services.jobs.results import Letters
from offgrid_node.services.join import Seal
from offgrid_node.services.memory.compacting import COMPACTION_INTERVAL_MS
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.services.retention import INTERVAL_MS as RETENTION_INTERVAL_MS
from offgrid_node.services.retention import Budget
from offgrid_node.services.roads.handlers import LinkRoads
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.services.sessions.vault import Vault
from offgrid_node.storage.store import Store

if TYPE_CHECKING:
    from offgrid_node.meters import Meters


def log_nothing(fault: Fault, cause: BaseException | None) -> None:
    """A Monitor for those who watch otherwise."""


def never(delay_ms: int, callback: Callable[[], None]) -> None:
    """A Later for nodes without a clock that ticks by itself."""


class Parts(msgspec.Struct, frozen=True):
    """What a node is made of. `jobs.salt` is filled in from the store's genesis. `copies` of an object are wanted, acks
    of `required_milli` make it durable."""

    store: Store
    clock: Clock
    rng: Random
    signer: Signer
    verify: Verifier
    check_certificate: CheckCertificate
    seal: Seal
    open_sealed: Seal
    letters: Letters
    roads: Sequence[Road]
    execute: Callable[[Execute], None]
    stop: Callable[[Stop], None]
    on_input: Callable[[], None]
    facts: Callable[[], NodeFacts]
    mesh: MeshSettings
    jobs: JobsSettings
    objects: ObjectParts
    vault: Vault
    data_dir: Path
    job_timeout_ms: int = TIMEOUT_MS
    copies: int = COPIES
    required_milli: int = REQUIRED_MILLI
    repair_after_ms: int = REPAIR_AFTER_MS
    audit_days: int = AUDIT_DAYS
    journal_interval_ms: int = INTERVAL_MS
    placement: Policy = Policy.BALANCED
    only_chosen_hosts: bool = False
    economy: bool = True  # False: the ledger's machine is silent
    settlement_interval_ms: int = SETTLEMENT_INTERVAL_MS
    epoch_ms: int = EPOCH_MS
    keep_ms: int = KEEP_MS
    at_death: Callable[[], Collection[bytes]] = frozenset  # payloads under which the process before this one died
    monitor: Monitor = log_nothing
    meters: Meters | None = None  # None: nothing is counted
    reducers: Mapping[str, Reducer] = msgspec.field(default_factory=lambda: {SessionReducer.name: SessionReducer()})
    links: LinkRoads | None = None  # one of the roads: packet links
    privacy: Privacy = msgspec.field(default_factory=Privacy)
    compaction_interval_ms: int = COMPACTION_INTERVAL_MS
    backups: BackupParts | None = None  # None: the store is no file
    retention: Budget = msgspec.field(default_factory=Budget)
    retention_interval_ms: int = RETENTION_INTERVAL_MS
    mailbox_bytes: int = MAILBOX_MB * 1024 * 1024
    mail_keep_us: int = MAX_DAYS * DAY_US
    mail_jobs_from: tuple[str, ...] = ()  # members whose jobs are taken by mail
    later: Later = never  # a twin whose work says nothing needs no timer
