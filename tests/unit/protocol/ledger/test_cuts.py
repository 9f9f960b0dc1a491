"""What a witness asks of a cut before it votes for it: one that leads proposes rubbish of each kind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.events import AdminChanged, KeyReplaced
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import cuts as rules
from offgrid_node.protocol.ledger.checkpoints import (
    ORDER_KIND,
    Base,
    Order,
    Target,
    heads_digest,
    targets_digest,
)
from offgrid_node.protocol.ledger.commands import EndEpoch, SyncBlocks
from offgrid_node.protocol.ledger.cuts import NotYet
from offgrid_node.protocol.ledger.items import (
    Cut,
    Double,
    Fork,
    OrderItem,
    Report,
    Seal,
    Statement,
    TxItem,
    Wish,
    fork_of,
)
from offgrid_node.protocol.ledger.meeting import Question
from offgrid_node.protocol.ledger.orders import ORDERS_MAX, PER_ISSUER_MAX
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_node.protocol.ledger.recovery import EVIDENCE_MS
from offgrid_node.protocol.ledger.slots import NOTHING
from offgrid_node.protocol.ledger.tables import ASIDE, CHECKPOINTS, CUTS, DISPUTES, ORDERS, SEALS, number_key
from offgrid_node.protocol.ledger.turning import LONGEST_MS, LOOK_MS
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT, START_MICRO, Key, name_of

WITNESSES = (W1, W2, W3)


class Ending(Bench):
    """SELF is a witness of an epoch that others end."""

    @property
    def cut(self) -> bytes:
        return self.machine._epochs.cut

    def certified(self, item: TxItem) -> None:
        """SELF confirms it, and nobody else."""
        self.says(OWNER, item)
        self.says(W1, vote(item))
        self.says(W2, vote(item))

    def ends(self, leader: str) -> int:
        """All report at the first ballot that this one leads, and know of no certificate."""
        for witness in WITNESSES:
            self.says(witness, Wish())
        self.wait(EVIDENCE_MS + 1)
        epochs = self.machine._epochs
        bit = epochs.committee.bit_of(node_id_bytes(leader))
        ballot = next(at for at in range(1, 9) if epochs.committee.leader_of(self.cut, 0, at) == bit)
        for at in range(1, ballot + 1):
            for witness in WITNESSES:
                self.says(witness, Report(self.cut, 0, at, 0, NOTHING))
        return ballot

    def proposal(self) -> Cut:
        """What an honest leader would propose."""
        return self.machine._turning._cuts.propose(self.now())

    def said_of(self, digest: bytes, ballot: int, *, confirms: bool = False) -> Statement:
        return Statement(confirms, self.cut, 0, ballot, digest)

    def finish_cut(self, digest: bytes, ballot: int) -> None:
        for witness in WITNESSES:
            self.says(witness, *(self.said_of(digest, ballot, confirms=it) for it in (False, True)))


def digest_of_cut(cut: Cut) -> bytes:
    return cut.checkpoint.digest(SALT)


def honest_ballot(bench: Ending, leader: str = W1) -> int:
    ballot = bench.ends(leader)
    bench.take_said()
    return ballot


# ---- what it proposes itself


def test_a_leader_proposes_what_is_certified_and_it_becomes_final_with_the_epoch() -> None:
    bench = Ending()
    item = bench.tx()
    bench.certified(item)
    ballot = bench.ends(SELF)
    said = bench.take_said()
    [cut] = [each for each in said if isinstance(each, Cut)]
    digest = digest_of_cut(cut)
    assert cut.targets == (Target(node_id_bytes(OWNER), 0, (item.digest,)),)
    assert bench.said_of(digest, ballot) in said
    assert bench.balance(PAYEE) == START_MICRO
    bench.finish_cut(digest, ballot)
    assert bench.machine._epochs.number == 1
    assert bench.balance(PAYEE) == START_MICRO + 100
    row = bench.views.by_digest(item.digest)
    assert row is not None
    assert bench.store.get(CHECKPOINTS, number_key(0)) is not None
    assert [each.digest for each in bench.take_said() if isinstance(each, Seal)] == [digest]


def test_from_its_first_word_in_the_cut_on_a_witness_says_nothing_else_in_the_epoch() -> None:
    bench = Ending()
    honest_ballot(bench)
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W1, vote(item))
    bench.says(W2, vote(item))
    assert not [each for each in bench.take_said() if isinstance(each, Statement) and each.account != bench.cut]
    bench.restart()
    bench.calm()
    bench.says(W3, vote(item))
    assert not [each for each in bench.take_said() if isinstance(each, Statement) and each.account != bench.cut]


def test_peers_are_told_in_which_epoch_a_node_stands_beside_what_it_holds_of_theirs() -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    bench.up(W1)
    bench.wait(1_000)
    [call, *_] = bench.take_calls("SyncBlocks")
    assert isinstance(call.request, ledger_pb2.SyncBlocksRequest)
    assert (call.request.HasField("yours"), call.request.epoch) == (True, 1)
    answer = bench.ask(SyncBlocks(W1, Question(bytes(16), bytes(16)), genesis_digest=bench.root), W1)
    assert isinstance(answer, ledger_pb2.SyncBlocksResponse)
    assert answer.epoch == 1


def test_a_slot_of_which_the_cut_says_nothing_begins_clean_and_its_transaction_is_said_again() -> None:
    bench = Ending()
    item = bench.tx()
    bench.says(OWNER, item)
    bench.says(W1, vote(item))
    assert vote(item) in bench.take_said()
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    assert cut.targets == ()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    assert bench.machine._epochs.number == 1
    said = bench.take_said()
    assert [each for each in said if isinstance(each, TxItem) or each == vote(item)] == [item, vote(item)]
    for witness in WITNESSES:
        bench.push(bench.block(witness, vote(item), confirm(item)), sender=witness)
    assert bench.balance(PAYEE) == START_MICRO, "that was said in the epoch that is over"
    bench.push(bench.block(W2, vote(item), epoch=1), sender=W2)
    assert confirm(item) not in bench.take_said(), "two of four have voted for it in this one"
    for witness in WITNESSES:
        bench.push(bench.block(witness, vote(item), confirm(item), epoch=1), sender=witness)
    assert bench.balance(PAYEE) == START_MICRO + 100


def test_what_is_said_late_in_a_block_of_an_epoch_that_is_over_is_said_again_too() -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    item = bench.tx()
    bench.says(OWNER, item)
    said = bench.take_said()
    assert said[-2:] == [item, vote(item)]


def test_after_a_restart_nothing_of_an_epoch_that_is_over_counts() -> None:
    names = [name_of(number) for number in range(100, 112)]
    bench = Ending(balances=dict.fromkeys((*names, SELF, W1, W2, W3, PAYEE), START_MICRO))
    items = [bench.tx(name) for name in names]
    for name, item in zip(names, items, strict=True):
        bench.says(name, item)
    bench.says(W1, *(vote(item) for item in items))
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    assert bench.machine._epochs.number == 1
    bench.restart()
    bench.calm()
    bench.take_said()
    bench.push(bench.block(W2, *(vote(item) for item in items), epoch=1), sender=W2)
    assert bench.take_said() == [], "two of four have voted"


def test_a_torn_slot_is_torn_in_the_next_epoch_too() -> None:
    bench = Ending()
    one, other = bench.tx(amount=1), bench.tx(amount=2)
    bench.says(OWNER, one)
    bench.says(OWNER, other)
    assert [each for each in bench.take_said() if isinstance(each, Double)]
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    bench.take_said()
    bench.wait(EVIDENCE_MS + 1)
    assert Report(node_id_bytes(OWNER), 0, 1, 0, NOTHING) in bench.take_said()
    known = [each.item.digest for each in bench.machine._witness.in_slot(node_id_bytes(OWNER), 0)]
    assert sorted(known) == sorted((one.digest, other.digest))


# ---- what it votes for


def test_it_votes_for_what_an_honest_leader_proposes() -> None:
    bench = Ending()
    bench.certified(bench.tx())
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut, bench.said_of(digest_of_cut(cut), ballot))
    assert bench.said_of(digest_of_cut(cut), ballot) in bench.take_said()


def order(
    witnesses: tuple[tuple[str, int], ...], root: bytes, issuer: str = PAYEE, *, created: int = 9, epoch: int = 1
) -> OrderItem:
    body = Order(root, node_id_bytes(issuer), 0, epoch, witnesses, created)
    digest = digest_of(ORDER_KIND, SALT, body.encode())
    return OrderItem(body, body.encode(), Key(issuer).sign(digest), digest)


def with_body(cut: Cut, **fields: object) -> Cut:
    return replace(cut, checkpoint=replace(cut.checkpoint, **fields))  # type: ignore[arg-type]


def with_targets(cut: Cut, *targets: Target) -> Cut:
    return replace(with_body(cut, targets=targets_digest(targets, SALT)), targets=targets)


def with_heads(cut: Cut, *heads: Base) -> Cut:
    return replace(with_body(cut, heads=heads_digest(heads, SALT)), heads=heads)


OTHERS = ((SELF, 1_000), (W1, 1_000), (W2, 1_000))
ACCOUNT = node_id_bytes(OWNER)
RUBBISH: dict[str, tuple[Callable[[Cut], Cut], str]] = {
    "of another ledger": (lambda cut: with_body(cut, ledger=bytes(32)), ""),
    "of another epoch": (lambda cut: with_body(cut, epoch=1), ""),
    "behind another checkpoint": (lambda cut: with_body(cut, previous=bytes(32)), ""),
    "a witness more": (lambda cut: with_body(cut, witnesses=(*cut.checkpoint.witnesses, (PAYEE, 1))), "adds witnesses"),
    "other weights": (lambda cut: with_body(cut, witnesses=((SELF, 1), *OTHERS[1:], (W3, 1_000))), "adds witnesses"),
    "an honest one left out": (lambda cut: with_body(cut, witnesses=OTHERS), "nothing is known"),
    "by an order that is not here": (lambda cut: with_body(cut, order=bytes([1]) * 32, witnesses=OTHERS), "in force"),
    "without what is confirmed": (with_targets, "is confirmed here and not in it"),
    "with the no-op instead": (
        lambda cut: with_targets(cut, Target(ACCOUNT, 0, (noop_digest(SALT, ACCOUNT, 0),))), "no quorum is seen",
    ),
    "with a slot that has no certificate": (
        lambda cut: with_targets(
            cut, Target(ACCOUNT, 0, (cut.targets[0].digests[0], noop_digest(SALT, ACCOUNT, 1)))
        ),
        "no quorum is seen",
    ),
    "from a slot that has not come": (
        lambda cut: with_targets(cut, Target(ACCOUNT, 1, cut.targets[0].digests)), "is not final here yet",
    ),
    "other accounts": (lambda cut: with_body(cut, accounts=bytes(32)), "something else"),
    "a wrong count": (lambda cut: with_body(cut, count=1), "something else"),
    "more fees": (lambda cut: with_body(cut, fees_micro=cut.checkpoint.fees_micro + 1), "something else"),
    "more supply": (lambda cut: with_body(cut, supply_micro=cut.checkpoint.supply_micro + 1), "something else"),
    "a block that nobody has": (
        lambda cut: with_heads(cut, Base(node_id_bytes(W1), 1, bytes(32))), "is not here",
    ),
    "a block of somebody else": (
        lambda cut: with_heads(cut, replace(cut.heads[0], author=node_id_bytes(PAYEE))), "is not here",
    ),
    "a fork that nobody knows": (
        lambda cut: with_heads(cut, replace(cut.heads[0], forked_at=cut.heads[0].height + 1)), "is not here",
    ),
    "heads that were not signed": (lambda cut: with_body(cut, heads=bytes(32)), "its heads are not"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUBBISH)
def test_it_votes_for_no_rubbish(case: str) -> None:
    spoil, why = RUBBISH[case]
    bench = Ending()
    bench.certified(bench.tx())
    ballot = honest_ballot(bench)
    cut = spoil(bench.proposal())
    bench.says(W1, cut, bench.said_of(digest_of_cut(cut), ballot))
    bench.wait(2 * LOOK_MS)
    assert bench.said_of(digest_of_cut(cut), ballot) not in bench.take_said()
    assert any(why in each for each in bench.machine._turning.why_not) or not why


def test_it_votes_for_nothing_but_what_the_leader_votes_for() -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    for witness in (W2, W3):
        bench.says(witness, cut, bench.said_of(digest_of_cut(cut), ballot))
    assert bench.said_of(digest_of_cut(cut), ballot) not in bench.take_said()


def test_where_a_certificate_is_named_nothing_else_may_follow() -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut, other = bench.proposal(), with_body(bench.proposal(), created_us=1)
    digest = digest_of_cut(cut)
    bench.says(W1, cut, other)
    for witness in WITNESSES:
        bench.says(witness, bench.said_of(digest, ballot))
    epochs = bench.machine._epochs
    bits = {epochs.committee.bit_of(node_id_bytes(name)): name for name in WITNESSES}
    later = next(at for at in range(ballot + 1, 9) if epochs.committee.leader_of(bench.cut, 0, at) in bits)
    leader = bits[epochs.committee.leader_of(bench.cut, 0, later)]
    for at in range(ballot + 1, later + 1):
        for witness in WITNESSES:
            bench.says(witness, Report(bench.cut, 0, at, ballot, digest))
    bench.says(leader, bench.said_of(digest_of_cut(other), later))
    assert bench.said_of(digest_of_cut(other), later) not in bench.take_said()
    bench.says(leader, bench.said_of(digest, later))
    assert bench.said_of(digest, later) in bench.take_said()


def test_what_is_final_here_must_be_in_it() -> None:
    bench = Ending()
    item = bench.tx()
    bench.certified(item)
    before = bench.proposal()
    bench.says(W1, confirm(item))
    bench.says(W2, confirm(item))
    follows = bench.tx(seq=1, prev=item.digest)
    bench.certified(follows)
    bench.says(W1, confirm(follows))
    bench.says(W2, confirm(follows))
    assert bench.balance(PAYEE) == START_MICRO + 200
    ballot = honest_ballot(bench)
    bench.says(W1, before, bench.said_of(digest_of_cut(before), ballot))
    assert bench.said_of(digest_of_cut(before), ballot) not in bench.take_said()
    assert any("is final here and not in it" in each for each in bench.machine._turning.why_not)


def test_a_target_says_of_what_is_final_here_what_it_ended_with() -> None:
    bench = Ending()
    item = bench.tx()
    bench.certified(item)
    bench.finish(item)
    cut, cuts = bench.proposal(), bench.machine._turning._cuts
    cuts.check(with_targets(cut, Target(ACCOUNT, 0, (item.digest,))))
    with pytest.raises(NotYet, match=r"slot 0 of .* has ended otherwise here"):
        cuts.check(with_targets(cut, Target(ACCOUNT, 0, (noop_digest(SALT, ACCOUNT, 0),))))


def test_nobody_is_below_zero() -> None:
    """A quorum has voted for a spending whose money is on its way to this node."""
    bench = Ending()
    late = bench.tx(amount=START_MICRO * 2)
    bench.says(OWNER, late)
    for witness in WITNESSES:
        bench.says(witness, vote(late))
    ballot = honest_ballot(bench)
    with pytest.raises(NotYet, match="below zero"):
        bench.proposal()
    cuts = bench.machine._turning._cuts
    target = Target(ACCOUNT, 0, (late.digest,))
    outcome = cuts.outcome([target], bench.machine._epochs.witnesses)
    assert outcome.overdrawn == ACCOUNT
    cut = with_body(
        with_targets(Ending().proposal(), target),
        accounts=outcome.root, count=outcome.count, fees_micro=outcome.fees_micro,
    )  # fmt: skip
    cut = with_heads(cut)
    bench.says(W1, cut, bench.said_of(digest_of_cut(cut), ballot))
    assert bench.said_of(digest_of_cut(cut), ballot) not in bench.take_said()
    assert any("below zero" in each for each in bench.machine._turning.why_not)


def test_who_is_ordered_out_and_who_forked_may_be_left_out() -> None:
    ordered = Ending()
    ordered.step(AdminChanged(PAYEE, True))
    item = order(OTHERS, ordered.root)
    ordered.says(PAYEE, item)
    ballot = honest_ballot(ordered)
    cut = ordered.proposal()
    assert (cut.checkpoint.order, cut.checkpoint.witnesses) == (item.digest, OTHERS)
    ordered.says(W1, cut, ordered.said_of(digest_of_cut(cut), ballot))
    assert ordered.said_of(digest_of_cut(cut), ballot) in ordered.take_said()
    ordered.step(AdminChanged(PAYEE, False))
    assert ordered.proposal().checkpoint.witnesses != OTHERS

    other = with_body(cut, witnesses=OTHERS[:2])
    ordered.step(AdminChanged(PAYEE, True))
    with pytest.raises(NotYet, match="names other witnesses"):
        ordered.machine._turning._cuts.check(other)


def leads_at(bench: Ending, ballots: range) -> str:
    """Another than SELF that leads one of these."""
    epochs = bench.machine._epochs
    names = {epochs.committee.bit_of(node_id_bytes(name)): name for name in WITNESSES}
    return next(names[bit] for at in ballots if (bit := epochs.committee.leader_of(bench.cut, 0, at)) in names)


@pytest.mark.parametrize(("ballots", "older"), [(range(1, 3), False), (range(1, 3), True), (range(3, 5), False)])
def test_a_leader_that_leaves_an_order_out_is_followed_only_after_an_honest_one_had_its_turn(
    ballots: range, older: bool
) -> None:
    """One of four may lie. Longer than that nobody insists: who is an admin each node knows for itself."""
    bench = Ending()
    bench.step(AdminChanged(PAYEE, True))
    if older:
        bench.says(PAYEE, order(OTHERS, bench.root, created=8))
    leader = leads_at(bench, ballots)
    ballot = honest_ballot(bench, leader)
    assert ballot in ballots
    cut = bench.proposal()
    assert (cut.checkpoint.order != rules.NO_ORDER) == older
    newest = order((*OTHERS, (W3, 7)), bench.root)
    bench.says(PAYEE, newest)
    digest = digest_of_cut(cut)
    bench.says(leader, cut, bench.said_of(digest, ballot))
    patient = ballot <= 2
    assert (bench.said_of(digest, ballot) not in bench.take_said()) == patient
    if patient:
        assert any("the newest order that has force here" in each for each in bench.machine._turning.why_not)
        bench.step(AdminChanged(PAYEE, False))
        bench.wait(2 * LOOK_MS)
        assert (bench.said_of(digest, ballot) in bench.take_said()) != older, "none has force any more"


def test_the_rest_must_weigh_a_quorum() -> None:
    bench = Ending()
    for liar in (W2, W3):
        bench.says(liar, Wish())
        bench.rewind(liar)
        bench.push(bench.block(liar, Report(bench.cut, 0, 1, 0, NOTHING)), sender=W1)
    assert [each for each in bench.take_said() if isinstance(each, Fork)]
    cuts = bench.machine._turning._cuts
    assert bench.proposal().checkpoint.witnesses == bench.genesis.witnesses
    with pytest.raises(NotYet, match="do not weigh a quorum"):
        cuts.check(with_body(bench.proposal(), witnesses=OTHERS[:2]))
    one = with_body(bench.proposal(), witnesses=OTHERS)
    cuts.check(one)


# ---- what it takes in, and when it enters


def noop_voted(bench: Ending) -> bytes:
    """W1, W2 and W3 have voted for the no-op of OWNER's first slot, at ballot 1."""
    noop = noop_digest(SALT, ACCOUNT, 0)
    for witness in WITNESSES:
        bench.says(witness, Statement(False, ACCOUNT, 0, 1, noop))
    return noop


