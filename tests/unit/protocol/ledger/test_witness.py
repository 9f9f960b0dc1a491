"""The rules by which a transaction becomes final, one witness on a bench.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

import itertools

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Asked
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import node_id_bytes, unbase32
from offgrid_node.protocol.ledger import bounds, slots
from offgrid_node.protocol.ledger.bounds import SEQ_AHEAD_MAX
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import DIGESTS_MAX
from offgrid_node.protocol.ledger.items import Double
from offgrid_node.protocol.ledger.orphans import ASK_MS
from offgrid_node.protocol.ledger.records import tx_id_of
from offgrid_node.protocol.ledger.tables import SLOTS, TALLIES, TXS
from offgrid_tools.ledgersim.keys import FEE, START_MICRO, name_of

# ---- votes


def test_a_transaction_in_the_next_slot_with_funds_gets_one_vote() -> None:
    bench = Bench()
    item = bench.tx(amount=START_MICRO - FEE)
    bench.says(OWNER, item)
    assert bench.take_said() == [vote(item)]
    bench.says(W1, item)  # seen again, in another's block
    assert bench.take_said() == []


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param({"amount": START_MICRO - FEE + 1}, id="more than there is, with the fee"),
        pytest.param({"fee": FEE - 1}, id="a fee below the least"),
        pytest.param({"seq": 1}, id="not the next slot"),
        pytest.param({"prev": bytes(32)}, id="another predecessor"),
        pytest.param({"src": "empty"}, id="an account that nobody has named"),
    ],
)
def test_what_breaks_a_rule_gets_no_vote(spoil: dict[str, object]) -> None:
    bench = Bench(balances={OWNER: START_MICRO})
    if spoil.get("src"):
        spoil = {"src": PAYEE}
    bench.says(OWNER, bench.tx(**spoil))  # type: ignore[arg-type]
    assert bench.take_said() == []


def test_the_second_transaction_of_a_slot_gets_no_vote_and_is_shown_to_all() -> None:
    bench = Bench()
    first, second = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, first)
    bench.take_said()
    bench.says(OWNER, second)
    (evidence,) = bench.take_said()
    assert isinstance(evidence, Double)
    assert {evidence.first, evidence.second} == {first, second}
    bench.says(OWNER, bench.tx(amount=3))
    assert bench.take_said() == []
    assert "signed two transactions for its slot 0" in bench.machine.notices[0]


def test_evidence_that_came_from_another_is_not_repeated() -> None:
    bench = Bench()
    first, second = sorted((bench.tx(amount=1), bench.tx(amount=2)), key=lambda item: item.body)
    bench.says(W1, Double(first, second))
    assert bench.take_said() == [vote(first)]


def test_no_restart_forgets_a_vote() -> None:
    bench = Bench()
    first, second = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, first)
    bench.take_said()
    bench.restart()
    bench.calm()
    bench.says(OWNER, second)
    assert vote(second) not in bench.take_said()


def test_a_vote_whose_commit_failed_was_never_cast() -> None:
    bench = Bench()
    first, second = bench.tx(amount=1), bench.tx(amount=2)
    lost = bench.block(OWNER, first)
    from ledger_bench import PushBlocks

    bench.step(Asked(1, OWNER, PushBlocks(OWNER, (lost,))), commit=False)
    assert bench.take_said() == []
    bench.calm()
    bench._heads.pop(OWNER)
    bench.says(OWNER, second)
    assert bench.take_said() == [vote(second)]


def test_funds_that_come_later_bring_the_vote() -> None:
    bench = Bench(balances={OWNER: START_MICRO, PAYEE: 1})
    spend = bench.tx(PAYEE, amount=50)
    bench.says(PAYEE, spend)
    assert bench.take_said() == []
    gift = bench.tx(OWNER, amount=50 + FEE, to=PAYEE)
    bench.says(OWNER, gift)
    bench.finish(gift)
    assert vote(spend) in bench.take_said()


def test_a_slot_is_voted_on_once_the_one_before_is_final() -> None:
    bench = Bench()
    first = bench.tx(amount=1)
    second = bench.tx(seq=1, prev=first.digest, amount=2)
    bench.says(OWNER, first, second)
    assert bench.take_said() == [vote(first)]
    bench.finish(first)
    assert vote(second) in bench.take_said()


def test_an_observer_votes_for_nothing_and_follows_all_the_same() -> None:
    bench = Bench(witnesses=(W1, W2, W3, PAYEE))
    item = bench.tx()
    bench.says(OWNER, item)
    bench.finish(item)
    assert bench.take_said() == []
    assert bench.balance(PAYEE) == START_MICRO + 100


# ---- certificates and confirms


def test_a_quorum_of_votes_is_confirmed_once() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W1, vote(item))
    assert bench.take_said() == [vote(item)]
    bench.says(W2, vote(item))
    assert bench.take_said() == [confirm(item)]
    bench.says(W3, vote(item))
    bench.restart()
    bench.calm()
    bench.says(W1, vote(item))
    assert bench.take_said() == []


def test_confirms_of_others_are_no_certificate() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W1, confirm(item))
    bench.says(W2, confirm(item))
    assert confirm(item) not in bench.take_said()


def test_what_is_final_by_the_confirms_of_others_is_not_confirmed_any_more() -> None:
    """One of these may be a liar's, shown to nobody else: its block is here, so the others get it from this node."""
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.take_said()
    for witness in (W1, W2, W3):
        bench.says(witness, confirm(item))
    assert bench.balance(PAYEE) > START_MICRO
    assert bench.take_said() == []


