"""Verifying a ledger whose epochs ended: by whom each word counts, what a cut carries, what each epoch ended with."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from epoch_world import EpochWorld

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, Target
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Cut, Statement
from offgrid_node.protocol.ledger.recount import Recount
from offgrid_node.protocol.ledger.tables import ACCOUNTS, CHECKPOINTS, LOG, number_of
from offgrid_node.protocol.ledger.verification import Verification
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import SALT, holds, name_of


def verified(world: EpochWorld, place: int = 0, *, epochs: Callable[[int, bytes], bytes] | None = None) -> Verification:
    """The ledger of the node at that place."""
    store, scratch = world.nodes[place].store, MemoryStore()
    found = Verification(scratch, world.signed, SALT, holds, Random(0))
    scratch.commit(Batch(writes=found.take_writes()))
    for key, raw in store.scan(LOG):
        found.take(ledger_pb2.Block.FromString(raw), number_of(key))
        scratch.commit(Batch(writes=found.take_writes()))
    totals = Surveys(store).totals
    found.compare_totals(totals.fees_micro, totals.supply_micro)
    rows = ((key, Account.decode(row)) for key, row in store.scan(ACCOUNTS))
    found.compare_accounts((key, row.balance_micro, row.next_seq, row.head) for key, row in rows)
    told = ((number_of(key), ledger_pb2.CheckpointRow.FromString(row).body) for key, row in store.scan(CHECKPOINTS))
    found.compare_epochs((epoch, epochs(epoch, body) if epochs else body) for epoch, body in told)
    found.end()
    return found


def lived() -> EpochWorld:
    """A fifth witness comes and one of the first goes, and there are payments before and after."""
    world = EpochWorld()
    world.pay(0, 5, 70)
    world.run(2_000)
    world.orders(1, (1, 1_000), (2, 1_000), (3, 1_000), (4, 2_000))
    world.run(15_000)
    world.pay(5, 1, 30)
    world.run(2_000)
    world.agree()
    assert world.nodes[0].epoch == 1
    return world


def test_a_ledger_whose_witnesses_changed_holds() -> None:
    world = lived()
    for place in (0, 4, 5):
        found = verified(world, place)
        assert found.findings == []
        assert (found.epochs, found.final) == (1, 2)


def test_another_checkpoint_than_the_blocks_make_is_found() -> None:
    world = lived()

    def richer(epoch: int, body: bytes) -> bytes:
        return body[:-1] + bytes((body[-1] ^ 1,))

    assert [(each.where, each.what) for each in verified(world, epochs=richer).findings] == [
        ("epoch 0", "its blocks make another checkpoint")
    ]


def test_an_end_that_the_blocks_do_not_make_is_found() -> None:
    world = lived()
    found = verified(world)
    found.compare_epochs([(0, found._body_of(0) or b""), (1, b"x")])
    assert [(each.where, each.what) for each in found.findings] == [("epoch 1", "its blocks make no end of it")]
    found.findings.clear()
    found.compare_epochs([])
    assert [(each.where, each.what) for each in found.findings] == [("epoch 0", "the node says no end of it")]


A, B, ACCOUNT, CUT = b"a" * 32, b"b" * 32, b"x" * 20, b"c" * 20
FIRST, SECOND = (0, 1, 2), (2, 3)  # who witnesses the two epochs


class Counted:
    """A recount over two epochs, and what it finds."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._committees = [Committee(tuple((name_of(each), 1_000) for each in some)) for some in (FIRST, SECOND)]
        self.recount = Recount(self._committee, lambda _: CUT, lambda _, what: self.found.append(what))

    def _committee(self, epoch: int) -> Committee | None:
        return self._committees[epoch] if epoch < len(self._committees) else None

    def says(self, *who: int, digest: bytes = A, epoch: int = 0, ballot: int = 0, confirms: bool = True) -> None:
        for each in who:
            said = Statement(confirms, ACCOUNT, 0, ballot, digest)
            self.recount.on_said(node_id_bytes(name_of(each)), epoch, said, "here")

    def ends(self, digest: bytes = A) -> None:
        self.recount.on_ended(ACCOUNT, Account(0, 1, digest), "here")

    def checkpoint(self, *confirmed_by: int, seen: bool = True) -> None:
        """Of the first epoch, by a cut that carries A."""
        target = Target(ACCOUNT, 0, (A,))
        body = Checkpoint(bytes(32), 0, bytes(32), bytes(32), 1, 1, 0, bytes(32), bytes(32), bytes(32), WITNESSES, 1)
        digest = body.digest(SALT)
        if seen:
            self.recount.on_cut(0, digest, Cut(body, (target,), ()))
        for each in confirmed_by:
            said = Statement(True, CUT, 0, 1, digest)
            self.recount.on_said(node_id_bytes(name_of(each)), 0, said, "here")
        self.recount.on_checkpoint(body, digest, "here")


WITNESSES = tuple((name_of(each), 1_000) for each in SECOND)


class TestTheRecount:
    def test_a_slot_ends_by_a_quorum_of_its_epochs_witnesses(self) -> None:
        counted = Counted()
        counted.says(*FIRST)
        counted.ends()
        assert counted.found == []

    def test_the_witnesses_of_another_epoch_are_no_quorum(self) -> None:
        counted = Counted()
        counted.says(2, 3)
        counted.ends()
        assert [what.partition(" has ")[2] for what in counted.found] == ["ended without a quorum of confirms"]

    def test_what_a_cut_carries_has_a_certificate_and_the_cuts_quorum(self) -> None:
        counted = Counted()
        counted.says(*FIRST, confirms=False)
        counted.checkpoint(*FIRST)
        counted.ends()
        assert counted.found == []

    def test_a_cut_that_carries_what_nobody_has_certified_is_found(self) -> None:
        counted = Counted()
        counted.says(0, confirms=False)
        counted.checkpoint(*FIRST)
        counted.ends()
        assert [what.partition(", ")[2] for what in counted.found] == ["without a certificate"]

    def test_an_epoch_that_ended_without_a_quorum_or_by_what_no_block_says_is_found(self) -> None:
        counted = Counted()
        counted.checkpoint(0, 1, seen=False)
        assert counted.found == [
            "epoch 0 has ended without a quorum of confirms of its checkpoint",
            "epoch 0 has ended with a cut that is in none of its blocks",
        ]

    def test_two_certificates_and_two_final_values_are_found(self) -> None:
        counted = Counted()
        counted.says(*FIRST, digest=A, confirms=False)
        counted.says(*FIRST, digest=B, confirms=False)
        assert [what.partition(" has ")[2] for what in counted.found] == ["two certificates at ballot 0"]
        counted.says(*FIRST, digest=A)
        counted.says(*FIRST, digest=B)
        assert counted.found[1].endswith("two final values")

    def test_so_are_final_values_of_two_epochs(self) -> None:
        counted = Counted()
        counted.says(*FIRST, digest=A)
        counted.ends()
        counted.recount.enter(1)
        counted.says(*SECOND, digest=B, epoch=1)
        assert [what.partition(" has ")[2] for what in counted.found] == ["two final values"]

    def test_what_was_said_in_an_epoch_that_is_over_counts_for_nothing(self) -> None:
        counted = Counted()
        counted.says(0, 1)
        counted.recount.enter(1)
        counted.says(2)
        counted.says(*SECOND, digest=B, epoch=1)
        counted.ends(B)
        assert counted.found == []
