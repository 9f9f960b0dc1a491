"""The one writer of a node: inputs in, one transaction, effects out; durable before visible.

Inputs wait in a bounded inbox. `gather` steps the domains' machines over them in a fixed order and collects one
batch; the store makes it durable; only then `settle` lets calls, replies and executions leave (but for calls that say
they may leave early). While one batch is being committed the inbox fills, and what it then holds shares the next: that
is the group commit. When a commit fails, memory is ahead of the disk, so the machines are discarded and loaded anew;
until that works there are none, and the node refuses requests. (etcd raft's `Ready` loop; the runtime itself knows no
thread and no event loop: `driver.py` runs it in the daemon, the simulator in virtual time.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from random import Random
from typing import Protocol, TypeVar

import msgspec
from google.protobuf.message import Message

from offgrid.event_types import type_name
from offgrid_node.inbox import INBOX_BYTES_MAX, INBOX_MAX, RETRY_MS, Inbox
from offgrid_node.outlet import Outlet, let_out
from offgrid_node.protocol.clock import Clock, Now
from offgrid_node.protocol.effects import (
    DOMAINS,
    Asked,
    Call,
    Delete,
    DropEvents,
    Effect,
    Machine,
    Outgoing,
    Put,
    Raise,
    Record,
    Reply,
    Woke,
)
from offgrid_node.protocol.errors import Fault, Internal, OutcomeUnknown, Unavailable
from offgrid_node.storage.store import Batch, Store

ROUNDS_MAX = 64  # of domains raising events to each other within one batch

M = TypeVar("M")


class Ticket:
    """A reply that is still to come. Callbacks run once, in the runtime's thread, after the commit."""

    __slots__ = ("_callbacks", "outcome")

    def __init__(self) -> None:
        self.outcome: Message | Fault | None = None
        self._callbacks: list[Callable[[Message | Fault], None]] = []

    def when_done(self, callback: Callable[[Message | Fault], None]) -> None:
        """Calls back with the outcome: at once when it is there already."""
        if self.outcome is not None:
            callback(self.outcome)
        else:
            self._callbacks.append(callback)

    def map(self, change: Callable[[Message], Message]) -> Ticket:
        """A ticket for the changed response; a fault passes through, and one raised by `change` is the outcome."""
        mapped = Ticket()

        def done(outcome: Message | Fault) -> None:
            try:
                mapped.resolve(outcome if isinstance(outcome, Fault) else change(outcome))
            except Fault as fault:
                mapped.resolve(fault)

        self.when_done(done)
        return mapped

    def resolve(self, outcome: Message | Fault) -> None:
        """Sets the outcome and runs the callbacks; a second outcome is ignored."""
        if self.outcome is not None:
            return
        self.outcome = outcome
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(outcome)


class Watcher(Protocol):
    """Told of journal events once they are durable; it reads those that it cares for."""

    def __call__(self, events: Sequence[Record]) -> None: ...


class Monitor(Protocol):
    """Sees what goes wrong inside the runtime, so that it can be logged with its cause."""

    def __call__(self, fault: Fault, cause: BaseException | None) -> None: ...


class Pending(msgspec.Struct):
    """One gathered batch on its way through the commit."""

    batch: Batch = msgspec.field(default_factory=Batch)
    events: list[Record] = msgspec.field(default_factory=list)
    outgoing: list[Outgoing] = msgspec.field(default_factory=list)
    early: list[Call] = msgspec.field(default_factory=list)  # has left already
    inputs: int = 0
    journal_seq: int = 0  # once it is committed
    commit_s: float = 0.0  # what that took; whoever drives the runtime measures it


