"""What backups need of a node: its store's file, a thread, a folder, and the settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from offgrid_node.backups.errand import Done
from offgrid_node.backups.taking import Facts
from offgrid_node.services.bulk import Bulk
from offgrid_node.storage.compacting import Compacted

Said = Callable[[str, int, int], None]
"""What is done, how far it is and of how much, in bytes; in whatever thread."""


class StoreFile(Protocol):
    """The node's store as a file, worked on beside those who read and commit; all but `sizes` takes long. Raises
    Fault."""

    def back_up(self, target: Path, recipient: bytes, facts: Facts, said: Said) -> Done:
        """As `take_backup`; `recipient`: encoded, empty for none."""
        ...

    def compact(self, said: Said) -> Compacted: ...

    def sizes(self) -> tuple[int, int, int]:
        """Its bytes, those of them that are used, and the most it may have."""
        ...


class BackupParts(msgspec.Struct, frozen=True):
    """`interval_ms`, `vacuum_ms`: 0 is never. `recovery_key`: empty for none. `bulk` has a thread of its own."""

    file: StoreFile
    bulk: Bulk
    folder: Path
    node: str
    mesh: str
    version: str
    interval_ms: int = 0
    vacuum_ms: int = 0
    bytes_max: int = 0
    recovery_key: bytes = b""
