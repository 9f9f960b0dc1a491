"""What a host keeps of an object though others have its place is dropped, once they have it and its owner is sure of
them; what an owner does not know stays."""

from __future__ import annotations

from copy import deepcopy

import pytest
from bulk_world import SALT, Node, World
from msgspec.structs import replace

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.objects.inventory import holdings_of, summary_of
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.notices import PAGE_NOTICES
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.strays import moved_by
from offgrid_node.protocol.objects.tables import GIVEN, KEPT, KEPT_BYTES, MOVED, OBJECTS, REPLICAS, number_of
from offgrid_node.protocol.quorum.records import Epoch, sign_epoch
from offgrid_node.storage.memory import MemoryStore

K, N = 3, 5
DATA = bytes(range(256)) * 3
Notices = objects_pb2.DeliverNoticesRequest


class Vault(World):
    """DATA lies as 3 of 5 on five of six hosts, or as many as there are."""

    def __init__(self, hosts: int = N + 1) -> None:
        super().__init__(hosts)
        owner, code = self.owner, objects_pb2.Code(needed=K, total=N)
        request = objects_pb2.OpenUploadRequest(name="data", code=code, size_bytes=len(DATA))
        opened = owner.ask("OpenUpload", request)
        owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        made = owner.ask("CommitUpload", commit).object
        self.object_id = made.object_id
        self.pass_seconds(5)

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.pass_ms(1_000)

    def row(self) -> objects_pb2.ObjectRow:
        return objects_pb2.ObjectRow.FromString(self.owner.store.get(OBJECTS, self.object_id.encode()) or b"")

    def epoch(self) -> Epoch:
        return Epoch.decode(self.row().epoch.body)

    def holder(self) -> Node:
        return next(host for host in self.hosts if list(host.blobs.names()))

    def lose(self, host: Node, *, for_good: bool = True) -> None:
        host.up = False
        for domain in ("objects", "quorum"):
            self.owner.runtime.deliver(domain, PeerDown(host.node_id))
        self.settle()
        if for_good:
            self.pass_ms(REPAIR_AFTER_MS)
            self.pass_seconds(120)

    def come_back(self, host: Node) -> None:
        host.up = True
        host.restart()
        self.settle()
        self.pass_seconds(2)

    def displaced(self) -> Node:
        """A host that was away until another had its place, and is back."""
        host = self.holder()
        self.lose(host)
        assert host.node_id not in {ack.node_id for ack in self.row().object.acks}
        return host

    def agree(self, host: Node) -> bool:
        given, kept = self.owner.node_id, host.node_id
        return summary_of(self.owner.store, GIVEN, kept) == summary_of(host.store, KEPT, given)

    def tell(self, host: Node, epoch: Epoch) -> None:
        """What an owner's word is worth: signed by the owner, whatever it says."""
        signed = sign_epoch(epoch, self.owner.signer, SALT)
        host.ask_as(self.owner, "DeliverNotices", Notices(moved=[signed]))


class TestAHostWhosePlaceOthersHave:
    def test_drops_bytes_and_row_and_keeps_the_fence(self) -> None:
        world = Vault()
        host = world.displaced()
        assert list(host.blobs.names()), "it was away, and knows nothing of it"
        world.come_back(host)
        assert list(host.blobs.names()) == []
        assert list(host.store.scan(REPLICAS)) == []
        assert world.agree(host)
        assert number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"") == 0
        ((_, fence),) = host.store.scan(MOVED)
        assert number_of(fence) == world.epoch().epoch
        assert world.owner.read("data") == DATA

    def test_takes_nothing_more_of_an_epoch_that_is_over(self) -> None:
        world = Vault()
        before, host = world.row(), world.holder()
        kept = deepcopy(host.blobs)
        world.lose(host)
        world.come_back(host)
        host.blobs = kept
        host.restart()
        commit = objects_pb2.CommitReplicaRequest(
            object_id=world.object_id, manifest=before.object.manifest, epoch=before.epoch
        )
        with pytest.raises(FailedPrecondition) as error:
            host.ask_as(world.owner, "CommitReplica", commit)
        assert error.value.reason == "EpochOver"
        assert list(host.store.scan(REPLICAS)) == []

    def test_may_have_a_place_again(self) -> None:
        world = Vault()
        host = world.displaced()
        world.come_back(host)
        world.lose(next(other for other in world.hosts if list(other.blobs.names())))
        assert list(host.blobs.names()), "it is the only one who has room"
        assert list(host.store.scan(MOVED)) == [], "its ack is its fence again"
        assert world.agree(host)

    def test_hears_that_the_object_is_deleted(self) -> None:
        world = Vault()
        host = world.displaced()
        world.come_back(host)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=world.object_id))
        world.pass_seconds(2)
        assert list(host.store.scan(MOVED)) == []
        assert not any(list(each.blobs.names()) for each in world.hosts)


