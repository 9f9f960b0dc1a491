"""What was open at a node that begins at a checkpoint: of its own and of others, sent and not sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from test_bootstrap import agree, ended, settle
from test_missed import away, opened

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.commands import SendTransaction, SignTransaction
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.records import BY_HAND, Tx
from offgrid_node.protocol.ledger.tables import IN_FLIGHT, SLOTS, TX_INDEX, TXS
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.ledgersim.whole.world import World

SIGNED, FINAL = ledger_pb2.TX_STATE_SIGNED, ledger_pb2.TX_STATE_FINAL
VOID, UNKNOWN = ledger_pb2.TX_STATE_VOID, ledger_pb2.TX_STATE_UNKNOWN


def states(node: Node, payer: Node) -> dict[int, int]:
    """Of what the payer paid, by amount."""
    rows = [ledger_pb2.TxRow.FromString(row) for _, row in node.store.scan(TXS)]
    txs = [(Tx.decode(row.signed.body), row.state) for row in rows]
    return {tx.outputs[0][1]: state for tx, state in txs if tx.src == node_id_bytes(payer.node_id)}


def open_slots(node: Node, payer: Node) -> int:
    return len([*node.store.scan(SLOTS, prefix=node_id_bytes(payer.node_id))])


def received(node: Node) -> int:
    """How many are in its own list."""
    return sum(len(names) // 32 for _, names in node.store.scan(TX_INDEX, prefix=node_id_bytes(node.node_id)))


def seen_by_payee(amount: int) -> tuple[World, Node, Node]:
    """Payer and payee are apart from all others, and so know of a payment, and no more of it."""
    world, payer, payee = opened()
    world.sides = {payer.node_id: 1, payee.node_id: 1}
    payer.transfer(payee.node_id, amount)
    world.run(3_000)
    assert states(payee, payer) == {amount: SIGNED}
    return world, payer, payee


def test_a_payment_that_became_final_meanwhile_is_so_here() -> None:
    world, payer, payee = seen_by_payee(4_321)
    away(world, payee)
    assert (states(payee, payer), received(payee)) == ({4_321: SIGNED}, 0)
    settle(world)
    assert (states(payee, payer), received(payee), open_slots(payee, payer)) == ({4_321: FINAL}, 1, 0)
    assert Surveys(payee.store).balance(payee.node_id, own=True).pending_in_micro == 0


def test_of_two_payments_the_later_one_says_what_came_before_it() -> None:
    world, payer, payee = opened()
    world.sides = {payee.node_id: 1}
    for amount in (11, 22):
        payer.transfer(payee.node_id, amount)
        world.run(5_000)
    for digest, _ in payer.store.scan(TXS):  # which the payee is given, and nothing of what was said of them
        known = payer.machine._transactions.get(digest)
        assert known is not None
        payee.machine._witness.on_tx(known.item, payee.now())
    away(world, payee)
    assert states(payee, payer) == {11: SIGNED, 22: SIGNED}
    settle(world)
    assert (states(payee, payer), received(payee), open_slots(payee, payer)) == ({11: FINAL, 22: FINAL}, 2, 0)


def test_a_payment_behind_which_others_came_is_unknown() -> None:
    world, payer, payee = seen_by_payee(4_321)
    world.sides = {payee.node_id: 1}
    world.run(10_000)
    payer.transfer(world.names[0], 5)
    world.run(10_000)
    away(world, payee)
    settle(world)
    assert (states(payee, payer), open_slots(payee, payer)) == ({4_321: UNKNOWN}, 0)
    payer.transfer(payee.node_id, 6)
    world.run(10_000)
    assert states(payee, payer) == {4_321: UNKNOWN, 6: FINAL}


def test_a_payment_in_whose_slot_another_is_final_is_void() -> None:
    world, payer, payee = seen_by_payee(4_321)
    world.sides = {payee.node_id: 1}
    payer.restore(MemoryStore(), knowing=True)
    world.run(30_000)
    payer.transfer(world.names[0], 5)
    world.run(10_000)
    away(world, payee)
    settle(world)
    assert states(payee, payer)[4_321] == VOID


def test_a_payment_that_nobody_else_has_heard_of_goes_on() -> None:
    world, payer, payee = seen_by_payee(4_321)
    for _ in range(4):
        ended(world, without=(payer.node_id, payee.node_id))
    world.sides = {payer.node_id: 1}
    before = payee.epoch
    while payee.epoch == before:
        world.run(1)
    assert (states(payee, payer), open_slots(payee, payer)) == ({4_321: SIGNED}, 1)
    assert Surveys(payee.store).balance(payee.node_id, own=True).pending_in_micro == 4_321
    settle(world)
    assert {node.node_id: states(node, payer) for node in world.nodes.values()} == {
        node: {4_321: FINAL} for node in world.nodes
    }


def signed_by_hand(payer: Node, payee: Node) -> TxItem:
    machine, own = payer.machine, node_id_bytes(payer.node_id)
    to = ((node_id_bytes(payee.node_id), 777),)
    payer.ask(SignTransaction(machine._wallet.lanes.draft(own, to, machine._wallet.fee_micro, b"", BY_HAND)))
    known = machine._transactions.get(machine._wallet.lanes.in_flight(own))
    assert known is not None
    return known.item


def test_what_was_signed_by_hand_and_not_sent_is_so_still() -> None:
    world, payer, payee = opened()
    item = signed_by_hand(payer, payee)
    away(world, payer)
    settle(world)
    assert payer.machine._wallet.lanes.is_unsent(item.tx.src)
    assert [*Surveys(payer.store).unsent()] == [item.digest]
    payer.ask(SendTransaction(item, owner_is_up=True))
    world.run(5_000)
    assert all(states(node, payer) == {777: FINAL} for node in world.nodes.values())
    agree(world)


def test_what_was_signed_by_hand_and_sent_elsewhere_is_final() -> None:
    world, payer, payee = opened()
    item = signed_by_hand(payer, payee)
    world.sides = {payer.node_id: 1}
    payee.ask(SendTransaction(item, owner_is_up=False))
    world.run(5_000)
    away(world, payer)
    settle(world)
    assert (states(payer, payer), [*payer.store.scan(IN_FLIGHT)]) == ({777: FINAL}, [])
    payer.transfer(payee.node_id, 5)
    world.run(5_000)
    assert states(payer, payer) == {777: FINAL, 5: FINAL}


def test_no_list_of_transactions_is_read_as_it_begins() -> None:
    world, payer, payee = opened()
    world.cost(payer.node_id, "j-1", payee.node_id, 1_000)
    world.run(10_000)
    assert payer.machine._holding.given.all()
    away(world, payer)
    read, step, store = set[str](), payer.step, payer.store
    scan = store.scan

    def noting(table: str, start: bytes = b"", **how: bytes) -> Iterator[tuple[bytes, bytes]]:
        read.add(table)
        return scan(table, start, **how)

    def noted_step(inputs: Sequence[object]) -> None:
        bootstrap = payer.machine._bootstrap
        enters = bootstrap.enters(payer.now()) and not bootstrap.entered
        if enters:
            store.scan = noting  # type: ignore[method-assign,assignment]
        step(inputs)
        if enters:
            store.scan = scan  # type: ignore[method-assign]

    payer.step = noted_step  # type: ignore[method-assign]
    settle(world)
    assert SLOTS in read
    assert not read & {TX_INDEX, TXS}
