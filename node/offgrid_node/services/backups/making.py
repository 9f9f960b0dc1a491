"""Makes backups, and the store's file small: when somebody asks, and by itself at the intervals of the settings.

One at a time. What is made by itself lies in a folder of its own, from which older ones go (backups/rotation.py); while
nothing has happened since the newest, none is made. What could not be done is said in the status, and tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from offgrid.backup.recovery import Recipient
from offgrid_node.backups.errand import Done
from offgrid_node.backups.rotation import Kept, going, kept_of
from offgrid_node.backups.taking import Facts
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.runtime import Runtime
from offgrid_node.services.backups.sides import BackupParts
from offgrid_node.services.flow import Flow, Later, Step, run
from offgrid_node.services.kept_facts import Backups
from offgrid_node.storage.compacting import Compacted
from offgrid_node.storage.disk import make_folder
from offgrid_node.storage.format import format_of

FIRST_MS = 60_000  # after a start, at the soonest
AGAIN_MS = 60_000  # behind another one
WORTH_BYTES, WORTH_PART = 16 * 1024 * 1024, 4  # free pages that a compaction is for: so much, and one in so many
RETRY_MS = 5_000
BUSY = "StoreBusy"

_log = logging.getLogger("offgrid.backups")

Heard = Callable[[str, int, int], None]
"""As `Said`, in the runtime's thread."""


class Making:
    """Belongs to the runtime's thread."""

    def __init__(self, runtime: Runtime, node_id: str, parts: BackupParts, later: Later) -> None:
        self._runtime, self._node_id, self.parts, self._later = runtime, node_id, parts, later
        self._busy = ""
        self._saved_seq = -1  # of the newest that was made by itself
        self._trouble: dict[str, str] = {}
        self.counted = Backups()
        self._going = False

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self._trouble.values())

    @property
    def form(self) -> int:
        """Of the store's rows. Raises as reads do."""
        return format_of(self._runtime.store)

    # ---- when somebody asks

    def back_up(self, target: Path, recipient: bytes, heard: Heard) -> Step[Done]:
        """As `take_backup`."""
        clock = self._runtime.clock
        facts = Facts(self._node_id, self.parts.node, self.parts.mesh, clock.now().utc_us, self.parts.version)

        def work(said: Heard) -> Done:
            if target == self.parts.folder:
                make_folder(target)
            return self.parts.file.back_up(target, recipient, facts, said)

        step = self._alone("a backup", work, heard)

        def start(done: Callable[[Any], None]) -> None:
            def ended(outcome: Any) -> None:
                self._count(outcome)
                done(outcome)

            step(ended)

        return start

    def _count(self, outcome: Done | Fault) -> None:
        if isinstance(outcome, Done):
            now_us, made = self._runtime.clock.now().utc_us, self.counted.done + 1
            self.counted = replace(self.counted, done=made, newest_us=now_us, newest_bytes=outcome.bytes)
        elif outcome.reason != BUSY:
            self.counted = replace(self.counted, failed=self.counted.failed + 1)

    def compact(self, heard: Heard) -> Step[Compacted]:
        return self._alone("a compaction", self.parts.file.compact, heard)

    def _alone(self, what: str, work: Callable[[Heard], Any], heard: Heard) -> Step[Any]:
        def start(done: Callable[[Any], None]) -> None:
            if self._busy:
                text = f"{self._busy} is under way: wait for its end"
                done(Exhausted(text, reason=BUSY, retry_ms=RETRY_MS))
                return
            self._busy = what

            def ended(outcome: Any) -> None:
                self._busy = ""
                done(outcome)

            def said(doing: str, done_bytes: int, total_bytes: int) -> None:
                self._later(0, lambda: heard(doing, done_bytes, total_bytes))

            self.parts.bulk.run(lambda: work(said))(ended)

        return start

    def listed(self) -> Step[list[Kept]]:
        """Those made by itself that lie there, the newest first."""
        return self.parts.bulk.run(lambda: there(self.parts.folder)[::-1])

    # ---- by itself

    def start(self) -> None:
        self._going = True
        if self.parts.interval_ms:
            self.listed()(self._began)
        if self.parts.vacuum_ms:
            self._later(self.parts.vacuum_ms, lambda: self._turn(self._smaller, self.parts.vacuum_ms))

    def close(self) -> None:
        self._going = False

    def _began(self, found: list[Kept] | Fault) -> None:
        wait_ms = self.parts.interval_ms
        if isinstance(found, list) and found:
            self._saved_seq = found[0].journal_seq
            made_us = int(found[0].made.timestamp() * 1_000_000)
            self.counted = replace(self.counted, newest_us=made_us, newest_bytes=found[0].bytes)
            since_ms = self._runtime.clock.now().utc_us // 1_000 - int(found[0].made.timestamp() * 1_000)
            wait_ms = min(wait_ms, max(FIRST_MS, wait_ms - since_ms))
        self._later(wait_ms, lambda: self._turn(self._saved, self.parts.interval_ms))

    def _turn(self, work: Callable[[], Flow[None]], interval_ms: int) -> None:
        if not self._going:
            return
        if self._busy:
            self._later(AGAIN_MS, lambda: self._turn(work, interval_ms))
            return
        run(work(), lambda _: self._later(interval_ms, lambda: self._turn(work, interval_ms)))

    def _saved(self) -> Flow[None]:
        """A backup, if anything has happened since the newest."""
        if self._runtime.store.journal_seq == self._saved_seq:
            return
        try:
            done: Done = yield self.back_up(self.parts.folder, b"", ignored)
            self._saved_seq = done.journal_seq
            self._trouble.pop("backup", None)
            if done.damaged:
                text = (
                    f"the newest backup lacks {len(done.damaged)} rows of the store that are damaged: {done.damaged[0]}"
                )
                self._trouble["backup"] = text
            yield self.parts.bulk.run(lambda: self._rotate(Path(done.path).name))
        except Fault as fault:
            self._say("backup", f"no backup could be made: {fault.message}")

    def _smaller(self) -> Flow[None]:
        """A compaction, if it is worth it."""
        try:
            size, used, _ = self.parts.file.sizes()
            if size - used < max(WORTH_BYTES, size // WORTH_PART):
                return
            made: Compacted = yield self.compact(ignored)
            self._trouble.pop("compaction", None)
            said = fields("store_compacted", bytes=made.after_bytes, before_bytes=made.before_bytes)
            _log.info("the store's file is made small", extra=said)
        except Fault as fault:
            self._say("compaction", f"the store's file could not be made small: {fault.message}")

    def _say(self, what: str, text: str) -> None:
        if self._trouble.get(what) != text:
            _log.warning("a backup or a compaction failed", extra=fields("backup_failed", of=what, why=text))
        self._trouble[what] = text

    def _rotate(self, made: str) -> None:
        for each in going(there(self.parts.folder), self.parts.bytes_max, made):
            with suppress(OSError):  # the next time
                (self.parts.folder / each.name).unlink()


def there(folder: Path) -> list[Kept]:
    """The oldest first."""
    found: list[Kept] = []
    with suppress(OSError):
        for path in folder.iterdir():
            with suppress(OSError):
                kept = kept_of(path.name, path.stat().st_size)
                if kept is not None:
                    found.append(kept)
    return sorted(found, key=lambda each: (each.made, each.journal_seq))


def ignored(doing: str, done_bytes: int, total_bytes: int) -> None:
    """For those whom nobody watches."""


def for_recovery(public_key: bytes) -> bytes:
    """As `back_up` wants it."""
    return Recipient(public_key).encode()
