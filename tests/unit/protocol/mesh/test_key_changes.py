"""Identity keys that follow one another: the node stays itself, what it signed stays good, an old key opens nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mesh_world import Node, World, node_key
from msgspec.structs import replace

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, fingerprint_of, identity_certificate, verify
from offgrid_node.protocol.errors import Fault, PeerFault
from offgrid_node.protocol.mesh.commands import RemoveMember
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.keychange import (
    CHANGES_MAX,
    Chain,
    KeyChange,
    are_rivals,
    check_chain,
    decode_key_change,
    key_at,
    mark,
    outranks,
    sign_change,
)
from offgrid_node.protocol.mesh.records import PEER_KIND, ROLES_ALL, Genesis, MemberRecord, PeerRecord, signed
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.storage.store import Batch

ROOT, KEYS = node_key(1), [node_key(number) for number in range(50, 56)]
NODE_ID = KEYS[0].node_id
GENESIS = Genesis("home", ROOT.public_key, 5, bytes(16))


def change(
    number: int, following: NodeKey, *, by_root: bool = False, before: NodeKey | None = None, changed_us: int = 9
) -> mesh_pb2.KeyChange:
    """Of KEYS in their order, unless another key follows. Each began at a tenth block and the next transaction."""
    before = before or KEYS[number - 1]
    keys = before.public_key, following.public_key
    body = KeyChange(NODE_ID, number, *keys, 10 * number, number, changed_us, by_root=by_root)
    return sign_change(GENESIS, body, ROOT if by_root else before, following, identity_certificate(following))


def chain(*messages: mesh_pb2.KeyChange) -> Chain:
    return check_chain(Root(GENESIS), NODE_ID, KEYS[0].public_key, messages, verify, check_identity_certificate)


GOOD = [change(number, KEYS[number]) for number in range(1, 5)]


class TestAChain:
    @pytest.mark.parametrize("length", range(5))
    def test_each_key_is_signed_for_by_the_one_before(self, length: int) -> None:
        assert [held.change.number for held in chain(*GOOD[:length])] == list(range(1, length + 1))

    def test_one_that_was_left_out_swapped_or_said_twice_makes_it_none(self) -> None:
        for wrong in ([GOOD[1]], [GOOD[1], GOOD[0]], [GOOD[0], GOOD[0]], [GOOD[0], GOOD[2]]):
            with pytest.raises(PeerFault):
                chain(*wrong)

    def test_a_key_of_long_before_signs_for_none(self) -> None:
        body = decode_key_change(GOOD[1].change.body)
        forged = sign_change(GENESIS, body, KEYS[0], KEYS[2], identity_certificate(KEYS[2]))
        with pytest.raises(PeerFault, match="bad signature"):
            chain(GOOD[0], forged)

    def test_who_has_not_the_next_key_cannot_name_it(self) -> None:
        stolen = mesh_pb2.KeyChange()
        stolen.CopyFrom(GOOD[0])
        stolen.certificate = identity_certificate(KEYS[3])
        with pytest.raises(PeerFault, match="another key's certificate"):
            chain(stolen)
        body = decode_key_change(GOOD[0].change.body)
        for other in (KEYS[0], KEYS[2], ROOT):
            with pytest.raises(PeerFault, match="not signed by the next key"):
                chain(sign_change(GENESIS, body, KEYS[0], other, identity_certificate(KEYS[1])))

    def test_no_signature_is_moved_to_another_mesh_or_kind(self) -> None:
        other = Genesis("away", ROOT.public_key, 5, bytes(16))
        with pytest.raises(PeerFault, match="bad signature"):
            check_chain(Root(other), NODE_ID, KEYS[0].public_key, GOOD[:1], verify, check_identity_certificate)

    def test_it_is_bounded(self) -> None:
        with pytest.raises(PeerFault, match=f"at most {CHANGES_MAX}"):
            chain(*GOOD[:1] * (CHANGES_MAX + 1))

    @given(st.binary(max_size=200))
    def test_noise_is_no_change(self, noise: bytes) -> None:
        with pytest.raises(PeerFault):
            decode_key_change(noise)

    @given(st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1), st.booleans())
    def test_a_body_comes_back(self, height: int, seq: int, by_root: bool) -> None:
        made = KeyChange(NODE_ID, 3, KEYS[0].public_key, KEYS[1].public_key, height, seq, 7, by_root=by_root)
        assert decode_key_change(made.body) == made

    def test_the_key_of_then_is_found_by_block_and_transaction(self) -> None:
        keys, first = chain(*GOOD), KEYS[0].public_key
        at = {height: key_at(first, keys, height=height) for height in (0, 9, 10, 19, 20, 39, 40, 99)}
        assert [KEYS.index(node) for node in (next(k for k in KEYS if k.public_key == at[h]) for h in at)] == [
            0, 0, 1, 1, 2, 3, 4, 4,
        ]  # fmt: skip
        assert [key_at(first, keys, seq=seq) for seq in range(5)] == [key.public_key for key in KEYS[:5]]


class TestWhichStands:
    OWN = chain(*GOOD[:2])
    THIEFS = chain(GOOD[0], change(2, KEYS[5]))
    ROOTS = chain(GOOD[0], change(2, KEYS[4], by_root=True))
    OTHER_ROOTS = chain(GOOD[0], change(2, KEYS[3], by_root=True))

    def test_a_longer_one_follows_a_shorter_one_and_never_the_other_way(self) -> None:
        chains = [chain(*GOOD[:length]) for length in range(5)]
        for shorter, longer in pairwise(chains):
            assert outranks(longer, shorter)
            assert not outranks(shorter, longer)

    def test_of_two_by_one_old_key_the_first_that_was_heard_of_stays(self) -> None:
        assert not outranks(self.THIEFS, self.OWN)
        assert not outranks(self.OWN, self.THIEFS)

    def test_the_roots_word_stands_above_both_whatever_follows_them(self) -> None:
        longer = chain(*GOOD)
        for other in (self.OWN, self.THIEFS, longer):
            assert outranks(self.ROOTS, other)
            assert not outranks(other, self.ROOTS)

    def test_the_roots_word_settles_what_began_before_it(self) -> None:
        """Two parts of a mesh heard different changes by one old key, then one of them the root's on top of its own."""
        settled = chain(GOOD[0], change(2, KEYS[2], by_root=True))
        away = chain(change(1, KEYS[5]), change(2, KEYS[4], before=KEYS[5]), change(3, KEYS[3], before=KEYS[4]))
        assert outranks(settled, away)
        assert not outranks(away, settled)

    def test_the_roots_later_word_stands_above_its_earlier_one(self) -> None:
        anew = chain(change(1, KEYS[3], by_root=True, changed_us=10))
        for other in (self.ROOTS, self.OTHER_ROOTS):
            assert outranks(anew, other)
            assert not outranks(other, anew)

    def test_the_root_says_nothing_older_behind_what_it_has_said(self) -> None:
        said = change(1, KEYS[1], by_root=True)
        with pytest.raises(PeerFault, match="older than the root's last"):
            chain(said, change(2, KEYS[2], by_root=True))
        assert len(chain(said, change(2, KEYS[2], by_root=True, changed_us=10))) == 2

    def test_of_two_by_the_root_all_take_the_same(self) -> None:
        one, other = self.ROOTS, self.OTHER_ROOTS
        assert outranks(one, other) is not outranks(other, one)

    def test_only_the_roots_word_makes_two_nodes_differ(self) -> None:
        assert mark(self.OWN) == mark(self.THIEFS)
        assert len({mark(each) for each in ((), self.OWN, self.ROOTS, self.OTHER_ROOTS)}) == 4

    def test_nor_does_their_length_once_both_are_known(self) -> None:
        longer = chain(GOOD[0], change(2, KEYS[5]), change(3, KEYS[4], before=KEYS[5]))
        assert mark(longer) != mark(self.OWN)
        assert mark(longer, rivalled=True) == mark(self.OWN, rivalled=True)
        assert are_rivals(longer, self.OWN)
        for other in (self.ROOTS, chain(GOOD[0])):
            assert not are_rivals(other, self.OWN)


