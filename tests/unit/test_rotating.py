"""A node's identity key replaced on its disk: whatever is interrupted, it is the old one or the new one."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from offgrid.v1 import state_pb2
from offgrid_node import rotating
from offgrid_node.folder import ROOT_KEY, Folder, open_store
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey, check_identity_certificate, ring, verify
from offgrid_node.keys.ring import KeyRing
from offgrid_node.keys.words import seed_of, words_of
from offgrid_node.keys.wraps import ENTROPY_BYTES, KeyWraps
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.tables import AUTHORS, LEARN_KEY, META, MUTE_KEY
from offgrid_node.protocol.mesh.founding import held_directory
from offgrid_node.protocol.objects.lives import TOKEN_BYTES, last_life
from offgrid_node.protocol.state.tables import JOURNAL, NEWER_KEY, STATE_KEY, Newer
from offgrid_node.regaining import regain
from offgrid_node.restoring import accept_stale
from offgrid_node.rotating import ring_of, rotate_identity, take_change
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

USE = b"o-some-object"


class Killed(BaseException):
    """As SIGKILL: nothing of ours handles it."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return found(tmp_path / "node", "home", "attic", ["core"], {}).folder


def keys_of(folder: Folder) -> KeyRing:
    """As the daemon finds them at its start."""
    store = open_store(folder.config({}), create=False)
    try:
        return ring_of(folder, store)
    finally:
        store.close()


def test_the_node_stays_who_it_is_and_what_was_wrapped_for_it_opens(folder: Folder) -> None:
    first = keys_of(folder).key
    wrapped = KeyWraps(first).wrap(first.wrapping_key(2), [(b"s" * 32, USE)], b"e" * ENTROPY_BYTES)
    for number in (1, 2, 3):
        made = rotate_identity(folder.path)
        assert (made.number, made.key.node_id) == (number, first.node_id)
        keys = keys_of(folder)
        assert keys.key.public_key == made.key.public_key
        assert [keys.key.node_id, *(key.node_id for key in keys.older)] == [first.node_id] * (number + 1)
        assert len({keys.key.public_key, *(key.public_key for key in keys.older)}) == number + 1
        assert KeyWraps(keys.key, keys.older).unwrap(wrapped[0], USE) == b"s" * 32


def test_a_key_of_another_node_does_not_run_on_this_ones_store(folder: Folder, tmp_path: Path) -> None:
    shutil.rmtree(folder.keys_path)
    NodeKey.create(folder.keys_path)
    with pytest.raises(FailedPrecondition, match=r"no member of mesh home \(attic\)") as caught:
        keys_of(folder)
    assert caught.value.reason == "OtherNodesKey"


def told_of(folder: Folder, newer: Newer) -> None:
    """As the node's machine notes down what a host has shown."""
    store = open_store(folder.config({}), create=False)
    store.commit(Batch(writes={(JOURNAL, NEWER_KEY): newer.encode()}))
    store.close()


def state_of(folder: Folder) -> state_pb2.JournalRow:
    store = open_store(folder.config({}), create=False)
    try:
        return state_pb2.JournalRow.FromString(store.get(JOURNAL, STATE_KEY) or b"")
    finally:
        store.close()


def test_a_store_that_goes_on_though_it_is_old_has_a_life_behind_the_one_that_it_was_told_of(folder: Folder) -> None:
    told_of(folder, Newer(40, 9))
    assert accept_stale(folder.path) == Newer(40, 9)
    state = state_of(folder)
    assert (state.life > 40, state.number, len(state.token)) == (True, 9, TOKEN_BYTES)
    with pytest.raises(FailedPrecondition, match="nothing says that"):
        accept_stale(folder.path)


def test_a_thief_who_says_that_its_last_life_has_begun_keeps_it_out_until_its_key_is_another(folder: Folder) -> None:
    told_of(folder, Newer(last_life(0), 9))
    with pytest.raises(FailedPrecondition, match="rotate identity"):
        accept_stale(folder.path)
    rotate_identity(folder.path)
    assert accept_stale(folder.path) == Newer(last_life(0), 9), "what it was told of may be true, and is not forgotten"
    assert last_life(0) < state_of(folder).life <= last_life(1)


