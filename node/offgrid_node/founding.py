"""`offgrid-node init`: founds a mesh with this machine as its first member."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from offgrid_node.folder import ROOT_KEY, Folder, Made, name_or_default, open_store
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import found_mesh, held_directory, store_not_empty
from offgrid_node.protocol.mesh.records import NONCE_BYTES
from offgrid_node.storage.store import Batch


def found(path: Path, mesh: str, name: str | None, roles: Sequence[str], values: Mapping[str, object]) -> Made:
    """Writes config, identity, root key and the first rows of the store; after an interruption, the same ones again.

    Raises AlreadyExists when a node lives in the folder, FailedPrecondition (reason StoreNotEmpty) when its store has
    served another mesh or other members, ConfigError for values that make no config.
    """
    folder = Folder(path)
    config = folder.draft(mesh, name_or_default(name), roles, values)
    store = open_store(config, create=True)
    try:
        folder.check_empty()  # another command may have had the store until now
        held = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
        if held is not None:
            _check_own(held, folder, mesh)
        key = NodeKey.load_or_create(folder.keys_path)
        rows = found_mesh(
            mesh,
            NodeKey.load_or_create(folder.keys_path, ROOT_KEY),
            key,
            identity_certificate(key),
            config.node.name,
            held.genesis.created_us if held else time.time_ns() // 1000,
            held.genesis.nonce if held else secrets.token_bytes(NONCE_BYTES),
            verify=verify,
            check_certificate=check_identity_certificate,
        )
        store.commit(Batch(writes=rows))
        folder.keep()
    finally:
        store.close()
    return Made(folder, key.node_id, config.node.name, mesh)


def _check_own(held: Directory, folder: Folder, mesh: str) -> None:
    """Raises unless the store is what an interrupted `found` of the same mesh by the same keys has left."""
    try:
        key, root = (NodeKey.load(folder.keys_path, name) for name in ("node", ROOT_KEY))
    except NotFound:
        raise store_not_empty(held) from None
    ours = held.mesh_name == mesh and held.genesis.root_key == root.public_key
    if not ours or held.all_ids() != [key.node_id]:
        raise store_not_empty(held)
