"""Small objects: one call from the owner, one call to each host, bytes in rows; and who is told of their durability."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import Letter, Node, World

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_node.protocol.objects.small import SMALL, SMALL_BYTES_MAX, small_key
from offgrid_node.services.objects.puts import PUT_BYTES_MAX
from offgrid_node.services.objects.small_replicas import PUT_REPLICA_BYTES_MAX
from offgrid_node.services.objects.watching import WAIT_MS_MAX
from offgrid_node.services.stream import Stream
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

Put, Code = objects_pb2.PutObjectRequest, objects_pb2.Code
ACCEPTED, DURABLE, LOCAL = (
    objects_pb2.OBJECT_STATE_ACCEPTED,
    objects_pb2.OBJECT_STATE_DURABLE,
    objects_pb2.OBJECT_STATE_LOCAL,
)
DATA = b"a kilobyte, or so " * 9  # of more than one stripe


class SmallWorld(World):
    """Where what is small goes in one call, and into rows up to `small_bytes`."""

    def __init__(self, hosts: int = 3, small_bytes: int = SMALL_BYTES_MAX) -> None:
        super().__init__(hosts)
        for node in self.by_id.values():
            node.small_bytes, node.one_call_bytes = small_bytes, PUT_REPLICA_BYTES_MAX
            node.restart()
        self.settle()
        self.log.clear()


@pytest.fixture
def world() -> SmallWorld:
    return SmallWorld()


def put(node: Node, data: bytes = DATA, **fields: Any) -> objects_pb2.Object:
    made: objects_pb2.Object = node.ask("PutObject", Put(data=data, **fields)).object
    return made


def rows_of(node: Node) -> list[str]:
    return [key.decode() for key, _ in node.store.scan(SMALL)]


class TestAPut:
    def test_is_one_call_and_one_for_each_host_and_no_file(self, world: SmallWorld) -> None:
        made = put(world.owner, name="n", required_milli=2_000)
        assert world.log.count("PutReplica") == len(world.log) == 3, world.log
        assert (world.owner.info(made.object_id).state, world.owner.read("n")) == (DURABLE, DATA)
        for host in world.hosts:
            assert rows_of(host) == [f"{made.object_id}/{world.owner.node_id}"]
        assert not any(list(node.blobs.names()) or node.blobs.all_staged() for node in world.by_id.values())

    def test_leaves_nothing_at_its_owner_once_it_is_spread(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        made = put(world.owner)
        assert rows_of(world.owner) == [f"{made.object_id}/{world.owner.node_id}"]
        assert world.owner.read(made.object_id) == DATA, "from its own row"
        for host in world.hosts:
            host.up = True
        world.pass_ms(60_000)
        assert (world.owner.info(made.object_id).local, rows_of(world.owner)) == (False, [])

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 65, SMALL_BYTES_MAX - 16, SMALL_BYTES_MAX - 15, 70_000])
    def test_of_any_size_reads_back(self, size: int) -> None:
        world = SmallWorld(2)
        made = put(world.owner, bytes(size))
        assert world.owner.info(made.object_id).state == DURABLE
        assert world.owner.read(made.object_id) == bytes(size)

    def test_may_be_coded(self) -> None:
        world = SmallWorld(4)
        made = put(world.owner, code=Code(needed=2, total=4), required_milli=1_000)
        assert world.owner.info(made.object_id).state == DURABLE
        assert sorted(name for host in world.hosts for name in rows_of(host)) == [
            f"{made.object_id}.{shard}/{world.owner.node_id}" for shard in range(4)
        ]
        world.hosts[0].up = world.hosts[1].up = False
        assert world.owner.read(made.object_id) == DATA

    def test_reads_back_from_other_hosts_after_all_have_restarted(self, world: SmallWorld) -> None:
        made = put(world.owner)
        for node in world.by_id.values():
            node.restart()
        world.settle()
        assert world.owner.read(made.object_id) == DATA
        assert not any(letter == "ReportChange" for letter in world.log), "rows are there, though no file is"

    def test_is_deleted_everywhere(self, world: SmallWorld) -> None:
        made = put(world.owner)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        world.pass_ms(1_000)
        assert [rows_of(node) for node in world.by_id.values()] == [[]] * 4

    def test_goes_into_files_where_the_store_has_little_room(
        self, world: SmallWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MemoryStore, "limit_bytes", lambda store: 2 * store.size_bytes())
        made = put(world.owner)
        assert world.owner.info(made.object_id).state == DURABLE
        assert [rows_of(node) for node in world.by_id.values()] == [[]] * 4
        assert [list(host.blobs.names()) for host in world.hosts] == [[made.object_id]] * 3
        assert world.log.count("PutReplica") == 3
        assert world.owner.read(made.object_id) == DATA


class TestARequestId:
    def test_makes_one_object_however_often_it_comes(self, world: SmallWorld) -> None:
        made = put(world.owner, name="n", request_id="r")
        assert put(world.owner, name="n", request_id="r").object_id == made.object_id
        world.owner.restart()
        again = put(world.owner, name="n", request_id="r", wait_ms=10, checksum=checksum_of(DATA))
        assert (again.object_id, again.state) == (made.object_id, DURABLE)

    def test_makes_one_object_though_both_calls_are_under_way(self, world: SmallWorld) -> None:
        tickets = [world.owner.begin("PutObject", Put(data=DATA, request_id="r")) for _ in range(2)]
        world.settle()
        assert len({ticket.outcome.object.object_id for ticket in tickets}) == 1
        assert sum(len(rows_of(host)) for host in world.hosts) == 3

    @pytest.mark.parametrize("other", [{"name": "other"}, {"copies": 2}, {"data": b"other"}, {"required_milli": 1}])
    def test_makes_nothing_else(self, world: SmallWorld, other: dict[str, Any]) -> None:
        put(world.owner, name="n", request_id="r")
        with pytest.raises(AlreadyExists):
            world.owner.ask("PutObject", Put(**{"data": DATA, "name": "n", "request_id": "r"} | other))

    def test_of_what_was_deleted_says_so(self, world: SmallWorld) -> None:
        made = put(world.owner, request_id="r")
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        with pytest.raises(NotFound) as caught:
            put(world.owner, request_id="r")
        assert caught.value.reason == "ObjectDeleted"


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"data": bytes(PUT_BYTES_MAX + 1)}, "data"),
        ({"name": "\x00"}, "name"),
        ({"request_id": "?"}, "request_id"),
        ({"checksum": b"short"}, "checksum"),
        ({"checksum": bytes(16)}, "checksum"),
        ({"wait_ms": WAIT_MS_MAX + 1}, "wait_ms"),
        ({"required_milli": 2**32 - 1}, "required_milli"),
        ({"expires_after_ms": 2**60}, "expires_after_ms"),
        ({"copies": 2, "code": Code(needed=2, total=3)}, "copies"),
        ({"code": Code(needed=3, total=2)}, "code"),
    ],
)
def test_what_no_put_may_say_is_refused_by_name(world: SmallWorld, fields: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidRequest, match=what):
        world.owner.ask("PutObject", Put(**fields))


class TestWaiting:
    def test_answers_once_it_is_durable(self, world: SmallWorld) -> None:
        assert put(world.owner, wait_ms=1_000).state == DURABLE
        assert put(world.owner).state == ACCEPTED

    def test_answers_in_time_with_what_is_so(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        ticket = world.owner.begin("PutObject", Put(data=DATA, wait_ms=1_000))
        world.settle()
        assert ticket.outcome is None
        world.pass_ms(1_000)
        assert ticket.outcome.object.state == ACCEPTED

    def test_ends_when_it_is_deleted_or_given_up(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        tickets = [world.owner.begin("PutObject", Put(data=DATA, wait_ms=1_000, name=name)) for name in "ab"]
        world.settle()
        world.owner.ask("CancelOutboxEntry", objects_pb2.CancelOutboxEntryRequest(id=1))
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="b"))
        assert tickets[0].outcome.object.state == LOCAL
        assert isinstance(tickets[1].outcome, Fault)
        assert tickets[1].outcome.reason == "ObjectDeleted"


class TestPatience:
    """Acks for which nobody waits share a commit with the next."""

    @pytest.fixture
    def patient(self) -> SmallWorld:
        world = SmallWorld()
        world.owner.hold_ms = 10
        world.owner.restart()
        world.settle()
        return world

    def commits(self, node: Node) -> list[int]:
        """How many rows of quorums each commit of the node's writes."""
        seen: list[int] = []
        commit = node.store.commit

        def counted(batch: Batch) -> int:
            seen.append(sum(table == "quorums" for table, _ in batch.writes))
            return commit(batch)

        node.store.commit = counted  # type: ignore[method-assign]
        return seen

    def test_the_first_ack_waits_for_the_one_that_makes_it_durable(self, patient: SmallWorld) -> None:
        commits = self.commits(patient.owner)
        made = put(patient.owner, required_milli=2_000)
        assert len([rows for rows in commits if rows]) == 2, "the epoch, then two acks"
        seen = patient.owner.info(made.object_id)
        assert (seen.state, len(seen.acks)) == (DURABLE, 2)

    def test_the_last_ack_waits_for_another_object_or_its_time(self, patient: SmallWorld) -> None:
        first = put(patient.owner, required_milli=2_000)
        second = put(patient.owner, required_milli=2_000)
        assert [len(patient.owner.info(made.object_id).acks) for made in (first, second)] == [3, 2]
        patient.pass_ms(10)
        assert len(patient.owner.info(second.object_id).acks) == 3

    def test_what_one_ack_makes_durable_waits_for_nothing(self, patient: SmallWorld) -> None:
        assert put(patient.owner, required_milli=1_000, wait_ms=1_000).state == DURABLE

    def test_an_ack_that_no_other_will_help_waits_for_nothing(self, patient: SmallWorld) -> None:
        for host in patient.hosts[1:]:
            host.up = False
        made = put(patient.owner, required_milli=3_000)
        assert patient.owner.info(made.object_id).acked_milli == 1_000

    def test_what_is_held_when_the_process_dies_is_asked_for_again(self, patient: SmallWorld) -> None:
        made = put(patient.owner, required_milli=2_000)
        patient.owner.restart()
        patient.settle()
        patient.pass_ms(60_000)
        seen = patient.owner.info(made.object_id)
        assert (len(seen.acks), seen.local) == (3, False)


