"""The files of a node's keys while one follows another.

node.key          the identity key of now
node.1.key, …     those before it, the first one first: what was wrapped for them opens until it is wrapped anew
node.next.key     made, and not in force yet: what the mesh's records in the store say decides whether it is

A rotation is three steps: the next key is durable; the store has the change, signed; the files follow. Whatever is
interrupted, the node is the old one or the new one, and the next start finds out which (`settle`).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from offgrid_node.keys.store import NodeKey, fsync_folder, key_path, read_key_file, write_key_file
from offgrid_node.protocol.errors import Corrupt, NotFound

NODE, NEXT = "node", "node.next"


class KeyRing(msgspec.Struct, frozen=True):
    """The key in force and those before it, the newest first."""

    key: NodeKey
    older: tuple[NodeKey, ...]

    @property
    def before(self) -> NodeKey | None:
        """The one that members who have not heard of the change still take for this node's."""
        return self.older[0] if self.older else None

    @classmethod
    def load(cls, folder: Path, current_key: bytes | None, number: int) -> KeyRing:
        """`current_key`: what the mesh's records say is this node's, None if they say nothing of it; `number`: how
        often it was replaced. Raises what `NodeKey.load` raises, and Corrupt when no file holds that key."""
        key = _own(folder)
        if current_key is not None and (key is None or key.public_key != current_key):
            key = _install(folder, current_key, number)
        elif key is None:
            key = NodeKey.load(folder, NODE)
        older = (_older(folder, n) for n in range(number, 0, -1))
        return cls(key, tuple(found for found in older if found is not None))


def _own(folder: Path) -> NodeKey | None:
    """None where it is lost; by the root's word another may have followed it all the same."""
    try:
        return NodeKey.load(folder, NODE)
    except NotFound:
        if key_path(folder, NEXT).exists():
            return None
        raise


def _install(folder: Path, current_key: bytes, number: int) -> NodeKey:
    """The change is in the store and the files are those of before. The old key gets its new name first: at no moment
    is there no key."""
    try:
        following = NodeKey.load(folder, NEXT)
    except NotFound:
        following = None
    if following is None or following.public_key != current_key:
        raise Corrupt(
            f"{key_path(folder, NODE)} holds another key than the one that this node's mesh knows it by: it was "
            "replaced since. Restore the newest key file, or its recovery words; or have the mesh's root replace it: "
            "offgrid-node rotate identity --root-key FILE"
        )
    old_name = key_path(folder, f"{NODE}.{number}")
    if key_path(folder, NODE).exists() and not old_name.exists():
        write_key_file(old_name, read_key_file(key_path(folder, NODE)))
    os.replace(key_path(folder, NEXT), key_path(folder, NODE))
    fsync_folder(folder)
    return following


def _older(folder: Path, number: int) -> NodeKey | None:
    try:
        return NodeKey.load(folder, f"{NODE}.{number}")
    except NotFound:
        return None  # its owner has put it away: what is still wrapped for it does not open
