"""A host whose store has damaged the row of a replica: the owner hears of it, nothing else waits for it, and it goes,
or is replaced, like any other."""

from __future__ import annotations

import pytest
from bulk_world import Node, World
from test_draining import DATA, drain, holder, holders, kept, put, survives
from test_small_objects import SmallWorld, rows_of

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.errors import NotFound
from offgrid_node.protocol.objects import expiry
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.expiry import DAY_MS, HOUR_MS, LOOK_MS
from offgrid_node.protocol.objects.inventory import Holding, inventory_key
from offgrid_node.protocol.objects.measuring import REPORT_GAP_MS
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.small import SMALL, SMALL_BYTES_MAX
from offgrid_node.protocol.objects.tables import (
    DROPPED,
    KEPT,
    KEPT_BYTES,
    REPLICAS,
    REPLICAS_EXPIRING,
    expiring_key,
    number_of,
    replica_key,
)
from offgrid_node.storage.store import Batch


def damage(world: World, host: Node, object_id: str) -> bytes:
    key = replica_key(object_id, world.owner.node_id)
    host.store.damage(REPLICAS, key)
    return key


def outcomes(host: Node, object_id: str) -> list[str]:
    events = [state_pb2.Event.FromString(event) for _, event in host.store.events()]
    return [event.object.outcome for event in events if event.subject == object_id]


@pytest.mark.parametrize("code", [None, (2, 4)])
def test_a_drain_ends_and_names_it(code: tuple[int, int] | None) -> None:
    world = World(5)
    ids = [put(world, f"object {n}", code=code) for n in range(4)]
    host = holder(world, ids[0])
    damage(world, host, ids[0])
    drain(world, host)
    for _ in range(10):
        world.pass_ms(REPORT_GAP_MS)
        assert all(survives(world, object_id) for object_id in ids)
    assert kept(world, host) == 0
    assert not [*host.blobs.names()]
    assert "replica dropped, its row was damaged" in outcomes(host, ids[0])
    host.up = False
    for n, object_id in enumerate(ids):
        assert host.node_id not in holders(world, object_id)
        assert world.owner.read(f"object {n}") == DATA


def test_what_is_deleted_goes_and_keeps_no_other_deletion_from_being_heard() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(3)]
    host = world.hosts[0]
    damage(world, host, ids[1])
    for object_id in ids:
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
    world.pass_ms(2 * GATHER_MS)
    assert kept(world, host) == 0
    assert not [*host.blobs.names()]
    assert not [*host.store.scan(REPLICAS)]
    assert all(host.store.get(DROPPED, replica_key(object_id, world.owner.node_id)) for object_id in ids)


def put_for(world: World, name: str, days: int) -> str:
    """It expires after so many."""
    request = objects_pb2.OpenUploadRequest(name=name, expires_after_ms=days * DAY_MS)
    opened = world.owner.ask("OpenUpload", request)
    world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=name.encode()))
    commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(name))
    object_id: str = world.owner.ask("CommitUpload", commit).object.object_id
    world.pass_ms(60_000)
    return object_id


def test_when_it_would_have_expired_nobody_says_so_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "ACTS_MAX", 2)
    world = World(2)
    host, ids = world.hosts[0], [put_for(world, "a", 1), put_for(world, "b", 1), put_for(world, "c", 2)]
    for object_id in ids[:2]:
        damage(world, host, object_id)
    world.owner.up = False
    for _ in range(4 * 24):
        world.pass_ms(HOUR_MS)
    assert not [*host.store.scan(REPLICAS)]
    assert not [*host.store.scan(REPLICAS_EXPIRING)]
    assert not [*host.blobs.names()]


def test_what_came_back_under_its_id_goes_at_its_own_time() -> None:
    world = World(2)
    host, object_id = world.hosts[0], put_for(world, "a", 30)
    stale = expiring_key(1, replica_key(object_id, world.owner.node_id).decode())
    host.store.commit(Batch(writes={(REPLICAS_EXPIRING, stale): b""}))
    host.restart()
    world.pass_ms(2 * LOOK_MS)
    assert kept(world, host) == 1
    assert host.store.get(REPLICAS_EXPIRING, stale) is None
    assert len([*host.store.scan(REPLICAS_EXPIRING)]) == 1


def test_an_audit_finds_it_and_the_owner_has_it_vouched_for_anew() -> None:
    world = World(2)
    ids = [put(world, f"object {n}") for n in range(2)]
    host = world.hosts[0]
    key = damage(world, host, ids[0])
    before = number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"")
    world.log.clear()
    for object_id in ids:
        world.owner.ask("AuditObject", objects_pb2.AuditObjectRequest(object=object_id))
    world.pass_ms(60_000)
    assert world.log.count("OpenReplica") == 1
    assert holders(world, ids[0]) == {each.node_id for each in world.hosts}
    assert host.store.get(REPLICAS, key) is not None
    assert "WriteReplica" not in world.log, "its bytes were there"
    assert number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"") == before


@pytest.mark.parametrize("rotten", [False, True])
def test_small_shards_that_were_found_to_be_lost_go_with_it(*, rotten: bool) -> None:
    world = SmallWorld(3)
    request = objects_pb2.PutObjectRequest(data=DATA, name="n", code=objects_pb2.Code(needed=2, total=3))
    object_id = world.owner.ask("PutObject", request).object.object_id
    world.pass_ms(60_000)
    host = next(each for each in world.hosts if rows_of(each))
    owner = world.owner.node_id
    shards = tuple(int(row.partition("/")[0].rpartition(".")[2]) for row in rows_of(host))
    damage(world, host, object_id)
    for key, _ in [*host.store.scan(SMALL)] if rotten else []:
        host.store.damage(SMALL, key)
    world.bend = lambda letter: NotFound("away") if letter.short in ("PutReplica", "OpenReplica") else None
    host.runtime.deliver("objects", ReplicasLost(owner, (Holding(object_id, shards),)))
    world.settle()
    world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
    world.pass_ms(2 * GATHER_MS)
    assert rows_of(host) == []
    assert number_of(host.store.get(KEPT_BYTES, owner.encode()) or b"") == 0


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("code", [None, objects_pb2.Code(needed=2, total=3)])
def test_its_bytes_are_read_as_ever(*, small: bool, code: objects_pb2.Code | None) -> None:
    world = SmallWorld(3, small_bytes=SMALL_BYTES_MAX if small else 0)
    made = world.owner.ask("PutObject", objects_pb2.PutObjectRequest(data=DATA, name="n", code=code)).object
    world.pass_ms(60_000)
    for host in world.hosts:
        (shard, *_) = host.store.get(KEPT, inventory_key(world.owner.node_id, made.object_id)) or b""
        read = objects_pb2.ReadReplicaRequest(object_id=made.object_id, shard=shard if code else None, length=100)
        before = bytes(host.ask_as(world.owner, "ReadReplica", read).data)
        damage(world, host, made.object_id)
        assert bytes(host.ask_as(world.owner, "ReadReplica", read).data) == before
    world.owner.blobs.delete(made.object_id)
    assert world.owner.read("n") == DATA
