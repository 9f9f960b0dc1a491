"""What owners say of their objects, at whoever keeps some of them or may read them. `notices.py` is their side."""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.latecomers import Latecomers
from offgrid_node.protocol.objects.commands import TakeNotices
from offgrid_node.protocol.objects.dropping import Dropping
from offgrid_node.protocol.objects.sharing import Shared


class Heeding:
    """In the order that owners meant: what comes late is refused."""

    def __init__(self, draft: Draft, dropping: Dropping) -> None:
        self._dropping, self._shared, self._latecomers = dropping, Shared(draft, dropping.was_read), Latecomers()

    def on_notices(self, notices: TakeNotices, now: Now) -> None:
        """Raises FailedPrecondition (CameLate): what its owner has said since is not undone."""
        self._latecomers.check(notices.owner, notices.life, notices.number, now.mono_ms)
        for object_id in notices.deleted:
            self._dropping.on_deleted(notices.owner, object_id, now)
        for object_id in (*notices.unshared, *notices.deleted):  # before what is shared, which may need their room
            self._shared.on_unshared(notices.owner, object_id, now)
        for epoch in notices.moved:
            self._dropping.on_moved(epoch)
        for object_id, shared in notices.shared:
            if not self._dropping.is_dropped(object_id, notices.owner):  # else it comes late
                self._shared.on_shared(notices.owner, shared, object_id, now)
        for object_id, sealed_key in notices.rewrapped:
            self._shared.on_rewrapped(notices.owner, object_id, sealed_key)
