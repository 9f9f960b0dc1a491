"""Keeps what this node keeps within its budget: looks now and then, and has the oldest go where there is too much.

The budget is `base * (1 + level)`, in four shares. What is kept is measured as the pages that the store has for it:

    events      40 %   the journal, and blocks of sessions' events
    summaries   25 %   what windows of events came to, and snapshots of sessions
    chunks      25 %   this node's own objects that are still on their way to hosts
    indices     10 %   the rows of sessions, and what finds them

Of events the oldest go, in the journal's order, down to a little less than their share, and what is older than
`cleanup_days`: but nothing that hosts do not have yet, where this node's journal goes to hosts, nothing that is in no
summary yet, and nothing of sessions that are pinned. Where only summaries are missing the window under way is cut
short. Of snapshots all but the newest of each session and reducer go, where they need more than half of their share;
then of summaries the oldest are put together, then they go, down to half of it. Of sessions that have nothing left the
oldest are shredded and forgotten. Sealed bytes of an own object go by themselves once all
that is wanted of it is acked; what is counted of them is not safe elsewhere, and stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX_OPEN, SPREADING
from offgrid_node.protocol.sound import sound
from offgrid_node.protocol.state.sessions.commands import DropOldest, ForgetSessions, ThinSnapshots
from offgrid_node.protocol.state.sessions.dropping import BUDGET
from offgrid_node.protocol.state.sessions.tables import (
    BLOCKS,
    NAMES,
    OPEN_SESSIONS,
    PURGING,
    RETENTION,
    RETENTION_KEY,
    SESSIONS,
    SNAPSHOTS,
)
from offgrid_node.protocol.state.summaries.tables import SUMMARIES
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.kept_facts import KeptFacts
from offgrid_node.services.sessions.folding import loggable
from offgrid_node.storage.store import Store

MIB = 1024 * 1024
FIRST_MS, INTERVAL_MS = 15_000, 60_000
DAY_US = 86_400_000_000
ENOUGH = 0.9  # of a share, once it was full
SHARES = {"events": 40, "summaries": 25, "chunks": 25, "indices": 10}  # percent
INDICES = (SESSIONS, NAMES, OPEN_SESSIONS)
OWN_MAX = 10_000  # objects that are counted; who has more under way is told of as many
FORGOTTEN_MAX, LOOKED_MAX = 64, 1_000  # sessions, in one look, and a portion more
LOOKED_PORTION, PAUSE_MS = 64, 1  # looked at before others have their turn
CALLER = "retention"
UNSUMMED = "they are in no summary yet"
KEPT_BACK = "they are of sessions that are pinned, imported in part, or that a reducer fails at"
SNAPSHOTS_HOLD = "they are snapshots of sessions: purge some"

_log = logging.getLogger("offgrid.retention")


class Budget(msgspec.Struct, frozen=True):
    base_mb: int = 128
    token_level: int = 0
    cleanup_days: int = 90  # 0: nothing goes for its age alone
    auto_purge_days: int = 0  # after which a session that has ended is shredded; 0: none is

    @property
    def total_bytes(self) -> int:
        return self.base_mb * MIB * (1 + self.token_level)

    def share_bytes(self, name: str) -> int:
        return self.total_bytes * SHARES[name] // 100


class Surroundings(msgspec.Struct, frozen=True):
    """What others say and do. `safe_upto`: the journal's events that hosts have, None where it does not go to hosts;
    `summed_upto`: those that are in summaries; `compact_now` summarises all that has happened; `sum_up` takes snapshots
    of a session, `shred` shreds some; the oldest summaries are put together, or go."""

    safe_upto: Callable[[], int | None]
    summed_upto: Callable[[], int]
    compact_now: Callable[[], Ticket]
    sum_up: Callable[[str], Iterator[Ticket]]
    shred: Callable[[Sequence[str]], Ticket]
    fold_oldest: Callable[[], Ticket]
    drop_oldest: Callable[[], Ticket]


class Retention:
    """One look at a time. What it does it does in portions; between them others have their turn."""

    def __init__(
        self,
        runtime: Runtime,
        budget: Budget,
        around: Surroundings,
        later: Later,
        *,
        interval_ms: int = INTERVAL_MS,
    ) -> None:
        self._runtime, self._budget, self._around, self._later = runtime, budget, around, later
        self._interval_ms, self._going = interval_ms, False
        self._looked_at = b""  # the session with which the next look begins
        self.held = ""  # what keeps it from dropping more, though too much is kept

    def start(self) -> None:
        self._going = True
        self._later(min(FIRST_MS, self._interval_ms), self._turn)

    def close(self) -> None:
        self._going = False

    # ---- asked

    def get_retention(self, caller: Caller, request: state_pb2.GetRetentionRequest) -> Message:
        budget, store = self._budget, self._runtime.store
        answer = state_pb2.GetRetentionResponse(
            base_bytes=budget.base_mb * MIB,
            budget_bytes=budget.total_bytes,
            journal_floor=store.journal_floor,
            held=self.held,
            cleanup_days=budget.cleanup_days,
        )
        answer.dropped.CopyFrom(self._dropped())
        for name, percent in SHARES.items():
            answer.shares.add(
                name=name, percent=percent, budget_bytes=budget.share_bytes(name), used_bytes=self._used(name)
            )
        return answer

    @property
    def facts(self) -> KeptFacts:
        """As far as it is this one's; without the objects, all of which it would have to look at."""
        budget, gone = self._budget, self._dropped()
        shares = (name for name in SHARES if name != "chunks")
        return KeptFacts(
            shares=tuple((name, budget.share_bytes(name), self._used(name)) for name in shares),
            dropped_events=gone.events,
            dropped_session_events=gone.session_events,
            dropped_bytes=gone.bytes,
            held=bool(self.held),
        )

    @property
    def summary(self) -> str:
        """What has gone, and why the last of it."""
        gone = self._dropped()
        if not gone.events:
            return ""
        why = "the budget was full" if gone.why == BUDGET else "it was old"
        return f"{gone.events} events have gone, {gone.session_events} of sessions, the last because {why}"

    @property
    def notices(self) -> tuple[str, ...]:
        return (self.held,) if self.held else ()

    # ---- a look

    def _turn(self) -> None:
        if self._going:
            run(self._look(), self._ended)

    def _ended(self, outcome: Fault | None) -> None:
        if isinstance(outcome, Fault):
            self.held = f"what is kept is not brought within its budget: {outcome.message}"
            _log.warning("more is kept than the budget allows", extra=fields("retention_held", why=self.held))
        if self._going:
            self._later(self._interval_ms, self._turn)

    def _look(self) -> Flow[None]:
        held = ((yield from self._drop_events()), (yield from self._shrink_summaries()))
        self.held = "; ".join(filter(None, held))
        yield from self._forget_sessions()

    def _dropped(self) -> state_pb2.RetentionRow:
        return state_pb2.RetentionRow.FromString(self._runtime.store.get(RETENTION, RETENTION_KEY) or b"")

    def _used(self, name: str) -> int:
        store = self._runtime.store
        match name:
            case "events":
                return store.journal_bytes() + store.table_bytes(BLOCKS)
            case "summaries":
                return store.table_bytes(SUMMARIES) + store.table_bytes(SNAPSHOTS)
            case "chunks":
                return own_bytes(store)
            case _:
                return sum(map(store.table_bytes, INDICES))

    def _excess(self, name: str) -> int:
        """How much is to go, where a share is full."""
        used, share = self._used(name), self._budget.share_bytes(name)
        return max(0, used - int(share * ENOUGH)) if used > share else 0

    def _drop_events(self) -> Flow[str]:
        """Returns what keeps more of them than there should be."""
        days = self._budget.cleanup_days
        before_us = self._runtime.clock.now().utc_us - days * DAY_US if days else 0
        excess, spare, compacted, failed = self._excess("events"), set[str](), False, ""
        while True:
            upto, why = self._may_go()
            command = DropOldest(upto, max(0, excess), before_us, frozenset(spare))
            dropped = yield self._asked(command)
            assert isinstance(dropped, state_pb2.Dropped)
            excess -= dropped.bytes
            if dropped.events:
                cause = "the budget is full" if command.bytes else f"{days} days old"
                said = fields("events_dropped", events=dropped.events, of_sessions=dropped.session_events, why=cause)
                _log.info("old events are dropped", extra=said)
            if dropped.needs_snapshot:
                spare.add(dropped.needs_snapshot)
                fault = yield from self._take_snapshots(dropped.needs_snapshot)
                if fault is None:
                    spare.discard(dropped.needs_snapshot)
                else:
                    failed = failed or f" (session {dropped.needs_snapshot}: {loggable(fault)})"
            elif dropped.held and excess > 0 and why == UNSUMMED and not compacted:
                compacted = True
                yield self._around.compact_now().when_done
            elif not dropped.more:
                return too_much("events", excess, why if dropped.held else KEPT_BACK + failed)

    def _may_go(self) -> tuple[int, str]:
        safe, summed = self._around.safe_upto(), self._around.summed_upto()
        if safe is not None and safe <= summed:
            return safe, "hosts do not have them yet"
        return summed, UNSUMMED

    def _take_snapshots(self, session_id: str) -> Flow[Fault | None]:
        """Returns what keeps them from being taken."""
        try:
            for ticket in self._around.sum_up(session_id):
                yield ticket.when_done
        except Fault as fault:
            said = fields("session_not_summed", session=session_id, why=loggable(fault))
            _log.warning("events of a session stay: they cannot be summed up", extra=said)
            return fault.bare()
        return None

    def _shrink_summaries(self) -> Flow[str]:
        """The newest snapshots are as many as there are sessions, and go with them. Returns as `_drop_events`."""
        least = self._budget.share_bytes("summaries") // 2
        if self._runtime.store.table_bytes(SNAPSHOTS) > least:
            yield from self._thin_snapshots()
        while self._excess("summaries") and self._runtime.store.table_bytes(SUMMARIES) > least:
            for shrink in (self._around.fold_oldest, self._around.drop_oldest):
                changed = yield shrink().when_done
                assert isinstance(changed, state_pb2.SummariesChanged)
                if changed.folded:
                    break
            else:
                break
        return too_much("summaries", self._excess("summaries"), SNAPSHOTS_HOLD)

    def _thin_snapshots(self) -> Flow[None]:
        start = b""
        while excess := self._excess("summaries"):
            thinned = yield self._asked(ThinSnapshots(start, excess))
            assert isinstance(thinned, state_pb2.Thinned)
            start = thinned.following
            if not start:
                return

    def _forget_sessions(self) -> Flow[None]:
        """Those that were shredded so long ago that nobody asks. Those that have ended are shredded once they are old,
        where the owner wants that, and where rows are too many and they have nothing left. Some at each look."""
        full, looked = self._excess("indices") > 0, 0
        due, shredded = list[str](), list[str]()
        while looked < LOOKED_MAX and len(due) + len(shredded) < FORGOTTEN_MAX:
            portion = [*islice(sound(self._runtime.store.scan, SESSIONS, self._looked_at), LOOKED_PORTION)]
            for key, value in portion:
                session = state_pb2.SessionRow.FromString(value).session
                if self._is_forgotten(key, session, full=full):
                    shredded.append(session.session_id)
                elif self._is_over(session, full=full):
                    due.append(session.session_id)
            looked += LOOKED_PORTION
            self._looked_at = portion[-1][0] + b"\0" if len(portion) == LOOKED_PORTION else b""
            if not self._looked_at:
                break
            yield self._pause
        if due:
            yield self._around.shred(due).when_done  # and forgotten later
        if shredded:
            yield self._asked(ForgetSessions(tuple(shredded)))

    def _is_forgotten(self, key: bytes, session: state_pb2.Session, *, full: bool) -> bool:
        """Nothing of it is left, or about to go."""
        if not session.purged_us or not (full or self._is_older(session.purged_us, self._budget.cleanup_days)):
            return False
        return self._runtime.store.get(PURGING, key) is None

    def _is_over(self, session: state_pb2.Session, *, full: bool) -> bool:
        """One that was imported is as old as its import."""
        if not session.ended_us or session.pinned or session.purged_us:
            return False
        ended_us = max(session.ended_us, session.origin.imported_us)
        return self._is_older(ended_us, self._budget.auto_purge_days) or (full and not session.kept)

    def _is_older(self, at_us: int, days: int) -> bool:
        return days > 0 and at_us < self._runtime.clock.now().utc_us - days * DAY_US

    def _pause(self, done: Callable[[None], None]) -> None:
        """Others have their turn."""
        self._later(PAUSE_MS, lambda: done(None))

    def _asked(self, command: object) -> Callable[[Callable[[Message | Fault], None]], None]:
        return self._runtime.ask("sessions", CALLER, command).when_done


def too_much(what: str, excess: int, why: str) -> str:
    """Empty for none."""
    if excess <= 0:
        return ""
    return f"{excess // MIB + 1} MB more of {what} are kept than storage.retention_base_mb allows: {why}"


def own_bytes(store: Store) -> int:
    """Of this node's own objects that lie here because not all is acked yet that is wanted of them."""
    waiting = {value for table in (OUTBOX_OPEN, SPREADING) for _, value in islice(sound(store.scan, table), OWN_MAX)}
    rows = (store.get(OBJECTS, object_id) for object_id in waiting)
    return sum(objects_pb2.ObjectRow.FromString(row).object.size_bytes for row in rows if row is not None)
