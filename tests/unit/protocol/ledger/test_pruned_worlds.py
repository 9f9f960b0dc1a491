"""Whole machines that prune: they agree as before, whoever is a little behind finds its way, and snapshots hold."""

from __future__ import annotations

import pytest
from epoch_world import EpochWorld, Node, turn

from offgrid_node.protocol.effects import Asked
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, seal_block
from offgrid_node.protocol.ledger.checkpoints import accounts_root
from offgrid_node.protocol.ledger.commands import PushBlocks
from offgrid_node.protocol.ledger.indexes import wrong_rows
from offgrid_node.protocol.ledger.items import Seen
from offgrid_node.protocol.ledger.snapshots import ENTRY_BYTES, accounts_at, page_of
from offgrid_node.protocol.ledger.tables import BEFORE, LOG
from offgrid_tools.ledgersim.keys import SALT, Key


def roots(node: Node) -> dict[int, bool]:
    """By epoch: whether the snapshot of its beginning has the root of the checkpoint before it."""
    oldest = max(node.machine._pruning.oldest, 1)
    return {
        epoch: accounts_root([*accounts_at(node.store, epoch, node.epoch)], SALT) == node.checkpoint(epoch - 1).accounts
        for epoch in range(oldest, node.epoch + 1)
    }


def test_logs_stop_growing_and_snapshots_of_what_is_kept_have_the_roots_of_their_checkpoints() -> None:
    world = EpochWorld()
    sizes = []
    for _ in range(5):
        turn(world)
        world.agree()
        sizes.append(max(len([*node.store.scan(LOG)]) for node in world.nodes))
        for node in world.nodes:
            assert all(roots(node).values()), roots(node)
            assert not [*wrong_rows(node.store, SALT)]
    assert sizes[-1] <= sizes[1] * 1.2, sizes
    assert roots(world.nodes[0]).keys() == {4, 5}
    assert {key[7] for key, _ in world.nodes[0].store.scan(BEFORE)} <= {4, 5}


def test_who_missed_an_epoch_catches_up_by_blocks_though_others_have_pruned() -> None:
    world = EpochWorld()
    turn(world)
    world.nodes[3].cut_off = True
    turn(world)
    world.join(world.nodes[3])
    world.run(2_000)
    world.agree()
    turn(world)
    world.agree()


def test_pruning_goes_on_where_a_node_is_started_anew_after_each_epoch() -> None:
    world = EpochWorld()
    for number in range(4):
        turn(world)
        node = world.nodes[number]
        node.restart()
        world.greet(node)
        world.run(500)
        world.agree()
    assert all(node.machine._pruning.oldest == 3 for node in world.nodes)


def test_a_snapshot_is_told_page_by_page_while_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.ledger.snapshots.PAGE_ACCOUNTS", 4)
    world = EpochWorld()
    for _ in range(3):
        turn(world)
    store, now, oldest = world.nodes[0].store, world.nodes[0].epoch, world.nodes[0].machine._pruning.oldest
    first, last = page_of(store, now, now, oldest, b"")
    assert not last
    second, last = page_of(store, now, now, oldest, first[-ENTRY_BYTES:][:20])
    assert last
    assert first + second == b"".join(accounts_at(store, now, now))
    for epoch in (0, oldest - 1, now + 1):
        with pytest.raises(NotFound, match=f"{oldest} to {now}"):
            page_of(store, epoch, now, oldest, b"")


def test_nobody_leans_on_what_goes_here_sooner_of_one_who_forked_below_its_head() -> None:
    world = EpochWorld(4, 4)
    liar, other = (world.nodes.pop(4).name for _ in range(2))
    name, slow = node_id_bytes(liar), world.nodes[0]

    def made(by: str, height: int, prev: bytes, seen: bytes, epoch: int = 0) -> CheckedBlock:
        says = [Seen(name, seen)]
        return seal_block(node_id_bytes(by), height, prev, (), says, world.now_ms, Key(by), SALT, epoch=epoch)

    def brought(*blocks: CheckedBlock) -> None:
        for node in world.nodes:
            node.step(Asked(2, other, PushBlocks(other, blocks)))

    def held(block: CheckedBlock) -> list[bool]:
        return [node.machine._chains.place(block.digest) is not None for node in world.nodes]

    def ended() -> None:
        world.pay(4, 5, 10)
        world.end(0, 1, 2)
        for _ in range(100):
            slow.machine._pruning._due_ms = None
            world.run(50)

    first, before = made(liar, 1, world.root, bytes(32)), made(other, 1, world.root, bytes(32))
    second = made(liar, 2, first.digest, bytes(32))
    brought(first, second, before)
    ended()
    brought(made(liar, 1, world.root, b"\1" * 32))  # below its head in the checkpoint
    beside = made(liar, 3, second.digest, bytes(32))
    before = made(other, 2, before.digest, beside.digest, 1)
    brought(before)
    brought(beside)
    assert all(held(beside)), "it leads back to the checkpoint"
    ended()
    ended()
    assert held(beside) == [True, False, False, False, False, False]
    above = made(liar, 4, beside.digest, bytes(32), 3)
    brought(made(other, 3, before.digest, above.digest, 3))
    brought(above)
    assert not any(held(above)), "the checkpoint says that its author forked"
