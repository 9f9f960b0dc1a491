"""The machines of a node, one per domain, with what config, keys and mesh tell each.

They are made anew whenever the store is loaded: at the start, and when a commit has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from offgrid_node.parts import Parts
from offgrid_node.protocol.effects import Machine
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.pace import Paces
from offgrid_node.protocol.quorum.machine import QuorumMachine
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.state.machine import StateMachine, StateSettings
from offgrid_node.protocol.state.sessions.machine import SessionsMachine
from offgrid_node.protocol.state.summaries.machine import MemoryMachine
from offgrid_node.services.jobs.cron import CronTimes
from offgrid_node.storage.noting import NotingStore


class Machines:
    """Builds them. What never changes while a node runs is looked up once: the mesh's salt, and how often this node's
    key was replaced."""

    def __init__(
        self, parts: Parts, pace: Paces, executing: Callable[[], Collection[ClaimKey]], noting: NotingStore | None
    ) -> None:
        """`executing` says what this node executes now; `noting` is the store where its journal goes to hosts."""
        self._parts, self._pace, self._executing, self._noting = parts, pace, executing, noting
        self._looked_up: tuple[bytes, int] | None = None

    def __call__(self) -> Mapping[str, Machine]:
        """Anew for each load. Raises as Directory.load."""
        parts, pace = self._parts, self._pace
        mesh = MeshMachine(parts.mesh, parts.signer, parts.verify, parts.check_certificate, pace)
        if self._looked_up is None:
            directory = Directory.load(parts.store, parts.verify, parts.check_certificate)
            self._looked_up = directory.salt, directory.key_number(parts.signer.node_id)
        salt, key_number = self._looked_up
        jobs = replace(parts.jobs, salt=salt, paces=pace)
        required_milli, interval_ms = parts.required_milli, parts.journal_interval_ms
        state = StateSettings(parts.signer, parts.verify, salt, required_milli, interval_ms, key_number, pace)
        return {
            "mesh": mesh,
            "jobs": JobsMachine(jobs, self._executing, CronTimes(), parts.at_death),
            "objects": ObjectsMachine(
                ObjectsSettings(
                    parts.signer,
                    salt,
                    parts.copies,
                    parts.required_milli,
                    parts.repair_after_ms,
                    placement=parts.placement,
                    only_chosen=parts.only_chosen_hosts,
                    audit_days=parts.audit_days,
                    paces=pace,
                )
            ),
            "quorum": QuorumMachine(QuorumSettings(parts.signer, salt)),
            "ledger": LedgerMachine(
                LedgerSettings(
                    parts.signer,
                    salt,
                    parts.economy,
                    parts.settlement_interval_ms,
                    parts.epoch_ms,
                    parts.keep_ms,
                    paces=pace,
                )
            ),
            "memory": MemoryMachine(),
            "mail": MailMachine(MailSettings(parts.signer, salt, parts.mailbox_bytes, parts.mail_keep_us, pace)),
            "sessions": SessionsMachine(
                parts.store,
                {each.name: each.version for each in parts.reducers.values()},
                pinned_bytes_max=parts.retention.share_bytes("events"),
            ),
            **({"state": StateMachine(state, self._noting)} if self._noting is not None else {}),
        }
