"""What a host keeps of an object of this node's, though a newer epoch has laid it elsewhere: a host that was away while
others took its place, or that held a shard more than it does now. The epoch is the proof that it may drop it.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.objects.outbox import DURABLE
from offgrid_node.protocol.quorum.records import NOBODY, Epoch


def moved_by(row: objects_pb2.ObjectRow, node_id: str, is_sure: Callable[[str], bool]) -> common_pb2.Signed | None:
    """The epoch by which the host may drop what it keeps beyond what that lays there; None where it had better keep it.

    Each shard, or as many copies as are wanted, must be acked by those who are to hold it now, and of each of them
    `is_sure`: an owner restored from a backup believes acks of hosts that dropped long ago what they were for.
    """
    made = row.object
    if made.state != DURABLE or made.acked_milli < made.required_milli or not row.HasField("epoch"):
        return None
    epoch, held = Epoch.decode(row.epoch.body), {ack.node_id: tuple(ack.shards) or (0,) for ack in made.acks}
    if not all(map(is_sure, held)) or NOBODY in epoch.layout:
        return None
    if epoch.layout:
        complete = all(held.get(node, ()) == shards for node, shards in epoch.shards.items() if shards)
    else:
        complete = len(held) >= row.copies_wanted and node_id not in epoch.weights
    return row.epoch if complete else None
