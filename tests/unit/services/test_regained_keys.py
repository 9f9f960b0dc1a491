"""Objects that are sealed anew, and a disk that is lost meanwhile: what the restored owner takes back is one object,
not two, and has another key in the end like any other."""

from __future__ import annotations

import copy

import pytest
from bulk_world import Letter, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, NotFound, Unavailable
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.resealing import PASS_MS
from offgrid_node.protocol.objects.tables import DELETED, META, REPLICAS
from offgrid_node.protocol.quorum.tables import LIFE, number_key
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.store import Batch

DATA = b"what somebody who is trusted no more has had the key of " * 9
HOUR_MS = 3_600_000


@pytest.fixture
def world() -> World:
    return World(3)


def put(world: World) -> str:
    made = world.owner.put(DATA, name="notes", request_id="r-1").object_id
    seconds(world, 2)
    return made


def seconds(world: World, count: int) -> None:
    for _ in range(count):
        world.pass_ms(1_000)


def reencrypt(world: World) -> None:
    world.pass_ms(HOUR_MS)
    begun = world.clock.now().utc_us.to_bytes(8, "big")
    world.owner.store.commit(Batch(writes={("meta", BEGUN_KEY): begun}))
    world.pass_ms(1)
    world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest())
    seconds(world, 5)


def restored(world: World, store: MemoryStore) -> None:
    """The owner comes back with rows of before."""
    world.owner.up = False
    store.commit(Batch(writes={(META, LIFE): number_key(2)}))
    world.owner.store, world.owner.blobs = store, MemoryBlobs()
    world.owner.up = True
    world.owner.restart()
    world.settle()
    seconds(world, 30)


def listed(world: World) -> list[tuple[str, str]]:
    found = world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
    return [(made.name, made.object_id) for made in found]


def kept_ids(world: World) -> set[str]:
    return {key.decode().partition("/")[0] for host in world.hosts for key, _ in host.store.scan(REPLICAS)}


def progress(world: World) -> objects_pb2.Reencryption:
    told: objects_pb2.Reencryption = world.owner.ask("GetDataKeys", objects_pb2.GetDataKeysRequest()).reencryption
    return told


