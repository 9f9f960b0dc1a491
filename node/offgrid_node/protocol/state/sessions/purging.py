"""How a session is shredded: noted, then its key goes (services/sessions/shredding.py), then its rows, some at a time.

    BeginPurge ──▶ noted ── EndPurge ──▶ its key is gone ── steps ──▶ no row is left ── ForgetSessions ──▶ never was

Each arrow is one commit. Whoever is killed behind the first finds what is noted, and drops the key (again); behind the
second the rows that are left, and goes on with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.pinning import Pinning
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    IMPORTS,
    KEY_GONE,
    NAMES,
    PASSED,
    PURGING,
    SESSIONS,
    SNAPSHOTS,
)
from offgrid_node.protocol.state.summaries.tables import SUMMARIES

SWEPT_ROWS, SWEPT_BYTES = 4_096, 16 * 1024 * 1024  # in one step


class Purging:
    """Part of the sessions machine, which has ended what comes here. `tell` has the journal say what became of one."""

    def __init__(self, draft: Draft, pinning: Pinning, tell: Callable[..., object]) -> None:
        self._draft, self._pinning, self._tell = draft, pinning, tell
        self._sweeps: dict[str, None] = {}  # sessions whose keys are gone, and rows are left

    def load(self, rows: Rows) -> None:
        self._sweeps = {key.decode(): None for key, value in sound(rows.scan, PURGING) if value == KEY_GONE}

    @property
    def is_sweeping(self) -> bool:
        return bool(self._sweeps)

    def begin(self, rows: Sequence[state_pb2.SessionRow], caller: str, now: Now) -> state_pb2.PurgeSessionsResponse:
        """Of those that are shredded already nothing more."""
        answer = state_pb2.PurgeSessionsResponse()
        for row in rows:
            session = row.session
            if session.purged_us:
                continue
            answer.sessions, answer.events = answer.sessions + 1, answer.events + session.kept
            self._tell(session, "purged", caller, session.kept)
            self._pinning.unpin(session)
            session.purged_us, session.kept, session.bytes = max(now.utc_us, 1), 0, 0
            del row.writers[:]
            self._draft.put(SESSIONS, session.session_id.encode(), row)
            self._draft.put_bytes(PURGING, session.session_id.encode(), b"")
        return answer

    def end(self, session_ids: Sequence[str]) -> None:
        """Their keys are gone."""
        for session_id in session_ids:
            if self._draft.get(PURGING, session_id.encode()) is not None:
                self._draft.put_bytes(PURGING, session_id.encode(), KEY_GONE)
                self._sweeps[session_id] = None

    def forget(self, session_ids: Sequence[str]) -> None:
        """Those of them that are shredded to the last row."""
        for session_id in session_ids:
            key = session_id.encode()
            row = self._draft.row(SESSIONS, key, state_pb2.SessionRow)
            if row is None or not row.session.purged_us or self._draft.get(PURGING, key) is not None:
                continue
            self._draft.delete(SESSIONS, key)
            self._draft.delete(PASSED, key)
            for table, its in ((NAMES, row.session.name.encode()), (IMPORTS, row.session.origin.digest)):
                if its and self._draft.get(table, its) == key:
                    self._draft.delete(table, its)
            self._tell(row.session, "forgotten")

    def sweep(self) -> None:
        """Some rows of those whose keys are gone; the rest in the next steps."""
        rows, room = SWEPT_ROWS, SWEPT_BYTES
        for session_id in [*self._sweeps]:
            for table, key, size in self._left(session_id):
                if rows == 0 or room <= 0:
                    return
                rows, room = rows - 1, room - size
                self._draft.delete(table, key)
            self._draft.delete(PURGING, session_id.encode())
            del self._sweeps[session_id]

    def _left(self, session_id: str) -> Iterator[tuple[str, bytes, int]]:
        """Rows with their sizes: those that are damaged go as well."""
        prefix, damaged = session_id.encode(), list[bytes]()
        for table in (BLOCKS, SNAPSHOTS, SUMMARIES):
            for key, value in sound(self._draft.committed, table, prefix, prefix=prefix, on_damaged=damaged.append):
                yield table, key, len(value)
            yield from ((table, key, 0) for key in damaged if key.startswith(prefix))
            damaged.clear()
