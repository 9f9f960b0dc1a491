"""Whom the outbox's worker asks, by what hosts said of themselves: none that takes nothing, the drained one's go on."""

from __future__ import annotations

import pytest
from object_world import HostSpec, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.commands import Findings, HostsChosen, TakeFindings
from offgrid_node.protocol.quorum.records import Epoch

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


def test_what_a_drained_host_holds_weighs_nothing_where_more_is_required_than_copies_are_wanted() -> None:
    world = town(hosts=4, copies=2)
    object_id = world.put(1, 3_000)
    world.run(FACTS_AGAIN_MS)
    assert len(world.holders(object_id)) == 3
    (spare,) = {host.node_id for host in world.hosts} - world.holders(object_id)
    drained = next(place for place, host in enumerate(world.hosts) if host.node_id != spare)
    say(world, drained, REFUSING["drained"])
    world.run(FACTS_AGAIN_MS)
    assert spare in world.holders(object_id)


def test_what_a_drained_host_holds_of_what_was_long_done_goes_to_another() -> None:
    world = town(hosts=3, copies=2)
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    (spare,) = {host.node_id for host in world.hosts} - world.holders(object_id)
    drained = next(place for place, host in enumerate(world.hosts) if host.node_id != spare)
    say(world, drained, REFUSING["drained"])
    world.run()
    assert spare in world.holders(object_id)


def test_a_drained_host_may_go_once_a_user_has_the_others_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    world = town(hosts=3, copies=2)
    object_id = world.put(1)
    world.run(FACTS_AGAIN_MS)
    drained = next(place for place, host in enumerate(world.hosts) if host.node_id in world.holders(object_id))
    monkeypatch.setattr(world, "audit", lambda *audit: None)
    say(world, drained, REFUSING["drained"])
    world.run(FACTS_AGAIN_MS)
    row = world.object(object_id)
    assert len(world.holders(object_id)) == 3
    assert not world.moved
    whole = tuple((ack.node_id, (0,)) for ack in row.object.acks)
    found = Findings(object_id, Epoch.decode(row.epoch.body).epoch, whole, ())
    world.owner.runtime.ask("objects", "admin", TakeFindings(found))
    world.turn_owner()
    world.run(FACTS_MS)
    assert world.moved == {(object_id, world.hosts[drained].node_id)}


def unasked(world: World, place: int, number: int) -> str:
    """An object that this host keeps, though no ack of it ever counted; two others have it."""
    host = world.hosts[place]
    for _ in range(20):
        host.lies = True
        object_id = world.put(number)
        world.run(FACTS_AGAIN_MS)
        host.lies, number = False, number + 1
        if object_id in host.blobs:
            assert len(world.object(object_id).object.acks) == 2
            assert host.node_id in Epoch.decode(world.object(object_id).epoch.body).weights
            return object_id
    raise AssertionError("it was never chosen")


def test_what_a_drained_host_keeps_and_never_acked_goes_too() -> None:
    world = town(hosts=3, copies=2)
    object_id, host = unasked(world, 0, 1), world.hosts[0]
    say(world, 0, REFUSING["drained"])
    world.run()
    assert (object_id, host.node_id) in world.moved
    assert host.node_id not in Epoch.decode(world.object(object_id).epoch.body).weights
    assert len(world.object(object_id).object.acks) == 2


def test_who_keeps_unasked_what_others_have_is_left_alone_while_it_stays() -> None:
    world = town(hosts=3, copies=2)
    object_id = unasked(world, 0, 1)
    epoch = world.object(object_id).epoch.body
    world.run()
    assert world.object(object_id).epoch.body == epoch
    assert not world.moved


def test_an_owner_that_names_its_hosts_gives_no_other_anything_new() -> None:
    world = town(hosts=3, copies=3)
    kept = world.put(1)
    world.run(FACTS_AGAIN_MS)
    world.owner.runtime.deliver("objects", HostsChosen(frozenset({world.hosts[2].node_id})))
    world.run(FACTS_MS)
    object_id = world.put(2, 2_000)
    world.run(FACTS_AGAIN_MS)
    assert world.holders(object_id) == {world.hosts[2].node_id}
    assert len(world.holders(kept)) == 3, "what others hold stays"
    world.owner.runtime.deliver("objects", HostsChosen(frozenset(host.node_id for host in world.hosts)))
    world.run(FACTS_AGAIN_MS)
    assert world.entry(object_id).status == objects_pb2.OUTBOX_STATUS_COMPLETED
