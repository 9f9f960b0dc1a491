"""Admins named and dismissed by the mesh's root key, at a member that stands still."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.folder import ROOT_KEY, Folder, open_store
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate
from offgrid_node.keys.store import key_path
from offgrid_node.naming_admins import dismiss_admin, name_admin
from offgrid_node.protocol.errors import FailedPrecondition, NotFound
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_node.protocol.state.tables import JOURNAL, NOTING_KEY
from offgrid_node.rotating import directory_in, rotate_identity, rows_of
from offgrid_node.storage.store import Batch

BARN, SHED, STRANGER = (NodeKey(bytes([number]) * 32) for number in (2, 3, 9))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Of attic, who founded the mesh and has admitted barn."""
    folder = found(tmp_path / "node", "home", "attic", ["core"], {}).folder
    admit(folder, "barn", BARN, NodeKey.load(folder.keys_path))
    return folder


def admit(folder: Folder, name: str, key: NodeKey, issuer: NodeKey) -> None:
    store = open_store(folder.config({}), create=False)
    try:
        directory = directory_in(store)
        record = MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, 1000, "", 1, issuer=issuer.node_id)
        directory.accept_member(issue_member(directory.genesis, record, identity_certificate(key), issuer))
        writes = rows_of(directory, [each.node_id for each in directory.take_changes()])
        store.commit(Batch(writes={**writes, (JOURNAL, NOTING_KEY): b"\1"}))
    finally:
        store.close()


def known_at(folder: Folder) -> Directory:
    store = open_store(folder.config({}), create=False)
    try:
        return directory_in(store)
    finally:
        store.close()


def admins_at(folder: Folder) -> list[str]:
    directory = known_at(folder)
    return sorted(record.name for n in directory.live() if (record := directory.member(n)) and directory.is_admin(n))


def test_who_is_named_admits_and_all_members_take_its_word(folder: Folder) -> None:
    before = known_at(folder)
    record, is_new = name_admin(folder.path, "barn")
    assert (record.name, record.admin, record.issuer, is_new) == ("barn", True, "", True)
    assert name_admin(folder.path, BARN.node_id) == (record, False)
    admit(folder, "shed", SHED, BARN)
    assert admins_at(folder) == ["attic", "barn"]
    for node_id in known_at(folder).all_ids():  # what gossip brings to one that knew of neither
        for proof in known_at(folder).proofs(node_id):
            before.accept_member(proof)
    assert before.is_admin(BARN.node_id)
    assert before.is_member(SHED.node_id)


def test_who_is_dismissed_stays_a_member_and_so_does_whom_it_admitted(folder: Folder) -> None:
    name_admin(folder.path, "barn")
    admit(folder, "shed", SHED, BARN)
    elsewhere = known_at(folder)
    record, is_new = dismiss_admin(folder.path, "barn")
    assert (record.admin, is_new, dismiss_admin(folder.path, "barn")) == (False, True, (record, False))
    assert admins_at(folder) == ["attic"]
    now = known_at(folder)
    for node_id in now.all_ids():
        for proof in now.proofs(node_id):
            elsewhere.accept_member(proof)
    for directory in (now, elsewhere):
        assert directory.live() == sorted([NodeKey.load(folder.keys_path).node_id, BARN.node_id, SHED.node_id])
        assert not directory.is_admin(BARN.node_id)
        shed = directory.member(SHED.node_id)
        assert shed is not None
        assert shed.issuer == ""
    assert name_admin(folder.path, "barn")[1], "and may be named again"


def test_a_mesh_keeps_one_admin(folder: Folder) -> None:
    with pytest.raises(FailedPrecondition, match="name another one first"):
        dismiss_admin(folder.path, "attic")
    name_admin(folder.path, "barn")
    assert dismiss_admin(folder.path, "attic")[1]
    assert admins_at(folder) == ["barn"]


def test_keys_that_were_replaced_stay_so(folder: Folder) -> None:
    made = rotate_identity(folder.path)
    own = made.key.node_id
    name_admin(folder.path, "barn")
    dismiss_admin(folder.path, "attic")
    name_admin(folder.path, "attic")
    directory = known_at(folder)
    assert (directory.current_key(own), directory.key_number(own)) == (made.key.public_key, 1)
    assert admins_at(folder) == ["attic", "barn"]


def test_a_base_of_the_journal_follows_since_nobody_has_noted_it_down(folder: Folder) -> None:
    name_admin(folder.path, "barn")
    store = open_store(folder.config({}), create=False)
    noting = store.get(JOURNAL, NOTING_KEY)
    store.close()
    assert noting is None


def test_only_the_root_in_force_names_and_only_members(folder: Folder) -> None:
    root = NodeKey.load(folder.keys_path, ROOT_KEY)
    with pytest.raises(FailedPrecondition, match="not the root key"):
        name_admin(folder.path, "barn", STRANGER)
    with pytest.raises(NotFound, match="no member is called 'nobody'"):
        name_admin(folder.path, "nobody")
    key_path(folder.keys_path, ROOT_KEY).unlink()
    with pytest.raises(FailedPrecondition, match="Give it: --root-key FILE, or --root-words"):
        name_admin(folder.path, "barn")
    assert name_admin(folder.path, "barn", root)[1]
    assert check_identity_certificate(known_at(folder).first_certificate(BARN.node_id)) == BARN.public_key
    assert known_at(folder).root.key == root.public_key
