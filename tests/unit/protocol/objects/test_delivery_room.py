"""Whom the outbox's worker asks, by what hosts said of themselves: none that takes nothing, the drained one's go on."""

from __future__ import annotations

import pytest
from object_world import HostSpec, World

from offgrid.v1 import objects_pb2

FACTS_MS = 2_000  # by then hosts that came were asked once
FACTS_AGAIN_MS = 80_000
REFUSING = {
    "no room": objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=9),
    "storage off": objects_pb2.GetCapacityResponse(owner_free_bytes=10**12),
    "drained": objects_pb2.GetCapacityResponse(keeps_replicas=True, owner_free_bytes=10**12, drained=True),
}


def town(hosts: int, copies: int = 2) -> World:
    world = World([HostSpec() for _ in range(hosts)], copies=copies)
    world.meet(*range(hosts))
    world.run(FACTS_MS)
    return world


def say(world: World, place: int, capacity: objects_pb2.GetCapacityResponse) -> None:
    world.specs[place].capacity = capacity
    world.run(FACTS_AGAIN_MS)


@pytest.mark.parametrize("why", REFUSING)
def test_who_takes_nothing_is_not_asked_and_is_once_it_does(why: str) -> None:
    world = town(hosts=2)
    able = world.specs[1].capacity
    say(world, 1, REFUSING[why])
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    assert world.ships == [(object_id, world.hosts[0].node_id)]
    assert "`offgrid placement explain` says of each why" in world.entry(object_id).trouble
    say(world, 1, able)
    assert world.holders(object_id) == {host.node_id for host in world.hosts}
    assert world.entry(object_id).status == objects_pb2.OUTBOX_STATUS_COMPLETED


def test_what_is_durable_gets_its_other_copies_once_there_is_room_for_them() -> None:
    world = town(hosts=3, copies=3)
    able = world.specs[1].capacity
    say(world, 1, REFUSING["no room"])
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    assert len(world.holders(object_id)) == 2
    say(world, 1, able)
    assert len(world.holders(object_id)) == 3


def test_a_host_that_could_take_it_joins_the_epoch_in_place_of_one_that_has_no_room() -> None:
    world = World([HostSpec() for _ in range(3)], copies=2)
    world.meet(0, 1)
    say(world, 1, REFUSING["no room"])
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    assert len(world.holders(object_id)) == 1
    world.meet(2)
    world.run(FACTS_AGAIN_MS)
    assert world.holders(object_id) == {world.hosts[0].node_id, world.hosts[2].node_id}


def test_a_copy_at_a_host_that_is_drained_is_none_of_the_wanted_ones() -> None:
    world = town(hosts=4, copies=3)
    world.lose(2)
    world.lose(3)
    object_id = world.put(1)
    world.run(FACTS_MS)
    assert len(world.holders(object_id)) == 2
    say(world, 0, REFUSING["drained"])
    world.return_(2)
    world.return_(3)
    world.run(FACTS_AGAIN_MS)
    assert len(world.holders(object_id)) == 4


def test_what_a_drained_host_holds_of_what_was_long_done_goes_to_another() -> None:
    world = town(hosts=3, copies=2)
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    (spare,) = {host.node_id for host in world.hosts} - world.holders(object_id)
    drained = next(place for place, host in enumerate(world.hosts) if host.node_id != spare)
    say(world, drained, REFUSING["drained"])
    world.run()
    assert spare in world.holders(object_id)
