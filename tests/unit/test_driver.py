"""The driver: one turn per loop tick, commits inline or in a thread, and no busy loop when every batch is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.commit_place import STALL_MS
from offgrid_node.driver import Driver
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Call, Effect, Execute, Record, Reply, Rows
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Monitor, Runtime, Ticket
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch


class Echo:
    """Answers what it is asked after one journal record; due again `period_ms` after each step, or in as many
    milliseconds as it was asked."""

    def __init__(self, clock: Wall, period_ms: int | None) -> None:
        self._clock, self._period_ms = clock, period_ms
        self._due: int | None = 0 if period_ms is not None else None

    def load(self, rows: Rows, now: Now) -> None:
        rows.get("rows", b"key")

    def deadline_ms(self) -> int | None:
        return self._due

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._due = now.mono_ms + self._period_ms if self._period_ms is not None else None
        for event in inputs:
            if isinstance(event, Asked) and isinstance(event.command, int):
                self._due = now.mono_ms + event.command
        effects: list[Effect] = [Record(state_pb2.Event(etype=EventType.NODE_STARTED))]
        if any(isinstance(e, Asked) and e.command == "call early" for e in inputs):
            effects.append(Call("jobs", "peer", "method", mesh_pb2.PingRequest(), "tag", 100, early=True))
        return effects + [Reply(e.ticket, mesh_pb2.PingResponse()) for e in inputs if isinstance(e, Asked)]


class Wall:
    def now(self) -> Now:
        return Now(int(asyncio.get_running_loop().time() * 1000), 0)


class CountingStore(MemoryStore):
    """Counts commits; while `broken` each of them fails."""

    def __init__(self) -> None:
        super().__init__()
        self.commits, self.broken = 0, False
        self.takes_ms = 0.0
        self.threads: list[int] = []  # each commit's

    def commit(self, batch: Batch) -> int:
        self.commits += 1
        self.threads.append(threading.get_ident())
        time.sleep(self.takes_ms / 1000)
        if self.broken:
            raise Unavailable("the disk is full", reason="DiskError")
        return super().commit(batch)


class Carrier:
    """Sends in the loop's next tick what it is given in one, as carriers do."""

    def __init__(self, store: CountingStore) -> None:
        self._store = store
        self.sent_after: list[int] = []  # commits

    def call(self, call: Call) -> None:
        asyncio.get_running_loop().call_soon(lambda: self.sent_after.append(self._store.commits))

    def execute(self, work: Execute) -> None: ...


class Rig:
    def __init__(
        self, *, threaded: bool = False, period_ms: int | None = None, monitor: Monitor = lambda fault, cause: None
    ) -> None:
        self.store, clock = CountingStore(), Wall()
        self.carrier = Carrier(self.store)
        self.driver = Driver(asyncio.get_running_loop(), threaded=threaded)
        self.runtime = Runtime(
            lambda: {"jobs": Echo(clock, period_ms)},
            self.store,
            clock,
            Random(1),
            self.carrier,
            on_input=self.driver.poke,
            monitor=monitor,
        )
        self.driver.start(self.runtime)

    def ask(self, command: str | int = "hello") -> Ticket:
        return self.runtime.ask("jobs", "me", command)


async def outcome(ticket: Ticket) -> Message | Fault:
    future: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()
    ticket.when_done(future.set_result)
    return await asyncio.wait_for(future, 5)


@pytest.mark.parametrize("threaded", [False, True])
def test_requests_of_one_tick_share_a_commit(threaded: bool) -> None:
    async def run() -> None:
        rig = Rig(threaded=threaded)
        tickets = [rig.ask() for _ in range(50)]
        for ticket in tickets:
            assert await outcome(ticket) == mesh_pb2.PingResponse()
        assert rig.store.commits == 1
        assert (rig.store.threads[0] != threading.get_ident()) == threaded
        assert rig.driver.commit_ms_p50 > 0
        await rig.driver.close()

    asyncio.run(run())


def test_one_slow_commit_of_some_is_what_a_look_sees_and_sees_once() -> None:
    async def run() -> None:
        rig = Rig()
        assert rig.driver.take_commit_ms() is None
        for takes_ms in (0, 0, STALL_MS / 2, 0):
            rig.store.takes_ms = takes_ms
            await outcome(rig.ask())
        seen = rig.driver.take_commit_ms()
        assert seen is not None
        assert seen >= STALL_MS / 2
        assert seen > rig.driver.commit_ms_p50
        assert rig.driver.take_commit_ms() is None
        await rig.driver.close()

    asyncio.run(run())


def test_a_commit_that_hangs_is_seen_while_it_does() -> None:
    async def run() -> None:
        rig, begun, go_on = Rig(threaded=True), threading.Event(), threading.Event()
        sound = rig.store.commit

        def hang(batch: Batch) -> int:
            begun.set()
            assert go_on.wait(5)
            return sound(batch)

        rig.store.commit = hang  # type: ignore[method-assign]
        ticket = rig.ask()
        await asyncio.to_thread(begun.wait, 5)
        first, second = rig.driver.take_commit_ms(), rig.driver.take_commit_ms()
        assert first is not None
        assert second is not None
        assert second > first
        go_on.set()
        await outcome(ticket)
        assert rig.driver.take_commit_ms() is not None
        assert rig.driver.take_commit_ms() is None
        await rig.driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("threaded", [False, True])
