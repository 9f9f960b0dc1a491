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

SWEPT_ROWS, SWEPT_BYTES = 512, 2 * 1024 * 1024  # in one step
SWEPT_TABLES = (BLOCKS, SNAPSHOTS, SUMMARIES)
BEGINNING = (0, b"")


class Purging:
    """Part of the sessions machine, which has ended what comes here. `tell` has the journal say what became of one."""

    def __init__(self, draft: Draft, pinning: Pinning, tell: Callable[..., object]) -> None:
        self._draft, self._pinning, self._tell = draft, pinning, tell
        # Sessions whose keys are gone, and rows are left, from that key of that table on. Without the place each step
        # would walk over all that went before, which the store may still remember row by row.
        self._sweeps: dict[str, tuple[int, bytes]] = {}

    def load(self, rows: Rows) -> None:
        self._sweeps = {key.decode(): BEGINNING for key, value in sound(rows.scan, PURGING) if value == KEY_GONE}

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
                self._sweeps[session_id] = BEGINNING

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
        for session_id, place in [*self._sweeps.items()]:
            for at, key, size in self._left(session_id, *place):
                if rows == 0 or room <= 0:
                    self._sweeps[session_id] = at, key
                    return
                rows, room = rows - 1, room - size
                self._draft.delete(SWEPT_TABLES[at], key)
            self._draft.delete(PURGING, session_id.encode())
            del self._sweeps[session_id]

    def _left(self, session_id: str, first: int, start: bytes) -> Iterator[tuple[int, bytes, int]]:
        """Rows with their sizes, in their order: those that are damaged go as well."""
        prefix, damaged = session_id.encode(), list[bytes]()
        for at in range(first, len(SWEPT_TABLES)):
            rows = sound(self._draft.committed, SWEPT_TABLES[at], start, prefix=prefix, on_damaged=damaged.append)
            for key, value in rows:
                yield from ((at, each, 0) for each in damaged)
                damaged.clear()
                yield at, key, len(value)
            yield from ((at, each, 0) for each in damaged)
            damaged.clear()
            start = b""
