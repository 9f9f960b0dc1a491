"""The log as the write-ahead log of slots: whatever is not in rows yet is counted again from the log."""

from __future__ import annotations

from random import Random

import pytest
from seeds import seeds

from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.events import KeyReplaced
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger import ahead
from offgrid_node.protocol.ledger.items import Double, Item, Marks, Report, Statement, TxItem, double_of
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.slots import NOTHING, Slot
from offgrid_node.protocol.ledger.sources import LaneSource
from offgrid_node.protocol.ledger.tables import AHEAD_KEY, LOG, META, SLOTS, number_of
from tests.unit.protocol.ledger.ledger_bench import FEE, OWNER, PAYEE, W1, W2, W3, Bench, confirm, vote

ACCOUNTS = (OWNER, PAYEE, W1, W2, W3)
SEQS = 3


def slots_of(machine: LedgerMachine) -> dict[tuple[str, int], tuple[object, ...]]:
    """What the machine knows of open slots."""
    known: dict[tuple[str, int], tuple[object, ...]] = {}
    for name in ACCOUNTS:
        first = machine._accounts.get(node_id_bytes(name)).next_seq
        for seq in range(first, first + SEQS):
            slot = machine._slots.get(node_id_bytes(name), seq)
            if slot is not None:
                known[name, seq] = told(slot)
    return known


def told(slot: Slot) -> tuple[object, ...]:
    tallies = {digest: (tally.voted, tally.confirmed) for digest, tally in slot.tallies.items()}
    return slot.first, slot.voted, slot.confirmed, slot.doubled, slot.disputed, slot.aside, tallies


def reloaded(bench: Bench) -> LedgerMachine:
    machine = LedgerMachine(bench.settings)
    machine.load(bench.store, bench.now())
    return machine


def busy(monkeypatch: pytest.MonkeyPatch, *, blocks: int = ahead.BLOCKS_MAX) -> None:
    """Every step changes so many slots that their rows wait."""
    monkeypatch.setattr(ahead, "AT_ONCE_MAX", 0)
    monkeypatch.setattr(ahead, "BLOCKS_MAX", blocks)


def drawn(rng: Random, bench: Bench, txs: list[TxItem], blocks: list[bytes]) -> tuple[str, list[Item]]:
    """Somebody says something."""
    author = rng.choice((OWNER, W1, W2, W3, W1, W2, W3))
    if author == OWNER or not txs:
        name = rng.choice(ACCOUNTS)
        account = bench.machine._accounts.get(node_id_bytes(name))
        item = bench.tx(name, account.next_seq, account.head, amount=rng.randrange(1, 4), to=rng.choice(ACCOUNTS))
        other = bench.tx(OWNER, to=rng.choice(ACCOUNTS))
        txs += item, other
        return author, [item, other]
    said: list[Item] = []
    for item in rng.choices(txs[-6:], k=rng.randrange(1, 5)):
        word = rng.choice((vote, vote, confirm))(item)
        said.append(word)
        if rng.random() < 0.05:
            said += [Statement(False, word.account, word.seq, 0, rng.randbytes(32)) for _ in range(rng.randrange(12))]
        if rng.random() < 0.05:
            said.append(Report(word.account, word.seq, 1, 0, NOTHING))
    if blocks and rng.random() < 0.3:
        said.append(Marks(rng.random() < 0.5, rng.choice(blocks), bytes((rng.randrange(1, 256),))))
    if rng.random() < 0.05:
        one, other = (bench.tx(PAYEE, 0, amount=amount) for amount in (5, 6))
        evidence = double_of(one, other)
        assert isinstance(evidence, Double)
        said.append(evidence)
    return author, said