class TestWatching:
    def watch(self, world: SmallWorld, wanted: str) -> Stream:
        stream = world.owner.begin("WatchObject", objects_pb2.WatchObjectRequest(object=wanted))
        assert isinstance(stream, Stream)
        return stream

    def test_tells_of_each_ack_and_ends(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        made = put(world.owner, required_milli=2_000)
        stream = self.watch(world, made.object_id)
        for host in world.hosts:
            host.up = True
        world.pass_ms(60_000)
        seen = [message.object for message in stream.take()]  # type: ignore[attr-defined]
        assert (seen[0].state, seen[0].acked_milli) == (ACCEPTED, 0)
        assert (seen[-1].state, seen[-1].acked_milli >= 2_000) == (DURABLE, True)
        assert any(each.trouble for each in seen)
        assert stream.ended
        assert stream.fault is None

    def test_of_what_is_durable_already_tells_once(self, world: SmallWorld) -> None:
        stream = self.watch(world, put(world.owner, wait_ms=1_000).object_id)
        assert (len(stream.take()), stream.ended) == (1, True)

    def test_ends_with_what_is_deleted(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        made = put(world.owner)
        stream = self.watch(world, made.object_id)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        assert stream.fault is not None
        assert stream.fault.reason == "ObjectDeleted"

    def test_leaves_nothing_behind(self, world: SmallWorld) -> None:
        for host in world.hosts:
            host.up = False
        made = put(world.owner)
        streams = [self.watch(world, made.object_id) for _ in range(2)]
        assert world.owner.runtime._row_watchers
        for stream in streams:
            stream.cancel()
        assert not world.owner.runtime._row_watchers

    def test_knows_nothing_of_what_is_not_there(self, world: SmallWorld) -> None:
        with pytest.raises(NotFound):
            self.watch(world, "o-nothing")


class TestAHost:
    """One that is brought what it did not ask for."""

    def brought(self, world: SmallWorld) -> objects_pb2.PutReplicaRequest:
        """What the owner sends to the first host."""
        seen: list[Any] = []

        def bend(letter: Letter) -> None:
            if letter.short == "PutReplica" and letter.target == world.hosts[0].node_id:
                seen.append(letter.request)

        world.bend = bend
        put(world.owner)
        world.bend = lambda letter: None
        request = objects_pb2.PutReplicaRequest()
        request.CopyFrom(seen[0])
        return request

    def test_gives_the_same_ack_again(self, world: SmallWorld) -> None:
        request = self.brought(world)
        acks = [world.hosts[0].ask_as(world.owner, "PutReplica", request).ack for _ in range(2)]
        assert acks[0] == acks[1]

    def test_refuses_other_bytes_and_keeps_its_own(self, world: SmallWorld) -> None:
        request = self.brought(world)
        right = request.shards[0]
        request.shards[0] = right[:-1] + bytes([right[-1] ^ 1])
        with pytest.raises(FailedPrecondition) as caught:
            world.hosts[0].ask_as(world.owner, "PutReplica", request)
        assert caught.value.reason == "WrongRoot"
        object_id = Manifest.decode(request.manifest.signed.body).object_id
        assert world.hosts[0].kept.read(object_id, 0, len(right)) == right

    def test_refuses_what_is_no_shard_of_it(self, world: SmallWorld) -> None:
        request = self.brought(world)
        for shards in ([], [request.shards[0]] * 2, [request.shards[0][1:]]):
            wrong = objects_pb2.PutReplicaRequest(manifest=request.manifest, epoch=request.epoch, shards=shards)
            with pytest.raises(InvalidRequest, match="shards"):
                world.hosts[0].ask_as(world.owner, "PutReplica", wrong)

    def test_refuses_what_another_brings(self, world: SmallWorld) -> None:
        with pytest.raises(PeerFault):
            world.hosts[0].ask_as(world.hosts[1], "PutReplica", self.brought(world))

    def test_takes_nothing_of_what_is_deleted(self, world: SmallWorld) -> None:
        request = self.brought(world)
        object_id = Manifest.decode(request.manifest.signed.body).object_id
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=object_id))
        world.pass_ms(1_000)
        with pytest.raises(FailedPrecondition) as caught:
            world.hosts[0].ask_as(world.owner, "PutReplica", request)
        assert caught.value.reason == "ReplicaDropped"
        assert rows_of(world.hosts[0]) == []

    def test_without_room_takes_nothing_new_and_vouches_for_what_it_has(self, world: SmallWorld) -> None:
        request = self.brought(world)
        world.hosts[0].blobs.fill(0)
        assert world.hosts[0].ask_as(world.owner, "PutReplica", request).ack.body
        kept = rows_of(world.hosts[0])
        made = put(world.owner, b"one more", required_milli=3_000)
        assert (len(kept), rows_of(world.hosts[0])) == (1, kept)
        assert world.owner.info(made.object_id).acked_milli == 2_000

    def test_trusts_no_hash_of_what_came_in_pieces_before_it(self) -> None:
        world = SmallWorld(1, small_bytes=0)
        world.bend = lambda letter: Unavailable("not now") if letter.short == "PutReplica" else None
        made = put(world.owner)
        world.bend = lambda letter: None
        row = objects_pb2.ObjectRow.FromString(world.owner.store.get("objects", made.object_id.encode()) or b"")
        sealed = world.owner.blobs.read(made.object_id, 0, Manifest.decode(made.manifest.signed.body).sealed_bytes)
        host, signed = world.hosts[0], {"manifest": row.object.manifest, "epoch": row.epoch}
        host.ask_as(world.owner, "OpenReplica", objects_pb2.OpenReplicaRequest(**signed))
        write = objects_pb2.WriteReplicaRequest(object_id=made.object_id, data=sealed)
        host.ask_as(world.owner, "WriteReplica", write)
        with pytest.raises(FailedPrecondition, match="not those of"):
            host.ask_as(world.owner, "PutReplica", objects_pb2.PutReplicaRequest(shards=[bytes(len(sealed))], **signed))
        assert not list(host.blobs.names())

    def test_takes_in_one_call_no_more_than_one_call_should_bring(self) -> None:
        world = SmallWorld(1)
        world.owner.one_call_bytes = 0
        made = put(world.owner, bytes(PUT_REPLICA_BYTES_MAX))
        row = objects_pb2.ObjectRow.FromString(world.owner.store.get("objects", made.object_id.encode()) or b"")
        request = objects_pb2.PutReplicaRequest(manifest=row.object.manifest, epoch=row.epoch, shards=[b""])
        with pytest.raises(InvalidRequest, match="one call"):
            world.hosts[0].ask_as(world.owner, "PutReplica", request)