def test_a_no_op_that_a_quorum_has_voted_for_is_in_it_and_what_is_not_here_is_not() -> None:
    bench = Ending()
    noop = noop_voted(bench)
    unknown = bench.tx(PAYEE, to=OWNER)
    for witness in WITNESSES:
        bench.says(witness, vote(unknown))
    assert bench.proposal().targets == (Target(ACCOUNT, 0, (noop,)),)
    bench.says(PAYEE, unknown)
    targets = bench.proposal().targets
    assert {target.account: target.digests for target in targets} == {
        ACCOUNT: (noop,), node_id_bytes(PAYEE): (unknown.digest,),
    }  # fmt: skip
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    assert bench.machine._epochs.number == 1
    assert bench.balance(OWNER) == START_MICRO + 100
    assert bench.views.account(OWNER).next_seq == 1


def test_a_lower_certificate_than_one_that_it_has_confirmed_is_no_target() -> None:
    bench = Ending()
    noop_voted(bench)
    assert Statement(True, ACCOUNT, 0, 1, noop_digest(SALT, ACCOUNT, 0)) in bench.take_said()
    item = bench.tx()
    bench.says(OWNER, item)
    for witness in WITNESSES:
        bench.says(witness, vote(item))
    cut, cuts = bench.proposal(), bench.machine._turning._cuts
    cuts.check(cut)
    with pytest.raises(NotYet, match="no quorum is seen"):
        cuts.check(with_targets(cut, Target(ACCOUNT, 0, (item.digest,))))


