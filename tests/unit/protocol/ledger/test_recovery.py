"""How a slot ends in which no transaction gets a quorum: recovery ballots, one witness on a bench, case by case.

`OWNER` has signed two transactions for its slot 0 wherever nothing else is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import check_block
from offgrid_node.protocol.ledger.disputes import DIGESTS_MAX
from offgrid_node.protocol.ledger.items import Item, Report, Statement, TxItem, Unlock
from offgrid_node.protocol.ledger.records import noop_digest, tx_id_of, unlock_digest
from offgrid_node.protocol.ledger.recovery import BALLOT_MS, EVIDENCE_MS
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import ASIDE, DISPUTES, SLOTS
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key, holds

ACCOUNT = node_id_bytes(OWNER)
NOOP = noop_digest(SALT, ACCOUNT, 0)
WITNESSES = (SELF, W1, W2, W3)
NONE = (0, bytes(32))


def report(ballot: int = 1, certificate: tuple[int, bytes] = NONE) -> Report:
    return Report(ACCOUNT, 0, ballot, *certificate)


def votes(digest: bytes, ballot: int = 1) -> Statement:
    return Statement(False, ACCOUNT, 0, ballot, digest)


def confirms(digest: bytes, ballot: int = 1) -> Statement:
    return Statement(True, ACCOUNT, 0, ballot, digest)


@dataclass
class Torn:
    """A bench on which the owner has told two things."""

    bench: Bench
    one: TxItem
    other: TxItem

    @classmethod
    def begin(cls) -> Torn:
        bench = Bench()
        torn = cls(bench, bench.tx(amount=1), bench.tx(amount=2))
        bench.says(OWNER, torn.one)
        bench.says(OWNER, torn.other)
        bench.take_said()
        return torn

    @property
    def doubted(self) -> list[Item]:
        """What the witness says after the evidence has had its time."""
        self.bench.wait(EVIDENCE_MS)
        return self.bench.take_said()

    def leader(self, ballot: int) -> str:
        bit = self.bench.machine._epochs.committee.leader_of(ACCOUNT, 0, ballot)
        return WITNESSES[bit.bit_length() - 1]

    def led_by_another(self) -> int:
        """The first ballot that this node does not lead."""
        return next(ballot for ballot in range(1, 9) if self.leader(ballot) != SELF)

    def led_by_self(self) -> int:
        return next(ballot for ballot in range(1, 9) if self.leader(ballot) == SELF)

    def go_to(self, ballot: int, certificate: tuple[int, bytes] = NONE) -> None:
        """Two others have gone from ballot to ballot, and this node with them."""
        for each in range(1, ballot + 1):
            for witness in (W1, W2):
                self.bench.says(witness, report(each, certificate if each == ballot else NONE))


# ---- what begins it


def test_two_transactions_for_one_slot_bring_a_report_after_a_while() -> None:
    torn = Torn.begin()
    torn.bench.wait(EVIDENCE_MS - 10)
    assert torn.bench.take_said() == []
    assert torn.doubted == [report()]


def test_one_transaction_alone_is_waited_for_however_long_that_takes() -> None:
    bench = Bench()
    bench.says(OWNER, item := bench.tx())
    bench.take_said()
    bench.wait(3_600_000)
    assert [said for said in bench.take_said() if said != vote(item)] == []


def test_an_owner_may_ask_that_a_slot_ends() -> None:
    bench = Bench()
    bench.says(OWNER, bench.tx())
    bench.take_said()
    digest = unlock_digest(SALT, ACCOUNT, 0)
    bench.says(OWNER, Unlock(NodeSource(ACCOUNT), 0, Key(OWNER).sign(digest), digest))
    bench.wait(EVIDENCE_MS)
    assert bench.take_said() == [report()]


def test_nobody_else_may_ask_for_it() -> None:
    bench = Bench()
    digest = unlock_digest(SALT, ACCOUNT, 0)
    block = bench.block(W1, Unlock(NodeSource(ACCOUNT), 0, Key(W1).sign(digest), digest))
    with pytest.raises(PeerFault, match="not signed by"):
        check_block(ledger_pb2.Block.FromString(block.raw), SALT, holds)


def test_a_transaction_that_gets_its_quorum_in_time_needs_no_ballot() -> None:
    torn = Torn.begin()
    torn.bench.finish(torn.one)
    assert torn.doubted == [confirm(torn.one)]
    assert torn.bench.balance(PAYEE) == START_MICRO + 1


# ---- reports


def test_after_a_report_nothing_is_said_at_ballot_0() -> None:
    torn = Torn.begin()
    assert torn.doubted == [report()]
    for witness in (W1, W2, W3):
        torn.bench.says(witness, vote(torn.one))
    assert torn.bench.take_said() == []


def test_a_report_names_the_certificate_of_the_highest_ballot() -> None:
    torn = Torn.begin()
    bench = torn.bench
    for witness in (W1, W2):
        bench.says(witness, vote(torn.one))
    assert bench.take_said() == [confirm(torn.one)]
    assert torn.doubted == [report(certificate=(0, torn.one.digest))]
    for witness in (W1, W2, W3):
        bench.says(witness, report(), votes(NOOP))
    bench.take_said()
    torn.go_to(2)
    said = [word for word in bench.take_said() if isinstance(word, Report)]
    assert said == [report(2, (1, NOOP))]


def test_a_witness_joins_a_ballot_at_which_more_than_a_third_is() -> None:
    torn = Torn.begin()
    torn.bench.says(W1, report())
    assert torn.bench.take_said() == []
    torn.bench.says(W2, report())
    assert torn.bench.take_said()[0] == report()


def test_a_ballot_has_its_time_from_a_quorum_of_reports_on_and_the_next_one_twice_that() -> None:
    torn = Torn.begin()
    bench = torn.bench
    assert torn.doubted == [report()]
    bench.says(W1, report())
    bench.wait(3_600_000)
    assert bench.take_said() == [], "cut off from the others nobody counts ballots up"
    bench.says(W2, report())
    bench.take_said()
    bench.wait(BALLOT_MS)
    assert report(2) in bench.take_said()
    for witness in (W1, W2):
        bench.says(witness, report(2))
    bench.wait(BALLOT_MS)
    assert report(3) not in bench.take_said()
    bench.wait(BALLOT_MS)
    assert report(3) in bench.take_said()


# ---- votes


def test_without_any_certificate_the_leaders_no_op_is_voted_for() -> None:
    torn = Torn.begin()
    ballot = torn.led_by_another()
    torn.go_to(ballot)
    torn.bench.take_said()
    torn.bench.says(torn.leader(ballot), votes(torn.one.digest, ballot))
    assert torn.bench.take_said() == [], "no report allows a transaction"
    torn.bench.says(torn.leader(ballot), votes(NOOP, ballot))
    assert torn.bench.take_said() == [votes(NOOP, ballot)]


def test_only_what_the_leader_votes_for_is_voted_for() -> None:
    torn = Torn.begin()
    ballot = torn.led_by_another()
    torn.go_to(ballot)
    torn.bench.take_said()
    other = next(name for name in (W1, W2, W3) if name != torn.leader(ballot))
    torn.bench.says(other, votes(NOOP, ballot))
    assert torn.bench.take_said() == []


def test_a_certificate_that_is_reported_binds() -> None:
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another()
    for witness in (W1, W2):
        bench.says(witness, vote(torn.one))
    bench.take_said()
    torn.go_to(ballot, (0, torn.one.digest))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(NOOP, ballot))
    assert bench.take_said() == []
    bench.says(torn.leader(ballot), votes(torn.one.digest, ballot))
    assert bench.take_said() == [votes(torn.one.digest, ballot)]


def test_of_two_certificates_that_of_the_higher_ballot_binds() -> None:
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another() + 4
    assert torn.leader(ballot) != SELF
    for witness in (W2, W3):
        bench.says(witness, vote(torn.other))  # one at ballot 0, with a liar's second vote …
    bench.says(W1, vote(torn.other))
    torn.go_to(1)
    for witness in (W1, W2, W3):
        bench.says(witness, votes(NOOP, 1))  # … and the no-op at ballot 1
    bench.take_said()
    for each in range(2, ballot):
        torn.go_to(each)
    bench.says(W1, report(ballot, (0, torn.other.digest)))
    bench.says(W2, report(ballot, (1, NOOP)))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(torn.other.digest, ballot))
    assert votes(torn.other.digest, ballot) not in bench.take_said()
    bench.says(torn.leader(ballot), votes(NOOP, ballot))
    assert votes(NOOP, ballot) in bench.take_said()


def test_a_certificate_that_is_not_seen_here_allows_nothing_until_it_is() -> None:
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another()
    torn.go_to(ballot, (0, torn.other.digest))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(torn.other.digest, ballot), votes(NOOP, ballot))
    assert bench.take_said() == []
    for witness in (W1, W2, W3):
        bench.says(witness, vote(torn.other))
    assert votes(torn.other.digest, ballot) in bench.take_said()


def test_nothing_below_this_nodes_own_certificate_is_voted_for() -> None:
    """Though the others may, who do not see it yet."""
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another()
    bench.says(W3, vote(torn.one), report(1))
    bench.says(W2, vote(torn.one))
    assert bench.take_said() == [confirm(torn.one)]
    for each in range(1, ballot + 1):
        for witness in (W1, W2, W3):
            bench.says(witness, report(each))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(NOOP, ballot))
    assert bench.take_said() == []


@pytest.mark.parametrize("ballot", [0, 1])
def test_a_vote_counts_once_its_transaction_is_here_whatever_else_its_witness_has_said(ballot: int) -> None:
    bench = Bench()
    item = bench.tx()
    made_up = [votes(bytes([number]) * 32, ballot) for number in range(1, DIGESTS_MAX + 2)]
    bench.says(W3, *made_up, votes(item.digest, ballot), confirms(item.digest, ballot))
    bench.restart()
    bench.calm()
    bench.says(OWNER, item)
    for witness in (W1, W2):
        bench.says(witness, votes(item.digest, ballot), confirms(item.digest, ballot))
    assert bench.balance(PAYEE) == START_MICRO + 100
    assert [*bench.store.scan(ASIDE)] == []


def test_a_report_counts_once_its_certificate_is_seen_though_a_restart_came_between() -> None:
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another()
    torn.go_to(ballot, (0, torn.other.digest))
    bench.restart()
    for witness in (W1, W2, W3):
        bench.sync(witness)
    for witness in (W1, W2, W3):
        bench.says(witness, vote(torn.other))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(torn.other.digest, ballot))
    assert votes(torn.other.digest, ballot) in bench.take_said()


def test_a_leader_votes_once_a_quorum_has_reported() -> None:
    torn = Torn.begin()
    ballot = torn.led_by_self()
    for each in range(1, ballot):
        torn.go_to(each)
    torn.bench.take_said()
    torn.bench.says(W1, report(ballot))
    assert votes(NOOP, ballot) not in torn.bench.take_said()
    torn.bench.says(W2, report(ballot))
    assert torn.bench.take_said() == [report(ballot), votes(NOOP, ballot)]


def test_nobody_votes_twice_at_one_ballot_whatever_the_leader_says_and_however_often_it_restarts() -> None:
    torn = Torn.begin()
    bench, ballot = torn.bench, torn.led_by_another()
    torn.go_to(ballot, (0, torn.one.digest))
    bench.says(W3, report(ballot))
    for witness in (W1, W2, W3):
        bench.says(witness, vote(torn.one))
    bench.take_said()
    bench.says(torn.leader(ballot), votes(NOOP, ballot), votes(torn.one.digest, ballot))
    said = [word for word in bench.take_said() if isinstance(word, Statement) and word.ballot == ballot]
    assert len([word for word in said if not word.confirms]) == 1
    bench.restart()
    bench.calm()
    bench.says(torn.leader(ballot), votes(NOOP, ballot), votes(torn.one.digest, ballot))
    assert [word for word in bench.take_said() if isinstance(word, Statement) and not word.confirms] == []


# ---- confirms, and the end


def test_a_quorum_of_votes_is_confirmed_unless_a_higher_ballot_was_promised() -> None:
    for promised in (1, 2):
        torn = Torn.begin()
        torn.go_to(promised)
        torn.bench.take_said()
        for witness in (W1, W2, W3):
            torn.bench.says(witness, votes(NOOP, 1))
        assert (confirms(NOOP, 1) in torn.bench.take_said()) is (promised == 1)


def test_votes_of_different_ballots_are_no_certificate_together() -> None:
    torn = Torn.begin()
    bench = torn.bench
    torn.go_to(2)
    bench.take_said()
    bench.says(W1, votes(NOOP, 1))
    bench.says(W2, votes(NOOP, 1))
    bench.says(W3, votes(NOOP, 2))
    assert [word for word in bench.take_said() if isinstance(word, Statement) and word.confirms] == []


def test_the_no_op_ends_the_slot_and_moves_nothing() -> None:
    torn = Torn.begin()
    bench = torn.bench
    torn.go_to(1)
    for witness in (W1, W2, W3):
        bench.says(witness, votes(NOOP), confirms(NOOP))
    assert bench.balance(OWNER) == START_MICRO
    assert [*bench.store.scan(SLOTS)] == [*bench.store.scan(DISPUTES)] == []
    for item in (torn.one, torn.other):
        found = bench.views.by_digest(item.digest)
        assert found is not None
        assert found.state == ledger_pb2.TX_STATE_VOID
    (event,) = [event for event in bench.events if event.etype == EventType.TX_FINAL]
    assert (event.subject, event.ledger.outcome) == (tx_id_of(NOOP), "no-op")
    bench.take_said()
    follows = bench.tx(seq=1, prev=NOOP, amount=7)
    bench.says(OWNER, follows)
    assert bench.take_said() == [vote(follows)]
    bench.finish(follows)
    assert bench.balance(OWNER) == START_MICRO - 7 - FEE


def test_a_transaction_may_become_final_at_a_higher_ballot() -> None:
    torn = Torn.begin()
    bench = torn.bench
    torn.go_to(1)
    for witness in (W1, W2, W3):
        bench.says(witness, votes(torn.other.digest), confirms(torn.other.digest))
    assert bench.balance(PAYEE) == START_MICRO + 2
    assert [*bench.store.scan(DISPUTES)] == []


def test_confirms_of_different_ballots_end_nothing() -> None:
    torn = Torn.begin()
    torn.go_to(2)
    torn.bench.says(W1, confirms(NOOP, 1))
    torn.bench.says(W2, confirms(NOOP, 1))
    torn.bench.says(W3, confirms(NOOP, 2))
    assert torn.bench.views.account(OWNER).next_seq == 0


# ---- restarts and bounds


def test_no_restart_forgets_a_promise() -> None:
    torn = Torn.begin()
    bench = torn.bench
    assert torn.doubted == [report()]
    bench.restart()
    bench.calm()
    for witness in (W1, W2, W3):
        bench.says(witness, vote(torn.one))
    assert bench.take_said() == []
    for witness in (W1, W2):
        bench.says(witness, report())
    bench.take_said()
    bench.wait(BALLOT_MS)
    assert bench.take_said() == [report(2, (0, torn.one.digest))]


def test_a_ballot_that_no_honest_witness_can_have_reached_is_not_taken_in() -> None:
    torn = Torn.begin()
    bench = torn.bench
    far = bench.block(W3, report(2), votes(NOOP, 2))
    bench.push(far, sender=W3)
    assert not bench.machine._chains.holds(far.digest)
    for witness in (W1, W2):
        bench.says(witness, report(1))
    bench.push(far, sender=W3)
    assert bench.machine._chains.holds(far.digest)


def test_what_one_witness_says_at_one_ballot_is_bounded() -> None:
    torn = Torn.begin()
    bench = torn.bench
    made_up = [bytes([number]) * 32 for number in range(1, DIGESTS_MAX + 20)]
    bench.says(W3, *(votes(digest) for digest in made_up), *(report(1, (0, digest)) for digest in made_up))
    row = bench.machine._witness._ballots._disputes.get(ACCOUNT, 0)
    assert row is not None
    assert (len(row.tallies[1]), row.reports) == (DIGESTS_MAX, {})
    assert len([*bench.store.scan(ASIDE)]) == len(made_up)
    torn.go_to(1)
    for witness in (W1, W2, W3):
        bench.says(witness, votes(NOOP), confirms(NOOP))
    assert bench.views.account(OWNER).next_seq == 1, "the others go on without it"
    assert [*bench.store.scan(ASIDE)] == []
