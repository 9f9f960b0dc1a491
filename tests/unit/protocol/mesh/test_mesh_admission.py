"""Inviting, joining and removing: one invite admits one key, and a removal reaches everyone, for ever."""

from __future__ import annotations

import pytest
from mesh_world import Node, World, node_key

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import Fault, PeerFault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import AdminsKnown, PeerDown, PeerUp
from offgrid_node.protocol.mesh import invites
from offgrid_node.protocol.mesh.commands import AddressesChanged, AddressSeen, AdmitMember, CreateInvite, RemoveMember
from offgrid_node.protocol.mesh.founding import adopt_grant, issue_member
from offgrid_node.protocol.mesh.invites import Invite, InviteBook
from offgrid_node.protocol.mesh.records import MEMBER_KIND, ROLES_ALL, MemberRecord, signed
from offgrid_node.protocol.mesh.swim import DEAD
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.storage.memory import MemoryStore

JOINER = node_key(500)
INVITE = CreateInvite(ROLES_ALL, 1_000, "")


def admit(token: InviteToken, name: str = "late", key: int = 500) -> AdmitMember:
    joiner = node_key(key)
    return AdmitMember(token.invite_id, name, joiner.public_key, identity_certificate(joiner))


def reason(outcome: object) -> str:
    assert isinstance(outcome, Fault), outcome
    return outcome.reason


def etypes(node: Node) -> list[int]:
    return [state_pb2.Event.FromString(event).etype for _, event in node.store.events()]


# ---- invites


def test_an_invite_admits_one_key_and_a_repeated_join_gets_the_same_grant() -> None:
    world = World(1, 1)
    token = world.token(world.first)
    grant = world.first.ask(admit(token), "anonymous")
    assert isinstance(grant, mesh_pb2.JoinGrant)
    assert world.first.ask(admit(token), "anonymous") == grant
    assert reason(world.first.ask(admit(token, "other", 501), "anonymous")) == "InviteUsed"
    assert etypes(world.first).count(EventType.INVITE_USED) == 1


def test_a_used_invite_stays_used_after_a_restart() -> None:
    world = World(1, 1)
    token = world.token(world.first)
    grant = world.first.ask(admit(token), "anonymous")
    world.first.crash()
    world.first.start()
    again = world.first.ask(admit(token), "anonymous")
    assert isinstance(grant, mesh_pb2.JoinGrant)
    assert isinstance(again, mesh_pb2.JoinGrant)
    assert [member.record for member in again.members] == [member.record for member in grant.members]
    assert reason(world.first.ask(admit(token, "other", 501), "anonymous")) == "InviteUsed"


def test_an_unknown_invite_is_refused() -> None:
    world = World(1, 1)
    assert reason(world.first.ask(admit(InviteToken(bytes(8), bytes(16))), "anonymous")) == "InviteRefused"


def test_a_name_that_is_taken_is_refused_with_a_free_one_and_the_invite_stays_open() -> None:
    world = World(1, 2)
    token = world.token(world.first)
    outcome = world.first.ask(admit(token, "node-1"), "anonymous")
    assert reason(outcome) == "NameTaken"
    assert isinstance(outcome, Fault)
    assert isinstance(world.first.ask(admit(token, outcome.metadata["suggestion"]), "anonymous"), mesh_pb2.JoinGrant)


def test_only_an_admin_invites_and_the_others_say_who_can() -> None:
    world = World(1, 2)
    outcome = list(world.nodes.values())[1].ask(INVITE)
    assert reason(outcome) == "NotAdmin"
    assert "node-0" in str(outcome)


def test_beyond_the_limit_the_oldest_open_invite_is_dropped_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, "OPEN_MAX", 2)
    world = World(1, 1)
    first, second, third = (world.token(world.first) for _ in range(3))
    assert reason(world.first.ask(admit(first, "n1", 501))) == "InviteRefused"
    assert any("the oldest" in notice for notice in world.first.mesh.notices)
    world.first.crash()
    world.first.start()
    assert reason(world.first.ask(admit(first, "n1", 501))) == "InviteRefused", "after a restart too"
    assert isinstance(world.first.ask(admit(second, "n2", 502)), mesh_pb2.JoinGrant)
    assert isinstance(world.first.ask(admit(third, "n3", 503)), mesh_pb2.JoinGrant)


