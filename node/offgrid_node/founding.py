"""`offgrid-node init`: founds a mesh with this machine as its first member."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from offgrid_node.folder import ROOT_KEY, Folder, Made, name_or_default, open_store
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.mesh.founding import found_mesh
from offgrid_node.protocol.mesh.records import NONCE_BYTES
from offgrid_node.storage.store import Batch


def found(path: Path, mesh: str, name: str | None, roles: Sequence[str], values: Mapping[str, object]) -> Made:
    """Writes config, identity, root key and the first rows of the store.

    Raises AlreadyExists when a node lives in the folder, ConfigError for values that make no config.
    """
    folder = Folder(path)
    config = folder.draft(mesh, name_or_default(name), roles, values)
    key = NodeKey.load_or_create(folder.keys_path)
    root = NodeKey.load_or_create(folder.keys_path, ROOT_KEY)
    rows = found_mesh(
        mesh,
        root,
        key,
        identity_certificate(key),
        config.node.name,
        time.time_ns() // 1000,
        secrets.token_bytes(NONCE_BYTES),
        verify=verify,
        check_certificate=check_identity_certificate,
    )
    store = open_store(config)
    try:
        store.commit(Batch(writes=rows))
    finally:
        store.close()
    folder.keep()
    return Made(folder, key.node_id, config.node.name, mesh)
