"""What applications say of themselves while their sessions are open: the newest of each, for the next look.

`health.heartbeat` tells its queue, its memory and its frames; `energy.update` how much of a frame's time it took, which
counts where no heartbeat tells of frames. Of each block of events at most one of either is read, the last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

import msgspec

from offgrid_node.protocol.state.sessions.blocks import Entry

HEARTBEAT, ENERGY = "health.heartbeat", "energy.update"
KINDS = frozenset((HEARTBEAT, ENERGY))
SESSIONS_MAX = 256  # that are looked after; of more, those that said something last
QUEUE_DEPTH, FRAME_MS, MEMORY_MB = "queue_depth", "frame_ms", "memory_mb"


class _Said(msgspec.Struct):
    """Of either kind, by the names that their schemas have."""

    queue_depth: float | None = None
    frame_ms: float | None = None
    memory_mb: float | None = None
    frame_budget_used: float | None = None


_read = msgspec.json.Decoder(_Said).decode


class Heartbeats:
    """Told of events once they are durable."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, dict[str, _Said]] = OrderedDict()  # by kind, since the last look

    def on_events(self, session_id: str, kinds: Collection[str], entries: Sequence[Entry]) -> None:
        """`kinds` are those of the entries."""
        for kind in KINDS.intersection(kinds):
            data = next(entry.data for entry in reversed(entries) if entry.kind == kind)
            try:
                said = _read(data)
            except msgspec.MsgspecError:  # a number that no machine counts to
                continue
            self._sessions.setdefault(session_id, {})[kind] = said
            self._sessions.move_to_end(session_id)
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)

    def take(self, budget_ms: float) -> Mapping[tuple[str, str], float]:
        """By name and session, what has come since this was asked last. `budget_ms` is a frame's time."""
        taken, self._sessions = self._sessions, OrderedDict()
        return {
            (name, session_id): value
            for session_id, said in taken.items()
            for name, value in _figures(said, budget_ms).items()
            if value is not None
        }


def _figures(said: Mapping[str, _Said], budget_ms: float) -> Mapping[str, float | None]:
    heartbeat, energy = said.get(HEARTBEAT, _Said()), said.get(ENERGY, _Said())
    frame_ms, used = heartbeat.frame_ms, energy.frame_budget_used
    if frame_ms is None and used is not None:
        frame_ms = used * budget_ms
    return {QUEUE_DEPTH: heartbeat.queue_depth, MEMORY_MB: heartbeat.memory_mb, FRAME_MS: frame_ms}
