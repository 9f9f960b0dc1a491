"""Five machines on two switches, cut apart and joined again: what was acked stays, what cannot be final is pending.

No half has the weight that finality needs (four of five equal witnesses), so both halves may sign transfers and neither
may move money. Objects are acked wherever their weight is at hand, and a core without its broker works its own queue.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from live import GIVE_UP_S, eventually
from netns import NEEDS_ROOT
from town import START_MICRO, Town, town_of

from offgrid.client import payloads
from offgrid.v1.jobs_pb2 import JobState
from offgrid.v1.ledger_pb2 import TxState
from offgrid.v1.objects_pb2 import ObjectState
from offgrid_node.executors import programs

pytestmark = NEEDS_ROOT

ROLES: Mapping[str, tuple[str, ...]] = {
    "anna": ("core", "broker"),
    "bert": ("host",),
    "carl": ("host",),
    "dora": ("core", "host"),
    "emil": ("host",),
}
LEFT, RIGHT = ("anna", "bert", "carl"), ("dora", "emil")
CREDIT = 1_000_000
FINAL, DURABLE = TxState.TX_STATE_FINAL, ObjectState.OBJECT_STATE_DURABLE


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    with town_of(tmp_path, LEFT, RIGHT, ROLES) as town:
        yield town


@pytest.mark.soak
def test_cut_apart_and_joined_again(town: Town, tmp_path: Path) -> None:
    town.start()
    before, during = os.urandom(300_000), os.urandom(200_000)
    with town["anna"].client() as anna, town["dora"].client() as dora:
        town.open_ledger()
        paid = anna.ledger.transfer("dora", 5 * CREDIT)
        assert anna.ledger.settled(paid.tx_id, GIVE_UP_S).state == FINAL
        kept = anna.objects.put(before, name="before")
        eventually(lambda: anna.objects.get(kept.object_id).state == DURABLE, "the first object is durable")

        town.wires.cut()
        town.see({name: set(half) for half in (LEFT, RIGHT) for name in half})
        from_anna = anna.ledger.transfer("dora", 7 * CREDIT)
        from_dora = dora.ledger.transfer("anna", 11 * CREDIT)
        here = anna.objects.put(during, name="during")
        eventually(lambda: anna.objects.get(here.object_id).state == DURABLE, "the left half has the weight")
        there = dora.objects.put(during, name="during")
        job = anna.jobs.run(payloads.wasm(programs.load("upper"), input=b"cut off"))
        assert (job.state, job.result.output) == (JobState.JOB_STATE_COMPLETED, b"CUT OFF")
        alone = dora.jobs.run(payloads.wasm(programs.load("upper"), input=b"alone"))
        assert (alone.state, alone.result.output) == (JobState.JOB_STATE_COMPLETED, b"ALONE")
        for client, tx, half in ((anna, from_anna, LEFT), (dora, from_dora, RIGHT)):
            asked, whole = partial(client.ledger.transaction, tx.tx_id), 1_000 * len(half)
            eventually(lambda a=asked, w=whole: a().voted_milli == w, "all of its half have voted")
            shown = asked()
            assert shown.state < FINAL, shown
            assert shown.confirmed_milli == 0 < whole < shown.quorum_milli, shown
            assert client.ledger.balance().pending_out_micro >= tx.outputs[0].amount_micro
        assert town.balances("anna")["dora"] == START_MICRO + 5 * CREDIT
        assert dora.objects.get(there.object_id).state < DURABLE, "one host is not enough for 2.0"

        town.wires.join()
        town.see({name: set(ROLES) for name in ROLES})
        for client, tx in ((anna, from_anna), (dora, from_dora)):
            assert client.ledger.settled(tx.tx_id, GIVE_UP_S).state == FINAL
        eventually(lambda: dora.objects.get(there.object_id).state == DURABLE, "the right half's object is durable")
        # What the job cost is one more payment, and its fee: the same on every node, to the unit.
        eventually(lambda: anna.ledger.bookings().owed_micro == 0, "nothing is owed")
        town.agree()
        right = town.balances("emil")["dora"]
        assert right == START_MICRO + (5 + 7 - 11) * CREDIT - from_dora.fee_micro, right
        for client, made, content in ((anna, kept, before), (anna, here, during), (dora, there, during)):
            out = tmp_path / made.object_id
            client.objects.fetch(made.object_id, out)
            assert out.read_bytes() == content
        for done, core in ((job, anna), (alone, dora)):
            assert core.jobs.get(done.job_id).state == JobState.JOB_STATE_COMPLETED
    sys.stdout.write("cut and healed")