def test_an_invite_is_no_older_for_a_clock_that_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, "OPEN_MAX", 2)
    book = InviteBook(MemoryStore())
    old, before, after = (Invite(bytes([n]) * 16, ROLES_ALL, 1_000, "", us) for n, us in ((1, 900), (2, 901), (3, 5)))
    newest = Invite(bytes([4]) * 16, ROLES_ALL, 1_000, "", 6)
    dropped = [book.issue(invite)[1] for invite in (old, before, after, newest)]
    assert [invite and invite.invite_id for invite in dropped] == [None, None, old.invite_id, before.invite_id]


def test_used_invites_are_forgotten_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invites, "USED_MAX", 2)
    world = World(1, 1)
    tokens = [world.token(world.first) for _ in range(2)]
    for number, token in enumerate(tokens):
        world.run(10)
        assert isinstance(world.first.ask(admit(token, f"n{number}", 510 + number)), mesh_pb2.JoinGrant)
    third = world.token(world.first)
    world.run(10)
    world.first.ask(admit(third, "n3", 513))
    assert reason(world.first.ask(admit(tokens[0], "n0", 510))) == "InviteRefused", "used first, forgotten first"
    assert len(list(world.first.store.scan("invites"))) == 2


# ---- the grant


def test_a_grant_is_checked_from_the_tokens_tag_upwards() -> None:
    world = World(1, 2)
    token = world.token(world.first)
    grant = world.first.ask(admit(token), "anonymous")
    assert isinstance(grant, mesh_pb2.JoinGrant)

    def adopt(offered: mesh_pb2.JoinGrant, tag: bytes = token.mesh_tag) -> None:
        adopt_grant(offered, tag, JOINER.node_id, verify=verify, check_certificate=check_identity_certificate)

    adopt(grant)
    with pytest.raises(PeerFault, match="not that of the mesh"):
        adopt(grant, bytes(8))
    other_world = World(2, 1)
    foreign = mesh_pb2.JoinGrant()
    foreign.CopyFrom(grant)
    foreign.genesis.signature = other_world.first.mesh.directory.signed_genesis.signature[::-1]
    with pytest.raises(PeerFault, match="not signed by the root"):
        adopt(foreign)
    without = mesh_pb2.JoinGrant(genesis=grant.genesis, members=grant.members[:1], peers=grant.peers)
    with pytest.raises(PeerFault, match="does not admit"):
        adopt(without)
    forged = mesh_pb2.JoinGrant()
    forged.CopyFrom(grant)
    forged.members[1].record.signature = bytes(64)
    with pytest.raises(PeerFault, match="bad signature"):
        adopt(forged)


def test_everyone_hears_of_a_joiner_and_the_joiner_of_everyone() -> None:
    world = World(3, 6, loss=0.2)
    world.run(3_000)
    late = world.join("late", JOINER)
    world.run_until(world.agreed, within_ms=6_000)
    world.run_until(lambda: len([up for up in late.heard if isinstance(up, PeerUp)]) >= 7, within_ms=6_000)
    assert all(late.node_id in node.mesh.directory.live() for node in world.running())


# ---- removal


@pytest.mark.parametrize(("seed", "nodes", "loss"), [(1, 5, 0.2), (2, 12, 0.2), (3, 5, 0.0)])
def test_a_removal_reaches_all_within_five_seconds(seed: int, nodes: int, loss: float) -> None:
    world = World(seed, nodes, loss=loss)
    world.run(5_000)
    victim = list(world.nodes.values())[-1]
    assert isinstance(world.first.ask(RemoveMember(f"node-{nodes - 1}")), mesh_pb2.RemoveMemberResponse)
    rest = [node for node in world.running() if node is not victim]
    took_ms = world.run_until(
        lambda: not any(node.mesh.directory.is_member(victim.node_id) for node in rest), within_ms=5_000
    )
    if not loss:
        assert took_ms <= 1_000
    assert all(PeerDown(victim.node_id, removed=True) in node.heard for node in rest)


