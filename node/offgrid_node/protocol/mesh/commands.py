"""What the mesh machine is asked by its handlers and told by the rest of the node.

Ping, PingVia and SyncMembers come in as their own request messages.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import mesh_pb2


class CreateInvite(msgspec.Struct, frozen=True):
    """Issue one single-use invite. Answer: CreateInviteResponse.

    An invite does not expire; when `invites.OPEN_MAX` are open already, the oldest of them is dropped.
    """

    roles: frozenset[int]
    weight_milli: int
    failure_domain: str


class RevokeInvite(msgspec.Struct, frozen=True):
    """Take back an invite that nobody has used, by its id or the first characters of that. Answer:
    RevokeInviteResponse."""

    invite: str


class AdmitMember(msgspec.Struct, frozen=True):
    """Someone who proved the invite's secret and its own key wants in. Answer: JoinGrant."""

    invite_id: bytes
    name: str
    public_key: bytes
    certificate: bytes


class RemoveMember(msgspec.Struct, frozen=True):
    """End a membership for ever. `node` as a person writes it. Answer: RemoveMemberResponse."""

    node: str


class RotateWrappingKey(msgspec.Struct, frozen=True):
    """From this node's owner: objects are to be wrapped for the key that follows the one of this number; where that was
    done already nothing happens. `newest_us`: when the newest of this node's objects was sealed, by the clock of then.
    Answer: RotateDataKeysResponse."""

    number: int
    newest_us: int = 0


class AddressesChanged(msgspec.Struct, frozen=True):
    """Where this node is reached now, best first: its mesh port, and its door for joiners."""

    addresses: tuple[str, ...]
    door_addresses: tuple[str, ...] = ()


class AddressSeen(msgspec.Struct, frozen=True):
    """mDNS or a hosts file claims that a node is reached here. Unproved: a last resort only."""

    node_id: str
    address: str


class RoadLost(msgspec.Struct, frozen=True):
    """The open connection to a member has ended, and it was not this node that ended it."""

    node_id: str


class RoadRefused(msgspec.Struct, frozen=True):
    """A member's machine says that nobody listens there; a slow road is asked still."""

    node_id: str


class BeaconHeard(msgspec.Struct, frozen=True):
    """A member says on a packet link that it is there, which is believed for `lasts_ms`; with its incarnation and the
    first bytes of its directory's digest. Whoever knows the mesh may have made it up."""

    node_id: str
    incarnation: int
    lasts_ms: int
    digest: bytes


class TellOfAlert(msgspec.Struct, frozen=True):
    """From this node itself: a figure's state is another one. Answer: the alert."""

    alert: mesh_pb2.Alert