@pytest.mark.parametrize("forked_at", [0, 3])
def test_a_node_that_went_mute_learns_what_it_had_signed_unless_it_signed_twice(folder: Folder, forked_at: int) -> None:
    own = node_id_bytes(keys_of(folder).key.node_id)
    store = open_store(folder.config({}), create=False)
    author = struct.pack(">Q32sQQB", 4, bytes(32), 7, forked_at, 0)
    store.commit(Batch(writes={(META, MUTE_KEY): b"was it restored?", (AUTHORS, own): author}))
    store.close()
    rotate_identity(folder.path)
    store = open_store(folder.config({}), create=False)
    mute, learns = store.get(META, MUTE_KEY), store.get(META, LEARN_KEY)
    store.close()
    assert (mute is None, learns is None) == ((True, False) if not forked_at else (False, True))


def test_a_key_of_before_that_was_put_away_is_not_asked_for(folder: Folder) -> None:
    rotate_identity(folder.path)
    (folder.keys_path / "node.1.key").unlink()
    assert keys_of(folder).older == ()


def test_words_bring_each_key_back(folder: Folder) -> None:
    made = rotate_identity(folder.path)
    assert NodeKey(seed_of(words_of(made.key.seed)), made.key.node_id).public_key == made.key.public_key


def test_the_roots_key_signs_where_the_nodes_own_is_an_older_one(folder: Folder) -> None:
    old = (folder.keys_path / "node.key").read_bytes()
    rotate_identity(folder.path)
    (folder.keys_path / "node.key").write_bytes(old)
    with pytest.raises(Corrupt, match="replaced since"):
        keys_of(folder)
    with pytest.raises(Corrupt, match="replaced since"):
        rotate_identity(folder.path)
    made = rotate_identity(folder.path, NodeKey.load(folder.keys_path, ROOT_KEY))
    assert made.number == 2
    assert keys_of(folder).key.public_key == made.key.public_key