def test_a_target_that_does_not_follow_its_account_comes_to_nothing() -> None:
    bench = Ending()
    item = bench.tx(prev=bytes(32))
    bench.says(OWNER, item)
    with pytest.raises(NotYet, match="is not here"):
        bench.machine._turning._cuts.outcome([Target(ACCOUNT, 0, (item.digest,))], bench.genesis.witnesses)


def test_a_cut_of_somebody_who_is_no_witness_is_not_kept() -> None:
    bench = Ending()
    honest_ballot(bench)
    cut = with_body(bench.proposal(), created_us=1)
    bench.says(PAYEE, cut)
    assert bench.store.get(CUTS, digest_of_cut(cut)) is None
    bench.says(W1, cut)
    assert bench.store.get(CUTS, digest_of_cut(cut)) == cut.encode()


def test_it_waits_for_the_blocks_by_which_its_accounts_come_to_what_was_agreed_on() -> None:
    item = Bench().tx()
    ahead, behind = Ending(), Ending()
    for bench in (ahead, behind):
        bench.says(OWNER, item)
    for witness in (W1, W2):
        bench_block = ahead.block(witness, vote(item), confirm(item))
        ahead.push(bench_block, sender=witness)
    ahead.says(W3, confirm(item))
    assert ahead.balance(PAYEE) == START_MICRO + 100
    cut = with_heads(ahead.proposal())
    ballot = honest_ballot(behind)
    behind.says(W1, cut)
    behind.finish_cut(digest_of_cut(cut), ballot)
    assert (behind.machine._epochs.number, behind.balance(PAYEE)) == (0, START_MICRO)
    assert any("something else" in each for each in behind.machine._turning.why_not)
    for witness in (W1, W2, W3):
        behind.says(witness, confirm(item))
    assert (behind.machine._epochs.number, behind.balance(PAYEE)) == (1, START_MICRO + 100)


