"""Epochs end and begin: whole machines that hear each other, or do not."""

from __future__ import annotations

from random import Random

import pytest
from epoch_world import HOUR_MS, EpochWorld, Node
from seeds import seeds

from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import AdminChanged, KeyReplaced
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import cuts, pruning, turning
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.commands import EndEpoch, OrderCommittee
from offgrid_node.protocol.ledger.items import Seen
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.orders import Orders
from offgrid_node.protocol.ledger.receipts import Final, least
from offgrid_node.protocol.ledger.tables import LEARN_KEY, LOG, META, SEALS, number_key
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key

EQUAL = tuple((place, 1_000) for place in range(4))


def committee(world: EpochWorld, place: int = 0) -> list[tuple[int, int]]:
    return [(world.names.index(node), weight) for node, weight in world.nodes[place].machine._epochs.witnesses]


def ended(world: EpochWorld, epoch: int = 1) -> None:
    world.agree()
    assert {node.epoch for node in world.nodes} == {epoch}


def works(world: EpochWorld) -> None:
    """A payment becomes final everywhere."""
    before = world.nodes[0].balance(world.names[5])
    world.pay(4, 5, 7)
    world.run(500)
    world.agree()
    assert world.nodes[0].balance(world.names[5]) == before + 7


# ---- why an epoch ends, and with whom


def test_an_epoch_ends_with_the_same_committee_when_its_time_is_over_and_pays_the_fees() -> None:
    world = EpochWorld()
    world.pay(4, 5, 100)
    world.run(2_500)
    ended(world, 0)
    world.now_ms += HOUR_MS
    world.run(2_500)
    ended(world)
    assert world.nodes[0].checkpoint(0).witnesses == world.genesis.witnesses
    assert world.nodes[3].balance(world.names[3]) == START_MICRO + FEE // 4
    works(world)


def test_an_epoch_in_which_nothing_became_final_goes_on() -> None:
    world = EpochWorld()
    world.now_ms += 5 * HOUR_MS
    world.run(2_500)
    ended(world, 0)


def test_a_quorum_that_wishes_it_ends_an_epoch_and_fewer_do_not() -> None:
    world = EpochWorld()
    world.end(0, 1)
    world.run(2_500)
    ended(world, 0)
    world.end(2)
    world.run(2_500)
    ended(world)


def test_an_order_adds_removes_and_weighs_witnesses() -> None:
    world = EpochWorld(witnesses=4, others=3)
    world.orders(1, *EQUAL, (4, 2_000))
    world.run(2_500)
    ended(world)
    assert committee(world) == [*EQUAL, (4, 2_000)]
    works(world)
    world.orders(2, (4, 1_000), (5, 1_000), (6, 1_000), (0, 1_500))
    world.run(2_500)
    ended(world, 2)
    assert committee(world) == [(4, 1_000), (5, 1_000), (6, 1_000), (0, 1_500)]
    for gone in (1, 2, 3):
        world.nodes[gone].cut_off = True
    world.pay(0, 5, 3)
    world.run(500)
    assert world.nodes[5].views.account(world.names[0]).next_seq == 1, "those who are gone are not needed"


def test_of_two_orders_that_have_force_one_is_followed_by_all() -> None:
    world = EpochWorld()
    for node in world.nodes:
        node.step(AdminChanged(world.names[5], True))
    world.nodes[0].ask(OrderCommittee(world.order(1, *EQUAL, (4, 1_000))))
    world.nodes[5].ask(OrderCommittee(world.order(1, *EQUAL, (5, 1_000), by=5)))
    world.run(2_500)
    ended(world)
    assert committee(world) in ([*EQUAL, (4, 1_000)], [*EQUAL, (5, 1_000)])
    works(world)


def test_a_first_leader_that_leaves_an_order_out_does_not_void_it() -> None:
    world = EpochWorld()
    epochs = world.nodes[0].machine._epochs
    liar = world.nodes[epochs.committee.leader_of(epochs.cut, 0, 1).bit_length() - 1].machine
    liar._turning._cuts._orders = Orders(SALT, liar._draft, liar._epochs, Keys(liar._draft))
    world.orders(1, *EQUAL, (4, 1_000))
    world.run(6_000)
    ended(world)
    assert committee(world) == [*EQUAL, (4, 1_000)]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (lambda world: world.order(1, *EQUAL, by=5), "NotAnAdmin"),
        (lambda world: world.order(2, *EQUAL), "WrongEpoch"),
        (lambda world: world.order(1, *EQUAL, key=1), "OldKey"),
        (lambda world: world.order(1, *EQUAL, ledger=bytes(32)), "OtherLedger"),
    ],
)
def test_an_order_without_force_is_refused(order, reason) -> None:  # type: ignore[no-untyped-def]
    world = EpochWorld()
    answer = world.nodes[0].ask(OrderCommittee(order(world)))
    assert isinstance(answer, Fault)
    assert answer.reason == reason
    world.run(2_500)
    ended(world, 0)