class TestAHalf:
    """An object under its next key, of which the rows of before know nothing."""

    def test_goes_where_the_old_one_is_there(self, world: World) -> None:
        old, before = put(world), copy.deepcopy(world.owner.store)
        world.owner.safe_seq = 0  # the journal at hosts does not get on: the new one waits
        reencrypt(world)
        assert len(kept_ids(world)) == 2
        restored(world, before)
        assert listed(world) == [("notes", old)]
        assert kept_ids(world) == {old}
        assert world.owner.read("notes") == DATA

    def test_waits_while_who_may_have_the_old_one_is_silent(self, world: World) -> None:
        old, before = put(world), copy.deepcopy(world.owner.store)
        reencrypt(world)
        seconds(world, 5)
        (new,) = kept_ids(world)
        holder = next(host for host in world.hosts if list(host.store.scan(REPLICAS)))
        others = [host for host in world.hosts if host is not holder]
        for host in others:
            host.up = False
        restored(world, before)
        assert old not in kept_ids(world)
        assert listed(world) == [("notes", old)], "nobody can say that all of it is gone"
        assert new in {key.decode().partition("/")[0] for key, _ in holder.store.scan(REPLICAS)}

    def test_takes_its_place_where_hosts_only_claim_to_have_the_old_one(self, world: World) -> None:
        old, before = put(world), copy.deepcopy(world.owner.store)
        liar = next(host for host in world.hosts if old in host.blobs.names())
        replica, blobs = next(liar.store.scan(REPLICAS, prefix=old.encode())), copy.deepcopy(liar.blobs)
        reencrypt(world)
        (new,) = kept_ids(world)
        liar.store.commit(Batch(writes={(REPLICAS, replica[0]): replica[1]}))
        liar.blobs = blobs

        def bend(letter: Letter) -> Fault | None:
            lies = letter.short == "ReadReplica" and letter.request.object_id == old
            return NotFound("gone", reason="ReplicaNotFound") if lies else None

        world.bend = bend
        liar.restart()
        restored(world, before)
        assert listed(world) == [("notes", new)]
        assert world.owner.read("notes") == DATA

    def test_takes_the_place_of_one_that_hosts_have_dropped(self, world: World) -> None:
        """The rows are older than that: a store put back from a backup."""
        old, before = put(world), copy.deepcopy(world.owner.store)
        reencrypt(world)
        (new,) = kept_ids(world)
        assert new != old
        restored(world, before)
        assert listed(world) == [("notes", new)]
        assert world.owner.info(old).object_id == new
        assert [*world.owner.info(new).formerly] == [old]
        assert world.owner.read("notes") == world.owner.read(old) == DATA

    def test_tells_who_might_read_the_one_whose_place_it_takes(self, world: World) -> None:
        """Its key is wrapped for nobody but the owner yet."""
        old, reader = put(world), world.hosts[0]
        world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object=old, node=reader.name))
        seconds(world, 2)
        before = copy.deepcopy(world.owner.store)
        reencrypt(world)

        def bend(letter: Letter) -> Fault | None:
            forgot = letter.short == "ShowReplica" and letter.target == reader.node_id
            return NotFound("nothing", reason="ReplicaNotFound") if forgot else None

        world.bend = bend
        restored(world, before)
        seconds(world, 90)
        assert world.owner.info("notes").object_id != old
        (back,) = world.owner.ask("ListRegained", objects_pb2.ListRegainedRequest()).objects
        assert list(back.readers) == [reader.node_id]

    def test_counts_once_though_the_one_whose_place_it_takes_had_come_back_too(self, world: World) -> None:
        old = put(world)
        empty = MemoryStore()
        restored(world, empty)
        before = copy.deepcopy(world.owner.store)
        reencrypt(world)
        restored(world, before)
        assert world.owner.info("notes").object_id != old
        assert len(world.owner.ask("ListRegained", objects_pb2.ListRegainedRequest()).objects) == 1
        assert world.owner.runtime.machine("objects", ObjectsMachine).back_since(0) == 1

    def test_goes_with_one_that_is_deleted(self, world: World) -> None:
        old = put(world)
        world.owner.safe_seq = 0
        reencrypt(world)
        after, mark = MemoryStore(), objects_pb2.Deletion(object_id=old)
        after.commit(Batch(writes={(DELETED, old.encode()): mark.SerializeToString()}))
        restored(world, after)
        assert listed(world) == []
        assert kept_ids(world) == set()


class TestWhatIsBack:
    def test_is_sealed_anew_like_any_other_that_is_older_than_the_key_of_now(self, world: World) -> None:
        old = put(world)
        restored(world, MemoryStore())
        assert listed(world) == [("notes", old)]
        reencrypt(world)
        told = progress(world)
        assert (told.objects, told.sealed, told.left) == (1, 1, 0)
        ((name, new),) = listed(world)
        assert (name, world.owner.read(old)) == ("notes", DATA)
        assert new != old
        assert world.owner.info(new).regained_us, "and says still that it came back"

    def test_is_sealed_anew_though_it_comes_back_after_that_began(self, world: World) -> None:
        """And after the clock has gone on: it was made when its manifest says."""
        old = put(world)
        comparing = False

        def bend(letter: Letter) -> Fault | None:
            return Unavailable("not yet") if letter.short == "CompareInventory" and not comparing else None

        world.bend = bend
        restored(world, MemoryStore())
        another = world.owner.put(DATA, name="another").object_id
        world.owner.safe_seq = 0  # so it does not end before the other is back
        reencrypt(world)
        comparing = True
        world.pass_ms(HOUR_MS)
        seconds(world, 5)
        assert ("notes", old) in listed(world)
        assert (progress(world).objects, progress(world).under_way) == (2, True)
        world.owner.safe_seq = None
        world.pass_ms(PASS_MS)
        seconds(world, 5)
        world.pass_ms(PASS_MS)
        seconds(world, 5)
        told = progress(world)
        assert (told.sealed, told.left, told.under_way) == (2, 0, False)
        assert {object_id for _, object_id in listed(world)}.isdisjoint({old, another})