class TestAHostKeepsWhatItHas:
    def test_while_one_who_has_its_place_now_is_away(self) -> None:
        """Whether that one keeps it, nobody knows."""
        world = Vault()
        host = world.displaced()
        world.lose(next(other for other in world.hosts if other.up and list(other.blobs.names())), for_good=False)
        world.come_back(host)
        assert list(host.blobs.names())

    def test_of_an_object_that_its_owner_does_not_know(self) -> None:
        world = Vault()
        host = world.displaced()
        world.owner.store = MemoryStore()
        world.owner.restart()
        world.come_back(host)
        assert list(host.blobs.names())

    @pytest.mark.parametrize("how", ["an empty place", "an ack that is missing", "not durable", "too few acks"])
    def test_while_not_all_of_the_object_lies_with_others(self, how: str) -> None:
        world = Vault()
        world.lose(host := world.holder())
        row, epoch = world.row(), world.epoch()
        assert moved_by(row, host.node_id, lambda _: True) == row.epoch
        match how:
            case "an empty place":
                shard = epoch.shards[row.object.acks[0].node_id]
                assert len(shard) == 1
                layout = tuple(255 if at == shard[0] else index for at, index in enumerate(epoch.layout))
                row.epoch.CopyFrom(sign_epoch(replace(epoch, layout=layout), world.owner.signer, SALT))
                del row.object.acks[0]
            case "an ack that is missing":
                del row.object.acks[0]
            case "not durable":
                row.object.state = objects_pb2.OBJECT_STATE_ACCEPTED
            case "too few acks":
                row.object.acked_milli = row.object.required_milli - 1
        assert moved_by(row, host.node_id, lambda _: True) is None

    @pytest.mark.parametrize("how", ["older", "same", "it has its place", "another thing", "another's"])
    def test_unless_a_newer_epoch_of_its_owner_is_the_proof(self, how: str) -> None:
        world = Vault()
        host, epoch = world.holder(), world.epoch()
        kept = list(host.blobs.names())
        shards = epoch.shards[host.node_id]
        empty = tuple(255 if shard in shards else index for shard, index in enumerate(epoch.layout))
        newer = replace(epoch, epoch=epoch.epoch + 1, layout=empty)
        match how:
            case "older":
                world.tell(host, replace(newer, epoch=0, sinces=(0,) * N))
            case "same":
                world.tell(host, replace(newer, epoch=epoch.epoch))
            case "it has its place":
                world.tell(host, replace(epoch, epoch=epoch.epoch + 1))
            case "another thing":
                world.tell(host, replace(newer, subject=bytes(32)))
            case "another's":
                signed = sign_epoch(newer, host.signer, SALT)
                with pytest.raises(Fault) as error:
                    host.ask_as(world.owner, "DeliverNotices", Notices(moved=[signed]))
                assert error.value.reason == "BadSignature"
        assert list(host.blobs.names()) == kept
        assert world.agree(host)
        world.tell(host, newer)
        assert list(host.blobs.names()) == []


class TestAHostThatHoldsFewerThanBefore:
    def test_drops_just_those(self) -> None:
        """Five shards at two hosts; one of them is taken away."""
        world = Vault(hosts=2)
        host, epoch = world.holder(), world.epoch()
        shards, body = epoch.shards[host.node_id], Manifest.decode(world.row().object.manifest.signed.body)
        assert len(shards) > 1
        layout = tuple(255 if shard == shards[0] else index for shard, index in enumerate(epoch.layout))
        world.tell(host, replace(epoch, epoch=epoch.epoch + 1, layout=layout))
        assert sorted(host.blobs.names()) == [blob_name(body, shard) for shard in shards[1:]]
        kept = number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"")
        assert kept == (len(shards) - 1) * body.shard_bytes
        assert [each.shards for each in holdings_of(host.store, KEPT, world.owner.node_id)] == [shards[1:]]
        host.restart()
        assert sorted(host.blobs.names()) == [blob_name(body, shard) for shard in shards[1:]]

    def test_takes_none_of_those_again_under_the_epoch_that_laid_them_there(self) -> None:
        world = Vault(hosts=2)
        host, epoch, before = world.holder(), world.epoch(), world.row()
        shards, body = epoch.shards[host.node_id], Manifest.decode(before.object.manifest.signed.body)
        data = [host.blobs.read(name := blob_name(body, shard), 0, host.blobs.size(name) or 0) for shard in shards]
        layout = tuple(255 if shard == shards[0] else index for shard, index in enumerate(epoch.layout))
        world.tell(host, replace(epoch, epoch=epoch.epoch + 1, layout=layout))
        late = objects_pb2.PutReplicaRequest(manifest=before.object.manifest, epoch=before.epoch, shards=data)
        with pytest.raises(FailedPrecondition) as error:
            host.ask_as(world.owner, "PutReplica", late)
        assert error.value.reason == "EpochOver"
        world.pass_seconds(1)
        assert sorted(host.blobs.names()) == [blob_name(body, shard) for shard in shards[1:]]
        assert [each.shards for each in holdings_of(host.store, KEPT, world.owner.node_id)] == [shards[1:]]


def test_too_many_are_refused() -> None:
    world = Vault()
    with pytest.raises(InvalidRequest) as error:
        world.holder().ask_as(world.owner, "DeliverNotices", Notices(moved=[world.row().epoch] * (PAGE_NOTICES + 1)))
    assert [violation.field for violation in error.value.violations] == ["moved"]
