"""What is recorded in sessions, and how the programs that record fare: their own figures, which they send along.

A writer counts since it began, a node since it was started: what one had counted before it was first heard is left out,
unless that was its first batch. Of more than WRITERS_MAX the one that was silent the longest is forgotten, and begins
anew when it is heard again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from offgrid.kinds import KNOWN
from offgrid.v1 import state_pb2
from offgrid_node.meters.instruments import Counter, Histogram

WRITERS_MAX = 256
WRITE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class WriterMeters:
    """Of one node."""

    def __init__(self) -> None:
        self.recorded = Counter("offgrid_session_events_total", "Events of sessions made durable, by kind.", ("kind",))
        self.accepted = Counter("offgrid_writer_accepted_total", "Events that programs took in to be recorded.")
        self.dropped = Counter(
            "offgrid_writer_dropped_total", "Events that programs dropped, for want of room, by kind.", ("kind",)
        )
        self.turned_away = Counter("offgrid_writer_turned_away_total", "Of those, what was never taken in.")
        self.refused = Counter("offgrid_writer_refused_total", "Events that this node refused, by kind.", ("kind",))
        self.failures = Counter("offgrid_writer_failures_total", "Tries of programs to record that failed.")
        self.openings = Counter("offgrid_writer_breaker_opened_total", "How often programs stopped trying for a while.")
        self.write_time = Histogram(
            "offgrid_writer_write_duration_seconds", "What a batch took, as the program saw it.", WRITE_S
        )
        for kind in KNOWN:
            self._make_known(kind)
        self._writers: OrderedDict[tuple[str, bytes], state_pb2.RecordEventsRequest] = OrderedDict()

    @property
    def instruments(self) -> tuple[Counter | Histogram, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Counter | Histogram))

    @property
    def waiting(self) -> int:
        """Events that wait in programs, as each said last."""
        return sum(said.figures.waiting for said in self._writers.values())

    def on_recorded(self, session_id: str, request: state_pb2.RecordEventsRequest, kinds: Mapping[str, int]) -> None:
        """A batch is durable."""
        for kind, count in kinds.items():
            self.recorded.add(kind, count=count)
            self._make_known(kind)
        key, said = (session_id, request.writer), state_pb2.RecordEventsRequest()
        said.figures.CopyFrom(request.figures)
        said.dropped.MergeFrom(request.dropped)
        before = self._writers.pop(key, None)
        if before is None:
            before = said if request.sent else state_pb2.RecordEventsRequest()
        self._writers[key] = said
        if len(self._writers) > WRITERS_MAX:
            self._writers.popitem(last=False)
        self._count(said, before)
        if said.figures.write_us:
            self.write_time.add(said.figures.write_us / 1e6)

    def on_ended(self, session_id: str) -> None:
        """Nothing waits for it any more."""
        for key in [key for key in self._writers if key[0] == session_id]:
            del self._writers[key]

    def _make_known(self, kind: str) -> None:
        """What goes wrong first with events of a kind is then an increase, which a series that begins at 1 is not."""
        self.dropped.add(kind, count=0)
        self.refused.add(kind, count=0)

    def _count(self, said: state_pb2.RecordEventsRequest, before: state_pb2.RecordEventsRequest) -> None:
        now, then = said.figures, before.figures
        self.accepted.add(count=max(0, now.accepted - then.accepted))
        self.turned_away.add(count=max(0, now.turned_away - then.turned_away))
        self.failures.add(count=max(0, now.failures - then.failures))
        self.openings.add(count=max(0, now.openings - then.openings))
        for counter, new, old in (
            (self.dropped, said.dropped, before.dropped),
            (self.refused, now.refused, then.refused),
        ):
            for kind, count in new.items():
                counter.add(kind, count=max(0, count - old.get(kind, 0)))