class TestWhatALostAnswerLeaves:
    def test_is_brought_again_and_acked_once(self, world: SmallWorld) -> None:
        lost = [world.hosts[0].node_id]

        def bend(letter: Letter) -> None:
            if letter.short == "PutReplica" and letter.target in lost:
                letter.lose_answer = True
                lost.remove(letter.target)

        world.bend = bend
        made = put(world.owner, required_milli=3_000)
        world.pass_ms(5_000)
        seen = world.owner.info(made.object_id)
        assert (seen.state, len(seen.acks)) == (DURABLE, 3)


class TestALostShard:
    def test_is_made_at_a_host_that_keeps_others_as_rows(self) -> None:
        world = SmallWorld(3)
        made = put(world.owner, code=Code(needed=2, total=6), required_milli=1_000)
        victim = world.hosts[0]
        victim.up = False
        world.owner.runtime.deliver("objects", PeerDown(victim.node_id))
        world.settle()
        world.pass_ms(REPAIR_AFTER_MS)
        for _ in range(5):
            world.pass_ms(1_000)
        acks = [ack for ack in world.owner.info(made.object_id).acks if ack.node_id != victim.node_id]
        assert sorted(shard for ack in acks for shard in ack.shards) == [*range(6)]
        for ack in acks:
            host = world.by_id[ack.node_id]
            assert rows_of(host) == []
            assert sorted(host.blobs.names()) == [f"{made.object_id}.{shard}" for shard in ack.shards]
        world.owner.runtime.deliver("objects", PeerDown(world.hosts[1].node_id))
        world.hosts[1].up = False
        assert world.owner.read(made.object_id) == DATA


