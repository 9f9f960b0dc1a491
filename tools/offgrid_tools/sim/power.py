"""The power of a simulated machine, which fails at one of its writes: before one, after one, or between two fsyncs of
one blob. `MemoryBlobs.crash` says what is left of what was not synced."""

from __future__ import annotations

from collections.abc import Callable, Collection

from offgrid.pieces import Buffer
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.memory_session_keys import MemorySessionKeys


class PowerCut(BaseException):  # nothing of the node may live on to handle it
    """The machine is gone, amid a write."""


class Power:
    """Counts what a machine writes."""

    def __init__(self) -> None:
        self._left: int | None = None  # writes that still come through

    def fail_in(self, writes: int) -> None:
        """So many moments of writing from now on; 0 is the very next."""
        self._left = writes

    def mend(self) -> None:
        self._left = None

    def write(self) -> None:
        """A moment in which something is, or was, written. Raises PowerCut where it is the one."""
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            self._left = None
            raise PowerCut


class PoweredKeys(MemorySessionKeys):
    """The ring of keys of such a machine: a file that is replaced whole, so that a change is there or not."""

    def __init__(self, power: Power) -> None:
        super().__init__()
        self._power = power

    def add(self, session_id: str, key: bytes) -> None:
        self._power.write()
        super().add(session_id, key)
        self._power.write()

    def drop(self, session_ids: Collection[str]) -> None:
        self._power.write()
        super().drop(session_ids)
        self._power.write()


class PoweredBlobs(MemoryBlobs):
    """Blobs of a machine that has power until it has not. Tells of every blob that its node deletes."""

    def __init__(self, power: Power, on_deleted: Callable[[str], None]) -> None:
        super().__init__()
        self._power, self._on_deleted = power, on_deleted

    def append(self, staged: str, offset: int, data: Buffer) -> int:
        self._power.write()
        size = super().append(staged, offset, data)
        self._power.write()
        return size

    def delete(self, name: str) -> None:
        self._power.write()
        if self.size(name) is not None:
            self._on_deleted(name)
        super().delete(name)

    def discard(self, staged: str) -> None:
        self._power.write()
        super().discard(staged)

    def _sync_one(self) -> None:
        self._power.write()
        super()._sync_one()

    def _sync(self, blob: object) -> None:
        """All its fsyncs are done."""
        super()._sync(blob)  # type: ignore[arg-type]
        self._power.write()
