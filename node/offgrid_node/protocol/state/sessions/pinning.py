"""Sessions that are pinned: what they say is never dropped for want of room. So pins are taken only as long as the
sessions that are pinned fit the share of the budget that is theirs: else nothing that comes later could be kept.

One that is pinned may grow beyond that: what an application records is not refused for it. Then no other one is pinned,
and retention says what holds it (services/retention.py).
"""

from __future__ import annotations

from offgrid.v1 import state_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.sound import keys
from offgrid_node.protocol.state.sessions.tables import PINNED, SESSIONS

PINNED_MAX = 512  # sessions, whose rows are read at each pin
PINNED_BYTES_MAX = 1 << 60


class Pinning:
    """Part of the sessions machine. `max_bytes`: of all sessions that are pinned."""

    def __init__(self, draft: Draft, max_bytes: int) -> None:
        self._draft, self._max_bytes = draft, max_bytes
        self._pinned: dict[bytes, None] = {}

    def load(self, rows: Rows) -> None:
        self._pinned = dict.fromkeys(keys(rows.scan, PINNED))

    def pin(self, session: state_pb2.Session) -> None:
        """Raises Exhausted."""
        if len(self._pinned) >= PINNED_MAX:
            text = f"{len(self._pinned)} sessions are pinned, and no more are allowed: unpin or purge one first"
            raise Exhausted(text, reason="PinsFull")
        pinned_bytes = sum(map(self._bytes, self._pinned))
        if pinned_bytes + session.bytes > self._max_bytes:
            text = (
                f"session {session.session_id} has {session.bytes} bytes, and the sessions that are pinned have "
                f"{pinned_bytes}; together at most {self._max_bytes} are allowed, the share of events in "
                "storage.retention_base_mb: unpin or purge one first"
            )
            raise Exhausted(text, reason="PinsFull")
        key, session.pinned = session.session_id.encode(), True
        self._pinned[key] = None
        self._draft.put_bytes(PINNED, key, b"")

    def unpin(self, session: state_pb2.Session) -> None:
        if session.pinned:
            key, session.pinned = session.session_id.encode(), False
            self._pinned.pop(key, None)
            self._draft.delete(PINNED, key)

    def _bytes(self, key: bytes) -> int:
        row = self._draft.row(SESSIONS, key, state_pb2.SessionRow)
        return row.session.bytes if row is not None else 0
