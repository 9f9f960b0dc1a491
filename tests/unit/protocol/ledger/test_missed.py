"""What ended while a node was away, and it began at a checkpoint: holds of both sides, and what was to fund them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from test_bootstrap import ended, epoch_of, mute, settle

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import given as holds
from offgrid_node.protocol.ledger import missed
from offgrid_node.protocol.ledger.commands import Settle
from offgrid_node.protocol.ledger.records import Tx
from offgrid_node.protocol.ledger.tables import GIVEN, GIVEN_OPEN, SLOTS, TAKEN, TAKEN_OPEN, TXS
from offgrid_node.protocol.ledger.taken import TakenHolds
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.ledgersim.whole.world import World

ALL_PAID = {"j-1": 1_000, "j-2": 200, "j-3": 300}


def opened() -> tuple[World, Node, Node]:
    """Four witnesses and two others, the payer and its payee."""
    world = World(1, 4, observers=2)
    mute(world)
    world.open()
    world.run(5_000)
    return world, world.nodes[world.names[5]], world.nodes[world.names[4]]


def work(world: World, payer: Node, payee: Node, job: str, run_ms: int = 10_000) -> None:
    world.cost(payer.node_id, job, payee.node_id, ALL_PAID[job])
    world.run(run_ms)


def away(world: World, node: Node) -> None:
    world.sides = {node.node_id: 1}
    for _ in range(4):
        ended(world, without=(node.node_id,))


def posted(payee: Node) -> list[int]:
    """What it got by each transaction that it knows."""
    rows = [ledger_pb2.TxRow.FromString(row) for _, row in payee.store.scan(TXS)]
    own = node_id_bytes(payee.node_id)
    txs = [Tx.decode(row.signed.body) for row in rows if row.state == ledger_pb2.TX_STATE_FINAL]
    return [amount for tx in txs for to, amount in tx.outputs if to == own]


def test_the_payer_learns_from_the_account_what_was_paid_and_owes_the_rest_again() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    work(world, payer, payee, "j-2", 2_000)  # its voucher has not left
    world.sides = {payer.node_id: 1}
    payee.ask(Settle(b""))
    world.run(5_000)
    away(world, payer)
    before = payee.balances()[payee.node_id][0]
    settle(world)
    payee.ask(Settle(b""))
    world.run(20_000)
    assert payee.balances()[payee.node_id][0] == before + 200, "the first was paid, the second is now"
    work(world, payer, payee, "j-3", 30_000)
    payee.ask(Settle(b""))
    world.run(20_000)
    assert payee.balances()[payee.node_id][0] == before + 500
    assert payer.machine.promised_out_micro == payer.machine.owed_micro == payee.machine.promised_in_micro == 0
    assert not payer.machine.notices


def test_a_hold_given_back_pays_nothing() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1", 2_000)  # no voucher has left
    world.sides = {payer.node_id: 1}
    (given,) = payer.machine._holding.given.all()
    payee.machine._holding.taken.on_end_wanted(given.terms, payee.machine._now)
    payee.transfer(world.names[0], 1)
    world.run(5_000)
    assert payee.machine._accounts.get(given.terms.account).balance_micro == 0
    away(world, payer)
    before = payee.balances()[payee.node_id][0]
    settle(world)
    payee.ask(Settle(b""))
    world.run(30_000)
    assert payee.balances()[payee.node_id][0] == before + 1_000


def test_the_payee_has_what_it_posted_and_posts_it_once() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    ((hold, _),) = payee.store.scan(TAKEN_OPEN)
    payee.ask(Settle(b""))
    while not any(Tx.decode(_body(row)).src == hold for _, row in world.nodes[world.names[0]].store.scan(TXS)):
        world.run(1)  # it leaves, and what comes of it is not heard
    world.sides = {payee.node_id: 1}
    world.run(3_000)
    assert payee.machine.promised_in_micro == 1_000
    assert payer.machine.promised_out_micro == 0
    away(world, payee)
    settle(world)
    assert payee.machine.promised_in_micro == 0
    assert not [*payee.store.scan(TAKEN_OPEN)]
    assert not payee.machine.notices
    assert posted(payee).count(1_000) == 1
    work(world, payer, payee, "j-2", 20_000)
    payee.ask(Settle(b""))
    world.run(20_000)
    assert posted(payee).count(200) == 1, "work goes on"


def test_what_the_payee_posted_and_nobody_heard_has_its_slot_still() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    world.sides = {payee.node_id: 1}
    payee.ask(Settle(b""))
    world.run(1_000)
    work(world, payer, payee, "j-2")
    away(world, payee)
    (given,) = payer.machine._holding.given.all()
    settle(world)
    payee.ask(Settle(b""))
    world.run(60_000)
    rows = [Tx.decode(ledger_pb2.TxRow.FromString(row).signed.body) for _, row in payer.store.scan(TXS)]
    assert len([tx for tx in rows if tx.src == given.terms.account]) == 1, "one transaction for the slot"
    payee.ask(Settle(b""))
    world.run(20_000)
    assert sorted(posted(payee)) == [200, 1_000]


def test_a_job_that_ends_as_its_node_begins_at_a_checkpoint_is_paid() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    away(world, payer)
    step, cost = payer.step, CostIncurred("j-2", 1, payee.node_id, ALL_PAID["j-2"], "work")
    entered = list[bool]()

    def step_with_a_job(inputs: Sequence[object]) -> None:
        enters = payer.machine._bootstrap.enters(payer.now()) and not entered
        if enters:
            entered.append(True)
        step([*inputs, cost] if enters else inputs)

    payer.step = step_with_a_job  # type: ignore[method-assign]
    settle(world)
    assert entered
    world.run(30_000)
    payee.ask(Settle(b""))
    world.run(20_000)
    assert sum(posted(payee)) == 1_200
    assert payer.machine.promised_out_micro == payer.machine.owed_micro == 0


def ended_unseen(monkeypatch: pytest.MonkeyPatch, *, forgets: bool = False) -> tuple[World, Node, Node]:
    """The payer is back, and cannot tell by what its hold ended; the payee has posted, and may have lost what it was
    promised."""
    monkeypatch.setattr(missed, "TRIED_MAX", 0)
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    world.sides = {payer.node_id: 1}
    payee.ask(Settle(b""))
    world.run(5_000)
    away(world, payer)
    if forgets:
        payee.crash()
        payee.store.commit(Batch(writes={(TAKEN, hold): None for hold, _ in payee.store.scan(TAKEN)}))
        payee.start()
    settle(world)
    assert any("ended while this node was away" in notice for notice in payer.machine.notices)
    return world, payer, payee


@pytest.mark.parametrize("forgets", [False, True])
def test_what_no_end_shows_the_payee_is_asked(monkeypatch: pytest.MonkeyPatch, forgets: bool) -> None:
    world, payer, payee = ended_unseen(monkeypatch, forgets=forgets)
    work(world, payer, payee, "j-3", 30_000)
    assert not [given for given in payer.machine._holding.given.all() if given.is_lost]
    assert payer.machine.owed_micro == 0
    payee.ask(Settle(b""))
    world.run(20_000)
    assert (posted(payee).count(1_000), posted(payee).count(300)) == (1, 1)


WRONG = {
    "no signature": {"signature": b""},
    "a short root": {"root": b"x"},
    "more than there is room for": {"amount_micro": 2**64 - 1},
    "another count": {"count": 2**32 - 1},
    "another root": {"root": b"x" * 32},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_a_payee_makes_up_says_nothing(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]) -> None:
    def made_up(_: TakenHolds, row: ledger_pb2.TakenHold) -> ledger_pb2.HoldVoucher:
        for field, value in wrong.items():
            setattr(row.voucher, field, value)
        return row.voucher

    monkeypatch.setattr(TakenHolds, "ended_by", made_up)
    world, payer, payee = ended_unseen(monkeypatch)
    work(world, payer, payee, "j-3", 30_000)
    assert [given.is_lost for given in payer.machine._holding.given.all()] == [True]
    assert (payer.machine.promised_out_micro, payer.machine.owed_micro) == (1_000, 300)


def test_the_payee_says_what_it_posted_though_it_holds_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world, payer, payee = opened()
    monkeypatch.setattr(missed, "TRIED_MAX", 0)
    work(world, payer, payee, "j-1")
    world.sides = {payee.node_id: 1, payer.node_id: 1}  # a quorum is out of reach
    work(world, payer, payee, "j-2", 10)
    old = payer.store.copy()
    payee.ask(Settle(b""))
    world.run(30_000)
    assert payee.machine.promised_in_micro == 1_200
    world.sides = {payer.node_id: 1}
    world.run(5_000)
    assert posted(payee).count(1_000) == 1
    payer.restore(old, knowing=True)  # it has not heard of the post
    away(world, payer)
    settle(world)
    world.run(60_000)
    assert not [given for given in payer.machine._holding.given.all() if given.is_lost]
    payee.ask(Settle(b""))
    world.run(20_000)
    assert (posted(payee).count(1_000), posted(payee).count(200)) == (1, 1)


def test_what_nobody_can_tell_of_is_taken_for_paid_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TakenHolds, "on_asked", lambda *_: ledger_pb2.TakenHold())
    monkeypatch.setattr(holds, "LIFE_US", 3_600_000_000)
    world, payer, payee = ended_unseen(monkeypatch)
    work(world, payer, payee, "j-3", 30_000)
    assert (payer.machine.promised_out_micro, payer.machine.owed_micro) == (1_000, 300)
    ((hold, _),) = payer.store.scan(GIVEN_OPEN)
    assert not [key for key, _ in payer.store.scan(SLOTS) if key.startswith(hold)], "nothing is closed"
    world.run(2 * 3_600_000)
    assert payer.machine.owed_micro == 0
    payee.ask(Settle(b""))
    world.run(20_000)
    assert (posted(payee).count(1_000), posted(payee).count(300)) == (1, 1)
    assert not [*payer.store.scan(GIVEN_OPEN)]


def test_a_funding_that_became_final_meanwhile_is_there() -> None:
    world, payer, payee = opened()
    world.cost(payer.node_id, "j-1", payee.node_id, 1_000)
    while not [*world.nodes[world.names[0]].store.scan(TXS)]:
        world.run(1)
    away(world, payer)
    (given,) = payer.machine._holding.given.all()
    assert given.row.state == ledger_pb2.HOLD_STATE_FUNDING
    settle(world)
    payee.ask(Settle(b""))
    world.run(20_000)
    assert posted(payee).count(1_000) == 1


def _body(row: bytes) -> bytes:
    return ledger_pb2.TxRow.FromString(row).signed.body


def test_a_funding_whose_slot_passed_without_it_is_void() -> None:
    world, payer, payee = opened()
    work(world, payer, payee, "j-1")
    payee.ask(Settle(b""))
    world.run(5_000)
    work(world, payer, payee, "j-2", 2_000)  # its voucher has not left
    (given,) = payer.machine._holding.given.all()
    row, terms = given.row, given.terms
    payer.crash()
    lost = ledger_pb2.GivenHold(
        terms=_other(terms.encode()), funding=bytes(31) + b"\1", state=ledger_pb2.HOLD_STATE_FUNDING, root=row.root
    )
    account = missed.HoldTerms.decode(lost.terms).account
    payer.store.commit(Batch(writes={(GIVEN, account): lost.SerializeToString(), (GIVEN_OPEN, account): b""}))
    payer.start()
    world.run(2_000)
    found = ledger_pb2.GivenHold.FromString(payer.store.get(GIVEN, account) or b"")
    assert found.state == ledger_pb2.HOLD_STATE_VOID
    assert epoch_of(payer) == 0
    assert [given.terms for given in payer.machine._holding.given.all()] == [terms], "what has its funds stays"


def _other(terms: bytes) -> bytes:
    """The same with another number."""
    raw = bytearray(terms)
    raw[48] ^= 1
    return bytes(raw)