@pytest.mark.parametrize("seed", seeds(5))
def test_a_node_that_crashes_at_any_moment_knows_the_same_of_every_slot(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    busy(monkeypatch, blocks=rng.choice((2, 7, 64)))
    bench, txs, blocks, deferred = Bench(), list[TxItem](), list[bytes](), 0
    for _ in range(120):
        author, items = drawn(rng, bench, txs, blocks)
        block = bench.block(author, *items)
        bench.push(block, sender=author)
        if author == OWNER:
            blocks.append(block.digest)
        deferred += bench.machine._slots.changed > 0
        assert slots_of(reloaded(bench)) == slots_of(bench.machine)
        if rng.random() < 0.1:
            bench.wait(rng.randrange(2 * ahead.WAIT_MS))
        if rng.random() < 0.05:
            bench.restart()
            bench.calm()
    assert deferred
    assert bench.balance(OWNER) >= 0


def test_what_has_ended_before_its_row_was_due_never_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch)
    bench = Bench()
    written: list[bytes] = []
    commit = bench.store.commit
    monkeypatch.setattr(
        bench.store,
        "commit",
        lambda batch: (written.extend(key for table, key in batch.writes if table == SLOTS), commit(batch))[1],
    )
    item = bench.tx()
    bench.says(OWNER, item)
    bench.finish(item)
    assert bench.balance(PAYEE) > bench.balance(OWNER) + FEE
    assert not written


def test_a_few_slots_are_written_by_the_step_that_changes_them() -> None:
    bench = Bench()
    bench.says(OWNER, bench.tx())
    assert bench.machine._slots.changed == 0
    assert len([*bench.store.scan(SLOTS)]) == 1


def test_what_waits_is_written_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch)
    bench = Bench()
    bench.says(OWNER, bench.tx())
    assert not [*bench.store.scan(SLOTS)]
    bench.wait(ahead.WAIT_MS)
    assert len([*bench.store.scan(SLOTS)]) == 1
    assert number_of(bench.store.get(META, AHEAD_KEY) or b"") == len([*bench.store.scan(LOG)])
    assert bench.machine._ahead.deadline_ms() is None


def test_no_more_than_so_many_blocks_are_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, blocks=4)
    bench = Bench()
    for number in range(12):
        bench.says(W1, vote(bench.tx(seq=number)))
        written = number_of(bench.store.get(META, AHEAD_KEY) or bytes(8))
        assert len([*bench.store.scan(LOG)]) - written < 4


def test_a_slot_that_is_torn_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch)
    bench = Bench()
    bench.says(OWNER, bench.tx(amount=1))
    bench.says(OWNER, bench.tx(amount=2))
    (row,) = [Slot.decode(key, row)[0] for key, row in bench.store.scan(SLOTS)]
    assert row.doubled


def test_one_that_restarts_between_its_vote_and_its_row_does_not_vote_again(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch)
    bench = Bench()
    one, other = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, one)
    assert bench.take_said() == [vote(one)]
    bench.restart()
    bench.calm()
    bench.says(OWNER, other)
    bench.step(Woke())
    assert [item for item in bench.take_said() if isinstance(item, Statement)] == []


def test_both_of_an_evidence_by_an_old_key_are_named_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch)
    bench = Bench()
    bench.step(KeyReplaced(OWNER, 1))
    source = LaneSource(node_id_bytes(OWNER), 1, 0)
    bench.finish(paid := bench.tx(PAYEE, amount=50, to=base32(source.account)))
    bench.says(PAYEE, paid)
    one, other = (bench.taking(source, ((node_id_bytes(PAYEE), amount),)) for amount in (1, 2))
    bench.says(W1, double_of(one, other))
    slot = reloaded(bench)._slots.get(source.account, 0)
    assert slot is not None
    assert {*slot.tallies} == {one.digest, other.digest}


def test_what_has_left_before_its_row_was_written_counts_as_sent_after_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy(monkeypatch)
    bench = Bench()
    bench.transfer(5)
    bench.restart()
    lanes = bench.machine._wallet.lanes
    assert lanes.in_flight(bench.settings.account)
    assert not lanes.is_unsent(bench.settings.account)
