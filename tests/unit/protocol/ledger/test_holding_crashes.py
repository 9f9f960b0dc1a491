"""Jobs are paid exactly once, whichever write of the road a crash loses or follows, at the payer or at the payee."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.paid import as_read
from offgrid_node.protocol.ledger.tables import ACCOUNTS, BOOKINGS
from offgrid_tools.ledgersim.keys import START_MICRO
from offgrid_tools.ledgersim.whole.node import SETTLE_MS, Node
from offgrid_tools.ledgersim.whole.world import World

JOBS = {f"j-{number}": 1_000 + 7 * number for number in range(6)}
JOB_MS, PEACE_MS = 1_500, 4 * SETTLE_MS


def crash_at(node: Node, write: int, *, kept: bool) -> Callable[[], int]:
    """It dies at the end of its so-manieth step that writes, which is lost or `kept`; how many there were."""
    sound, written = node.step, 0

    def step(inputs: Sequence[object]) -> None:
        nonlocal written
        if not node.up:
            return
        told, commit = node._tell, node._commit

        def counted(effects: Sequence[object]) -> None:
            nonlocal written
            written += any(isinstance(effect, Put) for effect in effects)
            if written != write or not any(isinstance(effect, Put) for effect in effects):
                commit(effects)  # type: ignore[arg-type]
                return
            if kept:
                commit(effects)  # type: ignore[arg-type]
            node._die()
            node._tell = lambda effects: None  # type: ignore[method-assign]

        node._commit = counted  # type: ignore[method-assign]
        try:
            sound(inputs)
        finally:
            node._tell, node._commit = told, commit  # type: ignore[method-assign]

    node.step = step  # type: ignore[method-assign]
    return lambda: written


def booked(core: Node) -> dict[str, ledger_pb2.Booking]:
    rows = [ledger_pb2.Booking.FromString(row) for _, row in core.store.scan(BOOKINGS)]
    return {row.job_id: as_read(core.store, row) for row in rows}


def road(who: str, write: int, *, kept: bool) -> int:
    """Six jobs, said until they are booked; how many steps of `who` have written."""
    world = World(5, witnesses=4, observers=2)
    core, host = world.nodes[world.names[4]], world.nodes[world.names[5]]
    count = crash_at({"payer": core, "payee": host}[who], write, kept=kept)
    world.open()
    world.run(3_000)

    def say(job: str) -> None:
        if core.up:
            world.cost(core.node_id, job, host.node_id, JOBS[job])
        if not core.up or job not in booked(core):
            world.after(200, lambda: say(job))

    for number, job in enumerate(JOBS):
        world.after(number * JOB_MS, lambda job=job: say(job))
    world.run(len(JOBS) * JOB_MS)
    for _ in range(PEACE_MS // SETTLE_MS):
        world.run(SETTLE_MS)
        if set(booked(core)) == set(JOBS) and not (core.machine.promised_out_micro or core.machine.held_micro):
            break
    world.run(SETTLE_MS)  # and that is the end of it
    world.check_agreement()
    row = host.store.get(ACCOUNTS, node_id_bytes(host.node_id))
    assert row is not None
    assert Account.decode(row).balance_micro - START_MICRO == sum(JOBS.values())
    found = booked(core)
    assert {job: booking.amount_micro for job, booking in found.items()} == JOBS
    assert all(booking.tx_id and not booking.owed for booking in found.values())
    assert (core.machine.promised_out_micro, core.machine.held_micro, core.machine.owed_micro) == (0, 0, 0)
    assert host.machine.promised_in_micro == 0
    return count()


@pytest.mark.parametrize("who", ["payer", "payee"])
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_a_crash_at_a_write_pays_each_job_once(who: str, kept: bool, every: int) -> None:
    writes = road(who, 0, kept=kept)
    assert writes >= 20
    for write in range(3, writes + 1, every):  # before the ledger opens, by the second, jobs cost nothing
        road(who, write, kept=kept)
