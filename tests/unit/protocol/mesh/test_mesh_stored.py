"""What a node finds in its own rows at start: all of its mesh, and nothing of any other."""

from __future__ import annotations

import pytest
from mesh_world import node_key

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import MeshRows, all_rows, found_mesh, issue_member
from offgrid_node.protocol.mesh.held import GENESIS_KEY
from offgrid_node.protocol.mesh.records import PEER_KIND, ROLES_ALL, MemberRecord, PeerRecord, signed
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT, ALICE, BOB, CAROL, EVIL_ROOT, EVE, MALLORY = (node_key(number) for number in range(1, 8))


def record(key: NodeKey, name: str, issuer: str, *, admin: bool = False) -> MemberRecord:
    return MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, 1_000, "", 1, admin=admin, issuer=issuer)


def mesh(name: str, root: NodeKey, admin: NodeKey, *others: NodeKey) -> Directory:
    """A founder that admitted the others; each has a peer record."""
    rows = found_mesh(
        name, root, admin, identity_certificate(admin), "founder", 5, bytes(16),
        verify=verify, check_certificate=check_identity_certificate,
    )  # fmt: skip
    directory = load(rows)
    for number, key in enumerate(others):
        member = record(key, f"m-{number}", admin.node_id)
        directory.accept_member(issue_member(directory.genesis, member, identity_certificate(key), admin))
    for key in (admin, *others):
        body = PeerRecord(key.node_id, 1, ROLES_ALL, (f"{key.node_id[:8]}:7000",), "test").body
        directory.accept_peer(signed(PEER_KIND, directory.salt, body, key))
    return directory


def load(rows: MeshRows) -> Directory:
    store = MemoryStore()
    store.commit(Batch(writes=rows))
    return Directory.load(store, verify, check_identity_certificate)


OURS = mesh("home", ROOT, ALICE, BOB, CAROL)
OTHERS = mesh("other", EVIL_ROOT, EVE, MALLORY)
CERTIFICATES = sorted(identity_certificate(key) for key in (ALICE, BOB, CAROL))


def test_all_of_the_mesh_is_there_again() -> None:
    loaded = load(all_rows(OURS))
    assert loaded.digest() == OURS.digest()
    assert loaded.is_admin(ALICE.node_id)
    assert sorted(loaded.certificates()) == CERTIFICATES
    assert not loaded.notices


def test_a_second_mesh_in_the_same_store_is_left_out_and_said() -> None:
    loaded = load({**all_rows(OTHERS), **all_rows(OURS)})
    assert sorted(loaded.certificates()) == CERTIFICATES, "whom TLS trusts"
    assert loaded.digest() == OURS.digest()
    assert not loaded.is_member(EVE.node_id)
    assert loaded.addresses(MALLORY.node_id) == []
    assert loaded.node_of_fingerprint(EVE.node_id) is None
    assert [notice.split(" in ")[0] for notice in loaded.notices] == [
        "1 rows of admins", "2 rows of members", "2 rows of peers",
    ]  # fmt: skip


def test_a_node_that_is_in_both_meshes_is_here_by_what_was_signed_here() -> None:
    elsewhere = mesh("other", EVIL_ROOT, EVE, BOB)
    key = BOB.node_id.encode()
    foreign = {place: value for place, value in all_rows(elsewhere).items() if place[1] == key}
    assert {table for table, _ in foreign} == {"members", "peers"}
    assert not load({**all_rows(OURS), **foreign}).is_member(BOB.node_id)


def patched(table: str, key: NodeKey, value: bytes) -> Directory:
    return load({**all_rows(OURS), (table, key.node_id.encode()): value})


def proof(member: MemberRecord, key: NodeKey, issuer: NodeKey) -> bytes:
    return issue_member(OURS.genesis, member, identity_certificate(key), issuer).SerializeToString()


@pytest.mark.parametrize(
    ("table", "value"),
    [
        pytest.param("members", b"\xff\xff\xff", id="no message"),
        pytest.param("members", mesh_pb2.MemberProof().SerializeToString(), id="no record"),
        pytest.param("members", proof(record(MALLORY, "m", BOB.node_id), MALLORY, BOB), id="issued by no admin"),
        pytest.param("members", proof(record(MALLORY, "m", ALICE.node_id), MALLORY, BOB), id="signed by another"),
        pytest.param("members", proof(record(MALLORY, "m", ""), MALLORY, ALICE), id="not signed by the root"),
        pytest.param("members", proof(record(MALLORY, "m", ""), BOB, ROOT), id="certificate of another key"),
        pytest.param("members", proof(record(CAROL, "m", ""), CAROL, ROOT), id="in another node's row"),
        pytest.param(
            "members", proof(record(MALLORY, "m", ALICE.node_id, admin=True), MALLORY, ALICE), id="admin by an admin"
        ),
        pytest.param("admins", proof(record(MALLORY, "m", ""), MALLORY, ROOT), id="no admin among the admins"),
        pytest.param("peers", common_pb2.Signed(body=b"x").SerializeToString(), id="no peer record"),
    ],
)
def test_a_row_that_does_not_stand_up_is_left_out(table: str, value: bytes) -> None:
    loaded = patched(table, MALLORY, value)
    assert sorted(loaded.certificates()) == CERTIFICATES
    assert not loaded.is_admin(MALLORY.node_id)
    assert len(loaded.notices) == 1


def test_a_forged_address_is_left_out() -> None:
    body = PeerRecord(BOB.node_id, 9, ROLES_ALL, ("evil:1",), "test").body
    forged = signed(PEER_KIND, OURS.salt, body, MALLORY).SerializeToString()
    assert patched("peers", BOB, forged).addresses(BOB.node_id) == []


def test_members_go_with_the_admin_that_is_in_force_no_longer() -> None:
    demoted = patched("members", ALICE, proof(record(ALICE, "founder", ""), ALICE, ROOT))
    assert demoted.live() == [ALICE.node_id]


def test_a_genesis_that_its_root_has_not_signed_is_damage() -> None:
    genesis = common_pb2.Signed(body=OURS.signed_genesis.body, signature=bytes(64))
    for value in (genesis.SerializeToString(), b"\xff"):
        with pytest.raises(Corrupt) as caught:
            load({**all_rows(OURS), ("mesh", GENESIS_KEY): value})
        assert caught.value.reason == "GenesisDamaged"


def test_a_store_of_no_mesh_says_what_to_do() -> None:
    with pytest.raises(FailedPrecondition, match="from a backup, or start anew in another folder"):
        Directory.load(MemoryStore(), verify, check_identity_certificate)
