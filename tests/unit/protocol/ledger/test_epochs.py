"""Epochs end and begin: whole machines that hear each other, or do not."""

from __future__ import annotations

from epoch_world import HOUR_MS, EpochWorld

from offgrid_tools.ledgersim.keys import FEE, START_MICRO


def test_an_epoch_ends_with_the_same_committee_when_its_time_is_over_and_pays_the_fees() -> None:
    world = EpochWorld()
    world.pay(4, 5, 100)
    world.run(500)
    world.agree()
    assert world.nodes[5].balance(world.names[5]) == START_MICRO + 100
    world.run(2_000)
    assert world.nodes[0].epoch == 0, "its time is not over"
    world.now_ms += HOUR_MS
    world.run(3_000)
    world.agree()
    assert world.nodes[0].epoch == 1
    last = world.nodes[0].checkpoint(0)
    assert last.witnesses == world.genesis.witnesses
    assert world.nodes[3].balance(world.names[3]) == START_MICRO + FEE // 4
    world.pay(4, 5, 100)
    world.run(500)
    world.agree()
    assert world.nodes[5].balance(world.names[5]) == START_MICRO + 200
