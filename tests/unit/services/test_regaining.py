"""What an owner put after its journal's last safe segment: hosts keep it, and the restored owner takes it back."""

from __future__ import annotations

import copy

import pytest
from bulk_world import SALT, STRIPE, Letter, Node, World
from google.protobuf.message import Message

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import OBJECT_KEY_BYTES, seal_stripe
from offgrid_node.protocol.errors import AlreadyExists, Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.events import ObjectAdded, ObjectAstray, SegmentAstray
from offgrid_node.protocol.objects import regaining
from offgrid_node.protocol.objects.comparing import AGAIN_MS
from offgrid_node.protocol.objects.errands import Regain
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import TAG_BYTES, Manifest
from offgrid_node.protocol.objects.segments import SegmentHead, sign_head
from offgrid_node.protocol.objects.tables import (
    DELETED,
    KEPT,
    LAST_NUMBER,
    META,
    OBJECTS,
    REPLICAS,
    SHARED,
    replica_key,
)
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import EPOCHS_OF_LIFE
from offgrid_node.protocol.quorum.tables import LIFE, number_key
from offgrid_node.runtime import Runtime
from offgrid_node.services.objects.sealing import ENTROPY_BYTES
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimWraps

DATA = bytes(range(256)) * 3
K, N = 3, 5
CODES = pytest.mark.parametrize("code", [None, (K, N)], ids=["copies", "shards"])
Show = objects_pb2.ShowReplicaRequest


def forgetful(
    code: tuple[int, int] | None,
    *,
    life: int = 2,
    required_milli: int = 0,
    request_id: str = "",
    also: bytes | objects_pb2.EnqueueRequest = b"",
) -> tuple[World, objects_pb2.Object]:
    """An owner whose disk is lost behind its last segment: nothing is left but the life that it begins."""
    world = World(N)
    made = world.owner.put(DATA, name="data", code=code, required_milli=required_milli, request_id=request_id)
    if isinstance(also, objects_pb2.EnqueueRequest):
        world.owner.ask("Enqueue", also)
    elif also:
        world.owner.put(also)
    seconds(world, 5)
    made = world.owner.info(made.object_id)
    assert made.state == objects_pb2.OBJECT_STATE_DURABLE
    lose(world, life)
    return world, made


def lose(world: World, life: int = 2) -> None:
    world.owner.up = False
    world.owner.store, world.owner.blobs = MemoryStore(), MemoryBlobs()
    if life:
        world.owner.store.commit(Batch(writes={(META, LIFE): number_key(life)}))


def seconds(world: World, count: int) -> None:
    for _ in range(count):
        world.pass_ms(1_000)


def begin(world: World) -> None:
    world.owner.up = True
    world.owner.restart()
    world.settle()
    seconds(world, 30)


def row(world: World, object_id: str) -> objects_pb2.ObjectRow | None:
    value = world.owner.store.get(OBJECTS, object_id.encode())
    return objects_pb2.ObjectRow.FromString(value) if value is not None else None


def objects(world: World) -> ObjectsMachine:
    return world.owner.runtime.machine("objects", ObjectsMachine)


def regained(world: World) -> list[objects_pb2.RegainedObject]:
    return [*world.owner.ask("ListRegained", objects_pb2.ListRegainedRequest()).objects]


def keepers(world: World) -> list[Node]:
    return [host for host in world.hosts if list(host.blobs.names())]


def kept_ids(world: World) -> set[str]:
    return {key.decode().partition("/")[0] for host in world.hosts for key, _ in host.store.scan(REPLICAS)}