def test_a_removal_is_told_to_the_other_domains_though_the_member_was_never_heard_of_since_the_start() -> None:
    """A restarted broker may hold awards to it."""
    world = World(2, 4)
    world.run(3_000)
    late, victim = list(world.nodes.values())[2:]
    for node in (late, victim):
        node.crash()
    world.run(20_000)  # until nobody gossips about it any more
    world.first.ask(RemoveMember(victim.node_id))
    late.heard.clear()
    late.start()
    world.run_until(lambda: not late.mesh.directory.is_member(victim.node_id), within_ms=5_000)
    assert [event for event in late.heard if event.node_id == victim.node_id] == [
        PeerDown(victim.node_id, removed=True)
    ]


def test_a_removed_node_learns_it_and_falls_silent() -> None:
    world = World(5, 4, loss=0.2)
    world.run(3_000)
    victim = list(world.nodes.values())[2]
    world.first.ask(RemoveMember(victim.node_id))
    world.run_until(lambda: victim.mesh.removed, within_ms=5_000)
    assert victim.runtime.deadline_ms() is None
    assert {event for event in victim.heard[-4:] if isinstance(event, PeerDown)} >= {PeerDown(victim.node_id)}
    assert reason(victim.ask(mesh_pb2.PingRequest(), world.first.node_id)) == "NodeRemoved"
    assert reason(world.first.ask(mesh_pb2.PingRequest(), victim.node_id)) == "NotAMember"
    assert victim.mesh.liveness(world.first.node_id) == 0, "it looks no longer"
    victim.crash()
    victim.start()
    world.run(1_000)
    assert victim.mesh.removed


def test_a_removed_node_that_was_out_of_reach_learns_it_when_it_is_back() -> None:
    world = World(5, 3)
    world.run(3_000)
    victim = list(world.nodes.values())[2]
    world.sides[victim.node_id] = 1
    world.first.ask(RemoveMember(victim.node_id))
    world.run(4_000)
    world.sides.clear()
    world.run_until(lambda: victim.mesh.removed, within_ms=2_000)


def test_a_removed_key_never_comes_back_even_after_a_partition() -> None:
    world = World(6, 5)
    world.run(3_000)
    victim, cut_off = list(world.nodes.values())[1:3]
    world.sides = {victim.node_id: 1, cut_off.node_id: 1}
    world.first.ask(RemoveMember(victim.node_id))
    world.run(10_000)
    assert cut_off.mesh.directory.is_member(victim.node_id), "it could not hear of it"
    world.sides.clear()
    world.run_until(lambda: not cut_off.mesh.directory.is_member(victim.node_id), within_ms=10_000)
    token = world.token(world.first)
    command = AdmitMember(token.invite_id, "again", victim.key.public_key, identity_certificate(victim.key))
    refused = world.first.ask(command, "anonymous")
    assert reason(refused) == "MemberRemoved"
    assert "offgrid-node join TOKEN --dir ANOTHER-FOLDER" in str(refused), "it says how to come back"


def test_removing_is_for_admins_of_others_and_repeatable() -> None:
    world = World(7, 3)
    world.run(2_000)
    plain = list(world.nodes.values())[1]
    assert reason(plain.ask(RemoveMember("node-2"))) == "NotAdmin"
    assert reason(world.first.ask(RemoveMember("node-0"))) == "CannotRemoveSelf"
    assert reason(world.first.ask(RemoveMember("nobody"))) == "NoSuchNode"
    once, twice = world.first.ask(RemoveMember("node-2")), world.first.ask(RemoveMember("node-2"))
    assert isinstance(once, mesh_pb2.RemoveMemberResponse)
    assert once == twice
    assert etypes(world.first).count(EventType.MEMBER_REMOVED) == 1


def test_whom_a_removed_admin_had_admitted_stays_under_the_removers_name() -> None:
    world = World(8, 3)
    world.run(2_000)
    second = list(world.nodes.values())[1]
    old = second.mesh.directory.member(second.node_id)
    assert old
    promoted = MemberRecord(
        old.node_id, old.name, old.public_key, old.roles, old.weight_milli, old.failure_domain, 9, admin=True
    )
    genesis = world.first.mesh.directory.genesis
    proof = issue_member(genesis, promoted, identity_certificate(second.key), world.root)
    world.first.ask(mesh_pb2.SyncMembersRequest(members=[proof]), second.node_id)
    world.run_until(world.agreed, within_ms=5_000)
    late = world.join("late", JOINER, second)
    world.run_until(world.agreed, within_ms=5_000)
    world.rotate(late, NodeKey(b"n" * 32, late.node_id))
    world.run_until(world.agreed, within_ms=20_000)
    world.first.ask(RemoveMember(second.node_id))
    world.run_until(lambda: world.agreed() and second.mesh.removed, within_ms=5_000)
    for node in (world.first, late):
        record = node.mesh.directory.member(late.node_id)
        assert record
        assert (record.issuer, record.removed) == (world.first.node_id, False)