def test_a_cut_is_never_larger_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of authors that it has no room for the heads stay what they were, and others agree."""
    bench = Ending()
    bench.push(*(bench.block(name_of(number), Wish()) for number in range(100, 110)))
    honest_ballot(bench)
    monkeypatch.setattr(rules, "CUT_BYTES_MAX", 5 * 68)
    cut = bench.proposal()
    assert len(cut.heads) == 5
    bench.machine._turning._cuts.check(cut)


def test_authors_for_whom_a_cut_has_no_room_come_first_in_another_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Ending()
    names = {name_of(number) for number in range(100, 110)}
    bench.push(*(bench.block(name, Wish()) for name in names))
    monkeypatch.setattr(rules, "CUT_BYTES_MAX", 3 * 68)
    listed = set[bytes]()
    for number in range(12):
        heads = bench.proposal().heads
        assert [*heads] == sorted(heads, key=lambda head: head.author)
        listed |= {head.author for head in heads}
        monkeypatch.setattr(bench.machine._epochs, "cut", bench.machine._epochs.cut_of(number))
    assert {node_id_bytes(name) for name in names} <= listed


def test_what_does_not_hold_is_looked_at_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut = with_body(bench.proposal(), accounts=bytes(32))
    looks = list[int]()
    sound = rules.Cuts.check

    def check(self: rules.Cuts, cut: Cut) -> rules.Outcome:
        looks.append(bench.now_ms)
        return sound(self, cut)

    monkeypatch.setattr(rules.Cuts, "check", check)
    bench.says(W1, cut, bench.said_of(digest_of_cut(cut), ballot))
    for _ in range(100):
        bench.now_ms += 50
        bench.step(Woke())
    assert 4 <= len(looks) <= 6, "five seconds: at once, and after 0.2, 0.6, 1.4 and 3 s"


def test_what_witnesses_have_confirmed_comes_before_what_is_only_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each witness its share, so that one which confirms whatever it likes takes no room from others."""
    bench = Ending()
    honest_ballot(bench)
    items = sorted((bench.tx(name) for name in (OWNER, PAYEE, W1, W2, W3)), key=lambda item: item.tx.src)
    bench.says(OWNER, *items)
    for witness in WITNESSES:
        bench.says(witness, *map(vote, items))
    bench.says(W1, *map(confirm, items[:3]))
    bench.says(W2, confirm(items[4]))
    assert len(bench.proposal().targets) == 5
    monkeypatch.setattr(rules, "TARGET_BYTES_MAX", 4 * 61)
    assert [each.account for each in bench.proposal().targets] == [items[at].tx.src for at in (0, 1, 2, 4)]
    bench.machine._turning._cuts.check(bench.proposal())


