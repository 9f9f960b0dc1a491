"""`offgrid-node words --enter`: a key file that is lost, written again from its recovery words, beside a store that is
not lost.

The store's records tell whose key it is, so that words of another node, or those from before a rotation, are refused:
a store that went on under another's name would be two nodes of one.
"""

from __future__ import annotations

from pathlib import Path

from offgrid_node.folder import ROOT_KEY, Folder, open_store
from offgrid_node.keys import NodeKey
from offgrid_node.keys.ring import NODE
from offgrid_node.keys.store import key_path
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.rotating import check_root, directory_in


def regain(path: Path, seed: bytes, *, root: bool) -> Path:
    """The file that was written; one that is there and the same stays. `root`: it is the mesh's root key.

    Raises FailedPrecondition (reasons NotTheRoot, NotThisNode, KeyReplaced) for words of anything else, AlreadyExists
    where another key lies there, and what `open_store` raises.
    """
    folder, key = Folder(path), NodeKey(seed)
    config = folder.config()
    store = open_store(config, create=False)
    try:
        directory = directory_in(store)
        if root:
            check_root(directory, key)
        else:
            key = NodeKey(seed, owner_of(directory, key, config.node.name))
        name = ROOT_KEY if root else NODE
        key.keep(folder.keys_path, name)
    finally:
        store.close()
    return key_path(folder.keys_path, name)


def owner_of(directory: Directory, key: NodeKey, name: str) -> str:
    """The id of the node of this name, whose key this is. Raises FailedPrecondition (NotThisNode, KeyReplaced)."""
    owner = next((node for node in directory.all_ids() if key.public_key in directory.keys(node)), "")
    record = directory.member(owner)
    if record is None or record.name != name:
        whose = f"that of {record.name}" if record is not None else f"of no member of mesh {directory.mesh_name}"
        text = f"this key is {whose}; the store's node is called {name} (node.name in its config)"
        raise FailedPrecondition(text, reason="NotThisNode")
    if directory.current_key(owner) != key.public_key:
        number = directory.key_number(owner)
        text = f"this is a key of {name} that was replaced since: it is number {number} now"
        raise FailedPrecondition(text, reason="KeyReplaced")
    return owner