def told_to_state(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the state machine is told from now on; there is none in this world."""
    told, deliver = list[object](), Runtime.deliver

    def delivered(runtime: Runtime, domain: str, event: object) -> None:
        if domain == "state":
            told.append(event)
        else:
            deliver(runtime, domain, event)

    monkeypatch.setattr(Runtime, "deliver", delivered)
    return told


class TestARestoredOwner:
    @CODES
    def test_takes_it_back_as_it_was(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code, required_milli=1_000)
        begin(world)
        back = world.owner.info("data")
        assert back.object_id == made.object_id
        assert world.owner.read("data") == DATA
        assert (back.state, back.required_milli, back.size_bytes) == (made.state, made.required_milli, len(DATA))
        assert (back.shards_needed, back.shards_total) == (made.shards_needed, made.shards_total)
        assert back.created_us == Manifest.decode(made.manifest.signed.body).created_us < back.regained_us
        assert not back.local, "all that is wanted was acked anew"

    def test_finds_it_by_the_call_that_made_it(self) -> None:
        world, made = forgetful(None, request_id="r-1")
        begin(world)
        opened = world.owner.ask("OpenUpload", objects_pb2.OpenUploadRequest(name="data", request_id="r-1"))
        assert opened.offset == len(DATA)
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        commit.checksum = checksum_of(DATA)
        assert world.owner.ask("CommitUpload", commit).object.object_id == made.object_id
        with pytest.raises(AlreadyExists):
            world.owner.put(DATA, name="another", request_id="r-1")

    def test_and_what_was_enqueued_with_its_entry(self) -> None:
        asked = objects_pb2.EnqueueRequest(key="invoice", data=b"x", etype=20, request_id="e-1")
        world, _ = forgetful(None, also=asked)
        begin(world)
        entry = world.owner.ask("Enqueue", asked).entry
        assert (entry.key, entry.etype, entry.status) == ("invoice", 20, objects_pb2.OUTBOX_STATUS_COMPLETED)
        assert len(list(world.owner.store.scan(OBJECTS))) == 2

    def test_says_which_came_back(self) -> None:
        world, made = forgetful(None)
        begin(world)
        (told,) = regained(world)
        assert (told.object_id, told.back, told.object.name) == (made.object_id, True, "data")
        assert objects(world).back_since(told.since_us) == 1
        assert objects(world).back_since(told.since_us + 1) == objects(world).missing == 0
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="data"))
        assert regained(world) == []
        world.owner.restart()
        assert objects(world).back_since(0) == 0

    def test_hears_from_its_readers_that_they_are_and_makes_nobody_one(self) -> None:
        world = World(N)
        made = world.owner.put(DATA, name="data")
        readers = [host for host in world.hosts if made.object_id not in host.blobs.names()][:1] + keepers(world)[:1]
        for reader in readers:
            world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object="data", node=reader.name))
        seconds(world, 5)
        lose(world)
        begin(world)
        (told,) = regained(world)
        assert {*told.readers} == {reader.node_id for reader in readers}
        assert [wrap.node_id for wrap in told.object.manifest.wraps] == [world.owner.node_id]
        assert all(reader.read("data") == DATA for reader in readers), "they can still"
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="data"))
        seconds(world, 5)
        assert not [row for reader in readers for row in reader.store.scan(SHARED)], "and hear when it is gone"

    def test_has_what_it_put_since_as_the_newest_of_that_name(self) -> None:
        world, made = forgetful(None)
        world.owner.up = True
        world.bend = lambda letter: Unavailable("not yet") if letter.short == "CompareInventory" else None
        world.owner.store.commit(Batch(writes={(META, LAST_NUMBER): number_key(2 << 32)}))
        world.owner.restart()
        world.settle()
        newer = world.owner.put(b"newer", name="data")
        world.bend = lambda letter: None
        seconds(world, 120)
        assert world.owner.read(made.object_id) == DATA
        assert world.owner.info("data").object_id == newer.object_id
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="data"))
        assert world.owner.info("data").object_id == made.object_id

    def test_put_again_meanwhile_by_the_same_call_it_is_one_object(self) -> None:
        world, made = forgetful(None, request_id="r-1")
        world.owner.up = True
        world.bend = lambda letter: Unavailable("not yet") if letter.short == "CompareInventory" else None
        world.owner.restart()
        world.settle()
        again = world.owner.put(DATA, name="data", request_id="r-1")
        world.bend = lambda letter: None
        seconds(world, 120)
        assert [
            each.object_id for each in world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
        ] == [again.object_id]
        assert kept_ids(world) == {again.object_id}, "hosts drop the other one"
        assert made.object_id not in world.owner.blobs.names()

    @pytest.mark.parametrize("cancelled", [False, True])
    def test_loses_nothing_for_what_is_put_again_and_lies_nowhere_else_yet(self, *, cancelled: bool) -> None:
        """What hosts keep was durable; the other may never be."""
        world, made = forgetful(None, request_id="r-1")
        world.owner.up = True
        shut = ["CompareInventory", "OpenReplica", "PutReplica"]
        world.bend = lambda letter: Unavailable("not yet") if letter.short in shut else None
        world.owner.restart()
        world.settle()
        again = world.owner.put(DATA, name="data", request_id="r-1")
        if cancelled:
            (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
            world.owner.ask("CancelOutboxEntry", objects_pb2.CancelOutboxEntryRequest(id=entry.id))
        shut.remove("CompareInventory")
        seconds(world, 120)
        assert kept_ids(world) == {made.object_id}
        assert world.owner.store.get(DELETED, made.object_id.encode()) is None
        assert (made.object_id in world.owner.blobs.names()) == (row(world, made.object_id) is not None)
        shut.clear()
        for _ in range(2):
            world.pass_ms(AGAIN_MS)
            seconds(world, 5)
        assert kept_ids(world) == {made.object_id if cancelled else again.object_id}

    def test_waits_for_no_other_of_its_name_whose_row_is_damaged(self) -> None:
        world, made = forgetful(None)
        world.owner.up = True
        world.bend = lambda letter: Unavailable("not yet") if letter.short == "CompareInventory" else None
        world.owner.store.commit(Batch(writes={(META, LAST_NUMBER): number_key(2 << 32)}))
        world.owner.restart()
        world.settle()
        other = world.owner.put(b"other", name="data")
        seconds(world, 5)
        assert isinstance(world.owner.store, MemoryStore)
        world.owner.store.damage(OBJECTS, other.object_id.encode())
        world.bend = lambda letter: None
        seconds(world, 120)
        assert world.owner.read(made.object_id) == DATA

    @pytest.mark.parametrize("silent", [False, True])
    def test_does_so_though_whoever_is_asked_first_does_not_show_it(self, *, silent: bool) -> None:
        """That one may be the first each time."""
        world, made = forgetful(None)
        first, second = keepers(world)[:2]
        why = Unavailable("no word") if silent else NotFound("nothing", reason="ReplicaNotFound")
        mute = {"CompareInventory": world.hosts, "ShowReplica": [first]}
        world.bend = lambda letter: why if world.by_id[letter.target] in mute.get(letter.short, ()) else None
        begin(world)
        for host in (first, second):
            world.owner.regaining.regain(Regain(made.object_id, host.node_id))
        world.settle()
        assert world.owner.read(made.object_id) == DATA

    @CODES
    def test_numbers_its_epochs_above_those_of_its_former_life(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code)
        begin(world)
        back = row(world, made.object_id)
        assert back is not None
        assert Epoch.decode(back.epoch.body).epoch > 2 * EPOCHS_OF_LIFE

    @CODES
    def test_and_its_hosts_agree_at_last_and_may_be_drained(self, code: tuple[int, int] | None) -> None:
        world, made = forgetful(code)
        begin(world)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=made.object_id))
        seconds(world, 5)
        assert not any(list(host.store.scan(table)) for host in world.hosts for table in (REPLICAS, KEPT))
        assert not keepers(world)

    def test_does_so_from_whoever_is_up(self) -> None:
        world, made = forgetful((K, N))
        for host in world.hosts[: N - K]:
            host.up = False
        begin(world)
        assert row(world, made.object_id) is not None
        assert world.owner.read(made.object_id) == DATA


class TestNobodyElse:
    def test_takes_back_what_it_knows_nothing_of(self) -> None:
        """An old store that has not begun a life anew, say."""
        world, made = forgetful(None, life=0)
        begin(world)
        assert row(world, made.object_id) is None
        assert keepers(world)

    @pytest.mark.parametrize("how", ["shown", "without its note", "key of before"])
    def test_but_its_store_is_an_old_one_by_that(self, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(N)
        world.owner.put(b"before", name="before")
        seconds(world, 5)
        backup = copy.deepcopy(world.owner.store)
        made = world.owner.put(DATA, name="data")
        seconds(world, 5)
        world.owner.up, world.owner.store = False, backup
        told = told_to_state(monkeypatch)

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            world.owner.regaining._cuts = True
            value = world.by_id[letter.target].store.get(REPLICAS, replica_key(made.object_id, letter.source))
            if letter.short != "ShowReplica" or value is None or how != "without its note":
                return None
            kept = objects_pb2.ReplicaRow.FromString(value)
            kept.manifest.note = b""
            return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])

        if how == "key of before":
            monkeypatch.setattr(world.members, "current_key", lambda node_id: bytes(32))
        world.bend = bend
        begin(world)
        assert {*told} == ({ObjectAstray(made.object_id)} if how == "shown" else set())
        assert regained(world) == [], "nor is it told as missing"
        assert row(world, made.object_id) is None
        assert keepers(world)

    def test_is_shown_it(self) -> None:
        world, made = forgetful(None)
        begin(world)
        host, other = keepers(world)[0], world.hosts[-1]
        shown = host.ask_as(world.owner, "ShowReplica", Show(object_id=made.object_id))
        assert list(shown.shards) == [0]
        assert Manifest.decode(shown.manifest.signed.body).object_id == made.object_id
        with pytest.raises(NotFound) as error:
            host.ask_as(other, "ShowReplica", Show(object_id=made.object_id))
        assert error.value.reason == "ReplicaNotFound"
        with pytest.raises(InvalidRequest) as refused:
            host.ask_as(world.owner, "ShowReplica", Show(object_id="o-x"))
        assert [each.field for each in refused.value.violations] == ["object_id"]


class TestWhatIsShownFalsely:
    @pytest.mark.parametrize("forged", [b"", b"none of this node's", "another's"])
    def test_a_note_that_is_none_of_this_nodes_gives_no_name(self, forged: bytes | str) -> None:
        """Any host may write what it likes there."""
        world, made = forgetful(None)
        use = made.object_id.encode()
        note = objects_pb2.ObjectNote(name="passwords").SerializeToString()
        sealed = forged if isinstance(forged, bytes) else SimWraps(world.hosts[0].signer).seal_note(note, use)

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            value = world.by_id[letter.target].store.get(REPLICAS, replica_key(made.object_id, letter.source))
            if letter.short != "ShowReplica" or value is None:
                return None
            kept = objects_pb2.ReplicaRow.FromString(value)
            kept.manifest.note = sealed
            return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])

        world.bend = bend
        begin(world)
        assert world.owner.info(made.object_id).name == ""
        assert world.owner.read(made.object_id) == DATA

    def test_one_host_that_keeps_the_note_is_enough(self) -> None:
        world, made = forgetful(None)
        liar = keepers(world)[0]

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            if letter.short != "ShowReplica" or letter.target != liar.node_id:
                return None
            kept = objects_pb2.ReplicaRow.FromString(
                liar.store.get(REPLICAS, replica_key(made.object_id, letter.source)) or b""
            )
            kept.manifest.note = b"?"
            return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])

        world.bend = bend
        begin(world)
        assert world.owner.info("data").object_id == made.object_id

    @pytest.mark.parametrize("what", ["manifest", "epoch", "wrap", "another", "segment"])
    def test_is_not_believed(self, what: str) -> None:
        world, made = forgetful(None, also=b"another")
        other = next(object_id for object_id in kept_ids(world) if object_id != made.object_id)

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            if letter.short != "ShowReplica" or letter.request.object_id != made.object_id:
                return None
            wanted = other if what == "another" else made.object_id
            key = replica_key(wanted, world.owner.node_id)
            value = next(filter(None, (host.store.get(REPLICAS, key) for host in world.hosts)))
            kept = objects_pb2.ReplicaRow.FromString(value)
            shown = objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])
            match what:
                case "manifest":
                    shown.manifest.signed.signature = bytes(64)
                case "epoch":
                    shown.epoch.signature = bytes(64)
                case "segment":  # that of another object of this node's
                    head = SegmentHead(world.owner.node_id, 1, 1, 1, 1, other, "")
                    shown.manifest.segment.CopyFrom(sign_head(head, world.owner.signer, SALT))
                case "wrap":
                    shown.manifest.wraps[0].sealed_key = b"another's"
            return shown

        world.bend = bend
        begin(world)
        assert row(world, made.object_id) is None
        assert made.object_id in kept_ids(world), "and nobody is told to drop it for that"
        world.bend = lambda letter: None
        world.pass_ms(AGAIN_MS)
        seconds(world, 30)
        assert row(world, made.object_id) is not None, "asked for again, and shown as it is"

    @pytest.mark.parametrize("own", [True, False])
    def test_it_is_a_segment_only_by_a_head_of_its_own(self, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """Else a host could have another object of this node's dropped as one."""
        world, made = forgetful(None, also=b"another")
        other = next(object_id for object_id in kept_ids(world) if object_id != made.object_id)
        astray = told_to_state(monkeypatch)

        def bend(letter: Letter) -> objects_pb2.ShowReplicaResponse | None:
            world.owner.regaining._cuts = True
            value = world.by_id[letter.target].store.get(REPLICAS, replica_key(made.object_id, letter.source))
            if letter.short != "ShowReplica" or letter.request.object_id != made.object_id or value is None:
                return None
            kept = objects_pb2.ReplicaRow.FromString(value)
            head = SegmentHead(world.owner.node_id, 1, 1, 1, 1, made.object_id if own else other, "")
            kept.manifest.segment.CopyFrom(sign_head(head, world.owner.signer, SALT))
            return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])

        world.bend = bend
        begin(world)
        assert {*astray} == ({SegmentAstray(made.object_id, 1)} if own else set())

    def test_other_bytes_under_a_key_of_the_hosts_become_nothing_of_this_nodes(self) -> None:
        world, made = forgetful(None)
        body, secret = Manifest.decode(made.manifest.signed.body), bytes(range(OBJECT_KEY_BYTES))
        target, use = world.members.wrapping_key(world.owner.node_id), made.object_id.encode()
        assert target is not None
        (forged,) = SimWraps(world.hosts[0].signer).wrap(target, [(secret, use)], bytes(ENTROPY_BYTES))

        def bend(letter: Letter) -> Message | None:
            if letter.short == "ShowReplica":
                value = world.by_id[letter.target].store.get(REPLICAS, replica_key(made.object_id, letter.source))
                if value is None:
                    return None
                kept = objects_pb2.ReplicaRow.FromString(value)
                kept.manifest.wraps[0].sealed_key = forged
                return objects_pb2.ShowReplicaResponse(manifest=kept.manifest, epoch=kept.epoch, shards=[0])
            if letter.short == "ReadReplica":
                index = letter.request.offset // (STRIPE + TAG_BYTES)
                last = index == body.stripes - 1
                plain = bytes(letter.request.length - TAG_BYTES)
                sealed = seal_stripe(secret, body.nonce, index, last, plain)
                return objects_pb2.ReadReplicaResponse(data=sealed, size_bytes=body.sealed_bytes)
            return None

        world.bend = bend
        begin(world)
        assert "ReadReplica" in world.log
        assert row(world, made.object_id) is None
        assert list(world.owner.blobs.names()) == []