@pytest.mark.parametrize("restarts", [False, True])
def test_a_slot_that_is_not_in_memory_is_read(monkeypatch: pytest.MonkeyPatch, restarts: bool) -> None:
    monkeypatch.setattr(slots, "HELD_MAX", 0)
    bench = Bench()
    item, other = bench.tx(), bench.tx(W1)
    bench.says(OWNER, item)
    bench.says(W1, other)
    for witness in (W1, W2):
        bench.says(witness, vote(item))
        if restarts:
            bench.restart()
            bench.calm()
    for witness in (W1, W2):
        bench.says(witness, confirm(item))
    assert bench.balance(PAYEE) > START_MICRO
    slot = bench.machine._witness._slots
    assert slot.get(node_id_bytes(OWNER), 0) is None
    assert slot.get(node_id_bytes(W1), 0) is not None
    assert (slot._stored, len([*bench.store.scan(SLOTS)])) == (1, 1)


def test_what_others_have_certified_is_confirmed_without_a_vote() -> None:
    bench = Bench()
    item = bench.tx()
    for witness in (W1, W2, W3):
        bench.says(witness, vote(item))
    bench.says(OWNER, item)
    assert bench.take_said() == [confirm(item)]


def test_what_a_liar_says_in_one_slot_of_anothers_transaction_is_nothing_to_that() -> None:
    bench = Bench()
    item, others = bench.tx(), bench.tx(PAYEE, amount=7, to=OWNER)
    own = bench.transfer(5)
    assert isinstance(own, ledger_pb2.CreateTransferResponse)
    bench.says(OWNER, item)
    bench.says(PAYEE, others)
    for digest in (others.digest, unbase32(own.transaction.tx_id)):
        bench.says(W3, replace(vote(item), tx_digest=digest), replace(confirm(item), tx_digest=digest))
    bench.finish(item)
    assert bench.balance(PAYEE) == START_MICRO + 100, "its own slot goes on"
    for tx_id in (tx_id_of(others.digest), own.transaction.tx_id):
        found = bench.views.transaction(tx_id)
        assert found is not None
        assert found.state == ledger_pb2.TX_STATE_SIGNED
    after = bench.transfer(6)
    assert isinstance(after, ledger_pb2.CreateTransferResponse)
    assert after.transaction.state == ledger_pb2.TX_STATE_QUEUED, "no second is signed for the slot of the first"
    bench.finish(others)
    assert bench.balance(OWNER) == START_MICRO - 100 - FEE + 7


def test_one_witness_counts_once_however_often_it_speaks() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    for _ in range(3):
        bench.says(W1, vote(item), vote(item), confirm(item))
    bench.says(OWNER, vote(item), confirm(item))  # no witness
    assert bench.take_said() == [vote(item)]
    assert bench.balance(PAYEE) == START_MICRO


def test_statements_of_other_ballots_count_for_nothing() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    for witness in (W1, W2, W3):
        bench.says(witness, replace(confirm(item), ballot=1), replace(vote(item), ballot=1))
    assert bench.take_said() == [vote(item)]


def test_a_block_of_an_epoch_to_come_waits() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    early = bench.block(W1, vote(item), epoch=1)
    bench.push(early)
    assert not bench.machine._chains.holds(early.digest)


def test_a_certificate_of_another_transaction_than_the_one_voted_for_is_confirmed() -> None:
    bench = Bench()
    mine, theirs = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, mine)
    bench.says(OWNER, theirs)
    for witness in (W1, W2, W3):
        bench.says(witness, vote(theirs))
    assert confirm(theirs) in bench.take_said()
    bench.says(W1, confirm(theirs))
    bench.says(W2, confirm(theirs))
    void = bench.views.by_digest(mine.digest)
    assert void is not None
    assert void.state == ledger_pb2.TX_STATE_VOID
    assert bench.balance(PAYEE) == START_MICRO + 2


