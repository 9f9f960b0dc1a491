"""Whole machines that prune: they agree as before, whoever is a little behind finds its way, and snapshots hold."""

from __future__ import annotations

import pytest
from epoch_world import EpochWorld, Node, turn

from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.ledger.checkpoints import accounts_root
from offgrid_node.protocol.ledger.indexes import wrong_rows
from offgrid_node.protocol.ledger.snapshots import ENTRY_BYTES, accounts_at, page_of
from offgrid_node.protocol.ledger.tables import BEFORE, LOG
from offgrid_tools.ledgersim.keys import SALT


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