class TestTooLittleThatIsLeft:
    def lost(self, world: World) -> None:
        """All but two shards of the three that it takes."""
        for host in keepers(world)[2:]:
            host.store, host.blobs = MemoryStore(), MemoryBlobs()
            host.restart(seen=False)

    def test_is_dropped_once_every_member_has_said_so(self) -> None:
        world, made = forgetful((K, N))
        self.lost(world)
        begin(world)
        assert not keepers(world)
        mark = objects_pb2.Deletion.FromString(world.owner.store.get(DELETED, made.object_id.encode()) or b"")
        assert (mark.object_id, list(mark.untold)) == (made.object_id, [])

    def test_counts_what_hosts_have_on_their_disks(self) -> None:
        """Their rows stay, as fences, when they find that it is gone."""
        world, made = forgetful((K, N))
        for host in keepers(world)[2:]:
            for name in list(host.blobs.names()):
                host.blobs.delete(name)
            host.restart()
        assert kept_ids(world) == {made.object_id}
        assert sum(len(list(host.store.scan(REPLICAS))) for host in world.hosts) == N
        begin(world)
        assert not keepers(world)
        assert world.owner.store.get(DELETED, made.object_id.encode()) is not None

    def test_stays_while_one_is_silent(self) -> None:
        world, made = forgetful((K, N))
        self.lost(world)
        silent = next(host for host in world.hosts if host not in keepers(world))

        def bend(letter: Letter) -> Fault | None:
            mute = letter.short == "ShowReplica" and letter.target == silent.node_id
            return Unavailable("no word", reason="NotConnected") if mute else None

        world.bend = bend
        begin(world)
        assert len(keepers(world)) == 2
        assert world.owner.store.get(DELETED, made.object_id.encode()) is None


