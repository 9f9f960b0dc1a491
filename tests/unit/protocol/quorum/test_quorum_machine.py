"""Owner, member and broker: what is signed, what counts, and who is told."""

from __future__ import annotations

import itertools
from random import Random

import msgspec
import pytest
from quorum_town import SALT, Place, Town

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    Unavailable,
)
from offgrid_node.protocol.events import (
    HOST,
    AckArrived,
    AckRefused,
    CloseQuorum,
    OpenQuorum,
    QuorumAcked,
    QuorumOpened,
)
from offgrid_node.protocol.quorum import owner as owner_part
from offgrid_node.protocol.quorum import telling
from offgrid_node.protocol.quorum.commands import SignAck
from offgrid_node.protocol.quorum.records import NOTHING, Ack, Epoch, Member, sign_ack, sign_epoch
from offgrid_node.protocol.quorum.tables import CHANGES, CLOSED, FENCES, LIFE, META, number_key, quorum_key
from offgrid_node.protocol.quorum.tally import Tally, merged
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

SUBJECT = b"r" * 32


@pytest.fixture
def town() -> Town:
    return Town()


@pytest.fixture
def owner(town: Town) -> Place:
    return town["owner"]


def reason(outcome: object) -> str:
    assert isinstance(outcome, Fault), outcome
    return outcome.reason


