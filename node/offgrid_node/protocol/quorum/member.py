"""The member's part: it signs acks, of an epoch at most once, and never of one that is over.

Only a quorum whose id says it all is acked here. An ack of bytes is given by whoever holds them (protocol/objects).
"""

from __future__ import annotations

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.quorum.fence import ack_before
from offgrid_node.protocol.quorum.quota import Quota
from offgrid_node.protocol.quorum.records import NOTHING, OBJECT_PREFIX, Ack, Epoch, sign_ack
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.tables import FENCES, quorum_key


class Signing:
    """Signs what owners ask, and remembers it."""

    def __init__(self, settings: QuorumSettings, draft: Draft) -> None:
        self._settings, self._draft = settings, draft
        self._quota = Quota(draft, "fences", settings.fences_max)

    def ack(self, epoch: Epoch) -> common_pb2.Signed:
        """This node's ack, the same each time. Raises FailedPrecondition (NoMember, NeedsBytes, EpochOver), PeerFault
        (EpochForked), Exhausted (QuotaFull)."""
        node_id = self._settings.node_id
        if epoch.subject != NOTHING or epoch.size_bytes or epoch.quorum_id.startswith(OBJECT_PREFIX):
            text = f"{epoch.quorum_id} is acked by those who hold its bytes, once they hold them"
            raise FailedPrecondition(text, reason="NeedsBytes")
        if node_id not in epoch.weights:
            raise FailedPrecondition(f"{node_id} is no member of {epoch.quorum_id}", reason="NoMember")
        key = quorum_key(epoch.owner, epoch.quorum_id)
        fence = self._draft.row(FENCES, key, quorum_pb2.QuorumFence)
        if fence is None:
            self._quota.take(epoch.owner)
        elif (before := ack_before(fence.ack, epoch)) is not None:
            return before
        ack = Ack(node_id, epoch.owner, epoch.quorum_id, epoch.epoch, epoch.subject, epoch.size_bytes, NOTHING)
        signed = sign_ack(ack, self._settings.signer, self._settings.salt)
        self._draft.put(FENCES, key, quorum_pb2.QuorumFence(epoch=epoch.epoch, ack=signed))
        return signed