def test_an_order_that_a_block_brings_is_followed_only_where_it_has_force() -> None:
    """A former admin's node, or one whose key was replaced, says one: nobody wishes for that."""
    for change in (AdminChanged, KeyReplaced):
        world = EpochWorld()
        for node in world.nodes[1:]:
            node.step(change(world.admin, change is KeyReplaced))
        world.orders(1, *EQUAL, (4, 1_000))
        world.run(2_500)
        ended(world, 0)


def test_a_witness_that_forks_is_left_out() -> None:
    world = EpochWorld()
    works(world)
    fork(world, 3)
    world.run(4_000)
    assert {node.epoch for node in world.nodes[:3]} == {1}
    assert committee(world) == [*EQUAL[:3]]
    world.nodes[3].cut_off = True
    world.pay(4, 5, 9)
    world.run(500)
    assert world.nodes[0].balance(world.names[5]) == START_MICRO + 7 + 9


def test_whom_an_admin_names_though_it_forked_stays() -> None:
    world = EpochWorld()
    works(world)
    world.orders(1, *EQUAL)
    fork(world, 3)
    world.run(8_000)
    assert {node.epoch for node in world.nodes[:3]} == {1}
    assert committee(world) == [*EQUAL]


def test_who_forked_stays_where_the_rest_does_not_weigh_a_quorum() -> None:
    world = EpochWorld(witnesses=2, others=4)
    works(world)
    fork(world, 1)
    world.run(4_000)
    assert world.nodes[0].epoch == 0


def test_only_a_witness_may_wish() -> None:
    world = EpochWorld()
    answer = world.nodes[4].ask(EndEpoch())
    assert isinstance(answer, Fault)
    assert answer.reason == "NotAWitness"


def fork(world: EpochWorld, place: int) -> None:
    """It signs another block at the height of its newest."""
    liar = node_id_bytes(world.names[place])
    newest = world.nodes[0].machine._chains.author(liar)
    held = world.nodes[0].machine._chains.header_of(newest.digest)
    assert held is not None
    block = seal_block(
        liar, newest.height, held.header.prev, (), [Seen(liar, bytes(32))], 7, Key(world.names[place]), SALT
    )
    world.hand(world.nodes[0], world.nodes[place], [block])


# ---- seals


def test_seals_of_a_third_are_a_light_receipt_of_the_checkpoint() -> None:
    world = EpochWorld()
    world.end(0, 1, 2)
    world.run(2_500)
    ended(world)
    node = world.nodes[5]
    last, epochs = node.checkpoint(0), node.machine._epochs
    final = Final(world.root, epochs.cut_of(0), 0, last.digest(SALT), 0)
    seals = {}
    for place in range(4):
        name = world.names[place]
        row = node.store.get(SEALS, number_key(0) + node_id_bytes(name))
        assert row is not None
        assert row == last.digest(SALT) + Key(name).sign(final.digest(SALT))
        seals[1 << place] = row[32:]
    assert least(epochs.committee, seals, 0) is not None


def test_a_witness_that_is_quiet_when_an_epoch_ends_seals_it_later() -> None:
    world = EpochWorld()
    world.nodes[3].cut_off = True
    world.end(0, 1, 2)
    world.run(2_500)
    world.nodes[3].restart()
    world.join(world.nodes[3])
    key = number_key(0) + node_id_bytes(world.names[3])
    assert (world.nodes[3].epoch, world.nodes[3].store.get(SEALS, key)) == (1, None)
    world.greet(world.nodes[3])
    world.run(3_000)
    assert world.nodes[3].store.get(SEALS, key) is not None


# ---- through crashes, partitions and absence


def test_a_straggler_enters_when_it_hears_of_it_and_what_it_says_late_counts_for_nothing() -> None:
    world = EpochWorld()
    straggler = world.nodes[3]
    straggler.cut_off = True
    world.pay(4, 5, 100)
    world.run(500)
    world.pay(3, 5, 50)
    world.end(0, 1, 2)
    world.run(2_500)
    assert [node.epoch for node in world.nodes] == [1, 1, 1, 0, 1, 1]
    world.join(straggler)
    world.run(1_000)
    ended(world)
    assert world.nodes[0].balance(world.names[5]) == START_MICRO + 150


