"""A member's fence: it never signs an ack of an epoch below one that it has signed, and signs the same one again.

The epoch is the fencing token of the quorum's slot (research/ledger.md, section 2); the fence is durable before the ack
leaves.
"""

from __future__ import annotations

from offgrid.v1 import common_pb2
from offgrid_node.protocol.errors import FailedPrecondition, PeerFault
from offgrid_node.protocol.quorum.records import Ack, Epoch


def check_above(fence: int, epoch: Epoch) -> None:
    """Raises FailedPrecondition (EpochOver) for an epoch below the fence."""
    if epoch.epoch < fence:
        raise FailedPrecondition(
            f"{epoch.quorum_id} is at epoch {fence} here; epoch {epoch.epoch} is over",
            reason="EpochOver",
            metadata={"quorum_id": epoch.quorum_id, "epoch": str(fence)},
        )


def ack_before(held: common_pb2.Signed | None, epoch: Epoch) -> common_pb2.Signed | None:
    """The ack given before for this very epoch, to be given again; None when a new one may be signed.

    `held` is the ack of the highest epoch so far. Raises FailedPrecondition (EpochOver) for a lower epoch, PeerFault
    (EpochForked) where the owner asks for something else under a number it has used.
    """
    if held is None:
        return None
    ack = Ack.decode(held.body)
    if ack.epoch < epoch.epoch:
        return None
    check_above(ack.epoch, epoch)
    if not ack.is_for(epoch):
        text = f"{epoch.owner} asks for acks of two things under epoch {epoch.epoch} of {epoch.quorum_id}"
        raise PeerFault(text, reason="EpochForked")
    return held
