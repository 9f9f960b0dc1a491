"""What the handlers hand to the quorum machine: requests checked, names resolved, signatures verified."""

from __future__ import annotations

import msgspec

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.quorum.records import Epoch, Member

# ---- from this node's owner


class CreateQuorum(msgspec.Struct, frozen=True):
    """`named`: the members were chosen by whoever asks, so a repeated request must name the same."""

    quorum_id: str
    required_milli: int
    members: tuple[Member, ...]
    named: bool


class AckQuorum(msgspec.Struct, frozen=True):
    quorum_id: str
    node_id: str


# ---- between owner, member and broker


class SignAck(msgspec.Struct, frozen=True):
    """An epoch whose signature is that of its owner, who asks."""

    epoch: Epoch


class TrackQuorums(msgspec.Struct, frozen=True):
    """Rows of quorums that `owner` owns, every signature in them checked, and ids of those that it has closed. `life`
    and `number` say what of the owner's it comes after (`protocol/latecomers.py`)."""

    owner: str
    rows: tuple[quorum_pb2.QuorumRow, ...]
    closed: tuple[str, ...] = ()
    life: int = 0
    number: int = 0


class AckTag(msgspec.Struct, frozen=True):
    """What a SignAck call was about."""

    quorum_id: str
    node_id: str
    epoch: int


class TellTag(msgspec.Struct, frozen=True):
    """What a TrackQuorums call was about: every change up to this number."""

    broker: str
    upto: int
