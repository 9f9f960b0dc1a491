"""Votes and confirms of one step as one item: a bit for each transaction of a block that is held."""

from __future__ import annotations

from random import Random

import pytest

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import marking
from offgrid_node.protocol.ledger.blocks import BLOCK_ITEMS_MAX, BLOCK_MARKS_MAX, CheckedBlock, check_block
from offgrid_node.protocol.ledger.items import PLACES_BYTES_MAX, Item, Marks, Report, Statement, decode_item
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.marking import Marking, Places
from offgrid_node.protocol.ledger.tables import LOG
from offgrid_node.protocol.ledger.verification import Verification
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, START_MICRO, holds
from tests.unit.protocol.ledger.ledger_bench import FEE, NAMES, OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

NINES = bytes([9]) * 32


def own_blocks(bench: Bench) -> list[CheckedBlock]:
    blocks = (check_block(ledger_pb2.Block.FromString(raw), SALT, holds) for _, raw in bench.store.scan(LOG))
    return [block for block in blocks if block.header.author_id == SELF]


def paid(bench: Bench) -> tuple[CheckedBlock, Marks]:
    """A block with two transactions, and what marks both as voted for."""
    block = bench.block(OWNER, bench.tx(OWNER), bench.tx(PAYEE, to=OWNER))
    return block, Marks(False, block.digest, b"\x03")


# ---- the item


def test_marks_have_these_bytes() -> None:
    assert Marks(False, NINES, b"\x05\x80").encode().hex() == "0d" + "09" * 32 + "0580"
    assert Marks(True, NINES, b"\x05\x80").encode().hex() == "0e" + "09" * 32 + "0580"
    assert decode_item(Marks(True, NINES, b"\x05\x80").encode(), SALT) == Marks(True, NINES, b"\x05\x80")


@pytest.mark.parametrize("places", [b"", b"\x00", b"\x01\x00", b"\x01" * (PLACES_BYTES_MAX + 1)])
def test_places_have_one_form_and_an_end(places: bytes) -> None:
    with pytest.raises(PeerFault, match="marks: places of"):
        decode_item(Marks(False, NINES, places).encode(), SALT)


def test_a_block_says_no_more_than_its_items_could_however_few_they_are() -> None:
    bench = Bench()
    full = Marks(False, NINES, b"\xff" * PLACES_BYTES_MAX)
    assert full.count == BLOCK_ITEMS_MAX
    check_block(ledger_pb2.Block.FromString(bench.block(W1, full).raw), SALT, holds)
    more = bench.block(W1, full, vote(bench.tx()))
    with pytest.raises(PeerFault, match="says 4097 things, at most 4096"):
        check_block(ledger_pb2.Block.FromString(more.raw), SALT, holds)


def test_a_block_marks_no_more_than_so_many_blocks() -> None:
    bench = Bench()
    marks = [Marks(False, bytes([number]) * 32, b"\x01") for number in range(BLOCK_MARKS_MAX + 1)]
    check_block(ledger_pb2.Block.FromString(bench.block(W1, *marks[1:]).raw), SALT, holds)
    with pytest.raises(PeerFault, match="17 marks, at most 16"):
        check_block(ledger_pb2.Block.FromString(bench.block(W1, *marks).raw), SALT, holds)


# ---- what a node says


def test_a_node_that_speaks_of_several_transactions_of_one_block_marks_them() -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    assert [item for each in own_blocks(bench) for item in each.items] == [marks]
    for witness in (W1, W2):
        bench.says(witness, marks)
    assert own_blocks(bench)[-1].items == (Marks(True, block.digest, b"\x03"),)


def test_of_one_alone_it_speaks_as_before() -> None:
    bench = Bench()
    item = bench.tx()
    bench.push(bench.block(OWNER, item, vote(item)))
    assert [item for each in own_blocks(bench) for item in each.items] == [vote(item)]


def test_what_came_long_ago_is_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "RECENT_MAX", 1)
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    assert all(isinstance(item, Statement) for each in own_blocks(bench) for item in each.items)
    assert not bench.machine._marking._where
    for witness in (W1, W2):
        bench.says(witness, marks, Marks(True, block.digest, b"\x03"))
    assert bench.balance(PAYEE) == START_MICRO - FEE, "what others mark is read from the log"


def test_of_more_blocks_than_one_may_mark_it_marks_those_of_which_there_is_most_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(marking, "BLOCK_MARKS_MAX", 1)
    bench = Bench()
    two = bench.block(W1, bench.tx(W1), bench.tx(W2))
    three = bench.block(OWNER, bench.tx(OWNER), bench.tx(PAYEE), bench.tx(W3))
    bench.push(two, three)
    said = [item for each in own_blocks(bench) for item in each.items]
    assert said == [vote(bench.tx(W1)), vote(bench.tx(W2)), Marks(False, three.digest, b"\x07")]


def test_a_step_that_marks_more_than_a_block_may_say_makes_more_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.ledger.parcels.BLOCK_ITEMS_MAX", 3)
    bench = Bench()
    first, _ = paid(bench)
    second = bench.block(W1, bench.tx(W1), bench.tx(W2))
    bench.push(first, second)
    assert [len(block.items) for block in own_blocks(bench)] == [1, 1]


# ---- what it takes in


def test_marked_transactions_become_final_as_if_named() -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    for witness in (W1, W2):
        bench.says(witness, marks)
        bench.says(witness, Marks(True, block.digest, b"\x02"))
    assert bench.balance(PAYEE) == START_MICRO - 100 - FEE, "the second of the two"
    assert bench.balance(OWNER) == START_MICRO + 100


