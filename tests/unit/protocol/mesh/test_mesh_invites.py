"""Invites that were given out are known, and taken back while nobody has used them."""

from __future__ import annotations

from mesh_world import Node, World
from test_mesh_admission import admit, etypes, reason

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.commands import RevokeInvite
from offgrid_node.protocol.mesh.invites import list_invites
from offgrid_node.protocol.mesh.token import InviteToken


def ids(node: Node) -> set[str]:
    return {base32(each.invite_id) for each in list_invites(node.store)}


def revoked(world: World, said: str) -> object:
    return world.first.ask(RevokeInvite(said))


def name_of(token: InviteToken) -> str:
    return base32(token.invite_id)


def test_one_that_was_taken_back_opens_no_door_and_never_again() -> None:
    world = World(1, 1)
    token, other = world.token(world.first), world.token(world.first)
    answer = revoked(world, name_of(token))
    assert isinstance(answer, mesh_pb2.RevokeInviteResponse)
    assert (answer.invite.invite_id, answer.invite.used_by) == (name_of(token), "")
    assert reason(world.first.ask(admit(token), "anonymous")) == "InviteRefused"
    assert ids(world.first) == {name_of(other)}
    assert etypes(world.first).count(EventType.INVITE_REVOKED) == 1
    world.first.crash()
    world.first.start()
    assert reason(world.first.ask(admit(token), "anonymous")) == "InviteRefused"
    assert isinstance(world.first.ask(admit(other), "anonymous"), mesh_pb2.JoinGrant)


def test_the_first_characters_will_do_and_no_fewer_than_four() -> None:
    world = World(1, 1)
    token = world.token(world.first)
    assert reason(revoked(world, name_of(token)[:3])) == "InviteNotFound"
    assert isinstance(revoked(world, name_of(token)[:4]), mesh_pb2.RevokeInviteResponse)
    assert reason(revoked(world, name_of(token))) == "InviteNotFound"


def test_one_that_let_somebody_in_is_not_taken_back_and_says_whom() -> None:
    world = World(1, 1)
    token = world.token(world.first)
    world.first.ask(admit(token), "anonymous")
    answer = revoked(world, name_of(token))
    assert isinstance(answer, Fault)
    assert answer.reason == "InviteUsed"
    assert answer.metadata["node"] in answer.message
    assert ids(world.first) == {name_of(token)}
