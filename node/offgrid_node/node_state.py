"""What a node's state store has beside it: the keys of sessions, backups, and the copy for SQL."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from msgspec.structs import replace

from offgrid.backup.wrapped import WRAPPED_KEYS, wrap_keys
from offgrid_node import __version__
from offgrid_node.backups.sending import Errands
from offgrid_node.backups.store_file import StoreFile
from offgrid_node.config.sql_target import parse_target
from offgrid_node.folder import MIB, backup_folder, recovery_key
from offgrid_node.node import Node
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.state.summaries.tables import summarised_upto
from offgrid_node.services.backups.sides import BackupParts
from offgrid_node.services.bulk import Bulk, Threads
from offgrid_node.services.kept_facts import Backups, KeptFacts
from offgrid_node.session_vault import Keys, SessionVault
from offgrid_node.sql_mirror import SqlMirror
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_node.storage.wrapped_keys import WrappedKeys, drop_wrapped

if TYPE_CHECKING:
    from offgrid_node.config import Config


class NodeState:
    """Made before its node, which takes `backups` and `vault`. To be closed behind the node, and before its store."""

    def __init__(self, config: Config, store: LoggedStore, loop: asyncio.AbstractEventLoop) -> None:
        self._config, self._store = config, store
        self._errands, self._threads = Errands(), Threads(loop.call_soon_threadsafe, 1)
        self._wrapping: ThreadPoolExecutor | None = None
        self._wrapped: WrappedKeys | None = None
        self._mirror: SqlMirror | None = None
        self.problems: tuple[str, ...] = ()
        self.backups = self._backup_parts()
        self.vault = SessionVault(self._keys())

    def start_mirror(self, node_id: str) -> None:
        """Where the owner wants one."""
        if url := self._config.state.sql_mirror.get_secret_value():
            self._mirror = SqlMirror(self._store, parse_target(url), node_id)
            self._mirror.start()

    async def close(self) -> None:
        if self._mirror is not None:
            await asyncio.to_thread(self._mirror.close)
        if self._wrapping is not None:
            self._wrapping.shutdown()
        self._errands.close()
        self._threads.close()

    @property
    def notices(self) -> tuple[str, ...]:
        wrapped = self._wrapped.trouble if self._wrapped is not None else ""
        return (*filter(None, [wrapped]), *(self._mirror.notices if self._mirror is not None else ()))

    def kept_facts(self, node: Node) -> KeptFacts:
        """What metrics tell of what the node keeps."""
        mirror = self._mirror
        return replace(
            node.retention.facts,
            summarised_seq=summarised_upto(self._store),
            summaries_fail=bool(node.memory.notices),
            backups=node.backups.counted if node.backups is not None else Backups(),
            mirror_seq=mirror.seq if mirror is not None else None,
            mirror_fails=mirror is not None and bool(mirror.trouble),
        )

    def _backup_parts(self) -> BackupParts:
        state = self._config.state
        return BackupParts(
            StoreFile(self._store, self._errands),
            Bulk(self._threads),
            backup_folder(self._config),
            self._config.node.name,
            self._config.mesh.name,
            __version__,
            state.backup_interval * 1_000,
            state.vacuum_interval * 1_000,
            state.backup_limit_mb * MIB,
            recovery_key(self._config),
        )

    def _keys(self) -> Keys:
        keys = SessionKeys(self._config.node.data_dir / SESSION_KEYS)
        wrapped, public_key = self.backups.folder / WRAPPED_KEYS, self.backups.recovery_key
        if not public_key:
            try:
                drop_wrapped(wrapped)  # what is shredded from now on could be read by it
            except Fault as fault:
                self.problems = (fault.message,)
            return keys
        self._wrapping = ThreadPoolExecutor(1, "wrapped keys")
        self._wrapped = WrappedKeys(keys, wrapped, lambda ring: wrap_keys(ring, public_key), self._wrapping.submit)
        return self._wrapped
