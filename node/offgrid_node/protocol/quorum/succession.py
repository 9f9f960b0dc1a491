"""An epoch after another: what the new one asks of members that the old one asked of them too, counts on.

So an epoch takes no ack away but those of what it moved, or of what was lost.
"""

from __future__ import annotations

from offgrid_node.protocol.events import OpenQuorum
from offgrid_node.protocol.quorum.records import NOBODY, Epoch, Member


def wants_another(epoch: Epoch, event: OpenQuorum) -> bool:
    """Whether the present epoch asks for something else than is wanted now."""
    return bool(event.lost) or (epoch.required_milli, dict(epoch.weights), epoch.needed, laid(epoch)) != (
        event.required_milli,
        dict(event.members),
        event.needed,
        event.layout,
    )


EPOCHS_OF_LIFE = 1 << 16


def number_after(epoch: int, life: int) -> int:
    """Of the next epoch. In a later `life` it is above all that were signed in the one before and are known here no
    more: the quorum itself may be known no more, and its `epoch` be 0."""
    return max(epoch, life * EPOCHS_OF_LIFE) + 1


def successor(owner: str, before: Epoch | None, event: OpenQuorum, life: int = 0) -> Epoch:
    """The epoch that asks for what is wanted now; the first without one `before`."""
    places = {node_id: index for index, (node_id, _) in enumerate(event.members)}
    return Epoch(
        owner,
        event.quorum_id,
        number_after(before.epoch if before is not None else 0, life),
        event.subject,
        event.size_bytes,
        event.required_milli,
        tuple(Member(node_id, weight, _member_since(before, event, node_id)) for node_id, weight in event.members),
        event.needed,
        tuple(places[node_id] if node_id else NOBODY for node_id in event.layout),
        tuple(_shard_since(before, event, shard) for shard in range(len(event.layout))),
    )


def asked_anew(epoch: Epoch, lost: frozenset[tuple[str, int]]) -> OpenQuorum:
    """What asks for the next epoch where some of what was acked in this one is lost, and nothing else changes."""
    members = tuple((member.node_id, member.weight_milli) for member in epoch.members)
    return OpenQuorum(
        epoch.quorum_id,
        epoch.subject,
        epoch.size_bytes,
        epoch.required_milli,
        members,
        epoch.needed,
        laid(epoch),
        lost,
        though_reached=True,
    )


def laid(epoch: Epoch) -> tuple[str, ...]:
    """For each shard the node that is to hold it; "" for none."""
    return tuple(epoch.members[index].node_id if index != NOBODY else "" for index in epoch.layout)


def _member_since(before: Epoch | None, event: OpenQuorum, node_id: str) -> int:
    if before is None or before.layout or event.layout or (node_id, 0) in event.lost:
        return 0
    found = (member.since or before.epoch for member in before.members if member.node_id == node_id)
    return next(found, 0)


def _shard_since(before: Epoch | None, event: OpenQuorum, shard: int) -> int:
    node_id = event.layout[shard]
    if before is None or not node_id or (node_id, shard) in event.lost:
        return 0
    stays = shard < len(before.layout) and laid(before)[shard] == node_id
    return (before.sinces[shard] or before.epoch) if stays else 0