def test_places_without_a_transaction_say_nothing() -> None:
    bench = Bench()
    block, _ = paid(bench)
    words = bench.block(W3, vote(bench.tx(W3)), bench.tx(W3))
    bench.push(block, words, sender=W3)
    bench.says(W1, Marks(False, block.digest, b"\xff\xff"), Marks(True, words.digest, b"\x01"))
    slot = bench.machine._slots.get(node_id_bytes(W3), 0)
    assert slot is not None
    assert slot.tallies[bench.tx(W3).digest].confirmed == 0


def test_what_marks_a_block_that_is_not_here_waits_for_it() -> None:
    bench = Bench()
    block, marks = paid(bench)
    said = bench.block(W1, marks)
    bench.push(said)
    assert not bench.machine._chains.holds(said.digest)
    bench.push(block)
    assert bench.machine._chains.holds(said.digest)
    bench.says(W2, marks)
    assert confirm(bench.tx(OWNER)) in bench.take_said()


def test_who_is_no_witness_marks_nothing() -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    bench.take_said()
    for name in (OWNER, PAYEE):
        bench.says(name, marks)
    assert not bench.take_said()


def test_for_marks_of_who_is_no_witness_no_block_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "RECENT_MAX", 0)
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    read: list[bytes] = []
    places_in = Marking.places_in

    def reads(self: Marking, digest: bytes) -> Places:
        read.append(digest)
        return places_in(self, digest)

    monkeypatch.setattr(Marking, "places_in", reads)
    bench.says(OWNER, marks)
    LedgerMachine(bench.settings).load(bench.store, bench.now())
    assert read == []
    bench.says(W1, marks)
    assert read == [block.digest]


def test_marks_of_one_that_marks_every_transaction_of_a_slot_are_bounded_like_its_votes() -> None:
    bench = Bench()
    cheap = [bench.tx(OWNER, amount=number, fee=0) for number in range(1, 40)]
    block = bench.block(OWNER, *cheap)
    bench.push(block)
    bench.says(W1, Marks(False, block.digest, (2 ** len(cheap) - 1).to_bytes(5, "little")))
    slot = bench.machine._slots.get(node_id_bytes(OWNER), 0)
    assert slot is not None
    assert slot.aside
    assert len(slot.tallies) == 8


def test_a_restarted_node_knows_by_its_log_what_was_marked() -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    bench.says(W1, marks)
    rows = [("ledger_slots", key) for key, _ in bench.store.scan("ledger_slots")]
    bench.store.commit(Batch(writes=dict.fromkeys(rows)))
    machine = LedgerMachine(bench.settings)
    machine.load(bench.store, bench.now())
    slot = machine._slots.get(node_id_bytes(OWNER), 0)
    assert slot is not None
    assert slot.voted == bench.tx(OWNER).digest
    assert slot.tallies[slot.voted].voted.bit_count() == 2


def test_a_verification_counts_what_was_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    bench.says(W3, vote(bench.tx(OWNER)))
    for witness in (W1, W2):
        bench.says(witness, marks, Marks(True, block.digest, b"\x03"))
    assert bench.balance(PAYEE) == START_MICRO - FEE
    for forgets in (False, True):
        if forgets:
            monkeypatch.setattr(Verification, "_places_in", lambda self, digest: ())
        scratch = MemoryStore()
        found = Verification(scratch, bench.signed, SALT, holds, Random(0))
        scratch.commit(Batch(writes=found.take_writes()))
        for position, (_, raw) in enumerate(bench.store.scan(LOG)):
            found.take(ledger_pb2.Block.FromString(raw), position)
        scratch.commit(Batch(writes=found.take_writes()))
        found.end()
        assert any("has ended without a quorum" in finding.what for finding in found.findings) is forgets


def test_no_more_is_held_than_so_many_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marking, "RECENT_MAX", 4)
    bench = Bench()
    for name in NAMES[1:]:
        bench.push(bench.block(name, *(bench.tx(name, seq=seq) for seq in range(2))), sender=name)
        held = bench.machine._marking
        assert sum(map(len, held._recent.values())) == held._recent_items <= 4
        assert len(held._where) <= 4


def test_gathering_changes_nothing_of_what_is_said() -> None:
    bench = Bench()
    block, marks = paid(bench)
    bench.push(block)
    items: list[Item] = [vote(bench.tx(OWNER)), vote(bench.tx(W1)), vote(bench.tx(PAYEE, to=OWNER))]
    said = bench.machine._marking.gathered(items)
    assert said == [vote(bench.tx(W1)), marks]
    assert {*marking.spelled(said, bench.machine._marking.places_in)} == {*items}


def test_gathering_puts_nothing_behind_what_forbids_it() -> None:
    """A vote behind the same witness' confirm, or either behind its report, looks as if it had lied."""
    bench = Bench()
    block, votes = paid(bench)
    bench.push(block)
    confirms = Marks(True, block.digest, votes.places)
    first, second = bench.tx(OWNER), bench.tx(PAYEE, to=OWNER)
    alone, report = vote(bench.tx(W1)), Report(node_id_bytes(W2), 0, 1, 0, bytes(32))
    items: list[Item] = [vote(first), confirm(first), alone, vote(second), confirm(second), report]
    assert bench.machine._marking.gathered(items) == [alone, votes, confirms, report]
