"""A quorum's row as it counts: which acks stand for its epoch, what they weigh, whether that is enough.

An ack counts once for each node, for those of its shards that the node was to hold already when it signed. What they
weigh together is what must be lost before the thing is (`survival.py`).
"""

from __future__ import annotations

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.quorum.records import Ack, Epoch
from offgrid_node.protocol.quorum.survival import survival_milli


class Tally:
    """Reads a row, and adds acks to it."""

    def __init__(self, row: quorum_pb2.QuorumRow) -> None:
        """Raises PeerFault for a row whose bodies cannot be read."""
        self.row, self.epoch = row, Epoch.decode(row.epoch.body)
        acks = [Ack.decode(signed.body) for signed in row.acks]
        self.held = {ack.node: ack.shards_in(self.epoch) for ack in acks}
        """Who has acked, in the order in which they did, and which of its shards."""
        self._acked_milli: int | None = None  # once it was asked for

    @classmethod
    def opened(cls, epoch: common_pb2.Signed, created_us: int, before: quorum_pb2.QuorumRow | None = None) -> Tally:
        """Of an epoch with those acks of the one `before` that count in it too."""
        tally = cls(quorum_pb2.QuorumRow(epoch=epoch, created_us=created_us))
        for signed, acked_us in zip(before.acks, before.acked_us, strict=True) if before is not None else ():
            if Ack.decode(signed.body).shards_in(tally.epoch):
                tally.add(Ack.decode(signed.body).node, signed, acked_us)
        return tally

    @property
    def acked_milli(self) -> int:
        if self._acked_milli is None:
            self._acked_milli = survival_milli(self.held, self.epoch.weights, self.held, self.epoch.needed)
        return self._acked_milli

    @property
    def reached(self) -> bool:
        return self.acked_milli >= self.epoch.required_milli

    def add(self, node_id: str, signed: common_pb2.Signed, acked_us: int) -> bool:
        """Counts the ack of `node_id`, its signature checked; False when it, or a later one, counts already. Raises
        PeerFault (WrongAck) when it never will."""
        ack, epoch = Ack.decode(signed.body), self.epoch
        if node_id not in epoch.weights:
            raise PeerFault(f"{node_id} acked {epoch.quorum_id}, of which it is no member", reason="WrongAck")
        shards = ack.shards_in(epoch)
        if ack.node != node_id or not shards:
            text = f"{node_id} acked something else than epoch {epoch.epoch} of {epoch.quorum_id}"
            raise PeerFault(text, reason="WrongAck")
        if node_id not in self.held:
            self.row.acks.append(signed)
            self.row.acked_us.append(acked_us)
        else:
            index = list(self.held).index(node_id)
            if Ack.decode(self.row.acks[index].body).epoch >= ack.epoch:
                return False
            self.row.acks[index].CopyFrom(signed)
            self.row.acked_us[index] = acked_us
        self.held[node_id], self._acked_milli = shards, None
        return True

    def message(self) -> quorum_pb2.Quorum:
        """For people; who the members are beyond their ids and weights, others know."""
        epoch, row = self.epoch, self.row
        acks = zip(self.held.items(), row.acks, row.acked_us, strict=True)
        return quorum_pb2.Quorum(
            quorum_id=epoch.quorum_id,
            owner=epoch.owner,
            epoch=epoch.epoch,
            required_milli=epoch.required_milli,
            acked_milli=self.acked_milli,
            reached=self.reached,
            acks=[
                quorum_pb2.QuorumAck(
                    node_id=node,
                    weight_milli=epoch.weights[node],
                    acked_us=acked_us,
                    signed=signed,
                    shards=shards if epoch.layout else (),
                )
                for (node, shards), signed, acked_us in acks
            ],
            members=[
                quorum_pb2.NodeWeight(node_id=member.node_id, weight_milli=member.weight_milli)
                for member in epoch.members
            ],
            created_us=row.created_us,
            shards_needed=epoch.needed if epoch.layout else 0,
            shards_total=len(epoch.layout),
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
