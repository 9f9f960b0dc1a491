"""What owners have begun to bring to this host, and not gone on with for a week, is thrown away while the node runs.

A start does so by itself (`room.py`). Whatever is still open, and was gone on with since, stays; what goes takes its
turn at the disk with the pieces that may come all the same, so none of them is lost: its owner hears that it is to
begin again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.manifest import OBJECT_ID
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.objects.incoming import Admission
from offgrid_node.storage.blobs import STAGED_AGE_MAX_S, BlobStore

LOOK_MS = 3_600_000
LANE = "sweeping"  # no object's name

_log = logging.getLogger(__name__)


class Sweeping:
    """A look each hour."""

    def __init__(self, admission: Admission, blobs: BlobStore, bulk: Bulk, later: Later) -> None:
        self._admission, self._blobs, self._bulk, self._later = admission, blobs, bulk, later
        self._going = False

    def start(self) -> None:
        self._going = True
        self._later(LOOK_MS, self._turn)

    def close(self) -> None:
        self._going = False

    def _turn(self) -> None:
        if self._going:
            run(self._look(), self._ended)

    def _ended(self, swept: int | Fault) -> None:
        if isinstance(swept, Fault):
            _log.warning(
                "what owners left half done cannot be deleted now", extra=fields("sweep_failed", why=swept.message)
            )
        elif swept:
            _log.info("what owners left half done is deleted", extra=fields("swept", blobs=swept))
        self._later(LOOK_MS, self._turn)

    def _look(self) -> Flow[int]:
        self._admission.stop_idle(STAGED_AGE_MAX_S * 1_000)
        old: Sequence[str] = yield self._bulk.run(self._old, key=LANE)
        swept = 0
        for staged in old:
            owner, object_id = _claim_of(staged)
            if OBJECT_ID.match(object_id) and self._admission.find(owner, object_id) is None:
                try:
                    swept += yield self._bulk.run(lambda: self._discard(staged), key=object_id)  # noqa: B023 - at once
                except Fault as fault:  # the others do not wait for it
                    said = fields("sweep_stuck", blob=staged, why=fault.message)
                    _log.warning("what an owner left half done stays for now", extra=said)
        return swept

    def _old(self) -> list[str]:
        return [each.name for each in self._blobs.all_staged() if each.age_s > STAGED_AGE_MAX_S]

    def _discard(self, staged: str) -> bool:
        """In the object's turn at the disk: nobody adds to it meanwhile, and whoever has opened it since stays."""
        owner, object_id = _claim_of(staged)
        if self._admission.find(owner, object_id) is not None:
            return False
        self._blobs.discard(staged)
        return True


def _claim_of(staged: str) -> tuple[str, str]:
    """Owner and object, as `Claim.staged` has them; of what is staged otherwise the second is no object's id."""
    owner, _, name = staged.partition(".")
    return owner, name.partition(".")[0]