@pytest.mark.parametrize("seed", seeds(3))
def test_a_partition_in_the_middle_of_an_epochs_end_heals(seed: int) -> None:
    world, rng = EpochWorld(seed=seed), Random(seed)
    works(world)
    world.pay(4, 5, 1)
    world.end(0, 1, 2, 3)
    world.run(rng.randrange(50, 1_500))
    away = rng.sample(world.nodes, rng.randrange(1, 4))
    for node in away:
        node.cut_off = True
    world.run(rng.randrange(500, 6_000))
    for node in away:
        world.join(node)
    world.run(20_000)
    ended(world)
    works(world)


@pytest.mark.parametrize("seed", seeds(2))
def test_nodes_that_crash_at_any_step_go_on(seed: int) -> None:
    """Each loses a step now and then, and what it does after its start follows from its rows alone."""
    world, rng = EpochWorld(seed=seed), Random(seed)
    works(world)
    world.pay(4, 5, 1)
    world.end(0, 1, 2, 3)
    for _ in range(80):
        crash(world, rng.choice(world.nodes), rng.randrange(1, 6))
        world.run(100)
        world.catch_up()
    world.run(3_000)
    ended(world)
    for node in world.nodes:
        world.greet(node)
    world.run(3_000)
    works(world)


def crash(world: EpochWorld, node: Node, steps: int) -> None:
    node.crash_in = steps
    world.run(100)
    node.crash_in = 0
    world.greet(node)


def test_a_node_started_anew_after_each_step_comes_to_the_same() -> None:
    world = EpochWorld()
    world.pay(4, 5, 1)
    world.end(0, 1, 2, 3)
    for _ in range(30):
        for place in (0, 5):
            world.nodes[place].restart()
            world.greet(world.nodes[place])
        world.run(200)
    ended(world)


def test_a_witness_restored_from_an_epoch_that_is_over_learns_what_it_said_since_and_speaks() -> None:
    world = EpochWorld()
    works(world)
    restored = world.nodes[3]
    rows = MemoryStore()
    writes = {(table, key): value for table in restored.store.tables for key, value in restored.store.scan(table)}
    rows.commit(Batch(writes={**writes, (META, LEARN_KEY): b"\1"}))
    world.end(0, 1, 2, 3)
    world.run(2_500)
    works(world)
    restored.store, restored.sent = rows, 0
    restored.restart()
    restored.cut_off = True
    world.run(100)
    world.join(restored)
    ended(world)
    assert restored.machine.muted_why, "nobody has shown it what it holds"
    world.greet(restored)
    world.run(3_000)
    assert not restored.machine.muted_why
    world.nodes[2].cut_off = True
    world.pay(4, 5, 7)
    world.run(1_000)
    assert world.nodes[0].balance(world.names[5]) == START_MICRO + 21


@pytest.mark.parametrize("speaks", [True, False])
def test_a_restored_witness_learns_of_the_witnesses_of_now_and_not_of_those_who_were_replaced(speaks: bool) -> None:
    """It has rows of an epoch that is over, and of those whom it knows as witnesses it has heard all that they have of
    its own, before it has heard of the next epoch."""
    world = EpochWorld(witnesses=4, others=4)
    restored, retired, fresh = world.nodes[3], world.nodes[:3], world.nodes[4:7]
    works(world)
    restored.cut_off = True
    rows = MemoryStore()
    writes = {(table, key): value for table in restored.store.tables for key, value in restored.store.scan(table)}
    rows.commit(Batch(writes={**writes, (META, LEARN_KEY): b"\1"}))
    world.orders(1, *((place, 1_000) for place in (3, 4, 5, 6)))
    world.run(2_500)
    world.join(restored)
    for node in retired:
        node.cut_off = True
    if speaks:
        world.pay(3, 7, 9)
        world.run(500)
    own = restored.machine._chains.author(node_id_bytes(restored.name))
    restored.store, restored.sent = rows, 0
    restored.restart()
    for node in fresh:
        node.cut_off = True
    for node in retired:
        node.cut_off = False
    world.greet(restored, *retired)
    world.run(40_000)
    assert "it was restored" in restored.machine.muted_why, "they have entered an epoch of which it knows nothing"
    for node in (*retired, *fresh):
        world.join(node)
    world.greet(restored, *retired)
    world.run(3_000)
    assert (restored.epoch, restored.machine.muted_why != "") == (1, True), "they are no witnesses of this one"
    world.greet(restored, *fresh)
    world.run(3_000)
    assert not restored.machine.muted_why
    assert restored.machine._chains.author(node_id_bytes(restored.name)).height >= own.height
    assert not any(author.frozen for node in world.nodes for author in node.machine._chains.authors.values())
    fresh[0].cut_off = True
    world.pay(7, 4, 5)
    world.run(1_000)
    assert world.nodes[7].views.account(world.names[7]).next_seq == 1


