"""What is remembered, held against a plain list of what happened, whatever clocks, crashes, purges and folds do."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from memory_desk import HOUR_US, WINDOW_MS, MemoryDesk
from session_desk import event

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.state.sessions.tables import BLOCKS
from offgrid_node.protocol.state.summaries.tables import SUMMARIES, summarised_upto
from offgrid_node.storage.store import Batch

KINDS = ("user.prompt", "health.heartbeat")
KEYS = [f"p-{n}" for n in range(6)]
NAMES = ("a", "b")


class Happened(NamedTuple):
    session: str
    at_us: int
    kind: str
    key: str


class Remembering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = MemoryDesk()
        self.ids = {name: self.desk.session(name) for name in NAMES}
        self.happened: list[Happened] = []
        self.sent = dict.fromkeys(NAMES, 0)

    # ---- what happens

    @rule(name=st.sampled_from(NAMES), keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def record(self, name: str, keys: list[str]) -> None:
        events, now_us = [], self.desk.clock.now_us
        for n, key in enumerate(keys):
            if n % 2:
                events.append(event(now_us + n, KINDS[1], queue_depth=n))
            else:
                events.append(event(now_us + n, KINDS[0], prompt_id=key, hash="0" * 32, length=n))
            self.happened.append(Happened(self.ids[name], now_us + n, KINDS[n % 2], "" if n % 2 else key))
        self.desk.record(self.ids[name], *events, sent=self.sent[name], writer=b"writer-" + name.encode())
        self.sent[name] += len(events)

    @rule(step_us=st.sampled_from([-HOUR_US, 48 * HOUR_US, -60_000_000]))
    def set_the_clock(self, step_us: int) -> None:
        self.desk.clock.now_us += step_us

    @rule(ms=st.sampled_from([1_000, WINDOW_MS // 3, WINDOW_MS, 20 * WINDOW_MS]))
    def wait(self, ms: int) -> None:
        self.desk.wait(ms)

    @rule(applied=st.booleans())
    def lose_a_commit(self, *, applied: bool) -> None:
        self.desk.store.fail_next(Unavailable("the disk is gone", reason="DiskError"), applied=applied)
        self.desk.wait(WINDOW_MS)
        self.desk.store.crash()

    @rule()
    def die(self) -> None:
        self.desk.start()

    @rule()
    def compact_now(self) -> None:
        self.desk.memory.compacting.compact_now()
        self.desk.wait(1_000)

    @rule()
    def fold(self) -> None:
        self.desk.settle(self.desk.memory.joining.fold_oldest())

    @rule()
    def drop_what_is_summarised(self) -> None:
        """As retention does."""
        upto, writes = summarised_upto(self.desk.store), dict[tuple[str, bytes], bytes | None]()
        for seq, raw in self.desk.store.events():
            block = state_pb2.Event.FromString(raw).block
            if seq <= upto and block.session_id:
                writes[BLOCKS, block.session_id.encode() + block.first.to_bytes(8, "big")] = None
        self.desk.store.commit(Batch(writes=writes, floor=upto))

    @precondition(lambda self: len(self.happened) > 10)
    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        session = self.ids[name]
        self.desk.ask("purge_sessions", state_pb2.PurgeSessionsRequest(sessions=[session]))
        self.desk.wait(1)
        self.happened = [each for each in self.happened if each.session != session]
        assert not [*self.desk.store.scan(SUMMARIES, prefix=session.encode())]
        self.ids[name], self.sent[name] = self.desk.session(name), 0

    # ---- what is said of it

    @invariant()
    def each_event_is_counted_once(self) -> None:
        for kind in KINDS:
            true = sum(each.kind == kind for each in self.happened)
            found = self.desk.count(kind)
            assert (found.at_least, found.at_most, found.cut) == (true, true, 0)
            assert found.basis.events + found.basis.summarised == found.basis.recorded
        journal = self.desk.count(EventType.SESSION_CHANGED)
        assert journal.at_least == journal.at_most == self.desk.store.journal_seq

    @invariant()
    def no_key_is_missed(self) -> None:
        for key in KEYS:
            true = sum(each.key == key for each in self.happened)
            found = self.desk.seen(key).sightings
            assert sum(each.at_least for each in found) <= true <= sum(each.at_most for each in found)

    @invariant()
    def a_part_of_the_time_has_bounds(self) -> None:
        times = sorted(each.at_us for each in self.happened)
        if not times:
            return
        since_us, until_us = times[len(times) // 3], times[2 * len(times) // 3]
        within = [each for each in self.happened if since_us <= each.at_us <= until_us]
        for kind in KINDS:
            found = self.desk.count(kind, since_us=since_us, until_us=until_us)
            assert found.at_least <= sum(each.kind == kind for each in within) <= found.at_most


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