def test_no_block_names_what_lies_behind_the_checkpoint() -> None:
    bench = Ending()
    bench.push(*(bench.block(name_of(number), Wish()) for number in range(100, 160)))
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.finish_cut(digest_of_cut(cut), ballot)
    chains, heights = bench.machine._chains, {head.author: head.height for head in cut.heads}
    assert len(heights) > 60
    for amount in (5, 6, 7):
        bench.transfer(amount)
        bench.wait(10)
    own, newest = bench.settings.account, chains.author(bench.settings.account).height
    headers = [each.header for height in range(1, newest + 1) if (each := chains.header_at(own, height)) is not None]
    parents = [chains.header_of(digest) for each in headers if each.epoch == 1 for digest in each.parents]
    assert [each for each in headers if each.epoch == 1]
    assert all(each.header.height > heights.get(each.header.author, 0) for each in parents if each is not None)


def test_no_head_goes_back_behind_a_checkpoint() -> None:
    bench = Ending()
    bench.says(PAYEE, bench.tx(PAYEE))
    bench.says(W3, Wish())
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    bench.says(W1, cut)
    bench.says(OWNER, bench.tx())
    bench.finish_cut(digest_of_cut(cut), ballot)
    bench.transfer(5)
    cuts = bench.machine._turning._cuts
    below = next(head for head in cut.heads if head.height > 1)
    held = bench.machine._chains.header_at(below.author, below.height - 1)
    assert held is not None
    with pytest.raises(NotYet, match="was at height"):
        cuts.check(with_heads(bench.proposal(), Base(below.author, below.height - 1, held.digest)))