@pytest.fixture
def world() -> World:
    world = World(3, 4)
    world.run(5_000)
    return world


def keys_of(world: World, node: Node) -> set[bytes | None]:
    return {each.mesh.directory.current_key(node.node_id) for each in world.running()}


def check_known(world: World, node: Node, number: int) -> None:
    """Everybody knows its key of now, by which it is alive."""
    world.run(20_000)
    assert keys_of(world, node) == {node.key.public_key}
    assert world.sees(node.node_id, ALIVE)
    assert world.agreed()
    for each in world.running():
        assert each.mesh.directory.key_number(node.node_id) == number
        assert each.mesh.directory.certificate(node.node_id) == identity_certificate(node.key)
        assert len(each.mesh.directory.keys(node.node_id)) == number + 1


class TestInAMesh:
    def test_a_member_has_another_key_and_stays_itself(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, member, 1)

    def test_again_and_again_and_after_restarts(self, world: World) -> None:
        member = [*world.nodes.values()][1]
        for number in (1, 2, 3):
            world.rotate(member, NodeKey(bytes([number]) * 32, member.node_id))
            check_known(world, member, number)
        for node in world.running():
            node.crash()
            node.start()
        check_known(world, member, 3)

    def test_the_only_admin_too_and_whom_it_admitted_stays(self, world: World) -> None:
        world.rotate(world.first, NodeKey(b"n" * 32, world.first.node_id))
        check_known(world, world.first, 1)
        for node in world.running():
            node.crash()
            node.start()
        check_known(world, world.first, 1)
        assert all(len(node.mesh.directory.live()) == 4 for node in world.running())
        newcomer = world.join("late", node_key(200))
        world.run(20_000)
        assert world.sees(newcomer.node_id, ALIVE)

    def test_with_the_old_key_lost_the_root_signs_and_only_who_knows_can_tell(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id), by_root=True)
        check_known(world, member, 1)

    def test_on_both_sides_of_a_partition(self, world: World) -> None:
        one, other = [*world.nodes.values()][1], [*world.nodes.values()][3]
        world.sides = {other.node_id: 1}
        world.run(20_000)
        world.rotate(one, NodeKey(b"n" * 32, one.node_id))
        world.rotate(other, NodeKey(b"m" * 32, other.node_id))
        world.run(20_000)
        world.sides = {}
        check_known(world, one, 1)
        check_known(world, other, 1)

    def test_on_both_sides_of_a_partition_an_admin_and_one_whom_it_admitted(self, world: World) -> None:
        """The other side has the member's record by the admin's key of before, with the member's next key."""
        member = [*world.nodes.values()][2]
        world.sides = {world.first.node_id: 1}
        world.run(20_000)
        world.rotate(world.first, NodeKey(b"n" * 32, world.first.node_id))
        world.rotate(member, NodeKey(b"m" * 32, member.node_id))
        world.run(20_000)
        world.sides = {}
        check_known(world, world.first, 1)
        check_known(world, member, 1)
        assert not [notice for node in world.running() for notice in node.mesh.notices if "refused" in notice]

    def test_a_node_that_was_off_meanwhile_comes_back_to_it(self, world: World) -> None:
        away, member = [*world.nodes.values()][1:3]
        away.crash()
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        world.run(20_000)
        away.start()
        check_known(world, member, 1)


