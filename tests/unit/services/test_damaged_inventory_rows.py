"""A host whose inventory has a damaged row: the replica's row says the same, so nothing waits for it, and it is mended.
What goes, goes; what stays is vouched for anew."""

from __future__ import annotations

from functools import reduce

import pytest
from bulk_world import Node, World
from test_damaged_replica_rows import damage
from test_draining import DATA, drain, holder, holders, kept, put, survives
from test_gone import GRACE_MS, drop, remove

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.inventory import (
    NOTHING_KEPT,
    Holding,
    counted,
    holdings_of,
    inventory_key,
    summary_of,
)
from offgrid_node.protocol.objects.measuring import REPORT_GAP_MS
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.tables import GONE, KEPT, KEPT_BYTES, REPLICAS, number_key, number_of
from offgrid_node.services.objects.inventories import replicas_lost
from offgrid_node.storage.store import Batch


def damage_kept(world: World, host: Node, object_id: str) -> None:
    host.store.damage(KEPT, inventory_key(world.owner.node_id, object_id))


def kept_bytes(world: World, host: Node) -> int:
    return number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"")


def listed(world: World, host: Node) -> int:
    """How many the inventory's rows name; each is sound, and their sum says the same."""
    holdings = [*holdings_of(host.store, KEPT, world.owner.node_id)]
    summed = reduce(lambda summary, holding: counted(summary, holding, 1), holdings, NOTHING_KEPT)
    assert summed == summary_of(host.store, KEPT, world.owner.node_id)
    return len(holdings)


@pytest.mark.parametrize("code", [None, (2, 4)])
def test_a_drain_ends_though_the_inventory_cannot_say_what_is_here(code: tuple[int, int] | None) -> None:
    world = World(5)
    ids = [put(world, f"object {n}", code=code) for n in range(4)]
    host = holder(world, ids[0])
    damage_kept(world, host, ids[0])
    drain(world, host)
    for _ in range(10):
        world.pass_ms(REPORT_GAP_MS)
        assert all(survives(world, object_id) for object_id in ids)
    assert (kept(world, host), listed(world, host), kept_bytes(world, host)) == (0, 0, 0)
    assert not [*host.blobs.names()]


def test_what_is_deleted_goes_though_the_inventory_cannot_say_what_is_here() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(3)]
    host = world.hosts[0]
    damage_kept(world, host, ids[1])
    for object_id in ids:
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
    world.pass_ms(2 * GATHER_MS)
    assert (kept(world, host), listed(world, host), kept_bytes(world, host)) == (0, 0, 0)
    assert not [*host.blobs.names()]
    assert not [*host.store.scan(REPLICAS)]


def test_a_deletion_that_cannot_be_heeded_now_is_heeded_later() -> None:
    world = World(2)
    object_id = put(world, "object")
    host, size = world.hosts[0], (KEPT_BYTES, world.owner.node_id.encode())
    host.store.damage(*size)
    world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
    world.pass_ms(2 * GATHER_MS)
    assert [*host.store.scan(REPLICAS)]
    host.store.commit(Batch(writes={size: number_key(len(DATA))}))
    for _ in range(60):
        world.pass_ms(60_000)
    assert not [*host.store.scan(REPLICAS)]


def test_a_host_starts_and_compares_and_what_else_it_lost_is_brought_again() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(3)]
    host, owner = world.hosts[0], world.owner.node_id
    damage_kept(world, host, ids[1])
    assert replicas_lost(host.store, host.blobs) == []
    host.blobs.delete(ids[0])
    assert replicas_lost(host.store, host.blobs) == [ReplicasLost(owner, (Holding(ids[0], (0,)),))]
    host.restart()
    for _ in range(60):
        world.pass_ms(60_000)
    assert host.blobs.size(ids[0]) is not None
    assert listed(world, host) == len(ids)


def test_a_removed_owners_goes_with_the_others() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(3)]
    host = world.hosts[0]
    remove(world, host)
    damage_kept(world, host, ids[1])
    world.clock.mono_ms += GRACE_MS
    assert drop(world, host).dropped == 3
    assert not [*host.blobs.names()]


def test_a_removed_owners_goes_though_nobody_can_say_what_it_is() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(3)]
    host = world.hosts[0]
    remove(world, host)
    damage_kept(world, host, ids[1])
    damage(world, host, ids[1])
    world.clock.mono_ms += GRACE_MS
    drop(world, host)
    assert drop(world, host).left == 0
    assert not [*host.store.scan(REPLICAS)]
    assert not [*host.store.scan(GONE)]


def test_an_audit_finds_that_the_inventory_cannot_say_what_is_here() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(2)]
    host = world.hosts[0]
    before = kept_bytes(world, host)
    damage_kept(world, host, ids[0])
    world.log.clear()
    for object_id in ids:
        world.owner.ask("AuditObject", objects_pb2.AuditObjectRequest(object=object_id))
    world.pass_ms(60_000)
    assert "WriteReplica" not in world.log, "its bytes were there"
    assert (listed(world, host), kept_bytes(world, host)) == (2, before)
    assert holders(world, ids[0]) == {each.node_id for each in world.hosts}