def test_a_witness_that_has_wished_or_must_be_silent_is_not_woken_for_it_again_and_again() -> None:
    for silence in (lambda bench: bench.ask(EndEpoch()), lambda bench: bench.machine._voice.mute("why")):
        bench = Ending()
        item = bench.tx()
        bench.says(OWNER, item)
        bench.finish(item)
        assert bench.machine._turning.deadline_ms() is not None
        silence(bench)
        bench.now_ms += LONGEST_MS
        bench.step(Woke())
        due = bench.machine._turning.deadline_ms()
        assert due is None or due > bench.now_ms


def test_votes_alone_end_no_epoch_and_what_was_said_of_a_cut_goes_with_its_epoch() -> None:
    bench = Ending()
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    digest = digest_of_cut(cut)
    bench.says(W1, cut)
    for witness in WITNESSES:
        bench.says(witness, bench.said_of(digest, ballot))
    assert bench.said_of(digest, ballot, confirms=True) in bench.take_said()
    assert bench.machine._epochs.number == 0
    assert [*bench.store.scan(DISPUTES)]
    bench.finish_cut(digest, ballot)
    assert bench.machine._epochs.number == 1
    assert not [*bench.store.scan(DISPUTES), *bench.store.scan(CUTS), *bench.store.scan(ASIDE)]


