"""What a node's config tells the objects machine."""

from __future__ import annotations

import msgspec

from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.mesh.records import WEIGHT_MILLI_DEFAULT
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.protocol.pace import Paces, all_free

COPIES = 3
REQUIRED_MILLI = 2_000
REPAIR_AFTER_MS = 600_000
AUDIT_DAYS = 30
OUTBOX_MAX = (
    100_000  # open entries of what was put, and as many that jobs left; each some 70 MB once all were looked at
)


class ObjectsSettings(msgspec.Struct, frozen=True):
    """`salt` is the mesh's; `copies` are wanted where so many hosts exist, `required_milli` is the weight of acks that
    makes an object durable, unless it says otherwise; what a host held that is dead for `repair_after_ms` is brought to
    others; each durable object is audited within `audit_days`, 0: only where a host's ack could not be checked."""

    signer: Signer
    salt: bytes
    copies: int = COPIES
    required_milli: int = REQUIRED_MILLI
    repair_after_ms: int = REPAIR_AFTER_MS
    outbox_max: int = OUTBOX_MAX
    placement: Policy = Policy.BALANCED
    only_chosen: bool = False  # hosts, by HostsChosen
    audit_days: int = AUDIT_DAYS
    paces: Paces = all_free

    def required_of(self, copies: int) -> int:
        """Of an object for which so many copies are asked, 0: as many as usual: no more than they weigh, at a weight of
        1 each."""
        return min(self.required_milli, copies * WEIGHT_MILLI_DEFAULT) if copies else self.required_milli

    @property
    def node_id(self) -> str:
        return self.signer.node_id