def test_what_may_leave_early_is_on_its_way_before_the_disk_is_waited_for(threaded: bool) -> None:
    async def run() -> None:
        rig = Rig(threaded=threaded)
        assert await outcome(rig.ask("call early")) == mesh_pb2.PingResponse()
        assert rig.store.commits == 1
        if not threaded:  # there the disk keeps nothing else waiting
            assert rig.carrier.sent_after == [0]
        await rig.driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("fails", [False, True])
def test_a_disk_that_stalls_keeps_the_loop_waiting_once(fails: bool) -> None:
    async def run() -> None:
        rig = Rig()
        await outcome(rig.ask())
        rig.store.takes_ms, rig.store.broken = 2 * STALL_MS, fails
        assert isinstance(await outcome(rig.ask()), Fault) == fails
        assert rig.driver.mode == "thread"
        rig.store.takes_ms, rig.store.broken = 0, False
        assert await outcome(rig.ask()) == mesh_pb2.PingResponse()
        here = threading.get_ident()
        assert [thread == here for thread in rig.store.threads] == [True, True, False]
        await rig.driver.close()

    asyncio.run(run())


def test_a_batch_put_off_is_not_committed_once_the_driver_is_closed() -> None:
    async def run() -> None:
        rig = Rig()
        rig.ask("call early")
        await asyncio.sleep(0)
        assert rig.runtime.committing
        await rig.driver.close()
        await asyncio.sleep(0)
        assert rig.store.commits == 0

    asyncio.run(run())


def test_a_disk_that_refuses_everything_is_not_hammered_and_works_again_when_it_does() -> None:
    async def run() -> None:
        rig = Rig(period_ms=0)  # due at once, again and again, as a node that starts on a full disk is
        rig.store.broken = True
        refused = await outcome(rig.ask())
        assert isinstance(refused, Unavailable)
        before = rig.store.commits
        await asyncio.sleep(0.5)
        assert rig.store.commits - before <= 6
        rig.store.broken = False
        while not isinstance(await outcome(rig.ask()), mesh_pb2.PingResponse):
            pass
        await rig.driver.close()

    asyncio.run(run())


@pytest.mark.parametrize("threaded", [False, True])
def test_a_node_whose_disk_cannot_be_read_tries_again_until_it_can(threaded: bool) -> None:
    async def run() -> None:
        rig = Rig(threaded=threaded)
        rig.store.refuse(Unavailable("the disk is gone", reason="DiskError"))
        assert isinstance(await outcome(rig.ask()), Unavailable)
        await asyncio.sleep(0.5)
        assert rig.runtime.failures <= 8, "it is not hammered"
        while rig.runtime.failures < 3:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            rig.ask()
        rig.store.refuse(None)
        while not rig.runtime.machines:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        assert await outcome(rig.ask()) == mesh_pb2.PingResponse()
        await rig.driver.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def break_down(events: object) -> None:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize("threaded", [False, True])
def test_a_watcher_or_a_callback_that_raises_does_not_hang_the_node(threaded: bool) -> None:
    told: list[str] = []

    async def run() -> None:
        rig = Rig(threaded=threaded, monitor=lambda fault, cause: told.append(fault.reason))
        rig.runtime.watch(break_down)
        bad, good = rig.ask(), rig.ask()
        bad.when_done(break_down)
        assert await outcome(good) == mesh_pb2.PingResponse()
        assert told == ["SettleFailed"] * 2
        assert await outcome(rig.ask()) == mesh_pb2.PingResponse()
        await rig.driver.close()

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize("threaded", [False, True])
def test_the_next_turn_comes_even_if_all_of_settle_raises(threaded: bool) -> None:
    def tell(fault: Fault, cause: BaseException | None) -> None:
        raise ZeroDivisionError("planted in what is told of defects")

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        rig, third = Rig(threaded=threaded, period_ms=20, monitor=tell), asyncio.Event()

        def count_and_break_down(events: Sequence[state_pb2.Event]) -> None:
            if events[-1].seq >= 3:
                third.set()
            break_down(events)

        rig.runtime.watch(count_and_break_down)
        await third.wait()
        await rig.driver.close()

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_machine_is_woken_at_its_deadline() -> None:
    async def run() -> None:
        rig, third = Rig(period_ms=20), asyncio.Event()
        rig.runtime.watch(lambda events: third.set() if events[-1].seq >= 3 else None)
        await third.wait()
        await rig.driver.close()
        seen = rig.store.commits
        await asyncio.sleep(0.1)
        assert rig.store.commits == seen  # closed: nothing leaves any more

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_deadline_that_comes_nearer_is_not_missed_for_a_later_one() -> None:
    async def run() -> None:
        rig, woken = Rig(), asyncio.Event()
        await outcome(rig.ask(60_000))
        await outcome(rig.ask(20))
        rig.runtime.watch(lambda events: woken.set())
        await woken.wait()
        await rig.driver.close()

    asyncio.run(asyncio.wait_for(run(), 5))


def test_a_timer_that_is_soon_enough_is_not_set_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        rig, loop = Rig(), asyncio.get_running_loop()
        await outcome(rig.ask(30_000))
        await asyncio.sleep(0)
        set_anew = list[float]()
        monkeypatch.setattr(loop, "call_later", lambda delay_s, *rest: set_anew.append(delay_s))
        for _ in range(5):
            answered = asyncio.Event()
            rig.ask(60_000).when_done(lambda answer, answered=answered: answered.set())  # type: ignore[misc]
            await answered.wait()
        monkeypatch.undo()
        await rig.driver.close()
        assert set_anew == []

    asyncio.run(asyncio.wait_for(run(), 5))