class TestOwner:
    def test_a_quorum_is_reached_by_the_weight_of_its_acks(self, town: Town, owner: Place) -> None:
        made = owner.create("test123", 2_000, owner, town["a"], town["b"])
        assert isinstance(made, quorum_pb2.CreateQuorumResponse)
        assert (made.quorum.epoch, made.quorum.acked_milli, made.quorum.reached) == (1, 0, False)
        owner.ack("test123", owner)
        ticket = owner.ack("test123", town["a"])
        assert ticket.outcome is None, "another node's ack has to come first"
        town.carry(owner)
        acked = ticket.outcome
        assert isinstance(acked, quorum_pb2.AckQuorumResponse)
        assert (acked.quorum.acked_milli, acked.quorum.reached) == (2_000, True)
        assert {ack.node_id for ack in acked.quorum.acks} == {owner.node_id, town["a"].node_id}

    def test_the_journal_says_each_step(self, town: Town, owner: Place) -> None:
        owner.create("q", 1_000, owner, town["a"])
        owner.ack("q", owner)
        said = [(event.node_id, event.epoch, event.acked_milli, event.required_milli) for event in owner.events()]
        assert said == [("", 1, 0, 1_000), (owner.node_id, 1, 1_000, 1_000)]

    def test_creating_it_again_changes_nothing_and_differently_is_refused(self, town: Town, owner: Place) -> None:
        first = owner.create("q", 1_000, owner, town["a"])
        assert owner.create("q", 1_000, owner, town["a"]) == first
        assert owner.create("q", 1_000, owner, named=False) == first, "every member of now would do as well"
        assert isinstance(owner.create("q", 2_000, owner, town["a"]), AlreadyExists)
        assert isinstance(owner.create("q", 1_000, owner), AlreadyExists)

    def test_no_ack_of_one_that_a_restored_owner_has_forgotten_counts(self, town: Town, owner: Place) -> None:
        """It may have had other members, and another meaning."""
        owner.create("test123", 2_000, owner, town["a"])
        former = owner.ack("test123", town["a"])
        town.carry(owner)
        owner.store = MemoryStore()
        owner.store.commit(Batch(writes={(META, LIFE): number_key(1)}))
        owner.start()
        owner.create("test123", 1_000, town["a"])
        ticket = owner.ack("test123", town["a"])
        town.carry(owner)
        assert isinstance(former.outcome, quorum_pb2.AckQuorumResponse)
        assert isinstance(ticket.outcome, quorum_pb2.AckQuorumResponse)
        assert ticket.outcome.quorum.reached
        assert ticket.outcome.quorum.epoch > former.outcome.quorum.epoch

    def test_more_than_its_members_weigh_is_refused(self, owner: Place) -> None:
        fault = owner.create("q", 1_001, owner)
        assert isinstance(fault, InvalidRequest)
        assert fault.message == "required_milli: 1.001; the members weigh 1.0 altogether"
        assert owner.row("q") is None

    def test_acks_of_strangers_and_for_unknown_quorums_are_refused(self, town: Town, owner: Place) -> None:
        assert isinstance(owner.ack("q", owner).outcome, NotFound)
        owner.create("q", 1_000, owner)
        assert reason(owner.ack("q", town["a"]).outcome) == "NoMember"

    def test_an_ack_counts_once_however_often_it_is_asked_for(self, town: Town, owner: Place) -> None:
        owner.create("q", 2_000, owner, town["a"])
        tickets = [owner.ack("q", town["a"]) for _ in range(3)]
        assert len(owner.calls) == 1, "those who wait for the same share one call"
        town.carry(owner, lose_answer=True)
        assert [reason(ticket.outcome) for ticket in tickets] == ["Unavailable"] * 3
        owner.ack("q", town["a"])
        town.carry(owner)
        again = owner.ack("q", town["a"]).outcome
        assert isinstance(again, quorum_pb2.AckQuorumResponse)
        assert again.quorum.acked_milli == 1_000

    def test_so_many_requests_may_wait(self, town: Town, owner: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(owner_part, "WAITING_MAX", 2)
        owner.create("q", 2_000, owner, town["a"])
        owner.ack("q", town["a"])
        owner.ack("q", town["a"])
        assert isinstance(owner.ack("q", town["a"]).outcome, Exhausted)

    def test_what_a_node_signs_for_another_is_not_its_ack(self, town: Town, owner: Place) -> None:
        """b's answer is a's ack, rightly signed by a."""
        owner.create("q", 2_000, town["a"], town["b"])
        ticket = owner.ack("q", town["b"])
        call = owner.calls[0]
        town.carry(town["b"])
        row = owner.row("q")
        assert row is not None
        signed = town["a"].ask(SignAck(Epoch.decode(row.epoch.body))).outcome
        owner.told(Answered(call.tag, town["b"].node_id, signed, None))  # type: ignore[arg-type]
        assert reason(ticket.outcome) == "WrongAck"

    def test_a_restart_forgets_nothing_that_was_counted(self, town: Town, owner: Place) -> None:
        owner.create("q", 2_000, owner, town["a"])
        owner.ack("q", owner)
        owner.start()
        owner.ack("q", town["a"])
        town.carry(owner)
        row = owner.row("q")
        assert row is not None
        assert Tally(row).reached


class TestForObjects:
    def open(self, owner: Place, *members: Place, required: int = 2_000) -> Epoch:
        named = tuple((member.node_id, 1_000) for member in members)
        owner.told(OpenQuorum("object:o-1", SUBJECT, 7, required, named))
        opened = owner.heard[-1]
        assert isinstance(opened, QuorumOpened)
        return Epoch.decode(opened.epoch.body)

    def arrive(self, owner: Place, member: Place, epoch: Epoch) -> object:
        ack = Ack(member.node_id, epoch.owner, epoch.quorum_id, epoch.epoch, SUBJECT, 7, b"p" * 32)
        owner.told(AckArrived("object:o-1", member.node_id, sign_ack(ack, member.signer, SALT)))
        return owner.heard[-1]

    def test_it_opens_once_and_answers_each_time(self, town: Town, owner: Place) -> None:
        first = self.open(owner, town["a"], town["b"])
        assert self.open(owner, town["b"], town["a"]) == first
        assert first.epoch == 1

    def test_other_members_open_the_next_epoch_in_which_acks_count_on(self, town: Town, owner: Place) -> None:
        first = self.open(owner, town["a"], town["c"])
        acked = QuorumAcked("object:o-1", town["a"].node_id, (0,), 1_000, False)
        assert self.arrive(owner, town["a"], first) == acked
        second = self.open(owner, town["a"], town["b"])
        assert (second.epoch, second.weights) == (2, {town["a"].node_id: 1_000, town["b"].node_id: 1_000})
        opened = owner.heard[-1]
        assert isinstance(opened, QuorumOpened)
        assert (opened.held, opened.acked_milli, opened.reached) == (((town["a"].node_id, (0,)),), 1_000, False)
        assert isinstance(self.arrive(owner, town["b"], first), AckRefused), "the first epoch did not ask it"
        assert isinstance(self.arrive(owner, town["c"], first), AckRefused), "the second does not"
        assert self.arrive(owner, town["b"], second) == QuorumAcked("object:o-1", town["b"].node_id, (0,), 2_000, True)

    def test_a_reached_quorum_keeps_its_epoch_unless_it_is_asked_for_another(self, town: Town, owner: Place) -> None:
        first = self.open(owner, town["a"], required=1_000)
        self.arrive(owner, town["a"], first)
        assert self.open(owner, town["a"], town["b"], required=1_000) == first
        named = tuple((town[name].node_id, 1_000) for name in "ab")
        owner.told(OpenQuorum("object:o-1", SUBJECT, 7, 1_000, named, though_reached=True))
        opened = owner.heard[-1]
        assert isinstance(opened, QuorumOpened)
        assert (Epoch.decode(opened.epoch.body).epoch, opened.reached) == (2, True)

    def test_what_was_lost_has_to_be_acked_anew(self, town: Town, owner: Place) -> None:
        node = town["a"].node_id
        event = OpenQuorum("object:o-1", SUBJECT, 7, 1_000, ((node, 1_000),))
        owner.told(event)
        first = self.open(owner, town["a"], required=1_000)
        self.arrive(owner, town["a"], first)
        owner.told(msgspec.structs.replace(event, lost=frozenset({(node, 0)}), though_reached=True))
        opened = owner.heard[-1]
        assert isinstance(opened, QuorumOpened)
        assert (opened.held, opened.reached) == ((), False)
        assert isinstance(self.arrive(owner, town["a"], first), AckRefused)
        second = Epoch.decode(opened.epoch.body)
        assert self.arrive(owner, town["a"], second) == QuorumAcked("object:o-1", node, (0,), 1_000, True)

    def test_every_ack_is_answered(self, town: Town, owner: Place) -> None:
        epoch = self.open(owner, town["a"], town["b"])
        acked = QuorumAcked("object:o-1", town["a"].node_id, (0,), 1_000, False)
        assert self.arrive(owner, town["a"], epoch) == acked
        assert self.arrive(owner, town["a"], epoch) == acked, "again, though it counts already"
        assert isinstance(self.arrive(owner, town["c"], epoch), AckRefused)
        owner.told(AckArrived("object:o-1", "x", common_pb2.Signed(body=b"noise")))
        assert isinstance(owner.heard[-1], AckRefused)
        owner.told(AckArrived("object:other", "x", common_pb2.Signed()))
        assert isinstance(owner.heard[-1], AckRefused)


class TestMember:
    def epoch(self, owner: Place, member: Place, number: int = 1, quorum_id: str = "q", **more: object) -> Epoch:
        fields = {"subject": NOTHING, "size_bytes": 0, **more}
        members = (Member(member.node_id, 1_000),)
        return Epoch(owner.node_id, quorum_id, number, required_milli=1, members=members, **fields)  # type: ignore[arg-type]

    @pytest.mark.parametrize("numbers", list(itertools.permutations([1, 2, 3])))
    def test_it_signs_no_epoch_below_one_that_it_signed(self, town: Town, owner: Place, numbers: list[int]) -> None:
        member, highest = town["a"], 0
        for number in numbers:
            outcome = member.ask(SignAck(self.epoch(owner, member, number))).outcome
            member.start()
            if number > highest:
                assert isinstance(outcome, quorum_pb2.SignAckResponse)
                assert member.ask(SignAck(self.epoch(owner, member, number))).outcome == outcome, "the same again"
                highest = number
            else:
                assert reason(outcome) == "EpochOver"

    def test_fences_stand_for_each_owner_and_quorum(self, town: Town, owner: Place) -> None:
        member = town["a"]
        member.ask(SignAck(self.epoch(owner, member, 5)))
        for epoch in (self.epoch(town["b"], member), self.epoch(owner, member, quorum_id="r")):
            assert isinstance(member.ask(SignAck(epoch)).outcome, quorum_pb2.SignAckResponse)

    def test_the_fence_is_on_disk_with_the_ack(self, town: Town, owner: Place) -> None:
        member = town["a"]
        member.store.fail_next(Exhausted("full", reason="StoreFull"))
        assert reason(member.ask(SignAck(self.epoch(owner, member))).outcome) == "StoreFull"
        answer = member.ask(SignAck(self.epoch(owner, member))).outcome
        assert isinstance(answer, quorum_pb2.SignAckResponse)
        value = member.store.get(FENCES, quorum_key(owner.node_id, "q"))
        assert value is not None
        assert quorum_pb2.QuorumFence.FromString(value) == quorum_pb2.QuorumFence(epoch=1, ack=answer.ack)

    def test_it_vouches_for_no_bytes_and_no_quorum_of_others(self, town: Town, owner: Place) -> None:
        member = town["a"]
        for epoch in (
            self.epoch(owner, member, quorum_id="object:o-1"),
            self.epoch(owner, member, subject=SUBJECT),
            self.epoch(owner, member, size_bytes=1),
        ):
            assert reason(member.ask(SignAck(epoch)).outcome) == "NeedsBytes"
        assert reason(member.ask(SignAck(self.epoch(owner, town["b"]))).outcome) == "NoMember"

    def test_no_owner_fills_its_disk(self, owner: Place) -> None:
        town = Town(fences_max=2)
        member = town["a"]
        for number in range(2):
            member.ask(SignAck(self.epoch(owner, member, quorum_id=f"q{number}")))
        assert reason(member.ask(SignAck(self.epoch(owner, member, quorum_id="q2"))).outcome) == "QuotaFull"
        again = member.ask(SignAck(self.epoch(owner, member, 2, quorum_id="q1"))).outcome
        assert isinstance(again, quorum_pb2.SignAckResponse), "a row that is there is no new one"
        other = member.ask(SignAck(self.epoch(town["b"], member))).outcome
        assert isinstance(other, quorum_pb2.SignAckResponse)


class TestBrokers:
    def told(self, town: Town, owner: Place, broker: Place, **how: bool) -> None:
        """Until nothing more is told."""
        for _ in range(50):
            town.wait(telling.GATHER_MS)
            town.carry(owner, **how)

    def same(self, owner: Place, broker: Place, *quorum_ids: str) -> bool:
        rows = [owner.row(quorum_id) for quorum_id in quorum_ids]
        for row in rows:
            assert row is not None
            row.ClearField("change")
        return rows == [broker.row(quorum_id, owner) for quorum_id in quorum_ids]

    def test_a_broker_is_told_of_every_change_together(self, town: Town, owner: Place) -> None:
        broker = town["broker"]
        town.up(owner, broker)
        owner.create("q", 1_000, owner)
        owner.create("r", 1_000, owner)
        owner.ack("q", owner)
        assert owner.calls == [], "changes are gathered"
        town.wait(telling.GATHER_MS)
        assert town.carry(owner) == 1
        assert self.same(owner, broker, "q", "r")
        town.wait(10_000)
        assert town.carry(owner) == 0, "it is told nothing twice"

    def test_one_that_comes_back_hears_only_what_has_changed(self, town: Town, owner: Place) -> None:
        broker = town["broker"]
        town.up(owner, broker)
        for number in range(5):
            owner.create(f"q{number}", 1_000, owner)
        self.told(town, owner, broker)
        town.down(owner, broker)
        owner.ack("q3", owner)
        self.told(town, owner, broker)
        assert not self.same(owner, broker, "q3")
        town.up(owner, broker)
        assert [len(call.request.quorums) for call in owner.calls] == [1]  # type: ignore[attr-defined]
        town.carry(owner)
        assert self.same(owner, broker, "q3")

    def test_pages_follow_each_other(self, town: Town, owner: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(telling, "PAGE_ROWS", 2)
        broker = town["broker"]
        for number in range(5):
            owner.create(f"q{number}", 1_000, owner)
        town.up(owner, broker)
        pages = 0
        while owner.calls:
            pages += town.carry(owner)
        assert pages == 3
        assert self.same(owner, broker, *(f"q{number}" for number in range(5)))

    def test_what_got_lost_is_told_again_later_and_later(self, town: Town, owner: Place) -> None:
        broker = town["broker"]
        owner.create("q", 1_000, owner)
        town.up(owner, broker)
        tries = town.carry(owner, lose=True)
        for _ in range(600):
            town.wait(1_000)
            tries += town.carry(owner, lose=True)
        assert 13 <= tries <= 17  # 1, 2, 4, … 60 s
        town.wait(telling.RETRY_MAX_MS)
        town.carry(owner, lose_answer=True)
        assert self.same(owner, broker, "q")

    def test_a_restart_goes_on_where_it_was(self, town: Town, owner: Place) -> None:
        broker = town["broker"]
        town.up(owner, broker)
        owner.create("q", 1_000, owner)
        self.told(town, owner, broker)
        owner.start()
        owner.create("r", 1_000, owner)
        town.up(owner, broker)
        assert [len(call.request.quorums) for call in owner.calls] == [1]  # type: ignore[attr-defined]

    def test_the_index_of_changes_has_one_entry_for_each_quorum(self, town: Town, owner: Place) -> None:
        owner.create("q", 1_000, owner, town["a"])
        owner.ack("q", owner)
        owner.create("r", 1_000, owner)
        assert sorted(value for _, value in owner.store.scan(CHANGES)) == [b"q", b"r"]

    def test_who_is_no_broker_is_told_nothing(self, town: Town, owner: Place) -> None:
        town.up(owner, town["a"], HOST)
        town.up(owner, owner)
        owner.create("q", 1_000, owner)
        town.wait(telling.GATHER_MS)
        assert owner.calls == []

    def test_no_owner_fills_a_brokers_disk(self) -> None:
        town = Town(tracked_max=2)
        owner, broker = town["owner"], town["broker"]
        for number in range(3):
            owner.create(f"q{number}", 1_000, owner)
        town.up(owner, broker)
        town.carry(owner)
        assert broker.row("q1", owner) is not None
        assert broker.row("q2", owner) is None

    def test_what_is_closed_is_forgotten_at_every_broker_and_then_here(self, town: Town, owner: Place) -> None:
        first, second = town["first"], town["second"]
        for broker in (first, second):
            town.up(owner, broker)
        owner.create("q", 1_000, owner)
        owner.create("r", 1_000, owner)
        self.told(town, owner, first)
        town.down(owner, second)
        owner.told(CloseQuorum("q"))
        owner.told(CloseQuorum("q"))
        self.told(town, owner, first)
        assert first.row("q", owner) is None
        assert first.row("r", owner) is not None
        assert second.row("q", owner) is not None
        assert len([*owner.store.scan(CLOSED)]) == 1, "one of them has yet to hear"
        owner.start()
        town.up(owner, second)
        town.up(owner, first)
        self.told(town, owner, second)
        assert second.row("q", owner) is None
        assert not [*owner.store.scan(CLOSED)]

    def test_a_late_call_brings_back_nothing_that_is_closed(self, town: Town, owner: Place) -> None:
        town.up(owner, town["broker"])
        owner.create("q", 1_000, owner)
        town.wait(telling.GATHER_MS)
        (late,) = owner.calls
        owner.calls.clear()
        owner.told(Answered(late.tag, late.node, None, Unavailable("no answer came")))
        owner.told(CloseQuorum("q"))
        town.wait(telling.RETRY_MS)
        assert town.carry(owner) == 1
        outcome = town["broker"].ask(town._command(owner, late.request)).outcome
        assert isinstance(outcome, FailedPrecondition)
        assert town["broker"].row("q", owner) is None

    def test_a_broker_that_was_told_and_did_not_answer_hears_the_end_after_a_restart(
        self, town: Town, owner: Place
    ) -> None:
        town.up(owner, town["broker"])
        owner.create("q", 1_000, owner)
        town.wait(telling.GATHER_MS)
        town.carry(owner, lose_answer=True)
        assert town["broker"].row("q", owner) is not None
        owner.start()
        owner.told(CloseQuorum("q"))
        town.up(owner, town["broker"])
        town.wait(telling.GATHER_MS)
        while town.carry(owner):
            town.wait(telling.GATHER_MS)
        assert town["broker"].row("q", owner) is None

    def test_without_a_broker_nothing_is_noted_of_what_is_closed(self, town: Town, owner: Place) -> None:
        owner.create("q", 1_000, owner)
        owner.told(CloseQuorum("q"))
        assert not [*owner.store.scan(CLOSED)]
        assert not [*owner.store.scan(CHANGES)]

    def test_what_is_closed_makes_room_at_a_full_broker(self) -> None:
        town = Town(tracked_max=2)
        owner, broker = town["owner"], town["broker"]
        town.up(owner, broker)
        for number in range(3):
            owner.create(f"q{number}", 1_000, owner)
        self.told(town, owner, broker)
        assert broker.row("q2", owner) is None
        owner.told(CloseQuorum("q0"))
        for _ in range(70):
            town.wait(1_000)
            town.carry(owner)
        assert broker.row("q0", owner) is None
        assert broker.row("q2", owner) is not None

    def test_pages_of_what_is_closed_follow_each_other(
        self, town: Town, owner: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telling, "PAGE_ROWS", 2)
        broker = town["broker"]
        town.up(owner, broker)
        for number in range(9):
            owner.create(f"q{number}", 1_000, owner)
        self.told(town, owner, broker)
        for number in (0, 1, 2, 3, 4):
            owner.told(CloseQuorum(f"q{number}"))
            owner.create(f"r{number}", 1_000, owner)
        self.told(town, owner, broker)
        assert [number for number in range(9) if broker.row(f"q{number}", owner)] == [5, 6, 7, 8]
        assert all(broker.row(f"r{number}", owner) for number in range(5))
        self.told(town, owner, broker)
        assert not [*owner.store.scan(CLOSED)]

    def test_a_broker_that_missed_too_much_keeps_the_oldest(
        self, town: Town, owner: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(telling, "CLOSED_MAX", 3)
        broker = town["broker"]
        town.up(owner, broker)
        for number in range(20):
            owner.create(f"q{number}", 1_000, owner)
        self.told(town, owner, broker)
        town.down(owner, broker)
        for number in range(20):
            owner.told(CloseQuorum(f"q{number}"))
        assert len([*owner.store.scan(CLOSED)]) <= 4

    def test_a_failing_commit_tells_it_again(self, town: Town, owner: Place) -> None:
        """Memory is ahead of the disk when it fails; the numbers of changes must not be."""
        broker = town["broker"]
        town.up(owner, broker)
        owner.create("q", 1_000, owner)
        owner.store.fail_next(Exhausted("full", reason="StoreFull"))
        assert isinstance(owner.create("r", 1_000, owner), Fault)
        owner.create("s", 1_000, owner)
        town.up(owner, broker)
        self.told(town, owner, broker)
        assert self.same(owner, broker, "q", "s")


def rows_of(signers: list[Place], owner: Place) -> list[quorum_pb2.QuorumRow]:
    """Rows of two epochs with every set of acks."""
    rows = []
    for number in (1, 2):
        members = tuple(Member(place.node_id, 1_000) for place in signers)
        epoch = Epoch(owner.node_id, "q", number, NOTHING, 0, 2_000, members)
        for count in range(len(signers) + 1):
            for chosen in itertools.combinations(signers, count):
                acks = [Ack(p.node_id, owner.node_id, "q", number, NOTHING, 0, NOTHING) for p in chosen]
                signed = [sign_ack(ack, p.signer, SALT) for ack, p in zip(acks, chosen, strict=True)]
                rows.append(
                    quorum_pb2.QuorumRow(
                        epoch=sign_epoch(epoch, owner.signer, SALT), acks=signed, acked_us=[5] * len(signed)
                    )
                )
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_are_told_in_any_order_come_to_the_same(town: Town, owner: Place, seed: int) -> None:
    rows = rows_of([town["a"], town["b"], town["c"]], owner)
    told = Random(seed).sample(rows, 6)
    held: quorum_pb2.QuorumRow | None = None
    for row in [*told, *told]:
        held = merged(held, row) or held
    assert held is not None
    newest = max(Epoch.decode(row.epoch.body).epoch for row in told)
    of_newest = [row for row in told if Epoch.decode(row.epoch.body).epoch == newest]
    assert set(Tally(held).held) == {node for row in of_newest for node in Tally(row).held}
    assert all(merged(held, row) is None for row in told), "nothing is new any more"


def test_of_two_epochs_with_one_number_the_first_stands(town: Town, owner: Place) -> None:
    one, two = (
        Tally.opened(sign_epoch(Epoch(owner.node_id, "q", 1, NOTHING, 0, need, ()), owner.signer, SALT), 0).row
        for need in (1, 2)
    )
    assert merged(one, two) is None