class TestOneThatHostsClaimToHave:
    """And do not give."""

    @pytest.fixture
    def world(self) -> World:
        self.lying = True
        world, self.made = forgetful(None)

        def bend(letter: Letter) -> Fault | None:
            return NotFound("lost", reason="ReplicaNotFound") if self.lying and letter.short == "ReadReplica" else None

        world.bend = bend
        begin(world)
        return world

    def hours(self, world: World, count: int) -> None:
        for _ in range(count):
            world.pass_ms(AGAIN_MS)
            seconds(world, 2)

    def test_is_told_with_the_reason(self, world: World) -> None:
        (told,) = regained(world)
        assert (told.object_id, told.back, told.hours) == (self.made.object_id, False, 1)
        assert "none of its hosts gives one" in told.trouble
        assert told.node in {host.node_id for host in keepers(world)}
        assert objects(world).missing == 1
        with pytest.raises(NotFound, match="none of its hosts gives one") as error:
            world.owner.read(self.made.object_id)
        assert error.value.reason == "ObjectMissing"
        with pytest.raises(NotFound):
            world.owner.read("ü" * 256)
        world.owner.restart()
        assert objects(world).missing == 1

    def test_is_back_once_they_give_it(self, world: World) -> None:
        self.lying = False
        self.hours(world, 1)
        (told,) = regained(world)
        assert (told.object_id, told.back, told.hours, told.trouble) == (self.made.object_id, True, 0, "")
        assert world.owner.read("data") == DATA

    def test_is_missing_no_more_once_a_job_has_left_the_very_same(self, world: World) -> None:
        """A result that is reported again has the id that it had."""
        manifest = self.made.manifest
        event = ObjectAdded(manifest, Manifest.decode(manifest.signed.body), "output", 1_000)
        world.owner.runtime.deliver("objects", event)
        world.settle()
        assert regained(world) == []
        assert objects(world).missing == 0
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=self.made.object_id))
        assert world.owner.runtime.failures == 0
        assert row(world, self.made.object_id) is None

    def test_is_given_up_by_its_owners_word(self, world: World) -> None:
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=self.made.object_id))
        seconds(world, 5)
        assert regained(world) == []
        assert kept_ids(world) == set()
        assert world.owner.store.get(DELETED, self.made.object_id.encode()) is not None
        self.lying = False
        self.hours(world, 2)
        assert row(world, self.made.object_id) is None, "and does not come back"

    def test_is_given_up_after_so_many_hours_in_vain(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(regaining, "HOURS_MAX", 4)
        self.hours(world, 2)
        assert [told.hours for told in regained(world)] == [3]
        self.hours(world, 1)
        assert regained(world) == []
        assert kept_ids(world) == set()

    def test_is_kept_for_ever_while_no_bytes_get_through(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hosts are asked and answer; their pieces are too large for the road."""
        monkeypatch.setattr(regaining, "HOURS_MAX", 4)
        world.bend = lambda letter: Unavailable("too late") if letter.short == "ReadReplica" else None
        self.hours(world, 6)
        assert [told.hours for told in regained(world)] == [1]
        assert kept_ids(world) == {self.made.object_id}

    def test_is_kept_for_ever_while_one_is_silent(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may have what the others only claim."""
        monkeypatch.setattr(regaining, "HOURS_MAX", 4)
        silent = next(host for host in world.hosts if host not in keepers(world))
        silent.up = False
        self.hours(world, 6)
        assert [told.hours for told in regained(world)] == [1]
        assert kept_ids(world) == {self.made.object_id}
