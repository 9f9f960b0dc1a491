"""The mesh's root key replaced at one of its nodes: whatever is interrupted, it is the old one or the new one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from test_rotating import Killed, killing

from offgrid_node import rotating_root
from offgrid_node.folder import ROOT_KEY, Folder, open_store
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import FailedPrecondition, PeerFault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.rotating import directory_in, rotate_identity, take_change
from offgrid_node.rotating_root import ROOT_NEXT, end_root_rotation, load_root, rotate_root
from offgrid_node.storage.logged import LoggedStore


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return found(tmp_path / "node", "home", "attic", ["core"], {}).folder


def known_at(folder: Folder) -> Directory:
    """As the daemon finds it at its start."""
    store = open_store(folder.config({}), create=False)
    try:
        end_root_rotation(folder, store)
        return directory_in(store)
    finally:
        store.close()


def root_in(folder: Folder) -> NodeKey:
    return NodeKey.load(folder.keys_path, ROOT_KEY)


def test_the_next_key_is_the_meshs_and_the_one_of_before_signs_nothing(folder: Folder) -> None:
    was = known_at(folder)
    for number in (1, 2):
        old = root_in(folder)
        made = rotate_root(folder.path)
        now = known_at(folder)
        assert (made.number, now.root.number, made.mesh) == (number, number, "home")
        assert now.root.key == root_in(folder).public_key == load_root(folder).public_key != old.public_key
        with pytest.raises(FailedPrecondition, match=f"was replaced; the one in force is number {number}"):
            rotate_identity(folder.path, old)
        with pytest.raises(FailedPrecondition, match="was replaced"):
            rotate_root(folder.path, old)
    assert (now.mesh_id, now.live()) == (was.mesh_id, was.live())
    assert now.is_admin(*now.live())
    assert rotate_identity(folder.path, root_in(folder)).number == 1


def test_the_key_may_lie_elsewhere_and_the_next_one_is_put_where_it_is_asked_for(folder: Folder) -> None:
    """It was put away, or is known by its words alone."""
    old = root_in(folder)
    path = folder.keys_path / f"{ROOT_KEY}.key"
    path.unlink()
    with pytest.raises(FailedPrecondition, match="--root-key FILE, or --root-words"):
        rotate_root(folder.path)
    with pytest.raises(FailedPrecondition, match="not the root key of mesh home"):
        rotate_root(folder.path, NodeKey(b"x" * 32))
    assert rotate_root(folder.path, NodeKey(old.seed)).key_path == path
    assert known_at(folder).root.key == root_in(folder).public_key


def test_while_the_node_runs_nothing_is_rotated(folder: Folder) -> None:
    before = root_in(folder).public_key
    store = open_store(folder.config({}), create=False)
    with pytest.raises(FailedPrecondition):
        rotate_root(folder.path)
    store.close()
    assert known_at(folder).root.key == root_in(folder).public_key == before


STEPS = [
    ("the next key is made", NodeKey, "load_or_create"),
    ("the change is committed", LoggedStore, "commit"),
    ("the change lies in a file", rotating_root, "write_durably"),
    ("the file has its name", os, "replace"),
    ("the next key has taken its place", rotating_root, "fsync_folder"),
]


@pytest.mark.parametrize("ends", ["the command, again", "the node's start"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("target", "name"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_killed_at_any_step_it_is_the_old_one_or_the_new_one(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, target: object, name: str, after: bool, ends: str
) -> None:
    first = root_in(folder)
    with monkeypatch.context() as patched:
        killing(target, name, after=after)(patched)
        opened: list[LoggedStore] = []
        real = rotating_root.open_store
        patched.setattr(rotating_root, "open_store", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
        with pytest.raises(Killed):
            rotate_root(folder.path)
    committed = name in ("write_durably", "replace", "fsync_folder") or (name == "commit" and after)
    waiting = (folder.keys_path / f"{ROOT_NEXT}.key").exists()
    if waiting:
        with pytest.raises(FailedPrecondition, match="rotate root --dir"):
            load_root(folder)
    if ends == "the node's start":
        known = known_at(folder)
        assert (known.root.number, known.root.key != first.public_key) == (int(committed), committed)
        assert root_in(folder).public_key == known.root.key, "the file follows at the latest now"
    made = rotate_root(folder.path)
    rotated_again = committed and (ends == "the node's start" or not waiting)
    assert made.number == (2 if rotated_again else 1)
    assert known_at(folder).root.key == root_in(folder).public_key != first.public_key
    assert made.change_path.exists()
    assert not (folder.keys_path / f"{ROOT_NEXT}.key").exists()


class TestTaken:
    """By hand, where nobody tells."""

    def test_a_member_that_was_away_has_it_from_the_file(self, folder: Folder, tmp_path: Path) -> None:
        member = Folder(shutil.copytree(folder.path, tmp_path / "member"))
        made = rotate_root(folder.path)
        change = made.change_path.read_bytes()
        assert take_change(member.path, change) == ["the mesh's root (number 1)"]
        assert take_change(member.path, change) == []
        assert known_at(member).root.key == root_in(folder).public_key
        assert known_at(member).live() == known_at(folder).live()

    def test_another_meshs_is_none(self, folder: Folder, tmp_path: Path) -> None:
        other = found(tmp_path / "other", "away", "attic", ["core"], {}).folder
        made = rotate_root(other.path)
        with pytest.raises(PeerFault):
            take_change(folder.path, made.change_path.read_bytes())
        assert known_at(folder).root.number == 0

    def test_of_two_by_one_key_the_owner_says_which(self, folder: Folder, tmp_path: Path) -> None:
        deceived = Folder(shutil.copytree(folder.path, tmp_path / "deceived"))
        rotate_root(deceived.path)
        made = rotate_root(folder.path)
        change = made.change_path.read_bytes()
        with pytest.raises(FailedPrecondition, match="--instead"):
            take_change(deceived.path, change)
        assert known_at(deceived).root.key == root_in(deceived).public_key
        assert take_change(deceived.path, change, instead=True) == ["the mesh's root (number 1)"]
        known = known_at(deceived)
        assert known.root.key == root_in(folder).public_key
        assert known.is_admin(*known.live())
