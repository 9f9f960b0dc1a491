"""What the log and `offgrid status` say of disks that take nothing more: that it began, and that it is over.

A full disk refuses a batch a second while there is something to write: far too many for a line each. Small ones may
still fit between those, so it is over only after a while without a refusal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.storage.blobs import DISK_RESERVE_BYTES

QUIET_MS = 30_000
REFUSING = frozenset({"StoreFull", "DiskError"})  # the store's reasons that last until somebody makes room

_log = logging.getLogger(__name__)


class StoreTrouble:
    """Told of each batch that the store refused and of each that it took. All in the loop's thread."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` is monotonic."""
        self._now_ms = now_ms
        self._fault: Fault | None = None
        self._began_ms = self._last_ms = 0
        self._refused = 0

    def on_fault(self, fault: Fault, cause: BaseException | None) -> None:
        """A `runtime.Monitor`. Where the code went wrong is of use only when the code is wrong; a full disk has its
        sentence."""
        if fault.reason not in REFUSING:
            said = fields("commit_failed", reason=fault.reason, why=fault.message)
            _log.error("a batch was lost", exc_info=cause if isinstance(fault, Internal) else None, extra=said)
            return
        before, self._fault, self._last_ms = self._fault, fault, self._now_ms()
        if before is None:
            self._began_ms, self._refused = self._last_ms, 0
        self._refused += 1
        if before is None or before.reason != fault.reason:
            said = fields("store_refuses", reason=fault.reason, why=fault.message)
            _log.error("the store takes no writes; said again when it is over", extra=said)

    def on_commit(self, inputs: int, commit_s: float) -> None:
        """For the driver: a batch is durable."""
        if self._fault is not None and self._now_ms() - self._last_ms >= QUIET_MS:
            lasted_s = (self._last_ms - self._began_ms) // 1000
            said = fields("store_takes_again", refused=self._refused, lasted_s=lasted_s)
            _log.warning("the store takes writes again", extra=said)
            self._fault = None

    @property
    def notices(self) -> tuple[str, ...]:
        if self._fault is None:
            return ()
        ago_s = (self._now_ms() - self._last_ms) // 1000
        return (f"the store refuses writes ({self._refused} so far, the last {ago_s} s ago): {self._fault.message}",)


def chunk_notices(folder: Path, free_bytes: int) -> tuple[str, ...]:
    """Of the disk below storage.chunk_dir; `free_bytes` is what may still be written there."""
    if free_bytes > 0:
        return ()
    least_mb = DISK_RESERVE_BYTES // (1024 * 1024)
    return (f"the disk under {folder} has less than {least_mb} MiB free: no object is put or kept there",)
