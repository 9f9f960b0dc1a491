"""Root keys that follow one another: the mesh stays itself, what the root stands by stays, an old key names nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesh_world import Node, World, node_key
from msgspec.structs import replace

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, PeerFault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import Parcel
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.held import ROOT_CHANGES_KEY
from offgrid_node.protocol.mesh.keychange import KeyChange, sign_change
from offgrid_node.protocol.mesh.records import EPOCH_MAX, MEMBER_KIND, ROLES_ALL, Genesis, MemberRecord
from offgrid_node.protocol.mesh.root import (
    KEPT_MAX,
    ROOT_CHANGE_KIND,
    ROOT_CHANGES_MAX,
    Root,
    decode_root_change,
    hash_of,
    open_root,
    sign_root_change,
)
from offgrid_node.protocol.mesh.rooted import ROOT_FORKED
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.mesh.vouching import vouched
from offgrid_node.protocol.signing import digest_of
from offgrid_node.rotating_root import changed_root_rows
from offgrid_node.storage.store import Batch

KEYS = [node_key(number) for number in range(60, 64)]
GENESIS = Genesis("home", KEYS[0].public_key, 5, bytes(16))
KEPT = [bytes([number]) * 32 for number in (1, 2, 3)]


def changes(*keys: NodeKey, kept: list[bytes] = KEPT) -> list[mesh_pb2.RootChange]:
    made = list[mesh_pb2.RootChange]()
    for before, following in zip((KEYS[0], *keys), keys, strict=False):
        made = sign_root_change(Root(GENESIS, made), before, following, kept, 9)
    return made


def opened(messages: list[mesh_pb2.RootChange]) -> Root:
    return open_root(GENESIS, messages, verify)


GOOD = changes(*KEYS[1:])


class TestAChain:
    @pytest.mark.parametrize("number", range(4))
    def test_each_key_is_signed_for_by_the_one_before(self, number: int) -> None:
        root = opened(changes(*KEYS[1 : number + 1]))
        assert (root.number, root.key) == (number, KEYS[number].public_key)
        assert root.keys == tuple(key.public_key for key in reversed(KEYS[: number + 1]))

    def test_one_that_was_left_out_swapped_or_said_twice_makes_it_none(self) -> None:
        for wrong in ([GOOD[1]], [GOOD[1], GOOD[0]], [GOOD[0], GOOD[0]], [GOOD[0], GOOD[2]]):
            with pytest.raises(PeerFault):
                opened(wrong)

    def test_both_keys_sign(self) -> None:
        body = GOOD[0].change.body
        digest = digest_of(ROOT_CHANGE_KIND, GENESIS.salt, body)
        for before, following in ((KEYS[2], KEYS[1]), (KEYS[0], KEYS[2])):
            forged = mesh_pb2.RootChange(next_signature=following.sign(digest), kept=KEPT)
            forged.change.body, forged.change.signature = body, before.sign(digest)
            with pytest.raises(PeerFault, match="not signed by"):
                opened([forged])

    def test_no_signature_is_moved_to_another_mesh(self) -> None:
        with pytest.raises(PeerFault):
            open_root(replace(GENESIS, mesh_name="away"), GOOD[:1], verify)

    @pytest.mark.parametrize("kept", [KEPT[:2], [*KEPT, b"x" * 32], KEPT[::-1], [b"x"], []])
    def test_what_it_stands_by_is_what_was_signed(self, kept: list[bytes]) -> None:
        changed = mesh_pb2.RootChange(change=GOOD[2].change, next_signature=GOOD[2].next_signature, kept=kept)
        with pytest.raises(PeerFault, match="what is kept"):
            opened([*GOOD[:2], changed])

    def test_only_the_newest_stands_by_anything(self) -> None:
        one = changes(KEYS[1])[0]
        with pytest.raises(PeerFault, match="only the newest"):
            opened([one, *GOOD[1:]])

    def test_it_is_bounded(self) -> None:
        with pytest.raises(PeerFault, match=f"at most {ROOT_CHANGES_MAX}"):
            opened(GOOD[:1] * (ROOT_CHANGES_MAX + 1))
        many = [number.to_bytes(32, "big") for number in range(KEPT_MAX + 1)]
        assert opened(changes(KEYS[1], kept=many[:-1])).number == 1
        with pytest.raises(PeerFault, match="what is kept"):
            opened(changes(KEYS[1], kept=many))

    @given(st.binary(max_size=120))
    def test_noise_is_no_change(self, noise: bytes) -> None:
        with pytest.raises(PeerFault):
            decode_root_change(noise)

    def test_a_body_comes_back(self) -> None:
        assert decode_root_change(GOOD[1].change.body).kept_hash == hash_of(KEPT)

    @pytest.mark.parametrize("signer", range(4))
    def test_a_key_of_before_is_believed_for_what_the_newest_stands_by_alone(self, signer: int) -> None:
        body, other = b"said long ago", b"said today"
        digest = digest_of(MEMBER_KIND, GENESIS.salt, body)
        root = opened(changes(*KEYS[1:], kept=[digest]))
        said = {
            text: root.said(
                MEMBER_KIND, text, KEYS[signer].sign(digest_of(MEMBER_KIND, GENESIS.salt, text)), verify
            )
            for text in (body, other)
        }  # fmt: skip
        assert said == {body: True, other: signer == 3}
        assert not root.said(MEMBER_KIND, body, bytes(64), verify), "that it is kept makes no signature"


@pytest.fixture
def world() -> World:
    world = World(3, 4)
    world.run(5_000)
    return world


NEXT, OTHER = node_key(70), node_key(71)


def check_known(world: World, number: int) -> None:
    world.run(20_000)
    assert {node.mesh.directory.root.key for node in world.running()} == {world.root.public_key}
    assert {node.mesh.directory.root.number for node in world.running()} == {number}
    assert world.agreed()
    for node in world.running():
        assert world.sees(node.node_id, ALIVE)
        assert len(node.mesh.directory.live()) == len(world.nodes)


def restarted(world: World) -> None:
    for node in world.running():
        node.crash()
        node.start()


class TestInAMesh:
    def test_all_hear_of_it_and_nobody_is_put_out(self, world: World) -> None:
        for number, following in enumerate((NEXT, OTHER), 1):
            world.rotate_root([*world.nodes.values()][number], following)
            check_known(world, number)
        restarted(world)
        check_known(world, 2)

    def test_a_member_that_was_away_for_two_of_them_finds_its_way(self, world: World) -> None:
        away, *others = [*world.nodes.values()][1:]
        away.crash()
        for following in (NEXT, OTHER):
            world.rotate_root(others[0], following)
            world.run(20_000)
        world.rotate(others[1], NodeKey(b"n" * 32, others[1].node_id), by_root=True)
        world.run(20_000)
        away.start()
        check_known(world, 2)

    def test_whoever_joins_later_goes_from_the_genesis_to_the_key_of_now(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id), by_root=True)
        world.run(20_000)
        world.rotate_root(world.first, NEXT)
        check_known(world, 1)
        newcomer = world.join("late", node_key(200))
        assert newcomer.mesh.directory.root.key == NEXT.public_key
        assert newcomer.mesh.directory.key_number(member.node_id) == 1, "by the first root's word, which the next keeps"
        check_known(world, 1)

    def test_far_from_it_whose_keys_are_whose_is_shown_over_all_changes(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        keys = [member.key.public_key]
        world.rotate(world.first, NodeKey(b"n" * 32, world.first.node_id))
        world.run(20_000)
        for number, (following, by_root) in enumerate(((NEXT, False), (OTHER, True)), 1):
            world.rotate(member, NodeKey(bytes([number]) * 32, member.node_id), by_root=by_root)
            keys.insert(0, member.key.public_key)
            world.run(20_000)
            world.rotate_root(member, following)
            check_known(world, number)
        for node in world.running():
            directory = node.mesh.directory
            root = open_root(directory.genesis, directory.root_changes().changes, verify)
            shown = vouched(root, directory.vouchers(member.node_id), member.node_id, verify)
            assert (shown.record.name, shown.keys) == ("node-2", tuple(keys))
            with pytest.raises(PeerFault):
                vouched(Root(directory.genesis), directory.vouchers(member.node_id), member.node_id, verify)

    def test_on_the_other_side_of_a_partition_it_is_heard_of_after_it(self, world: World) -> None:
        world.sides = {[*world.nodes][3]: 1}
        world.rotate_root(world.first, NEXT)
        world.run(20_000)
        world.sides = {}
        check_known(world, 1)

    def test_a_store_whose_row_of_it_is_damaged_does_not_go_back_to_the_old_key(self, world: World) -> None:
        world.rotate_root(world.first, NEXT)
        check_known(world, 1)
        store = world.first.store
        for damaged in (b"\xff", store.get("mesh", ROOT_CHANGES_KEY)[:-8]):  # type: ignore[index]
            store.commit(Batch(writes={("mesh", ROOT_CHANGES_KEY): damaged}))
            with pytest.raises(Corrupt):
                Directory.load(store, verify, check_identity_certificate)

    def test_whoever_knows_of_it_is_not_told_again(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.rotate_root(world.first, NEXT)
        check_known(world, 1)
        told, root_changes = list[Directory](), Directory.root_changes
        monkeypatch.setattr(Directory, "root_changes", lambda known, *how: told.append(known) or root_changes(known))
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, 1)
        restarted(world)
        check_known(world, 1)
        assert not told

    @pytest.mark.parametrize("most", [0, 400, 2_000, 100_000])
    def test_it_counts_among_the_bytes_of_a_message(self, world: World, most: int) -> None:
        directory = world.first.mesh.directory
        changed_root_rows(directory, world.root, NEXT, 9)
        changes = directory.root_changes(0).ByteSize()
        parcel = Parcel(directory, changes + most)
        parcel.add_root()
        fits = [parcel.add(node_id) for node_id in directory.all_ids()]
        records = sum(record.ByteSize() for record in (*parcel.members, *parcel.peers))
        assert parcel.root is not None
        assert records + parcel.root.ByteSize() <= changes + most
        assert all(fits) == (most == 100_000)

    def test_keys_are_used_up(self, world: World) -> None:
        directory, signer = world.first.mesh.directory, world.root
        for number in range(ROOT_CHANGES_MAX):
            following = node_key(1_000 + number)
            changed_root_rows(directory, signer, following, 9)
            signer = following
        with pytest.raises(FailedPrecondition, match="at most 64"):
            changed_root_rows(directory, signer, NEXT, 9)


class TestTheOldKey:
    @pytest.fixture
    def after(self, world: World) -> tuple[World, NodeKey]:
        old = world.root
        world.rotate_root(world.first, NEXT)
        check_known(world, 1)
        return world, old

    def test_it_names_no_admin_and_removes_nobody_any_more(self, after: tuple[World, NodeKey]) -> None:
        world, old = after
        directory, evil = world.nodes[[*world.nodes][1]].mesh.directory, node_key(300)
        made = MemberRecord(evil.node_id, "evil", evil.public_key, ROLES_ALL, 1_000, "", EPOCH_MAX, admin=True)
        founder = directory.member(world.first.node_id)
        assert founder is not None
        for forged, key in (
            (made, evil),
            (founder.tombstone(""), world.first.key),
            (replace(founder, epoch=EPOCH_MAX), world.first.key),
        ):
            with pytest.raises(PeerFault, match="bad signature"):
                directory.accept_member(issue_member(directory.genesis, forged, identity_certificate(key), old))
        assert directory.accept_member(issue_member(directory.genesis, made, identity_certificate(evil), NEXT))

    def test_it_gives_no_node_another_key(self, after: tuple[World, NodeKey]) -> None:
        world, old = after
        directory, member = world.first.mesh.directory, [*world.nodes.values()][2]
        thief = NodeKey(b"t" * 32, member.node_id)
        body = KeyChange(member.node_id, 1, member.key.public_key, thief.public_key, 0, 0, 2**60, by_root=True)
        for signer, refused in ((old, True), (NEXT, False)):
            proof = directory.proofs(member.node_id)[-1]
            told = mesh_pb2.MemberProof(record=proof.record, certificate=proof.certificate)
            told.key_changes.append(sign_change(directory.genesis, body, signer, thief, identity_certificate(thief)))
            if refused:
                with pytest.raises(PeerFault, match="bad signature"):
                    directory.accept_member(told)
            else:
                assert directory.accept_member(told)

    def test_what_a_thief_had_said_by_it_before_is_void_for_all_who_believed_it(self, world: World) -> None:
        old, evil, victim = world.root, node_key(300), [*world.nodes.values()][2]
        deceived = [*world.nodes.values()][3]
        directory = deceived.mesh.directory
        founder = directory.member(world.first.node_id)
        assert founder is not None
        record = MemberRecord(evil.node_id, "evil", evil.public_key, ROLES_ALL, 1_000, "", 1, admin=True)
        body = KeyChange(victim.node_id, 1, victim.key.public_key, evil.public_key, 0, 0, 2**60, by_root=True)
        stolen = mesh_pb2.MemberProof()
        stolen.CopyFrom(directory.proofs(victim.node_id)[-1])
        stolen.key_changes.append(sign_change(directory.genesis, body, old, evil, identity_certificate(evil)))
        demoted = replace(founder, admin=False, epoch=EPOCH_MAX)
        certificate = identity_certificate(world.first.key)
        removed = directory.member([*world.nodes][1])
        assert removed is not None
        world.sides = {deceived.node_id: 1}
        for told in (
            issue_member(directory.genesis, record, identity_certificate(evil), old),
            issue_member(directory.genesis, removed.tombstone(evil.node_id), b"", evil),
            stolen,
            issue_member(directory.genesis, demoted, certificate, old),
        ):
            assert directory.accept_member(told)
        assert not directory.is_admin(world.first.node_id)
        world.run(5_000)
        world.sides = {}
        world.rotate_root(world.first, NEXT)
        told = world.first.mesh.directory.root_changes()
        told.members.insert(0, mesh_pb2.MemberProof())
        with pytest.raises(PeerFault):  # whoever it still talks to tells it, and something that is no record
            directory.accept_root(told)
        assert directory.is_admin(world.first.node_id)
        assert not directory.is_member(evil.node_id)
        assert directory.current_key(victim.node_id) == victim.key.public_key
        assert "does not keep" in " ".join(directory.notices)
        check_known(world, 1)

    def test_whom_an_admin_removed_stays_out_where_the_root_stands_by_another_record_of_that_admin(
        self, world: World
    ) -> None:
        directory, founder = [*world.nodes.values()][3].mesh.directory, world.first
        rotator = Directory.load(founder.store, verify, check_identity_certificate)
        record, removed = directory.member(founder.node_id), directory.member([*world.nodes][1])
        assert record is not None
        assert removed is not None
        certificate = identity_certificate(founder.key)
        for told in (
            issue_member(directory.genesis, removed.tombstone(founder.node_id), b"", founder.key),
            issue_member(directory.genesis, replace(record, epoch=EPOCH_MAX), certificate, world.root),
        ):
            assert directory.accept_member(told)
        changed_root_rows(rotator, world.root, NEXT, 9)
        directory.accept_root(rotator.root_changes())
        assert directory.member(founder.node_id) == record
        assert directory.member(removed.node_id) == removed.tombstone(founder.node_id)


class TestTwoThatFollowOneKey:
    """The root key is in two hands: nothing stands above it."""

    @staticmethod
    def steal(world: World, node: Node, *keys: NodeKey) -> list[mesh_pb2.RootChange]:
        directory, signer = Directory.load(node.store, verify, check_identity_certificate), node_key(1)
        for following in keys:
            changed_root_rows(directory, signer, following, 9)
            signer = following
        return list(directory.root.changes)

    def test_each_stays_with_the_first_they_do_not_tell_each_other_for_ever_and_say_so(self, world: World) -> None:
        deceived = [*world.nodes.values()][3]
        stolen = self.steal(world, deceived, OTHER, node_key(72))
        world.sides = {deceived.node_id: 1}
        world.rotate_root(world.first, NEXT)
        deceived.mesh.directory.accept_root(mesh_pb2.RootChanges(changes=stolen))
        world.run(20_000)
        world.sides = {}
        world.run(60_000)
        numbers = [node.mesh.directory.root.number for node in world.nodes.values()]
        assert numbers == [1, 1, 1, 2]
        assert world.agreed()
        restarted(world)
        for node in world.running():
            assert ROOT_FORKED in node.mesh.notices, "with the way back"
        newcomer = world.join("late", node_key(200))
        world.run(60_000)
        assert world.agreed()
        assert newcomer.mesh.directory.rival_root is not None

    def test_members_who_know_of_different_ones_for_good_tell_each_other_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deceived = [*world.nodes.values()][1:]
        stolen = [self.steal(world, node, node_key(72 + number)) for number, node in enumerate(deceived)]
        world.sides = {node_id: number for number, node_id in enumerate(world.nodes)}
        for node, chain in zip(deceived, stolen, strict=True):
            node.mesh.directory.accept_root(mesh_pb2.RootChanges(changes=chain))
        world.rotate_root(world.first, NEXT)
        world.run(20_000)
        world.sides = {}
        world.run(120_000)
        assert len({node.mesh.directory.root_digest() for node in world.nodes.values()}) > 1
        told, sound = list[Parcel](), Parcel.add_root

        def add_root(parcel: Parcel) -> None:
            told.append(parcel)
            sound(parcel)

        monkeypatch.setattr(Parcel, "add_root", add_root)
        world.run(60_000)
        assert told == []

    def test_its_owner_settles_it_and_what_follows_spreads(self, world: World) -> None:
        deceived = [*world.nodes.values()][3]
        stolen = self.steal(world, deceived, OTHER)
        world.sides = {deceived.node_id: 1}  # so that the others hear of the owner's change first
        world.rotate_root(world.first, NEXT)
        deceived.mesh.directory.accept_root(mesh_pb2.RootChanges(changes=stolen))
        world.run(20_000)
        world.sides = {}
        world.run(20_000)
        deceived.mesh.directory.settle_root(world.first.mesh.directory.root_changes())
        check_known(world, 1)
        world.rotate_root(world.first, node_key(73))
        check_known(world, 2)