def test_what_somebody_holds_who_stands_in_another_epoch_gives_a_started_witness_no_voice() -> None:
    world = EpochWorld()
    late = world.nodes[3]
    late.cut_off = True
    world.end(0, 1, 2)
    world.run(2_500)
    late.restart()
    world.greet(late)
    world.run(3_000)
    assert not late.machine._voice.may_witness
    world.join(late)
    world.greet(late)
    assert late.machine._voice.may_witness


def test_one_that_joins_after_three_epochs_takes_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "EPOCHS_KEPT", 3)
    world = EpochWorld()
    late = world.nodes[5]
    late.cut_off = True
    for epoch in (1, 2, 3):
        world.pay(4, 0, epoch)
        world.run(500)
        if epoch == 2:
            world.orders(2, *EQUAL, (4, 1_000))
        else:
            world.end(0, 1, 2, 3, *([4] if epoch == 3 else []))
        world.run(2_500)
    assert [node.epoch for node in world.nodes] == [3, 3, 3, 3, 3, 0]
    world.join(late)
    ended(world, 3)
    works(world)


def test_an_epoch_ends_though_more_accounts_are_about_to_pay_than_a_cut_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuts, "TARGET_BYTES_MAX", 4 * 61)
    world = EpochWorld(4, 6)
    world.end(0, 1, 2, 3)
    world.exchange()
    world.now_ms += 950
    for place in range(4, 9):
        world.pay(place, 9, 100)
    for node in world.nodes[4:]:
        rows = [*node.store.scan(LOG, number_key(node.sent + 1))]
        for witness in world.nodes[:4] if rows else ():
            world.hand(witness, node, [world.checked(raw) for _, raw in rows])
    world.now_ms += 200
    for node in world.nodes:
        node.step(Woke())
    world.run(5_000)
    ended(world)
    assert world.nodes[0].balance(world.names[9]) == START_MICRO + 500, "what had no room went on in the next epoch"


def test_witnesses_that_have_confirmed_each_something_else_go_on_with_what_most_have_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a partition: 16 payments are on their way, and each witness hears of four of them first."""
    monkeypatch.setattr(cuts, "TARGET_BYTES_MAX", 4 * 4 * 61)  # four confirms for each witness
    world = EpochWorld(4, 16)
    owners = world.nodes[4:]
    for place in range(4, 20):
        world.pay(place, (place - 3) % 16 + 4, 100)
    for turn in range(16):
        for place, witness in enumerate(world.nodes[:4]):
            owner = owners[(turn + 4 * place) % 16]
            world.hand(witness, owner, [world.checked(raw) for raw in owner.blocks])
    world.run(2_500)
    ended(world, 0)
    assert [owner.views.account(owner.name).next_seq for owner in owners] == [1] * 16
    assert not any(node.machine._epochs.wished for node in world.nodes)


def test_where_witnesses_have_confirmed_each_something_else_and_have_no_room_the_epoch_ends_and_all_is_paid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuts, "TARGET_BYTES_MAX", 4 * 61)  # one confirm for each witness
    monkeypatch.setattr(turning, "FULL_MS", 3_000)
    world = EpochWorld(4, 8)
    owners = world.nodes[4:]
    for place in range(4, 12):
        world.pay(place, (place - 3) % 8 + 4, 100)
    for turn in range(8):
        for place, witness in enumerate(world.nodes[:4]):
            owner = owners[(turn + 2 * place) % 8]
            world.hand(witness, owner, [world.checked(raw) for raw in owner.blocks])
    world.run(2_500)
    assert [owner.views.account(owner.name).next_seq for owner in owners] == [0] * 8, "nothing moves"
    world.run(4_000)
    ended(world)
    assert [owner.views.account(owner.name).next_seq for owner in owners] == [1] * 8
