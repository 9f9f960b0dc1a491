"""What goes when too much is kept: the journal's events in their order, the oldest first, and with each one that tells
of a block of a session's events the block itself.

So there is one order for all, and one number says up to where hosts have it, and summaries. A session that is pinned
keeps its blocks: it is noted up to where they were passed over, and once it is pinned no more they are the first when
something is to go. A block goes only behind a snapshot of it by each reducer of this node: what the events came to
stays. A reducer that lacks what came before (it is new, or another version) could make nothing of the block, and does
not keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from offgrid.v1 import state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.commands import DropOldest
from offgrid_node.protocol.state.sessions.imports import is_importing
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    PASSED,
    RETENTION,
    RETENTION_KEY,
    SESSIONS,
    SNAPSHOTS,
    block_key,
    snapshots_of,
)
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key, number_of

PORTION_EVENTS, PORTION_BYTES = 1_024, 4 * 1024 * 1024  # of the journal, or blocks, in one step
BUDGET, AGE = "budget", "age"


class Journal(Protocol):
    """The events that are committed and kept, as a store has them."""

    @property
    def journal_seq(self) -> int: ...

    @property
    def journal_floor(self) -> int: ...

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]: ...


class Dropping:
    """Part of the sessions machine. `reducers`: by name, the version."""

    def __init__(self, draft: Draft, journal: Journal, reducers: Mapping[str, int]) -> None:
        self._draft, self._journal, self._reducers = draft, journal, reducers
        self._summed_up: dict[str, list[int]] = {}  # in this step, by session: the newest snapshots, by reducer

    def drop(self, command: DropOldest, now: Now) -> state_pb2.Dropped:
        """Some of it: as long as there is `more` it is to be asked again. Raises Corrupt."""
        answer = state_pb2.Dropped()
        self._summed_up.clear()
        row = self._draft.row(RETENTION, RETENTION_KEY, state_pb2.RetentionRow) or state_pb2.RetentionRow()
        if self._drop_passed(command, answer):
            self._drop_events(command, row, answer)
        if answer.events or answer.session_events:
            row.events += answer.events
            row.session_events += answer.session_events
            row.bytes += answer.bytes
            row.last_us, row.why = now.utc_us, BUDGET if command.bytes else AGE
            self._draft.put(RETENTION, RETENTION_KEY, row)
        return answer

    def _drop_events(self, command: DropOldest, row: state_pb2.RetentionRow, answer: state_pb2.Dropped) -> None:
        """The newest one stays whatever is asked."""
        upto = max(row.upto, self._journal.journal_floor)
        for seq, raw in self._journal.events(upto):
            event = state_pb2.Event.FromString(raw)
            if _is_enough(command, answer, event.timestamp_us):
                break
            if seq > command.upto or seq == self._journal.journal_seq:
                answer.held = seq > command.upto
                break
            if answer.events >= PORTION_EVENTS or answer.bytes >= PORTION_BYTES:
                answer.more = True
                break
            if event.HasField("block") and not self._drop_block(event.block, command, answer):
                break
            answer.events += 1
            answer.bytes += len(raw)
            upto = seq
        if upto > row.upto:
            row.upto = upto
            self._draft.drop_events(upto)

    def _drop_block(self, block: state_pb2.BlockEvent, command: DropOldest, answer: state_pb2.Dropped) -> bool:
        """Whether the event that tells of it may go."""
        row = self._session(block.session_id)
        if row is None or row.session.purged_us:
            return True
        if _stays(row.session, command):
            self._draft.put_bytes(PASSED, block.session_id.encode(), number_key(block.first))
            return True
        if not self._is_summed_up(row.session, block.first + block.count - 1):
            answer.needs_snapshot = block.session_id
            return False
        self._delete(row, block_key(block.session_id, block.first), block.count, answer)
        return True

    def _drop_passed(self, command: DropOldest, answer: state_pb2.Dropped) -> bool:
        """Of sessions that were pinned when their turn came; whether it is the others' turn."""
        for key, upto in sound(self._draft.committed, PASSED):
            if not self._drop_passed_of(key, upto, command, answer):
                return False
        return True

    def _drop_passed_of(self, key: bytes, upto: bytes, command: DropOldest, answer: state_pb2.Dropped) -> bool:
        """Whether it is the next one's turn."""
        session_id = key.decode()
        row = self._session(session_id)
        if row is not None and _stays(row.session, command):
            return True
        if row is not None and not row.session.purged_us:
            first, end = row.session.recorded - row.session.kept + 1, block_key(session_id, number_of(upto))
            for at, value in sound(self._draft.committed, BLOCKS, block_key(session_id, first), prefix=key):
                if at > end:
                    break
                block = state_pb2.BlockRow.FromString(value)
                if _is_enough(command, answer, block.had_us):
                    return True
                if answer.bytes >= PORTION_BYTES or answer.session_events >= PORTION_EVENTS:
                    answer.more = True
                    return False
                if not self._is_summed_up(row.session, number_of(at[-NUMBER_BYTES:]) + block.count - 1):
                    answer.needs_snapshot = session_id
                    return False
                self._delete(row, at, block.count, answer)
        self._draft.delete(PASSED, key)
        return True

    # ---- inside

    def _session(self, session_id: str) -> state_pb2.SessionRow | None:
        return self._draft.row(SESSIONS, session_id.encode(), state_pb2.SessionRow)

    def _is_summed_up(self, session: state_pb2.Session, number: int) -> bool:
        session_id, gone = session.session_id, session.recorded - session.kept
        newest = self._summed_up.get(session_id)
        if newest is None:
            newest = [self._newest_snapshot(session_id, *each) for each in self._reducers.items()]
            self._summed_up[session_id] = newest
        return all(each >= number or each < gone for each in newest)

    def _newest_snapshot(self, session_id: str, reducer: str, version: int) -> int:
        prefix, newest = snapshots_of(session_id, reducer), 0
        for key, value in sound(self._draft.committed, SNAPSHOTS, prefix, prefix=prefix):
            if state_pb2.SnapshotRow.FromString(value).version == version:
                newest = number_of(key[-NUMBER_BYTES:])
        return newest

    def _delete(self, row: state_pb2.SessionRow, key: bytes, count: int, answer: state_pb2.Dropped) -> None:
        """One that is damaged goes as well; how much it was then nobody knows, but of how many events."""
        session = row.session
        try:
            value = self._draft.get(BLOCKS, key)
        except Corrupt:
            value = b""
        if value is None:
            return
        sealed = state_pb2.BlockRow.FromString(value).sealed
        session.kept -= min(count, session.kept)
        session.bytes -= min(len(sealed), session.bytes)
        answer.session_events += count
        answer.bytes += len(value)
        self._draft.delete(BLOCKS, key)
        self._draft.put(SESSIONS, session.session_id.encode(), row)


def _is_enough(command: DropOldest, answer: state_pb2.Dropped, at_us: int) -> bool:
    """Whether what happened then may stay."""
    return answer.bytes >= command.bytes and at_us >= command.before_us


def _stays(session: state_pb2.Session, command: DropOldest) -> bool:
    return session.pinned or session.session_id in command.spare or is_importing(session)
