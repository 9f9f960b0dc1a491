"""The one writer: durable before visible, one transaction a batch, nothing of a failed one leaves.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.inbox import BATCH_BYTES, BATCH_INPUTS_MAX
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Call, Effect, Execute, Executed, Put, Raise, Record, Reply, Rows, Woke
from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault, Internal, NotFound, OutcomeUnknown, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.storage.memory import MemoryStore

ANSWER = mesh_pb2.PingResponse(members_digest=b"answer")


@dataclass
class Add:
    """The command of the counting machine."""

    amount: int
    then: str = ""


class Counter:
    """A machine that counts, durably; it can raise, fail, call out and keep a ticket open."""

    def __init__(self) -> None:
        self.total = 0
        self.heard: list[object] = []
        self.due: int | None = None

    def load(self, rows: Rows, now: Now) -> None:
        self.total = int(rows.get("counter", b"total") or 0)

    def deadline_ms(self) -> int | None:
        return self.due

    def step(self, inputs: Sequence[object], now: Now, rng: Random) -> list[Effect]:
        effects: list[Effect] = []
        for event in inputs:
            self.heard.append(event)
            if not isinstance(event, Asked):
                self.due = None
                continue
            command = event.command
            assert isinstance(command, Add)
            if command.then == "break":
                raise ZeroDivisionError("planted")
            self.total += command.amount
            effects += [
                Record(state_pb2.Event(etype=EventType.MISSION_CREATED, subject=str(self.total))),
                Put("counter", b"total", str(self.total).encode()),
            ]
            if command.then == "tell":
                effects.append(Raise("quorum", "news"))
            if command.then == "call":
                effects.append(Call("jobs", "peer", "method", mesh_pb2.PingRequest(), "tag", 100))
            if command.then == "call early":
                effects.append(Call("jobs", "peer", "method", mesh_pb2.PingRequest(), "early", 100, early=True))
            if command.then != "wait":
                effects.append(Reply(event.ticket, ANSWER))
        return effects


class FixedClock:
    def __init__(self) -> None:
        self.mono_ms = 1_000

    def now(self) -> Now:
        return Now(self.mono_ms, 5_000_000)


class Outbox:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.broken = False

    def call(self, call: Call) -> None:
        if self.broken:
            raise ZeroDivisionError("planted")
        self.calls.append(call)

    def execute(self, work: Execute) -> None:
        raise AssertionError("nothing is executed here")


class Bench:
    """A runtime over a memory store, with what it said kept in lists."""

    def __init__(self, inbox_max: int = 100, inbox_bytes_max: int = 1 << 30) -> None:
        self.store, self.clock, self.outbox = MemoryStore(), FixedClock(), Outbox()
        self.faults: list[Fault] = []
        self.wakes = 0
        self.runtime = Runtime(
            lambda: {"jobs": Counter(), "quorum": Counter()},
            self.store,
            self.clock,
            Random(1),
            self.outbox,
            on_input=self._woken,
            monitor=lambda fault, cause: self.faults.append(fault),
            inbox_max=inbox_max,
            inbox_bytes_max=inbox_bytes_max,
        )

    def _woken(self) -> None:
        self.wakes += 1

    def machine(self, domain: str = "jobs") -> Counter:
        return self.runtime.machine(domain, Counter)

    def ask(self, amount: int, then: str = "", size_bytes: int = 0) -> Ticket:
        return self.runtime.ask("jobs", "me", Add(amount, then), size_bytes=size_bytes)

    def lose_the_disk(self, fault: Fault) -> Ticket:
        """A commit fails, and from then on reads do."""
        lost = self.ask(10)
        pending = self.runtime.gather()
        assert pending is not None
        self.store.refuse(fault)
        with pytest.raises(type(fault)):
            self.runtime.commit(pending)
        self.runtime.fail(pending, fault)
        return lost


def ended(output: bytes) -> Executed:
    return Executed(
        core="core",
        job_id="job",
        attempt=1,
        output=output,
        log=b"",
        exit_code=0,
        error="",
        error_detail="",
        latency_us=1,
        executor="wasm",
    )


def outcomes(*tickets: Ticket) -> list[Message | Fault | None]:
    return [ticket.outcome for ticket in tickets]


def test_a_reply_and_a_call_leave_only_after_the_commit() -> None:
    bench = Bench()
    ticket = bench.ask(3, "call")
    pending = bench.runtime.gather()
    assert pending is not None
    assert (ticket.outcome, bench.outbox.calls, bench.store.journal_seq) == (None, [], 0)
    bench.runtime.commit(pending)
    assert (ticket.outcome, bench.outbox.calls, bench.store.journal_seq) == (None, [], 1)
    bench.runtime.settle(pending)
    assert ticket.outcome == ANSWER
    assert [call.tag for call in bench.outbox.calls] == ["tag"]


def test_a_call_that_binds_nobody_leaves_before_the_commit_and_once() -> None:
    bench = Bench()
    ticket = bench.ask(3, "call early")
    pending = bench.runtime.gather()
    assert pending is not None
    assert ([call.tag for call in bench.outbox.calls], ticket.outcome) == (["early"], None)
    bench.runtime.commit(pending)
    bench.runtime.settle(pending)
    assert ([call.tag for call in bench.outbox.calls], ticket.outcome) == (["early"], ANSWER)


def test_an_early_call_that_cannot_leave_costs_nothing_else_of_its_batch() -> None:
    bench = Bench()
    bench.outbox.broken = True
    ticket = bench.ask(3, "call early")
    bench.runtime.turn()
    assert (ticket.outcome, bench.store.get("counter", b"total")) == (ANSWER, b"3")
    assert [fault.reason for fault in bench.faults] == ["SettleFailed"]


def test_all_that_waits_shares_one_transaction_and_the_next_gathers_meanwhile() -> None:
    bench = Bench()
    first = [bench.ask(1) for _ in range(5)]
    pending = bench.runtime.gather()
    assert pending is not None
    assert len(pending.events) == 5
    late = bench.ask(1)
    assert bench.runtime.gather() is None  # one batch at a time is in commit
    bench.runtime.commit(pending)
    bench.runtime.settle(pending)
    assert outcomes(*first, late) == [ANSWER] * 5 + [None]
    bench.runtime.turn()
    assert late.outcome == ANSWER


def test_events_get_their_number_time_and_name_and_watchers_see_them_once_durable() -> None:
    bench = Bench()
    seen: list[tuple[int, str, int]] = []
    stop = bench.runtime.watch(lambda events: seen.extend((e.seq, e.event.type, e.event.timestamp_us) for e in events))
    bench.ask(1)
    bench.ask(1)
    bench.runtime.turn()
    stop()
    bench.ask(1)
    bench.runtime.turn()
    assert seen == [(1, "MISSION_CREATED", 5_000_000), (2, "MISSION_CREATED", 5_000_000)]
    stored = [state_pb2.Event.FromString(value) for _, value in bench.store.events()]
    assert [event.subject for event in stored] == ["1", "2", "3"]


def test_an_event_raised_for_another_domain_is_in_the_same_batch() -> None:
    bench = Bench()
    bench.ask(1, "tell")
    pending = bench.runtime.gather()
    assert pending is not None
    assert bench.machine("quorum").heard == ["news"]


def test_after_a_failed_commit_nothing_left_and_memory_is_what_the_disk_says() -> None:
    bench = Bench()
    bench.ask(5)
    bench.runtime.turn()
    bench.store.fail_next(Unavailable("planted", reason="DiskError"))
    lost, waiting = bench.ask(7, "call"), bench.ask(1, "wait")
    bench.runtime.turn()
    assert bench.outbox.calls == []
    assert [type(outcome) for outcome in outcomes(lost, waiting)] == [Unavailable, Unavailable]
    assert bench.machine().total == 5
    assert [fault.reason for fault in bench.faults] == ["DiskError"]
    again = bench.ask(1)
    bench.runtime.turn()
    assert again.outcome == ANSWER
    assert bench.machine().total == 6


def test_requests_that_were_not_stepped_outlive_a_failed_commit() -> None:
    bench = Bench()
    bench.store.fail_next(Unavailable("planted"))
    bench.ask(1)
    pending = bench.runtime.gather()
    assert pending is not None
    later = bench.ask(2)
    with pytest.raises(Unavailable):
        bench.runtime.commit(pending)
    bench.runtime.fail(pending, Unavailable("planted"))
    bench.runtime.turn()
    assert later.outcome == ANSWER
    assert bench.machine().total == 2


def test_a_defect_in_a_machine_costs_its_batch_and_no_more() -> None:
    bench = Bench()
    broken = bench.ask(1, "break")
    bench.runtime.turn()
    assert isinstance(broken.outcome, OutcomeUnknown)
    assert [fault.reason for fault in bench.faults] == ["MachineFailed"]
    assert bench.store.journal_seq == 0
    good = bench.ask(4)
    bench.runtime.turn()
    assert good.outcome == ANSWER


DISK = Unavailable("the disk is gone", reason="DiskError")


@pytest.mark.parametrize("fault", [DISK, Corrupt("one row is damaged")])
def test_what_a_failed_commit_left_in_memory_never_comes_back_though_the_load_fails_too(fault: Fault) -> None:
    bench = Bench()
    bench.ask(5)
    bench.runtime.turn()
    lost = bench.lose_the_disk(fault)
    assert type(lost.outcome) is type(fault)
    assert bench.runtime.machines == {}
    bench.store.refuse(None)
    bench.runtime.gather()
    again = bench.ask(1)
    bench.runtime.turn()
    assert again.outcome == ANSWER
    assert bench.machine().total == 6


def test_while_nothing_can_be_loaded_requests_are_refused_and_each_gather_tries_again() -> None:
    bench = Bench()
    bench.lose_the_disk(DISK)
    with pytest.raises(Unavailable) as refused:
        bench.ask(1)
    assert refused.value.reason == "DiskError"
    with pytest.raises(Unavailable) as asked:
        bench.machine()
    assert asked.value.reason == "Reloading"
    failures = bench.runtime.failures
    assert bench.runtime.gather() is None
    assert bench.runtime.failures == failures + 1  # the driver pauses
    assert [fault.reason for fault in bench.faults] == ["DiskError"] * 2  # the commit, the load: not each new try


def test_requests_that_waited_are_refused_when_the_load_fails_and_not_carried_out_later() -> None:
    bench = Bench()
    bench.ask(1)
    pending = bench.runtime.gather()
    assert pending is not None
    later = bench.ask(2)
    end = ended(b"")
    bench.runtime.deliver("jobs", end)
    bench.store.refuse(DISK)
    bench.runtime.fail(pending, DISK)
    assert isinstance(later.outcome, Unavailable)
    bench.runtime.turn()  # must come to an end although there is input
    bench.store.refuse(None)
    bench.runtime.turn()
    assert bench.machine().heard == [end]


def test_a_machine_that_fails_and_cannot_be_loaded_is_gone_as_well() -> None:
    bench = Bench()
    bench.ask(3)
    broken = bench.ask(1, "break")
    bench.store.refuse(DISK)
    assert bench.runtime.gather() is None
    assert isinstance(broken.outcome, OutcomeUnknown)
    assert bench.runtime.machines == {}


def test_a_node_that_cannot_load_at_its_start_does_not_start() -> None:
    store = MemoryStore()
    store.refuse(DISK)
    with pytest.raises(Unavailable, match="the disk is gone"):
        Runtime(lambda: {"jobs": Counter()}, store, FixedClock(), Random(1), Outbox())


def test_a_machine_that_a_node_does_not_run_is_a_defect() -> None:
    with pytest.raises(Internal):
        Bench().runtime.machine("mesh", Counter)


def break_down(events: object) -> None:
    raise ZeroDivisionError("planted")


def test_a_watcher_or_an_effect_that_raises_costs_the_others_nothing() -> None:
    bench, seen = Bench(), list[int]()
    bench.runtime.watch(break_down)
    bench.runtime.watch(lambda events: seen.extend(event.seq for event in events))
    bench.outbox.broken = True
    first, second, third = bench.ask(1), bench.ask(1, "call"), bench.ask(1)
    first.when_done(break_down)
    bench.runtime.turn()
    assert outcomes(first, second, third) == [ANSWER] * 3
    assert seen == [1, 2, 3]
    assert [fault.reason for fault in bench.faults] == ["SettleFailed"] * 3  # watcher, callback, call


def test_a_callback_that_raises_when_a_batch_is_lost_costs_the_others_nothing() -> None:
    bench = Bench()
    bench.store.fail_next(DISK)
    first, second = bench.ask(1), bench.ask(1)
    first.when_done(break_down)
    bench.runtime.turn()
    assert [type(outcome) for outcome in outcomes(first, second)] == [Unavailable] * 2


def test_a_batch_closes_when_its_inputs_are_large_and_a_larger_one_goes_alone() -> None:
    bench = Bench()
    for size_bytes in (BATCH_BYTES // 2, BATCH_BYTES // 2, 1, BATCH_BYTES + 1, 0):
        bench.ask(1, size_bytes=size_bytes)
    sizes = []
    while (pending := bench.runtime.gather()) is not None:
        sizes.append(pending.inputs)
        bench.runtime.commit(pending)
        bench.runtime.settle(pending)
    assert sizes == [2, 1, 1, 1]


def test_the_end_of_an_execution_counts_with_its_output() -> None:
    bench = Bench()
    for _ in range(3):
        bench.runtime.deliver("jobs", ended(bytes(BATCH_BYTES // 2)))
    pending = bench.runtime.gather()
    assert pending is not None
    assert pending.inputs == 2


def test_an_inbox_full_of_bytes_refuses_bulk_until_it_is_stepped() -> None:
    bench = Bench(inbox_bytes_max=1_000)
    bench.ask(1, size_bytes=600)
    bench.ask(1, size_bytes=400)
    with pytest.raises(Exhausted) as refused:
        bench.ask(1, size_bytes=1)
    assert refused.value.reason == "InboxFull"
    bench.ask(1)
    bench.runtime.turn()
    bench.ask(1, size_bytes=2_000)  # nothing stands before it: it would never find more room
    bench.runtime.turn()
    assert bench.machine().total == 4


def test_a_full_inbox_refuses_and_says_when_to_come_back() -> None:
    bench = Bench(inbox_max=3)
    for _ in range(3):
        bench.ask(1)
    with pytest.raises(Exhausted) as refused:
        bench.ask(1)
    assert refused.value.reason == "InboxFull"
    assert refused.value.retry_ms
    bench.runtime.turn()
    assert bench.machine().total == 3


def test_a_batch_is_bounded() -> None:
    bench = Bench(inbox_max=BATCH_INPUTS_MAX + 1)
    for _ in range(BATCH_INPUTS_MAX + 1):
        bench.ask(1)
    pending = bench.runtime.gather()
    assert pending is not None
    assert pending.inputs == BATCH_INPUTS_MAX
    assert bench.runtime.inbox_depth == 1


def test_a_machine_is_woken_when_its_deadline_has_passed_and_not_before() -> None:
    bench = Bench()
    bench.machine().due = 1_500
    bench.ask(1)
    bench.runtime.turn()  # a deadline moves in a step and nowhere else
    assert bench.runtime.deadline_ms() == 1_500
    bench.runtime.wake()
    assert bench.runtime.gather() is None
    bench.clock.mono_ms = 1_500
    bench.runtime.wake()
    bench.runtime.turn()
    assert bench.machine().heard[1:] == [Woke()]


def test_the_driver_is_told_once_when_input_begins() -> None:
    bench = Bench()
    bench.ask(1)
    bench.ask(1)
    assert bench.wakes == 1


def test_a_changed_ticket_passes_faults_on_and_turns_raised_ones_into_outcomes() -> None:
    def refuse(message: Message) -> Message:
        raise NotFound("changed my mind")

    good, bad, failed = Ticket(), Ticket(), Ticket()
    mapped = [good.map(lambda m: mesh_pb2.PingResponse()), bad.map(refuse), failed.map(lambda m: m)]
    good.resolve(ANSWER)
    bad.resolve(ANSWER)
    failed.resolve(Unavailable("no"))
    assert mapped[0].outcome == mesh_pb2.PingResponse()
    assert isinstance(mapped[1].outcome, NotFound)
    assert isinstance(mapped[2].outcome, Unavailable)
