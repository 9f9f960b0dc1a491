"""Makes room among summaries: those of a day become one, then those of a week; at last the oldest are forgotten.

What they say together stays; what goes is at which hour of the day, or on which day, it was. A fold takes the place of
what it was made of in one transaction, and not where any of that has changed meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

from google.protobuf.message import Message

from offgrid.v1 import state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.summaries.commands import DropSummaries, FoldSummaries, Placed
from offgrid_node.protocol.state.summaries.keyset import count
from offgrid_node.protocol.state.summaries.machine import DROPPED_MAX, MOVED
from offgrid_node.protocol.state.summaries.summary import Summary, join
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES, bound_as, scope_of, summary_key
from offgrid_node.protocol.state.summaries.windows import DAY_US, WEEK_US, Window, span_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.memory.compacting import LANE
from offgrid_node.services.memory.opening import opened
from offgrid_node.services.memory.walking import row_of
from offgrid_node.services.sessions.vault import Vault

CALLER = "joining"
SPANS_US = (DAY_US, WEEK_US)
KEYS_MAX = 262_144  # in one summary of summaries; where there would be more they stay apart
FOLDS_MAX = 64  # at a go
PLANS_MAX = 3

_log = logging.getLogger("offgrid.memory")


class _Group(NamedTuple):
    """Summaries of one scope that follow on each other, of one day or week. Rows without their bodies."""

    scope: str
    rows: list[state_pb2.SummaryRow]


class Joining:
    """Each call answers with SummariesChanged."""

    def __init__(self, runtime: Runtime, vault: Vault, bulk: Bulk) -> None:
        self._runtime, self._vault, self._bulk = runtime, vault, bulk

    def fold_oldest(self) -> Ticket:
        """The oldest day's, of the journal and of all sessions; where every day is one already, the oldest week's.
        `folded` is 0 where nothing can be joined any more."""
        return ticket_of(self._fold())

    def drop_oldest(self) -> Ticket:
        """The oldest day's, or what became of it; `folded` is 0 where there are none."""
        return ticket_of(self._drop())

    # ---- inside

    def _fold(self) -> Flow[Message]:
        """What has changed since it was planned, as by a purge, stays as it is; if that is all there is a new plan."""
        told = state_pb2.SummariesChanged()
        for _ in range(PLANS_MAX):
            moved = False
            for command in (yield self._bulk.run(self._plan, key=LANE)):
                size_bytes = len(command.placed.row.body)
                try:
                    answer = yield asked(self._runtime.ask("memory", CALLER, command, size_bytes=size_bytes))
                except FailedPrecondition as fault:
                    if fault.reason != MOVED:
                        raise
                    moved = True
                else:
                    told.folded, told.kept = told.folded + answer.folded, told.kept + answer.kept
            if told.folded or not moved:
                break
        return told

    def _drop(self) -> Flow[Message]:
        keys = yield self._bulk.run(self._oldest, key=LANE)
        if not keys:
            return state_pb2.SummariesChanged()
        changed: Message = yield asked(self._runtime.ask("memory", CALLER, DropSummaries(keys)))
        return changed

    def _rows(self) -> Iterator[tuple[str, int, state_pb2.SummaryRow]]:
        """Scope, behind how many gaps, and a row, in the order of scopes and numbers. Where one is damaged, or was
        forgotten though it is younger by its number, as after a clock was set, there is a gap."""
        gaps, following = 0, ("", 0)
        for key, value in sound(self._runtime.store.scan, SUMMARIES):
            row, scope = state_pb2.SummaryRow.FromString(value), scope_of(key)
            row.ClearField("body")
            gaps += (scope, row.first) != following
            following = scope, row.last + 1
            yield scope, gaps, row

    def _oldest(self) -> tuple[bytes, ...]:
        found = [(span_of(row.start_us, DAY_US), summary_key(scope, row.first)) for scope, _, row in self._rows()]
        oldest = min(found, default=(0, b""))[0]
        return tuple(key for day, key in found if day == oldest)[:DROPPED_MAX]

    def _plan(self) -> list[FoldSummaries]:
        rows = [*self._rows()]
        for span_us in SPANS_US:
            groups = _groups(rows, span_us)
            for span in sorted(groups):
                joined = filter(None, map(self._joined, groups[span]))
                if commands := [*islice(joined, FOLDS_MAX)]:
                    return commands
        return []

    def _joined(self, group: _Group) -> FoldSummaries | None:
        """As many of them as may be one; None where that is none."""
        rows, summaries, keys = list[state_pb2.SummaryRow](), list[Summary](), 0
        try:
            for row in group.rows:
                summary = self._opened(group.scope, row.first)
                keys += count(summary.keys)
                if keys > KEYS_MAX and len(rows) > 1:
                    break
                if keys > KEYS_MAX:
                    rows, summaries, keys = [], [], count(summary.keys)
                rows.append(row)
                summaries.append(summary)
            if len(rows) < 2:
                return None
            window = Window(min(row.start_us for row in rows), max(row.end_us for row in rows))
            made = row_of(join(summaries), window, rows[0].first, rows[-1].last)
            if group.scope != JOURNAL:
                made.body = self._vault.seal(group.scope, bound_as(made.first, made.last), made.body)
        except (Corrupt, FailedPrecondition) as fault:
            _log.warning("summaries are not joined", extra=fields("summaries_not_joined", why=fault.message))
            return None
        return FoldSummaries(Placed(group.scope, made), tuple(row.first for row in rows))

    def _opened(self, scope: str, first: int) -> Summary:
        value = self._runtime.store.get(SUMMARIES, summary_key(scope, first))
        if value is None:
            raise FailedPrecondition(f"the summary of {scope} from event {first} on has gone", reason=MOVED)
        return opened(self._vault, scope, state_pb2.SummaryRow.FromString(value))


def _groups(rows: list[tuple[str, int, state_pb2.SummaryRow]], span_us: int) -> dict[int, list[_Group]]:
    """By the day, or week."""
    groups: dict[int, list[_Group]] = {}
    for (scope, _, span), run in groupby(rows, lambda each: (*each[:2], span_of(each[2].start_us, span_us))):
        group = _Group(scope, [row for *_, row in run])
        if len(group.rows) > 1:
            groups.setdefault(span, []).append(group)
    return groups
