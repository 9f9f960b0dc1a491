"""`offgrid-node rotate root`: gives the mesh another root key, on a machine of a member that stands still.

mesh_root.key        the root key, where it was made
mesh_root.next.key   the next one, not in force yet: what the mesh's records in the store say decides whether it is

The steps are those of an identity key: the next key is durable; the store has the change, signed by both; the files
follow. Whatever is interrupted, the mesh has the old root or the new one, and the same command, or the node's next
start, ends it. The old key is not kept: it opens nothing, and no member that has heard takes its word.
"""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

import msgspec

from offgrid.v1 import mesh_pb2
from offgrid_node.folder import ROOT_KEY, Folder, open_store
from offgrid_node.keys import NodeKey
from offgrid_node.keys.store import fsync_folder, key_path
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import FailedPrecondition, NotFound
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import MeshRows
from offgrid_node.protocol.mesh.root import KEPT_MAX, ROOT_CHANGES_MAX, sign_root_change
from offgrid_node.rotating import check_root, commit_unnoted, directory_in, rows_of
from offgrid_node.storage.disk import write_durably
from offgrid_node.storage.store import Store

ROOT_NEXT = f"{ROOT_KEY}.next"
ROOT_CHANGE_FILE = "root_change"  # in a node's folder; it has no secrets


class RootRotated(msgspec.Struct, frozen=True):
    """What came of it. `number`: how often the mesh's root key was replaced; `change_path`: what a member may be given
    that nobody else tells."""

    mesh: str
    number: int
    key_path: Path
    change_path: Path


def rotate_root(path: Path, root: NodeKey | None = None) -> RootRotated:
    """By the root key in the folder, or `root`. Repeated after an interruption it ends what was begun.

    Raises FailedPrecondition (reasons NotTheRoot, NoRootKey, NoKeysLeft), what `open_store` raises when the node runs,
    and what the key files raise.
    """
    folder = Folder(path)
    store = open_store(folder.config(), create=False)
    try:
        directory = directory_in(store)
        if not _follow(folder, directory):
            signer = root if root is not None else _root_in(folder)
            check_root(directory, signer)
            following = NodeKey.load_or_create(folder.keys_path, ROOT_NEXT)
            commit_unnoted(store, changed_root_rows(directory, signer, following, time.time_ns() // 1_000))
            _follow(folder, directory)
    finally:
        store.close()
    paths = key_path(folder.keys_path, ROOT_KEY), folder.path / ROOT_CHANGE_FILE
    return RootRotated(directory.mesh_name, directory.root.number, *paths)


def load_root(folder: Folder) -> NodeKey:
    """The root key in the folder, for whoever would write it down. Raises FailedPrecondition (reason RootRotating)
    where that may be the one of before."""
    if key_path(folder.keys_path, ROOT_NEXT).exists():
        raise FailedPrecondition(
            "a rotation of the mesh's root key was interrupted here. To end it, stop the node and type: "
            f"offgrid-node rotate root --dir {shlex.quote(str(folder.path))}",
            reason="RootRotating",
        )
    return _root_in(folder)


def changed_root_rows(directory: Directory, root: Signer, following: Signer, now_us: int) -> MeshRows:
    """Every row that a change of the root key changes; the directory has it then."""
    kept = set(directory.kept_by_root())
    if directory.root.number == ROOT_CHANGES_MAX or len(kept) > KEPT_MAX:
        text = (
            f"the root key was replaced {directory.root.number} times, at most {ROOT_CHANGES_MAX} are possible, and "
            f"stands by {len(kept)} records, at most {KEPT_MAX} are possible"
        )
        raise FailedPrecondition(text, reason="NoKeysLeft")
    changes = sign_root_change(directory.root, root, following, kept, now_us)
    directory.accept_root(mesh_pb2.RootChanges(changes=changes))
    return rows_of(directory, [each.node_id for each in directory.take_changes()])


def end_root_rotation(folder: Folder, store: Store) -> None:
    """For a node that starts where one was interrupted behind its commit."""
    if key_path(folder.keys_path, ROOT_NEXT).exists():
        _follow(folder, directory_in(store))


def _follow(folder: Folder, directory: Directory) -> bool:
    """Makes the files those of the key in force; False where the next one is not."""
    try:
        following = NodeKey.load(folder.keys_path, ROOT_NEXT)
    except NotFound:
        return False
    if following.public_key != directory.root.key:
        return False
    told = mesh_pb2.SyncMembersRequest(root=directory.root_changes())
    write_durably(folder.path / ROOT_CHANGE_FILE, told.SerializeToString())
    os.replace(key_path(folder.keys_path, ROOT_NEXT), key_path(folder.keys_path, ROOT_KEY))
    fsync_folder(folder.keys_path)
    return True


def _root_in(folder: Folder) -> NodeKey:
    try:
        return NodeKey.load(folder.keys_path, ROOT_KEY)
    except NotFound as error:
        raise FailedPrecondition(
            f"{key_path(folder.keys_path, ROOT_KEY)} is not here: the mesh was founded elsewhere, or the file was put "
            "away. Give it: --root-key FILE, or --root-words",
            reason="NoRootKey",
        ) from error
