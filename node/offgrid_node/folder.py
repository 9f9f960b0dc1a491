"""A node's folder as `init` and `join` make it.

DIR/offgrid.toml          the commented config (0600: it may hold gateway.token)
DIR/offgrid.refused       why the last start came to nothing, until one succeeds
DIR/keys/node.key         the identity (0600); mesh_root.key beside it where the mesh was founded
DIR/data/memory.db/       the store (where the config says otherwise, there)
DIR/data/signed_requests.seen   with gateway.auth_key: signatures that were taken, so that none is taken twice
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from offgrid.backup.recovery import public_from
from offgrid_node.config import CONFIG_NAME, load, template
from offgrid_node.config.problems import DRAFT_SUFFIX
from offgrid_node.keys import make_private_folder, refuse_writable, write_private
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition
from offgrid_node.storage.format import check_format, stamp
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Store

if TYPE_CHECKING:
    from offgrid_node.config import Config

DOTENV_NAME, KEYS_NAME, ROOT_KEY, BACKUPS = ".env", "keys", "mesh_root", "backups"
STORE_FILE = "data.mdb"  # LMDB's own name for what a store's folder must hold
MESH_PLAN = "mesh.json"  # beside the folders of nodes that `offgrid-node up` has made
MIB = 1024 * 1024
VERIFY_BYTES_MAX = 64 * MIB  # about a quarter of a second
FINDINGS_SHOWN = 5

_log = logging.getLogger("offgrid")


class Folder(msgspec.Struct, frozen=True):
    """Where one node lives."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / CONFIG_NAME

    @property
    def keys_path(self) -> Path:
        return self.path / KEYS_NAME

    def config(self, environ: Mapping[str, str] | None = None) -> Config:
        """Raises ConfigError with every problem."""
        return load(self.config_path, os.environ if environ is None else environ)

    def check_empty(self) -> None:
        """Raises AlreadyExists when a node lives here: its config and its identity are never overwritten."""
        if self.config_path.exists():
            raise AlreadyExists(
                f"{self.config_path} is there already; a node lives in this folder. Another one needs another: "
                "--dir ANOTHER-FOLDER",
                reason="NodeExists",
            )

    def check_private(self) -> None:
        """Raises FailedPrecondition (reason FilesExposed) when others may write the folder, its config or its
        keys."""
        for path in (self.path, self.config_path, self.path / DOTENV_NAME, self.keys_path):
            refuse_writable(path)

    def draft(self, mesh: str, name: str, roles: Sequence[str], values: Mapping[str, object]) -> Config:
        """Writes the config under a passing name and reads it back; `keep` gives it its own.

        A node exists once its config does: whatever is interrupted before leaves a folder in which the same command
        may be run again. Raises AlreadyExists when a node lives here, ConfigError when the values make no config,
        FailedPrecondition (reason FilesExposed) when others may write to the folder.
        """
        self.check_empty()
        text = template(mesh, name, roles, values=values)
        make_private_folder(self.path)
        self.check_private()
        write_private(self.draft_path, text)
        return load(self.draft_path, {})

    def keep(self) -> None:
        """The draft becomes the config."""
        self.check_empty()
        self.draft_path.replace(self.config_path)

    @property
    def draft_path(self) -> Path:
        """Of the config of an `init` or a `join` that is not done, or was broken off."""
        return self.path / f"{CONFIG_NAME}{DRAFT_SUFFIX}"


class Made(msgspec.Struct, frozen=True):
    """What `init` or `join` made."""

    folder: Folder
    node_id: str
    name: str
    mesh: str

    @property
    def config_path(self) -> Path:
        return self.folder.config_path

    @property
    def root_key_path(self) -> Path:
        return self.folder.keys_path / f"{ROOT_KEY}.key"


def name_or_default(name: str | None) -> str:
    """The name given, or the machine's own made to fit."""
    from offgrid_node.config.fields import host_name

    return name or host_name()


def open_store(config: Config, *, create: bool, any_format: bool = False) -> LoggedStore:
    """The node's store, owned by this process until it is closed.

    Only `init` and `join` create: a node that runs has a store, and an empty one in its place would be another node.
    Raises FailedPrecondition (reason StoreMissing) when there is none, what `LoggedStore.open` raises otherwise, and
    what `check_format` does, unless its rows may be of any form.
    """
    path, data_dir = config.storage.memory_db, config.node.data_dir
    if create:
        make_private_folder(data_dir)
    elif not (path / STORE_FILE).is_file():  # a disk that is not mounted leaves an empty folder
        raise FailedPrecondition(
            f"{path}: this node's store is not there. Is its disk mounted? If it is lost, restore it from a backup, "
            "or start anew in another folder: offgrid-node join TOKEN --dir ANOTHER-FOLDER (or init)",
            reason="StoreMissing",
        )
    refuse_writable(data_dir)
    store = LoggedStore.open(path, limit_bytes=config.storage.limit_mb * MIB)
    try:
        if create:
            stamp(store)
        if not any_format:
            check_format(store)
    except BaseException:
        store.close()
        raise
    return store


def backup_folder(config: Config) -> Path:
    """Of the backups that a node makes by itself."""
    return Path(config.state.backup_dir) if config.state.backup_dir else config.node.data_dir / BACKUPS


def recovery_key(config: Config) -> bytes:
    """The public key; empty where none is set."""
    return public_from(config.state.recovery_key) if config.state.recovery_key else b""


def check_store(store: Store) -> tuple[str, ...]:
    """What is damaged in a store that is small enough to be read whole at start; each finding is logged as well."""
    if store.size_bytes() > VERIFY_BYTES_MAX:
        return ()
    findings = tuple(store.verify())
    for finding in findings:
        _log.error("the store is damaged", extra=fields("store_damaged", what=finding))
    return tuple(f"the store is damaged: {finding}" for finding in findings[:FINDINGS_SHOWN])