class TestTheOldKey:
    def test_it_is_nobodys_any_more(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        old = member.key
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, member, 1)
        for node in world.running():
            directory = node.mesh.directory
            assert directory.node_of_fingerprint(old.node_id) is None
            body = PeerRecord(member.node_id, 99, ROLES_ALL, ("evil:1",), "test").body
            with pytest.raises(PeerFault, match="bad signature"):
                directory.accept_peer(signed(PEER_KIND, directory.salt, body, old))

    def test_an_admins_admits_and_removes_nobody_any_more(self, world: World) -> None:
        old, victim = world.first.key, [*world.nodes.values()][1]
        world.rotate(world.first, NodeKey(b"n" * 32, world.first.node_id))
        check_known(world, world.first, 1)
        directory, evil = victim.mesh.directory, node_key(300)
        record = MemberRecord(evil.node_id, "evil", evil.public_key, ROLES_ALL, 1_000, "", 1, issuer=old.node_id)
        known = directory.member([*world.nodes][2])
        assert known is not None
        for forged in (record, known.tombstone(old.node_id)):
            with pytest.raises(PeerFault, match="bad signature"):
                directory.accept_member(issue_member(directory.genesis, forged, identity_certificate(evil), old))

    def test_it_takes_the_node_back_for_no_one_who_has_heard(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        old, thief = member.key, node_key(301)
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, member, 1)
        directory = world.first.mesh.directory
        body = KeyChange(member.node_id, 1, old.public_key, thief.public_key, 0, 0, 1)
        proof = directory.proofs(member.node_id)[-1]
        forged = mesh_pb2.MemberProof(record=proof.record, certificate=proof.certificate)
        forged.key_changes.append(sign_change(directory.genesis, body, old, thief, identity_certificate(thief)))
        assert not directory.accept_member(forged)
        assert directory.current_key(member.node_id) == member.key.public_key
        assert "replaced twice" in " ".join(directory.notices)

    def test_the_root_takes_a_stolen_node_back(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        old, thief = member.key, NodeKey(b"t" * 32, member.node_id)
        world.rotate(member, thief)
        check_known(world, member, 1)
        member.key, member.older = old, []
        rows = Directory.load(member.store, verify, check_identity_certificate)
        was = rows.key_changes(member.node_id)
        following = NodeKey(b"n" * 32, member.node_id)
        body = KeyChange(member.node_id, 1, old.public_key, following.public_key, 0, 0, 1, by_root=True)
        message = sign_change(rows.genesis, body, world.root, following, identity_certificate(following))
        proof = mesh_pb2.MemberProof()
        proof.CopyFrom(rows.proofs(member.node_id)[-1])
        del proof.key_changes[:]
        proof.key_changes.append(message)
        assert len(was) == 1
        for node in world.running():
            assert node.mesh.directory.accept_member(proof)
            assert node.mesh.directory.current_key(member.node_id) == following.public_key


class TestTwoThatFollowOneKey:
    """An old key is in two hands, and one part of the mesh heard of the one, the other of the other, which went on."""

    @pytest.fixture
    def forked(self, world: World) -> World:
        member = [*world.nodes.values()][2]
        old, keys = member.key, [NodeKey(bytes([number]) * 32, member.node_id) for number in (1, 2, 3)]
        member.crash()
        for node, following in zip(world.running(), ([keys[0]], keys[1:], keys[1:]), strict=True):
            directory, before, made = node.mesh.directory, old, list[mesh_pb2.KeyChange]()
            for number, key in enumerate(following, 1):
                body = KeyChange(member.node_id, number, before.public_key, key.public_key, 0, 0, number)
                made.append(sign_change(directory.genesis, body, before, key, identity_certificate(key)))
                before = key
            proof = directory.proofs(member.node_id)[-1]
            told = mesh_pb2.MemberProof(record=proof.record, certificate=proof.certificate, key_changes=made)
            assert directory.accept_member(told)
            node.store.commit(Batch(writes=directory.rows(member.node_id)))
        return world

    def test_each_stays_with_the_first_and_they_do_not_tell_each_other_for_ever(self, forked: World) -> None:
        forked.run(60_000)
        member = [*forked.nodes][2]
        assert [node.mesh.directory.key_number(member) for node in forked.running()] == [1, 2, 2]
        assert forked.agreed()
        for node in forked.running():
            assert "replaced twice" in " ".join(node.mesh.notices)
            node.crash()
            node.start()
        assert forked.agreed(), "what is known of both is in the rows"
        newcomer = forked.join("late", node_key(200))
        forked.run(60_000)
        assert forked.agreed()
        assert newcomer.mesh.directory.has_rival(member)

    def test_the_roots_word_settles_it(self, forked: World) -> None:
        forked.run(20_000)
        member = [*forked.nodes.values()][2]
        forked.rotate(member, NodeKey(b"n" * 32, member.node_id), by_root=True)
        for proof in member.mesh.directory.proofs(member.node_id):
            forked.first.mesh.directory.accept_member(proof)
        check_known(forked, member, 1)
        assert not any(node.mesh.directory.has_rival(member.node_id) for node in forked.running())


class TestAnothersKey:
    def test_a_member_that_takes_it_for_its_own_next_one_is_refused_and_the_other_stays_itself(
        self, world: World
    ) -> None:
        liar, other = [*world.nodes.values()][1:3]
        directory = world.first.mesh.directory
        body = KeyChange(liar.node_id, 1, liar.key.public_key, other.key.public_key, 0, 0, 1)
        proof = mesh_pb2.MemberProof()
        proof.CopyFrom(directory.proofs(liar.node_id)[-1])
        taken = identity_certificate(other.key)  # which all members know
        proof.key_changes.append(sign_change(directory.genesis, body, liar.key, liar.key, taken))
        with pytest.raises(PeerFault, match="not signed by the next key"):
            directory.accept_member(proof)
        assert directory.node_of_fingerprint(fingerprint_of(other.key.public_key)) == other.node_id


class TestOneWhoWasRemoved:
    def test_comes_back_by_no_key_that_its_old_one_names(self, world: World) -> None:
        gone = [*world.nodes.values()][2]
        gone.crash()
        assert not isinstance(world.first.ask(RemoveMember(gone.node_id)), Fault)
        world.run(5_000)
        world.rotate(gone, NodeKey(b"n" * 32, gone.node_id))
        world.run(30_000)
        fingerprint = fingerprint_of(gone.key.public_key)
        for directory in (node.mesh.directory for node in world.running() if node is not gone):
            assert not directory.is_member(gone.node_id)
            assert directory.node_of_fingerprint(fingerprint) is None
            assert identity_certificate(gone.key) not in directory.certificates()


class TestStored:
    def test_what_is_damaged_or_anothers_in_the_rows_is_left_out(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, member, 1)
        store = world.first.store
        row = mesh_pb2.KeyChangesRow.FromString(store.get("key_changes", member.node_id.encode()) or b"")
        row.changes[0].change.CopyFrom(common_pb2.Signed(body=row.changes[0].change.body, signature=bytes(64)))
        store.commit(Batch(writes={("key_changes", member.node_id.encode()): row.SerializeToString()}))
        directory = Directory.load(store, verify, check_identity_certificate)
        assert directory.key_number(member.node_id) == 0
        assert any("key_changes" in sentence for sentence in directory.notices)

    def test_a_record_of_another_first_key_begins_anew(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        world.rotate(member, NodeKey(b"n" * 32, member.node_id))
        check_known(world, member, 1)
        directory, third = world.first.mesh.directory, node_key(400)
        known = directory.member(member.node_id)
        assert known is not None
        anew = replace(known, public_key=third.public_key, epoch=known.epoch + 1, issuer="")
        directory.accept_member(issue_member(directory.genesis, anew, identity_certificate(third), world.root))
        assert directory.keys(member.node_id) == (third.public_key,)
        assert directory.node_of_fingerprint(third.node_id) == member.node_id


class TestTheRootTakesANodeBack:
    """`rotate identity --root-key` where a thief's changes came to the node's own store."""

    @staticmethod
    def steal(world: World, member: Node, changes: list[KeyChange], keys: list[NodeKey]) -> None:
        """The thief has the node's key, and tells the node and all others."""
        signer = member.key
        proof = mesh_pb2.MemberProof()
        proof.CopyFrom(world.first.mesh.directory.proofs(member.node_id)[-1])
        for body, following in zip(changes, keys, strict=True):
            certificate = identity_certificate(following)
            proof.key_changes.append(
                sign_change(world.first.mesh.directory.genesis, body, signer, following, certificate)
            )
            signer = following
        for node in world.running():
            directory = node.mesh.directory
            assert directory.accept_member(proof)
            node.store.commit(Batch(writes=directory.rows(member.node_id)))

    @staticmethod
    def take_back(world: World, member: Node) -> None:
        """Who heard the thief's does not talk to the node: the root's word is brought to one of the others."""
        world.rotate(member, NodeKey(b"n" * 32, member.node_id), by_root=True)
        for proof in member.mesh.directory.proofs(member.node_id):
            world.first.mesh.directory.accept_member(proof)
        check_known(world, member, 1)

    def test_the_thiefs_change_does_not_keep_it_from_signing(self, world: World) -> None:
        """It says that the thief's key begins so late that no block of the node's own would ever come after it."""
        member, thief = [*world.nodes.values()][2], node_key(301)
        body = KeyChange(member.node_id, 1, member.key.public_key, thief.public_key, 2**63, 2**63, 1)
        self.steal(world, member, [body], [thief])
        self.take_back(world, member)
        assert thief.public_key not in world.first.mesh.directory.keys(member.node_id)

    def test_a_thief_who_used_all_changes_up_leaves_the_root_one(self, world: World) -> None:
        member = [*world.nodes.values()][2]
        keys = [node_key(301 + number) for number in range(CHANGES_MAX)]
        chain_of = [member.key, *keys]
        bodies = [
            KeyChange(member.node_id, number, before.public_key, following.public_key, 1, 0, number)
            for number, (before, following) in enumerate(pairwise(chain_of), 1)
        ]
        self.steal(world, member, bodies, keys)
        self.take_back(world, member)