def test_statements_may_come_before_their_transaction() -> None:
    bench = Bench()
    item = bench.tx()
    for witness in (W1, W2, W3):
        bench.says(witness, vote(item), confirm(item))
    assert bench.balance(PAYEE) == START_MICRO
    bench.says(OWNER, item)
    assert bench.balance(PAYEE) == START_MICRO + 100


def test_every_statement_of_a_witness_counts_also_of_one_that_says_two_things() -> None:
    bench = Bench()
    item, other = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, other)
    bench.says(OWNER, item)
    bench.says(W3, vote(other), confirm(other), vote(item), confirm(item))
    bench.says(W1, vote(item), confirm(item))
    bench.says(W2, vote(item), confirm(item))
    assert bench.balance(PAYEE) == START_MICRO + 1


def test_more_tallies_than_fit_a_slots_row_survive_a_restart_and_go_with_the_slot() -> None:
    bench = Bench()
    item = bench.tx()
    others = [bench.tx(amount=1_000 + index) for index in range(12)]
    bench.says(W2, *(vote(other) for other in others[:6]))
    bench.says(W3, *(vote(other) for other in others[6:]), vote(item), confirm(item))
    assert len([*bench.store.scan(TALLIES)]) == 5
    bench.restart()
    bench.calm()
    bench.says(OWNER, item)
    bench.says(W1, vote(item), confirm(item))
    bench.says(W2, confirm(item))
    assert bench.balance(PAYEE) == START_MICRO + 100
    assert [*bench.store.scan(SLOTS)] == [*bench.store.scan(TALLIES)] == []


# ---- final


def test_final_moves_the_money_once_and_is_in_the_journal() -> None:
    bench = Bench()
    item = bench.tx(amount=250)
    bench.says(OWNER, item)
    bench.finish(item)
    bench.finish(item)  # whatever is said again
    assert (bench.balance(OWNER), bench.balance(PAYEE)) == (START_MICRO - 250 - FEE, START_MICRO + 250)
    assert bench.views.totals.fees_micro == FEE
    (event,) = [event for event in bench.events if event.etype == EventType.TX_FINAL]
    assert (event.subject, event.ledger.amount_micro, event.ledger.fee_micro) == (tx_id_of(item.digest), 250, FEE)


def test_a_transaction_is_seen_on_its_way() -> None:
    bench = Bench()
    item = bench.tx()

    def state() -> tuple[int, int, int]:
        found = bench.views.transaction(tx_id_of(item.digest))
        assert found is not None
        return found.state, found.voted_milli, found.confirmed_milli

    bench.says(OWNER, item)
    assert state() == (ledger_pb2.TX_STATE_SIGNED, 1_000, 0)
    bench.says(W1, vote(item))
    bench.says(W2, vote(item))
    assert state() == (ledger_pb2.TX_STATE_CERTIFIED, 3_000, 1_000)
    assert bench.views.balance(OWNER).pending_out_micro == 100 + FEE
    assert bench.views.balance(PAYEE).pending_in_micro == 100
    bench.says(W1, confirm(item))
    bench.says(W2, confirm(item))
    assert state() == (ledger_pb2.TX_STATE_FINAL, 3_000, 3_000)
    assert bench.views.balance(OWNER).pending_out_micro == 0


def test_slots_that_become_final_out_of_order_are_applied_in_order() -> None:
    bench = Bench()
    first = bench.tx(amount=1)
    second = bench.tx(seq=1, prev=first.digest, amount=2)
    bench.says(OWNER, second)
    bench.finish(second)
    assert bench.balance(PAYEE) == START_MICRO
    bench.says(OWNER, first)
    bench.finish(first)
    assert bench.balance(PAYEE) == START_MICRO + 3
    assert bench.views.account(OWNER).next_seq == 2


def test_a_debit_may_come_before_the_credit_that_others_saw_first() -> None:
    bench = Bench(balances={OWNER: START_MICRO, PAYEE: 1})
    gift = bench.tx(OWNER, amount=500, to=PAYEE)
    spend = bench.tx(PAYEE, amount=400, to=OWNER)
    bench.says(PAYEE, spend)
    bench.finish(spend)
    assert bench.balance(PAYEE) == 1 - 400 - FEE
    assert bench.views.balance(PAYEE).final_micro == 0
    bench.says(OWNER, gift)
    bench.finish(gift)
    assert bench.balance(PAYEE) == 1 + 100 - FEE


