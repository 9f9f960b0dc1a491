"""A disk that takes nothing more is said once when it begins and once when it is over; status says it meanwhile."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from random import Random

import pytest
from log_lines import lines

from offgrid.v1 import state_pb2
from offgrid_node.driver import Driver
from offgrid_node.full_disk import QUIET_MS, StoreTrouble, chunk_notices
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, Unavailable
from offgrid_node.runtime import Runtime
from offgrid_node.storage.memory import MemoryStore

FULL = Exhausted("the store has reached its limit", reason="StoreFull")
REFUSED = Unavailable("cannot write: No space left on device; 0 bytes free", reason="DiskError")


class Clock:
    ms = 0

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(clock: Clock) -> StoreTrouble:
    return StoreTrouble(clock)


@pytest.mark.parametrize("fault", [FULL, REFUSED])
def test_it_is_said_when_it_begins_and_when_it_is_over(
    trouble: StoreTrouble, clock: Clock, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(60):
        trouble.on_fault(type(fault)(f"{fault.message} at {clock.ms}", reason=fault.reason), None)
        clock.ms += 1_000
        trouble.on_commit(1, 0.001)  # one that still fits
    assert len(caplog.records) == 1
    assert fault.message in lines(caplog)[0]
    clock.ms += QUIET_MS
    for _ in range(3):
        trouble.on_commit(1, 0.001)
    assert lines(caplog)[1:] == ["the store takes writes again event=store_takes_again refused=60 lasted_s=59"]
    trouble.on_fault(fault, None)
    assert len(caplog.records) == 3, "what begins again is said again"


def test_another_reason_is_another_line(trouble: StoreTrouble, caplog: pytest.LogCaptureFixture) -> None:
    for fault in (REFUSED, REFUSED, FULL, FULL):
        trouble.on_fault(fault, None)
    assert [line.partition("reason=")[2].split()[0] for line in lines(caplog)] == ["DiskError", "StoreFull"]


def test_status_says_it_as_long_as_it_lasts(trouble: StoreTrouble, clock: Clock) -> None:
    assert trouble.notices == ()
    trouble.on_fault(FULL, None)
    trouble.on_fault(FULL, None)
    clock.ms += 7_000
    assert trouble.notices == (f"the store refuses writes (2 so far, the last 7 s ago): {FULL.message}",)
    clock.ms += QUIET_MS
    trouble.on_commit(1, 0.001)
    assert trouble.notices == ()


def test_whatever_else_goes_wrong_is_logged_each_time(trouble: StoreTrouble, caplog: pytest.LogCaptureFixture) -> None:
    for fault in (Internal("a machine failed", reason="MachineFailed"), Exhausted("huge", reason="BatchTooLarge")):
        for _ in range(2):
            trouble.on_fault(fault, ValueError("why"))
    assert len(caplog.records) == 4
    assert [bool(record.exc_info) for record in caplog.records] == [True, True, False, False]
    assert trouble.notices == ()


def test_a_runtime_and_its_driver_tell_of_both(
    trouble: StoreTrouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    class Writing:
        """Writes an event for each input."""

        def load(self, rows: object, now: Now) -> None: ...

        def step(self, inputs: list[object], now: Now, rng: Random) -> list[object]:
            return [Record(state_pb2.Event(etype=10)) for _ in inputs]

        def deadline_ms(self) -> None:
            return None

    class Standing:
        def now(self) -> Now:
            return Now(0, 0)

    async def scene() -> None:
        store = MemoryStore()
        driver = Driver(asyncio.get_running_loop(), threaded=False, on_commit=trouble.on_commit)
        runtime = Runtime(
            lambda: {"mesh": Writing()},  # type: ignore[dict-item]
            store, Standing(), Random(1), object(), on_input=driver.poke, monitor=trouble.on_fault,  # type: ignore[arg-type]
        )  # fmt: skip
        driver.start(runtime)
        for fault in (FULL, FULL, None):
            clock.ms += QUIET_MS
            if fault is not None:
                store.fail_next(fault)
            runtime.deliver("mesh", "something")
            await asyncio.sleep(0.2)
            while bool(trouble.notices) != (fault is not None):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        await driver.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(scene(), 60))
    assert len(caplog.records) == 2


def test_a_chunk_dir_without_room_is_a_notice() -> None:
    assert chunk_notices(Path("/chunks"), 1) == ()
    (notice,) = chunk_notices(Path("/chunks"), 0)
    assert notice.startswith("the disk under /chunks has less than 64 MiB free")