# ---- the rest of the machine's inputs


def test_new_addresses_are_signed_and_reach_everyone() -> None:
    world = World(9, 4)
    world.run(2_000)
    mover = list(world.nodes.values())[1]
    mover.runtime.deliver("mesh", AddressesChanged(("new:7000", "bad address"), ("new:7001",)))
    mover.pump()
    world.run(500)
    assert all(node.mesh.directory.addresses(mover.node_id) == ["new:7000"] for node in world.running())


def test_a_reload_remembers_where_the_node_is_reached() -> None:
    world = World(9, 2, addresses=False)
    world.run(500)
    assert world.token(world.first).addresses == ()
    world.first.runtime.deliver("mesh", AddressesChanged(("new:7000",), ("new:7001",)))
    world.first.pump()
    world.first.runtime.reload()
    world.first.pump()
    assert world.first.mesh.directory.addresses(world.first.node_id) == ["new:7000"]
    assert world.token(world.first).addresses == ("new:7001",)


def test_a_seen_address_is_used_last() -> None:
    world = World(9, 2)
    world.run(500)
    other = list(world.nodes)[1]
    for address in ("hint:1", "no address"):
        world.first.runtime.deliver("mesh", AddressSeen(other, address))
    world.first.pump()
    assert world.first.mesh.directory.addresses(other) == [f"{other[:8]}:7000", "hint:1"]


def test_a_forged_record_in_a_sync_is_refused_and_the_good_ones_taken() -> None:
    world = World(10, 2)
    world.run(500)
    directory, other = world.first.mesh.directory, list(world.nodes)[1]
    record = MemberRecord(JOINER.node_id, "late", JOINER.public_key, ROLES_ALL, 1, "", 1, issuer=world.first.node_id)
    forged = mesh_pb2.MemberProof(
        record=signed(MEMBER_KIND, directory.salt, record.body, JOINER), certificate=identity_certificate(JOINER)
    )
    good = issue_member(directory.genesis, record, identity_certificate(JOINER), world.first.key)
    assert reason(world.first.ask(mesh_pb2.SyncMembersRequest(members=[forged]), other)) == "BadSignature"
    assert not directory.is_member(JOINER.node_id)
    assert reason(world.first.ask(mesh_pb2.SyncMembersRequest(members=[forged, good]), other)) == "BadSignature"
    assert directory.is_member(JOINER.node_id)


def test_records_of_one_version_that_differ_settle_over_the_wire() -> None:
    world = World(11, 3)
    world.run(2_000)
    genesis = world.first.mesh.directory.genesis
    for number, node in enumerate(world.nodes.values()):
        record = MemberRecord(JOINER.node_id, f"late-{number}", JOINER.public_key, ROLES_ALL, 1, "", 1)
        proof = issue_member(genesis, record, identity_certificate(JOINER), world.root)
        node.mesh.directory.accept_member(proof)
        node.mesh.directory.take_changes()  # as if it had been pushed long ago, while the others were away
    assert not world.agreed()
    world.run_until(world.agreed, within_ms=40_000)


def test_a_failed_commit_loses_nothing_and_is_heard_as_a_restart() -> None:
    world = World(12, 3)
    world.run(3_000)
    other = list(world.nodes.values())[1]
    other.heard.clear()
    world.first.runtime.reload()
    world.first.pump()
    world.run(3_000)
    assert [event for event in other.heard if event.node_id == world.first.node_id]
    assert world.agreed()
    assert not world.sees(other.node_id, DEAD)


def test_the_ledger_is_told_who_is_an_admin_at_each_start() -> None:
    world = World(6, 3)
    world.run(3_000)
    for _ in range(2):
        for node in world.running():
            assert node.told == [AdminsKnown((world.first.node_id,))]
            node.crash()
            node.told.clear()
            node.start()
        world.run(3_000)
