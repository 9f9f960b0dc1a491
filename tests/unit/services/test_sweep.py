"""What survives the sweep at start: blobs that a row names, and those of which a damaged row may."""

from __future__ import annotations

from bulk_world import World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.jobs.held import HELD
from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, replica_key
from offgrid_node.services.objects.room import is_known
from offgrid_node.storage.store import Batch


def test_an_owners_copy_is_known_until_it_was_dropped() -> None:
    world = World()
    for host in world.hosts:
        host.up = False
    made = world.owner.put(b"x")
    assert is_known(world.owner.store, made.object_id)
    for host in world.hosts:
        host.up = True
    world.pass_ms(60_000)
    assert not world.owner.info(made.object_id).local
    assert not is_known(world.owner.store, made.object_id), "a crash may have come before the file was deleted"


def test_a_replica_is_known_and_what_no_row_names_is_not() -> None:
    world = World()
    made = world.owner.put(b"x", required_milli=3_000)
    for host in world.hosts:
        assert is_known(host.store, made.object_id)
        assert not is_known(host.store, "o-" + "a" * 32)


def test_a_file_beside_a_row_is_known_as_long_as_some_owner_has_it_as_a_file() -> None:
    """Of two owners of the same bytes one brought them in one call: the other's file is not kept for that row."""
    world = World(1)
    made, host = world.owner.put(b"x", required_milli=1_000), world.hosts[0]
    name, store = made.object_id, host.store
    assert is_known(store, name)
    store.commit(Batch(writes={(SMALL, small_key(name, world.owner.node_id)): b"sealed"}))
    assert not is_known(store, name), "what this owner has here is the row"
    store.commit(Batch(writes={(SMALL, small_key(name, "another")): b"sealed"}))
    store.commit(Batch(writes={(SMALL, small_key(name, world.owner.node_id)): None}))
    assert is_known(store, name), "another's row is none of this one's"


def test_what_waits_for_its_job_to_accept_it_is_known() -> None:
    host = World(1).hosts[0]
    host.store.commit(Batch(writes={(HELD, b"o-held"): b""}))
    assert is_known(host.store, "o-held")


def test_a_row_that_cannot_be_read_may_name_it() -> None:
    world = World(1)
    made, host = world.owner.put(b"x", required_milli=1_000), world.hosts[0]
    host.store.damage(REPLICAS, replica_key(made.object_id, world.owner.node_id))
    assert is_known(host.store, made.object_id)
    row = objects_pb2.ObjectRow(object=objects_pb2.Object(object_id=made.object_id))
    host.store.commit(Batch(writes={(OBJECTS, b"o-other"): row.SerializeToString()}))
    host.store.damage(OBJECTS, b"o-other")
    assert is_known(host.store, "o-other")