class TestADamagedRow:
    @pytest.fixture
    def made(self, world: SmallWorld) -> objects_pb2.Object:
        return put(world.owner, required_milli=3_000)

    def damage(self, world: SmallWorld, host: Node, object_id: str) -> None:
        host.store.damage(SMALL, small_key(object_id, world.owner.node_id))

    def test_costs_a_reader_one_try(self, world: SmallWorld, made: objects_pb2.Object) -> None:
        for host in world.hosts[:2]:
            self.damage(world, host, made.object_id)
        assert world.owner.read(made.object_id) == DATA

    def test_is_brought_again_when_its_host_says_so(self, world: SmallWorld, made: objects_pb2.Object) -> None:
        host = world.hosts[0]
        self.damage(world, host, made.object_id)
        lost = ReplicasLost(world.owner.node_id, (Holding(made.object_id, (0,)),))
        host.runtime.deliver("objects", lost)
        for _ in range(20):
            world.pass_ms(10_000)
        assert host.kept.size(made.object_id) == made.size_bytes + 16 * 3, "three stripes"
        assert len(world.owner.info(made.object_id).acks) == 3

    def test_of_an_owner_is_fetched_from_its_hosts(self, world: SmallWorld) -> None:
        world.hosts[0].up = world.hosts[1].up = False
        made = put(world.owner, required_milli=1_000)
        self.damage(world, world.owner, made.object_id)
        world.hosts[0].up = world.hosts[1].up = True
        for _ in range(20):
            world.pass_ms(10_000)
        seen = world.owner.info(made.object_id)
        assert (len(seen.acks), world.owner.read(made.object_id)) == (3, DATA)

    def test_is_deleted_as_any_other(self, world: SmallWorld, made: objects_pb2.Object) -> None:
        self.damage(world, world.hosts[0], made.object_id)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        world.pass_ms(1_000)
        assert rows_of(world.hosts[0]) == []


def test_a_full_outbox_refuses_a_put_and_leaves_nothing(world: SmallWorld) -> None:
    world.owner.outbox_max = 0
    world.owner.restart()
    with pytest.raises(Exhausted):
        put(world.owner)
    assert rows_of(world.owner) == []