def test_a_lone_witness_finishes_a_transaction_in_one_step() -> None:
    bench = Bench(witnesses=(SELF,))
    item = bench.tx()
    bench.says(OWNER, item)
    assert bench.take_said() == [vote(item), confirm(item)]
    assert bench.balance(PAYEE) == START_MICRO + 100


# ---- weights


@pytest.mark.parametrize(
    ("weights", "quorum", "survived"),
    [
        ([1_000], 667, 0),
        ([1_000] * 3, 2_001, 0),
        ([1_000] * 4, 2_667, 1),
        ([1_000] * 7, 4_667, 2),
        ([3_000, 1_000, 1_000, 1_000, 1_000], 4_667, 0),
        ([1_000, 1_000, 500, 500, 500], 2_334, 1),
    ],
)
def test_a_committee_knows_its_quorum_and_how_many_it_can_lose(weights: list[int], quorum: int, survived: int) -> None:
    names = [SELF, W1, W2, W3, OWNER, PAYEE, "a" * 32][: len(weights)]
    committee = Committee(tuple(zip(names, weights, strict=True)))
    assert (committee.quorum_milli, committee.faults_survived) == (quorum, survived)
    everybody = sum(committee.bit_of(node_id_bytes(name)) for name in names)
    assert committee.weight(everybody) == sum(weights)
    assert committee.enough(everybody)
    assert not committee.enough(0)


def test_each_witness_leads_in_its_turn_and_another_first_in_each_slot_and_epoch() -> None:
    witnesses = tuple((name, 1_000) for name in (SELF, W1, W2, W3))
    account = node_id_bytes(OWNER)
    for epoch, seq in itertools.product(range(4), range(4)):
        led = [Committee(witnesses, epoch).leader_of(account, seq, ballot) for ballot in range(1, 5)]
        assert sorted(led) == [1, 2, 4, 8]
    first = [Committee(witnesses, epoch).leader_of(account, 0, 1) for epoch in range(4)]
    assert sorted(first) == [1, 2, 4, 8]


# ---- what is kept of others is bounded


@pytest.mark.parametrize(
    ("name", "seq"), [(OWNER, SEQ_AHEAD_MAX), (name_of(99), 0)], ids=["a slot out of reach", "an account without money"]
)
def test_a_block_that_nobody_honest_could_have_signed_yet_is_not_taken_in(name: str, seq: int) -> None:
    for author, said in ((W3, vote), (name, lambda item: item)):
        bench = Bench()
        bench.up(W3)
        bench.take_calls()
        block = bench.block(author, said(bench.tx(name, seq=seq)))
        bench.push(block, sender=W3)
        assert not bench.machine._chains.holds(block.digest)
        assert not [*bench.store.scan(SLOTS)]
        assert not [*bench.store.scan(TXS)]


def test_a_block_that_came_too_early_is_asked_for_again_and_taken_in_once_its_slot_is_in_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounds, "SEQ_AHEAD_MAX", 1)
    bench = Bench()
    first = bench.tx()
    later = bench.block(W1, vote(bench.tx(seq=1, prev=first.digest)))
    bench.up(W1)
    for call in bench.take_calls("SyncBlocks"):
        bench.answer(call, ledger_pb2.SyncBlocksResponse())
    bench.push(later, sender=W1)
    assert not bench.machine._chains.holds(later.digest)
    bench.wait(ASK_MS)
    assert [call.node for call in bench.take_calls("SyncBlocks")] == [W1]
    bench.says(OWNER, first)
    bench.finish(first, W2, W3)
    bench.push(later, sender=W1)
    assert bench.machine._chains.holds(later.digest)


def test_of_one_witness_few_digests_count_in_a_slot_unless_the_transaction_is_here() -> None:
    bench = Bench()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W3, *(vote(bench.tx(amount=1_000 + index)) for index in range(100)), vote(item), confirm(item))
    slot = bench.machine._slots.get(node_id_bytes(OWNER), 0)
    assert slot is not None
    assert len(slot.tallies) == 1 + DIGESTS_MAX
    bench.finish(item, W1, W2)
    assert bench.balance(PAYEE) == START_MICRO + 100


def test_transactions_of_other_slots_are_no_more_to_a_slot_than_what_is_not_here() -> None:
    bench = Bench()
    item, others = bench.tx(), [bench.tx(PAYEE, seq=index) for index in range(2 * DIGESTS_MAX)]
    bench.says(OWNER, item)
    bench.says(PAYEE, *others)
    bench.says(W3, *(replace(vote(item), tx_digest=other.digest) for other in others))
    slot = bench.machine._slots.get(node_id_bytes(OWNER), 0)
    assert slot is not None
    assert len(slot.tallies) == 1 + DIGESTS_MAX