@pytest.mark.parametrize(("seq", "ballot"), [(0, 2), (1, 1), (0, 0)])
def test_what_no_honest_witness_says_in_the_cuts_slot_is_not_taken_in(seq: int, ballot: int) -> None:
    bench = Ending()
    block = bench.block(W1, Statement(False, bench.cut, seq, ballot, bytes(32)))
    bench.push(block)
    assert not bench.machine._chains.holds(block.digest)


@pytest.mark.parametrize("known", [0, 1])
def test_who_forks_where_nobody_has_its_chain_keeps_no_epoch_from_ending(known: int) -> None:
    """Whatever heights it forks at, and whoever hears of which of them: a cut says alone that it forked."""
    bench = Ending()
    name = node_id_bytes(PAYEE)
    if known:
        bench.says(PAYEE, Wish())
    forks = list[Fork]()
    for height in (2**60, 9):
        bench.rewind_to(PAYEE, height - 1, bytes(32))
        first = bench.block(PAYEE, Wish())
        bench.rewind_to(PAYEE, height - 1, bytes(32))
        forks.append(fork_of(first.signed, bench.block(PAYEE, vote(bench.tx())).signed))
    bench.says(W1, forks[0])
    ballot = honest_ballot(bench)
    cut = bench.proposal()
    [head] = [each for each in cut.heads if each.author == name]
    assert (head.height, head.forked_at) == (known, known + 1)
    bench.says(W2, forks[1])
    assert bench.machine._chains.author(name).forked_at == 9
    bench.says(W1, cut, bench.said_of(digest_of_cut(cut), ballot))
    assert bench.said_of(digest_of_cut(cut), ballot) in bench.take_said()
    bench.finish_cut(digest_of_cut(cut), ballot)
    assert bench.machine._epochs.number == 1
    assert bench.machine._chains.author(name).forked_at == known + 1, "so it is for who begins at the checkpoint"