class Runtime:
    """Runs one node's machines over its store. All methods but `commit` belong to one thread."""

    def __init__(
        self,
        build: Callable[[], Mapping[str, Machine]],
        store: Store,
        clock: Clock,
        rng: Random,
        outlet: Outlet,
        *,
        on_input: Callable[[], None] = lambda: None,
        monitor: Monitor = lambda fault, cause: None,
        inbox_max: int = INBOX_MAX,
        inbox_bytes_max: int = INBOX_BYTES_MAX,
    ) -> None:
        """`build` makes fresh machines by domain; `on_input` is called when the inbox stops being empty.

        Raises what `build` and the machines' first `load` raise."""
        self.store = store
        self.clock = clock
        self._build = build
        self._rng = rng
        self._outlet = outlet
        self._on_input = on_input
        self._monitor = monitor
        self._inbox = Inbox(inbox_max, inbox_bytes_max)
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._watchers: list[Watcher] = []
        self._row_watchers: dict[tuple[str, bytes], list[Callable[[], None]]] = {}
        self._in_commit: Pending | None = None
        self._dues: dict[str, int] = {}  # of machines that have a deadline; only a step or a load moves one
        self._absent: Fault | None = None  # why there are no machines
        self.failures = 0  # batches that were lost and loads that failed, so that the driver can slow down
        self.machines: Mapping[str, Machine] = self._load()

    # ---- inputs

    def ask(self, domain: str, caller: str, command: object, *, size_bytes: int = 0) -> Ticket:
        """Puts a checked request into the inbox; its answer comes after the commit.

        `size_bytes` is said of requests that carry bulk, so that they are bounded in bytes too. Raises Exhausted when
        the inbox is full, and the fault for which there are no machines while there are none.
        """
        if self._absent is not None:
            raise copy(self._absent)
        self._inbox.check_room(size_bytes)
        ticket, number = Ticket(), next(self._numbers)
        self._tickets[number] = ticket
        self._push(domain, Asked(number, caller, command), size_bytes)
        return ticket

    def deliver(self, domain: str, event: object) -> None:
        """Puts in the end of something that this node itself began (Answered, Executed); these are never refused,
        being bounded by what is in flight."""
        self._push(domain, event)

    def wake(self) -> None:
        """Gives a Woke to each machine whose deadline has passed."""
        now_ms = self.clock.now().mono_ms
        for domain in [domain for domain, due_ms in self._dues.items() if due_ms <= now_ms]:
            self._push(domain, Woke())

    def _push(self, domain: str, event: object, size_bytes: int = 0) -> None:
        self._inbox.push(domain, event, size_bytes)
        if len(self._inbox) == 1:
            self._on_input()

    # ---- questions

    def machine(self, domain: str, kind: type[M]) -> M:
        """The machine that runs now; it is replaced on reload, so ask again each time and keep none.

        Raises Unavailable (Reloading) while there are none, Internal when this node runs no such machine."""
        if not self.machines:
            raise Unavailable("the node is loading what it knows; try again", reason="Reloading", retry_ms=RETRY_MS)
        machine = self.machines.get(domain)
        if not isinstance(machine, kind):
            raise Internal(f"this node runs no {domain} machine", reason="NoMachine")
        return machine

    @property
    def inbox_depth(self) -> int:
        return len(self._inbox)

    @property
    def committing(self) -> bool:
        return self._in_commit is not None

    def deadline_ms(self) -> int | None:
        """The earliest deadline of all machines."""
        return min(self._dues.values(), default=None)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Adds a watcher and returns what removes it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    def watch_row(self, table: str, key: bytes, changed: Callable[[], None]) -> Callable[[], None]:
        """`changed` is called after each commit that writes the row. Returns what ends that."""
        watchers = self._row_watchers.setdefault((table, key), [])
        watchers.append(changed)

        def remove() -> None:
            if changed in watchers:
                watchers.remove(changed)
            if not watchers and self._row_watchers.get((table, key)) is watchers:
                del self._row_watchers[table, key]

        return remove

    # ---- the turn

    def turn(self) -> None:
        """Gathers, commits and settles until the inbox is empty, or the machines cannot be loaded; for stores whose
        commit may run inline."""
        while self._inbox:
            pending = self.gather()
            if pending is None:
                if not self.machines:
                    return
                continue
            try:
                self.commit(pending)
            except Fault as fault:
                self.fail(pending, fault)
            else:
                self.settle(pending)

    def gather(self) -> Pending | None:
        """Steps the machines over what the inbox holds; None when it is empty, when a batch is still in commit, or
        when `failures` has grown: a machine failed on the batch, or what had to be loaded anew cannot be read yet.

        The caller owes `commit`, then `settle` or `fail`, before it gathers again."""
        if self._absent is not None:
            self.reload()
        if not self.machines or not self._inbox or self._in_commit is not None:
            return None
        pending, now = Pending(), self.clock.now()
        queues: dict[str, list[object]] = {domain: [] for domain in DOMAINS}
        for domain, event in self._inbox.take():
            queues[domain].append(event)
            pending.inputs += 1
        try:
            self._step(queues, pending, now)
        except Exception as error:  # noqa: BLE001 - a defect in a machine: its memory cannot be trusted any more
            fault = _defect("MachineFailed", "a machine failed", error)
            self._monitor(fault, error)
            self.failures += 1
            self.reload()
            return None
        self._in_commit = pending
        for early in pending.early:
            self._guard(self._release, early)
        return pending

    def _step(self, queues: dict[str, list[object]], pending: Pending, now: Now) -> None:
        stepped: dict[str, Machine] = {}
        for _ in range(ROUNDS_MAX):
            if not any(queues.values()):
                for domain, machine in stepped.items():
                    self._note_due(domain, machine)
                return
            for domain, inputs in queues.items():
                if not inputs:
                    continue
                queues[domain], known = [], self.machines.get(domain)
                if known is not None:
                    stepped[domain] = known
                    self._collect(known.step(inputs, now, self._rng), queues, pending, now)
        raise RuntimeError(f"domains raised events to each other for {ROUNDS_MAX} rounds")

    def _collect(self, effects: Sequence[Effect], queues: dict[str, list[object]], pending: Pending, now: Now) -> None:
        writes, records = pending.batch.writes, pending.batch.events
        for effect in effects:  # dozens per job: by type, which costs a third of a match
            if isinstance(effect, Put):
                writes[effect.table, effect.key] = effect.value
            elif isinstance(effect, Record):
                pending.events.append(effect)
                records.append(effect.encoded or effect.stamp(now.utc_us, type_name(effect.etype)))
            elif isinstance(effect, Delete):
                writes[effect.table, effect.key] = None
            elif isinstance(effect, Raise):
                queues[effect.domain].append(effect.event)
            elif isinstance(effect, DropEvents):
                pending.batch.floor = max(pending.batch.floor, effect.upto)
            elif isinstance(effect, Call) and effect.early:
                pending.early.append(effect)
            else:
                pending.outgoing.append(effect)

    def commit(self, pending: Pending) -> None:
        """Makes the batch durable; the only method that may run in another thread. Raises the store's Fault."""
        if pending.batch:
            pending.journal_seq = self.store.commit(pending.batch)

    def settle(self, pending: Pending) -> None:
        """After the commit: watchers see the events, and effects leave, in order. One that raises costs no other."""
        self._in_commit = None
        if pending.events:
            for seq, event in enumerate(pending.events, pending.journal_seq - len(pending.events) + 1):
                event.seq = seq
            for watcher in tuple(self._watchers):
                self._guard(watcher, pending.events)
        if self._row_watchers:
            self._tell_of_rows(pending.batch)
        for effect in pending.outgoing:
            self._guard(self._release, effect)

    def _tell_of_rows(self, batch: Batch) -> None:
        for name in self._row_watchers.keys() & batch.writes.keys():
            for changed in tuple(self._row_watchers.get(name, ())):
                self._guard(lambda changed: changed(), changed)

    def _release(self, effect: Outgoing) -> None:
        if not isinstance(effect, Reply):
            let_out(self._outlet, effect)
        elif (ticket := self._tickets.pop(effect.ticket, None)) is not None:
            ticket.resolve(effect.outcome)

    def _guard(self, step: Callable[[M], None], value: M) -> None:
        try:
            step(value)
        except Exception as error:  # noqa: BLE001 - the batch is durable: a defect here must not keep the rest of it in
            self._monitor(_defect("SettleFailed", "what follows a commit failed", error), error)

    def fail(self, pending: Pending, fault: Fault) -> None:
        """The commit failed: nothing of the batch leaves, and memory is rebuilt from what is durable."""
        self._in_commit = None
        self.failures += 1
        self._monitor(fault, fault.__cause__)
        self.reload(fault)

    # ---- memory anew

    def reload(self, fault: Fault | None = None) -> None:
        """Discards the machines and loads new ones; every open ticket fails with `fault`, or as outcome unknown.

        Requests still in the inbox were not stepped: they stay, and so do their tickets. But when the load fails they
        are refused with its fault, there are no machines, `ask` raises it, and each `gather` tries again. Calls and
        executions go on in any case: why they began was durable before.
        """
        self.machines, self._dues = {}, {}
        try:
            self.machines, self._absent = self._load(), None
        except Exception as error:  # noqa: BLE001 - whatever keeps memory from being rebuilt, the old must not serve
            absent = error if isinstance(error, Fault) else _defect("MachineFailed", "a machine failed to load", error)
            if self._absent is None or self._absent.message != absent.message:
                self._monitor(absent, error)
            self._absent = absent
            self.failures += 1
        waiting = {event.ticket for event in self._inbox if isinstance(event, Asked)}
        lost = fault or OutcomeUnknown("the node restarted its machines; repeat the call", retry_ms=RETRY_MS)
        if self._absent is not None:
            self._inbox.drop_asked()
        for number in tuple(self._tickets):
            outcome = lost if number not in waiting else self._absent
            if outcome is not None:
                self._guard(self._release, Reply(number, outcome))

    def _load(self) -> Mapping[str, Machine]:
        now, machines = self.clock.now(), self._build()
        for machine in machines.values():
            machine.load(self.store, now)
        for domain, machine in machines.items():
            self._note_due(domain, machine)
        return machines

    def _note_due(self, domain: str, machine: Machine) -> None:
        due_ms = machine.deadline_ms()
        if due_ms is None:
            self._dues.pop(domain, None)
        else:
            self._dues[domain] = due_ms


def _defect(reason: str, what: str, error: Exception) -> Internal:
    return Internal(f"{what}: {type(error).__name__}: {error}", reason=reason)
