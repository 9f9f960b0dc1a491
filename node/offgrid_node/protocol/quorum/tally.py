"""A quorum's row as it counts: which acks stand for its epoch, what they weigh, whether that is enough.

An ack counts once for each node, if the node is a member and vouches for just what the epoch asks.
"""

from __future__ import annotations

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.quorum.enough import enough, weight_of
from offgrid_node.protocol.quorum.records import Ack, Epoch


class Tally:
    """Reads a row, and adds acks to it."""

    def __init__(self, row: quorum_pb2.QuorumRow) -> None:
        """Raises PeerFault for a row whose bodies cannot be read."""
        self.row, self.epoch = row, Epoch.decode(row.epoch.body)
        self.ackers = [Ack.decode(signed.body).node for signed in row.acks]

    @classmethod
    def opened(cls, epoch: common_pb2.Signed, created_us: int) -> Tally:
        """Of an epoch that nobody has acked yet."""
        return cls(quorum_pb2.QuorumRow(epoch=epoch, created_us=created_us))

    @property
    def acked_milli(self) -> int:
        return weight_of(self.ackers, self.epoch.weights)

    @property
    def reached(self) -> bool:
        return enough(self.ackers, self.epoch.weights, self.epoch.required_milli)

    def add(self, node_id: str, signed: common_pb2.Signed, acked_us: int) -> bool:
        """Counts the ack of `node_id`, its signature checked; False when it counts already. Raises PeerFault (WrongAck)
        when it never will."""
        ack, epoch = Ack.decode(signed.body), self.epoch
        if ack.node != node_id or not ack.is_for(epoch):
            text = f"{node_id} acked something else than epoch {epoch.epoch} of {epoch.quorum_id}"
            raise PeerFault(text, reason="WrongAck")
        if node_id not in epoch.weights:
            raise PeerFault(f"{node_id} acked {epoch.quorum_id}, of which it is no member", reason="WrongAck")
        if ack.node in self.ackers:
            return False
        self.row.acks.append(signed)
        self.row.acked_us.append(acked_us)
        self.ackers.append(ack.node)
        return True

    def message(self) -> quorum_pb2.Quorum:
        """For people; who the members are beyond their ids and weights, others know."""
        epoch, row = self.epoch, self.row
        acks = zip(self.ackers, row.acks, row.acked_us, strict=True)
        return quorum_pb2.Quorum(
            quorum_id=epoch.quorum_id,
            owner=epoch.owner,
            epoch=epoch.epoch,
            required_milli=epoch.required_milli,
            acked_milli=self.acked_milli,
            reached=self.reached,
            acks=[
                quorum_pb2.QuorumAck(node_id=node, weight_milli=epoch.weights[node], acked_us=acked_us, signed=signed)
                for node, signed, acked_us in acks
            ],
            members=[
                quorum_pb2.NodeWeight(node_id=member.node_id, weight_milli=member.weight_milli)
                for member in epoch.members
            ],
            created_us=row.created_us,
        )


def merged(held: quorum_pb2.QuorumRow | None, told: quorum_pb2.QuorumRow) -> quorum_pb2.QuorumRow | None:
    """What a broker keeps after its owner told it `told`; None when there is nothing new in it.

    The higher epoch stands, within an epoch all acks that came together, in whatever order rows arrive. Of two epochs
    with the same number the first stands. Raises PeerFault for an ack that cannot count.
    """
    new = Tally.opened(told.epoch, told.created_us)
    old = Tally(held) if held is not None else None
    if old is not None and old.epoch.epoch >= new.epoch.epoch:
        if old.row.epoch.body != new.row.epoch.body:
            return None
        new = old
    changed = new is not old
    for index, signed in enumerate(told.acks):
        acked_us = told.acked_us[index] if index < len(told.acked_us) else 0
        changed = new.add(Ack.decode(signed.body).node, signed, acked_us) or changed
    return new.row if changed else None