class TestAllKeyFilesLost:
    """The store is there; who the node is the config says."""

    @pytest.fixture
    def lost(self, folder: Folder, tmp_path: Path) -> tuple[Folder, NodeKey, NodeKey]:
        """With the key and the root's as they were."""
        rotate_identity(folder.path)
        keys = keys_of(folder).key, NodeKey.load(folder.keys_path, ROOT_KEY)
        folder.keys_path.rename(tmp_path / "lost")
        return folder, *keys

    def test_what_to_do_is_said(self, lost: tuple[Folder, NodeKey, NodeKey]) -> None:
        folder, _, _ = lost
        for ask in (keys_of, lambda at: rotate_identity(at.path)):
            with pytest.raises(NotFound, match=r"words --enter.*rotate identity --root-key FILE"):
                ask(folder)

    def test_words_bring_each_back_and_no_others(self, lost: tuple[Folder, NodeKey, NodeKey]) -> None:
        folder, key, root = lost
        for seed, of_root, what in (
            (root.seed, False, "of no member of mesh home"),
            (key.seed, True, "not the root key of mesh home"),
        ):
            with pytest.raises(FailedPrecondition, match=what):
                regain(folder.path, seed, root=of_root)
        for _ in range(2):
            regain(folder.path, key.seed, root=False)
            regain(folder.path, root.seed, root=True)
        assert (keys_of(folder).key.node_id, keys_of(folder).key.public_key) == (key.node_id, key.public_key)
        assert NodeKey.load(folder.keys_path, ROOT_KEY).public_key == root.public_key

    def test_words_from_before_a_rotation_and_another_members_are_refused(
        self, lost: tuple[Folder, NodeKey, NodeKey], tmp_path: Path
    ) -> None:
        folder, key, _ = lost
        older = NodeKey.read(tmp_path / "lost" / "node.1.key")
        with pytest.raises(FailedPrecondition, match="replaced since: it is number 1 now"):
            regain(folder.path, older.seed, root=False)
        text = folder.config_path.read_text().replace("attic", "barn")
        folder.config_path.write_text(text)
        with pytest.raises(FailedPrecondition, match="that of attic; the store's node is called barn"):
            regain(folder.path, key.seed, root=False)

    def test_the_root_names_the_next_one(self, lost: tuple[Folder, NodeKey, NodeKey]) -> None:
        folder, key, root = lost
        made = rotate_identity(folder.path, root)
        assert (made.number, made.key.node_id) == (2, key.node_id)
        keys = keys_of(folder)
        assert (keys.key.public_key, keys.older) == (made.key.public_key, ())

    def test_killed_behind_the_commit_the_next_start_ends_it(
        self, lost: tuple[Folder, NodeKey, NodeKey], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, key, root = lost
        with monkeypatch.context() as patched:
            killing(os, "replace", after=False)(patched)
            with pytest.raises(Killed):
                rotate_identity(folder.path, root)
        keys = keys_of(folder)
        assert keys.key.node_id == key.node_id
        assert keys.key.public_key != key.public_key
        assert rotate_identity(folder.path).number == 3


def test_another_meshs_root_is_none(folder: Folder) -> None:
    with pytest.raises(FailedPrecondition, match="not the root key"):
        rotate_identity(folder.path, NodeKey(b"x" * 32))


def test_the_roots_change_is_brought_to_a_member_that_a_thief_told_first(folder: Folder, tmp_path: Path) -> None:
    """Which does not talk to the node any more, and hears from nobody else."""
    member = Folder(shutil.copytree(folder.path, tmp_path / "member"))
    told, stolen = rotate_identity(member.path), keys_of(folder).key  # the thief's, as the member knows it
    assert told.change_path is None
    made = rotate_identity(folder.path, NodeKey.load(folder.keys_path, ROOT_KEY))
    assert made.change_path is not None
    change = made.change_path.read_bytes()
    assert take_change(member.path, change) == ["attic"]
    assert take_change(member.path, change) == []
    store = open_store(member.config({}), create=False)
    directory = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
    store.close()
    assert directory is not None
    assert directory.keys(stolen.node_id) == (made.key.public_key, stolen.public_key)


def test_what_is_no_change_of_this_mesh_is_not_taken(folder: Folder, tmp_path: Path) -> None:
    other = found(tmp_path / "other", "away", "attic", ["core"], {}).folder
    made = rotate_identity(other.path, NodeKey.load(other.keys_path, ROOT_KEY))
    assert made.change_path is not None
    with pytest.raises(PeerFault):
        take_change(folder.path, made.change_path.read_bytes())
    with pytest.raises(InvalidRequest, match="not a key change"):
        take_change(folder.path, b"\xff\xff")


def test_while_the_node_runs_nothing_is_rotated(folder: Folder) -> None:
    before = keys_of(folder).key.public_key
    store = open_store(folder.config({}), create=False)
    with pytest.raises(FailedPrecondition):
        rotate_identity(folder.path)
    store.close()
    assert keys_of(folder).key.public_key == before


def killing(target: object, name: str, *, after: bool) -> Callable[[pytest.MonkeyPatch], None]:
    """Kills the process before or after one call."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(target, name)

        def call(*arguments: object, **named: object) -> object:
            if after:
                real(*arguments, **named)
            raise Killed

        monkeypatch.setattr(target, name, call)

    return patch


STEPS = [
    ("the next key is made", NodeKey, "load_or_create"),
    ("the change is committed", LoggedStore, "commit"),
    ("the old key is kept", ring, "write_key_file"),
    ("the next key takes its place", os, "replace"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("target", "name"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_killed_at_any_step_it_is_the_old_one_or_the_new_one(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, target: object, name: str, after: bool
) -> None:
    first = keys_of(folder).key
    with monkeypatch.context() as patched:
        killing(target, name, after=after)(patched)
        opened: list[LoggedStore] = []
        real = rotating.open_store
        patched.setattr(rotating, "open_store", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
        with pytest.raises(Killed):
            rotate_identity(folder.path)
    committed = name in ("write_key_file", "replace") or (name == "commit" and after)
    keys = keys_of(folder)
    assert (keys.key.public_key != first.public_key) is committed
    assert keys.key.node_id == first.node_id
    assert [key.public_key for key in keys.older] == ([first.public_key] if committed else [])
    assert keys_of(folder).key.public_key == keys.key.public_key
    again = rotate_identity(folder.path)
    assert again.number == (2 if committed else 1)
    assert keys_of(folder).key.public_key == again.key.public_key
