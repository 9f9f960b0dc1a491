"""Which snapshots of sessions are kept: the newest few of each session and reducer, for whoever cannot read the newest,
or asks what was before. Where all of them together are too much the newest alone, and the newest of the reducer's
version of now: behind it events may be dropped, and from it the state is folded on. The oldest sessions come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from offgrid.v1 import state_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.commands import KeepSnapshot, ThinSnapshots
from offgrid_node.protocol.state.sessions.tables import SNAPSHOTS, reducer_of, snapshots_of
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_key

SNAPSHOTS_MAX = 4  # of one session and reducer
THINNED_ROWS, THINNED_BYTES = 256, 4 * 1024 * 1024  # looked at in one step, and a session's and reducer's more

Row = tuple[bytes, bytes]


class Keeping:
    """Part of the sessions machine. `reducers`: by name, the version."""

    def __init__(self, draft: Draft, reducers: Mapping[str, int]) -> None:
        self._draft, self._reducers = draft, reducers

    def keep(self, command: KeepSnapshot, session: state_pb2.Session) -> state_pb2.TakeSnapshotResponse:
        if not 0 < command.number <= session.recorded:
            text = f"{command.number}; the session has {session.recorded} events"
            raise InvalidRequest.field("number", text)
        prefix = snapshots_of(command.session_id, command.reducer)
        new = prefix + number_key(command.number)
        kept = [key for key, _ in sound(self._draft.committed, SNAPSHOTS, prefix, prefix=prefix) if key != new]
        for key in kept[: max(0, len(kept) + 1 - SNAPSHOTS_MAX)]:
            self._draft.delete(SNAPSHOTS, key)
        self._draft.put(SNAPSHOTS, new, state_pb2.SnapshotRow(version=command.version, sealed=command.sealed))
        return state_pb2.TakeSnapshotResponse(number=command.number)

    def thin(self, command: ThinSnapshots) -> state_pb2.Thinned:
        """Some of it: as long as there is `following` it is to be asked from there on."""
        answer, rows, read = state_pb2.Thinned(), 0, 0
        for start, those in self._groups(command.start):
            if answer.bytes >= command.bytes:
                break
            if rows >= THINNED_ROWS or read >= THINNED_BYTES:
                answer.following = start
                break
            for key, value in self._redundant(those):
                answer.snapshots, answer.bytes = answer.snapshots + 1, answer.bytes + len(key) + len(value)
                self._draft.delete(SNAPSHOTS, key)
            rows, read = rows + len(those), read + sum(len(value) for _, value in those)
        return answer

    def _groups(self, start: bytes) -> Iterator[tuple[bytes, list[Row]]]:
        """Of one session and reducer, with the key of the first."""
        rows = sound(self._draft.committed, SNAPSHOTS, start)
        for _, those in groupby(rows, lambda row: row[0][:-NUMBER_BYTES]):
            group = [*those]
            yield group[0][0], group

    def _redundant(self, those: list[Row]) -> Iterator[Row]:
        """All but the newest, and the newest of the version of now."""
        if len(those) == 1:
            return
        version = self._reducers.get(reducer_of(those[0][0]))
        of_now = version is None  # nobody asks for one of a reducer that is not there
        for place, row in enumerate(reversed(those)):
            if not of_now and state_pb2.SnapshotRow.FromString(row[1]).version == version:
                of_now = True
            elif place:
                yield row
