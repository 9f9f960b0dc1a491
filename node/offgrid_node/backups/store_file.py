"""The node's own store as services/backups want it: read by a process of its own (errand.py), compacted in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import asdict

from offgrid_node.backups.errand import Done, Errand
from offgrid_node.backups.sending import Errands
from offgrid_node.backups.taking import Facts
from offgrid_node.storage.compacting import Compacted, compact
from offgrid_node.storage.logged import LoggedStore


class StoreFile:
    """One thing at a time; in a thread that may wait."""

    def __init__(self, store: LoggedStore, errands: Errands) -> None:
        self._store, self._errands = store, errands

    def back_up(self, target: Path, recipient: bytes, facts: Facts, said: Callable[[str, int, int], None]) -> Done:
        self._store.checkpoint()
        errand = Errand(str(self._store.path), str(target), recipient.hex(), asdict(facts))
        return self._errands.send(errand, said)

    def compact(self, said: Callable[[str, int, int], None]) -> Compacted:
        def copied() -> tuple[Path, Sequence[str]]:
            done = self._errands.send(Errand(str(self._store.path)), said)
            return Path(done.path), done.damaged

        return compact(self._store, copied)

    def sizes(self) -> tuple[int, int, int]:
        return self._store.size_bytes(), self._store.used_bytes(), self._store.limit_bytes()