def test_of_each_witness_and_epoch_the_first_seal_is_kept_and_of_others_none() -> None:
    bench = Ending()
    for epoch in (0, 1):
        for author in (W1, PAYEE):
            bench.says(author, Seal(epoch, bytes([1]) * 32, bytes(64)), Seal(epoch, bytes([2]) * 32, bytes(64)))
    assert [*bench.store.scan(SEALS)] == [(number_key(0) + node_id_bytes(W1), bytes([1]) * 32 + bytes(64))]


def test_what_an_admins_old_key_has_signed_takes_no_room_from_its_key_of_now() -> None:
    bench = Ending()
    bench.step(AdminChanged(PAYEE, True))
    for created in range(PER_ISSUER_MAX):
        bench.says(PAYEE, order(OTHERS, bench.root, created=2**63 - 1 - created))
    bench.step(KeyReplaced(PAYEE, 1))
    body = Order(bench.root, node_id_bytes(PAYEE), 1, 1, OTHERS, 9)
    digest = digest_of(ORDER_KIND, SALT, body.encode())
    orders = bench.machine._turning.orders
    assert orders.on_order(OrderItem(body, body.encode(), Key(PAYEE).sign(digest), digest))
    for created in range(PER_ISSUER_MAX):
        orders.on_order(order(OTHERS, bench.root, created=2**63 - 20 - created))
        assert orders.in_force(digest) == body


def test_orders_are_bounded_and_those_without_force_go_first() -> None:
    bench = Ending()
    names = [name_of(number) for number in range(100, 100 + ORDERS_MAX)]
    bench.step(AdminChanged(names[0], True))
    for name in names:
        bench.says(name, order(OTHERS, bench.root, name))
    kept = order(OTHERS, bench.root, names[0]).digest
    for created in range(11, PER_ISSUER_MAX + 12):
        bench.says(PAYEE, order(OTHERS, bench.root, created=created))
    orders = {digest for digest, _ in bench.store.scan(ORDERS)}
    assert len(orders) == ORDERS_MAX
    assert kept in orders
    mine = [order(OTHERS, bench.root, created=created).digest for created in range(11, PER_ISSUER_MAX + 12)]
    assert [digest in orders for digest in mine] == [False, *(True for _ in mine[1:])]
    bench.says(PAYEE, order(OTHERS, bench.root, epoch=2))
    assert {digest for digest, _ in bench.store.scan(ORDERS)} == orders, "for the next epoch alone"
