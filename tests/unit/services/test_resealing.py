"""Objects sealed anew over real handlers: nothing is lost or shown twice, whatever happens to it meanwhile, and a crash
at any step loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import Letter, Node, World

from offgrid.plaintext import checksum_of
from offgrid.v1 import jobs_pb2, objects_pb2, state_pb2
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound, Unavailable
from offgrid_node.protocol.jobs.schedules import SCHEDULE_JOBS
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY
from offgrid_node.protocol.objects import resealing
from offgrid_node.protocol.objects.commands import AddObject, Resealed
from offgrid_node.protocol.objects.errands import Reseal
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.resealing import ACKS_MS, LOOK_MS, PASS_MAX_MS, PASS_MS
from offgrid_node.protocol.objects.tables import DELETED, NOTICES, OBJECTS, REPLICAS, RESEALED, SHARED
from offgrid_node.runtime import Ticket
from offgrid_node.services.objects.puts import Puts
from offgrid_node.services.objects.resealing import SAFE_LOOK_MS
from offgrid_node.services.objects.room import is_known
from offgrid_node.storage.blobs import sweep
from offgrid_node.storage.store import Batch

TEXT = b"what somebody who is trusted no more has had the key of " * 9  # some stripes
DURABLE = objects_pb2.OBJECT_STATE_DURABLE
HOUR_MS = 3_600_000


@pytest.fixture
def world() -> World:
    return World(3)


def data(index: int) -> bytes:
    return TEXT + str(index).encode()


def put(world: World, *names: str) -> list[str]:
    made = [world.owner.put(data(index), name=name).object_id for index, name in enumerate(names)]
    world.pass_ms(1_000)
    return made


def share(world: World, wanted: str, node: str = "host-0") -> None:
    world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object=wanted, node=node))


def rotated(world: World) -> None:
    """The mesh domain says when the key of now was begun."""
    write(world.owner, "meta", BEGUN_KEY, world.clock.now().utc_us.to_bytes(8, "big"))
    world.pass_ms(1)


def write(node: Node, table: str, key: bytes, value: bytes | None) -> None:
    node.store.commit(Batch(writes={(table, key): value}))


def begin(world: World) -> objects_pb2.Reencryption:
    rotated(world)
    told: objects_pb2.Reencryption = world.owner.ask(
        "ReencryptObjects", objects_pb2.ReencryptObjectsRequest()
    ).reencryption
    return told


def far(world: World) -> objects_pb2.Reencryption:
    told: objects_pb2.Reencryption = world.owner.ask("GetDataKeys", objects_pb2.GetDataKeysRequest()).reencryption
    return told


def listed(world: World, node: Node | None = None) -> list[tuple[str, str]]:
    request = objects_pb2.ListObjectsRequest(shared=node is not None)
    return sorted((made.name, made.object_id) for made in (node or world.owner).ask("ListObjects", request).objects)


def refusing(letter: Letter) -> Fault | None:
    """Hosts take nothing."""
    return Unavailable("not now") if letter.short == "OpenReplica" else None


def rest(world: World) -> None:
    """Until nothing more comes of it, hosts and readers told."""
    for _ in range(3):
        world.pass_ms(GATHER_MS)
    world.pass_ms(60_000)


def rows(node: Node) -> list[tuple[bytes, objects_pb2.ObjectRow]]:
    return [(key, objects_pb2.ObjectRow.FromString(value)) for key, value in node.store.scan(OBJECTS)]


def is_kept(world: World, object_id: str) -> bool:
    return any(name.partition(".")[0] == object_id for host in world.hosts for name in host.blobs.names())


def check_clean(world: World) -> None:
    """Nothing half done, and nothing of what was, is left anywhere."""
    owner = world.owner
    assert list(owner.store.scan(RESEALED)) == list(owner.store.scan(NOTICES)) == []
    assert not any(row.replaces for _, row in rows(owner))
    ids = {row.object.object_id for _, row in rows(owner)}
    for host in world.hosts:
        assert {key.partition(b"/")[0].decode() for key, _ in host.store.scan(REPLICAS)} <= ids
        assert {name.partition(".")[0] for name in host.blobs.names()} <= ids
    assert {*owner.blobs.names()} <= ids


def key_of(world: World, wanted: str) -> bytes:
    return world.owner.reading.key_of(world.owner.info(wanted).manifest)


class TestAnObject:
    def test_it_has_another_key_and_id_and_the_old_one_leads_to_it(self, world: World) -> None:
        (old,) = put(world, "notes")
        before, key = world.owner.info(old), key_of(world, old)
        world.pass_ms(HOUR_MS)
        assert (begin(world).objects, far(world).under_way) == (1, False)
        rest(world)
        made = world.owner.info("notes")
        assert made.object_id != old
        assert key_of(world, "notes") != key
        assert made.state == DURABLE
        assert [*made.formerly] == [old]
        assert world.owner.info(old) == made
        assert world.owner.read(old) == world.owner.read("notes") == data(0)
        assert (made.created_us, made.copies, made.required_milli) == (
            before.created_us, before.copies, before.required_milli,
        )  # fmt: skip
        told = far(world)
        assert (told.sealed, told.left, told.sealed_bytes) == (1, 0, len(data(0)))
        check_clean(world)

    def test_its_readers_of_the_moment_go_with_it(self, world: World) -> None:
        (old,) = put(world, "notes")
        share(world, "notes")
        rest(world)
        begin(world)
        rest(world)
        new, reader = world.owner.info("notes").object_id, world.hosts[0]
        assert listed(world, reader) == [("notes", new)]
        assert reader.read(old) == reader.read("notes") == data(0)
        assert listed(world, world.hosts[1]) == []
        check_clean(world)

    def test_it_stays_coded_padded_and_expiring(self, world: World) -> None:
        begun = world.owner.ask(
            "PutObject",
            objects_pb2.PutObjectRequest(
                name="odd", data=data(0), padded=True, expires_after_ms=9 * HOUR_MS, copies=2, request_id="mine"
            ),
        ).object
        coded = world.owner.put(data(1), name="coded", code=(2, 3))
        world.pass_ms(1_000)
        begin(world)
        rest(world)
        odd, now_coded = world.owner.info("odd"), world.owner.info("coded")
        assert (odd.padded_bytes, odd.size_bytes, odd.expires_us, odd.copies, odd.request_id) == (
            begun.padded_bytes, len(data(0)), begun.expires_us, 2, "mine",
        )  # fmt: skip
        assert (now_coded.shards_needed, now_coded.shards_total) == (2, 3)
        assert now_coded.object_id != coded.object_id
        assert (world.owner.read("odd"), world.owner.read("coded")) == (data(0), data(1))
        world.pass_ms(10 * HOUR_MS)
        world.pass_ms(60_000)
        assert [name for name, _ in listed(world)] == ["coded"]

    def test_of_several_of_a_name_each_keeps_its_place(self, world: World) -> None:
        older, newer = put(world, "notes", "notes")
        begin(world)
        rest(world)
        assert world.owner.read("notes") == world.owner.read(newer) == data(1)
        assert world.owner.read(older) == data(0)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes"))
        assert world.owner.read("notes") == data(0)

    def test_the_call_that_made_it_may_be_repeated(self, world: World) -> None:
        request = objects_pb2.PutObjectRequest(name="notes", data=data(0), request_id="mine")
        old = world.owner.ask("PutObject", request).object.object_id
        piece = objects_pb2.OpenUploadRequest(name="pieces", request_id="pieces")
        upload = world.owner.put(data(1), name="pieces", request_id="pieces")
        world.owner.restart()
        world.pass_ms(1_000)
        begin(world)
        rest(world)
        repeated = world.owner.ask("PutObject", request).object
        assert (repeated.name, [*repeated.formerly]) == ("notes", [old])
        opened = world.owner.ask("OpenUpload", piece)
        commit = objects_pb2.CommitUploadRequest(
            upload_id=opened.upload_id, size_bytes=opened.offset, checksum=checksum_of(data(1))
        )
        assert [*world.owner.ask("CommitUpload", commit).object.formerly] == [upload.object_id]
        assert len(listed(world)) == 2

    @pytest.mark.parametrize("seen", [True, False], ids=["seen at once", "as late as it is added"])
    def test_so_may_the_enqueue_and_names_the_same_entry(
        self, world: World, seen: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        request = objects_pb2.EnqueueRequest(key="k", data=data(0), etype=15, request_id="mine")
        world.owner.ask("Enqueue", request)
        world.pass_ms(1_000)
        first = world.owner.ask("Enqueue", request).entry
        for _ in range(2):
            begin(world)
            rest(world)
        assert far(world).sealed == 1
        if not seen:
            monkeypatch.setattr(Puts, "_made", lambda self, put: None)
        assert world.owner.ask("Enqueue", request).entry == first

    def test_whoever_deletes_it_by_an_id_of_before_deletes_it(self, world: World) -> None:
        (old,) = put(world, "notes")
        begin(world)
        rest(world)
        begin(world)
        rest(world)
        assert len(world.owner.info(old).formerly) == 2
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=old))
        assert listed(world) == []
        with pytest.raises(NotFound, match="has been deleted"):
            world.owner.info(old)
        rest(world)
        check_clean(world)


class TestAllOfThem:
    def test_what_was_sealed_since_is_left_as_it_is(self, world: World) -> None:
        put(world, "before")
        rotated(world)
        (after,) = put(world, "after")
        told = world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest()).reencryption
        assert told.objects == 1
        rest(world)
        assert ("after", after) in listed(world)
        again = world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest()).reencryption
        assert (again.objects, again.under_way) == (0, False)

    def test_they_come_in_pages(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resealing, "PAGE_OBJECTS", 2)
        before = put(world, *(f"n-{index}" for index in range(7)))
        begin(world)
        rest(world)
        assert far(world).sealed == 7
        assert not {object_id for _, object_id in listed(world)} & {*before}

    def test_it_is_paced(self, world: World) -> None:
        world.owner.reencrypt_bytes_per_s = 1_000
        world.owner.restart()
        put(world, "a", "b")
        begin(world)
        world.pass_ms(1_000)
        assert far(world).under_way
        for _ in range(200):
            world.pass_ms(1_000)
        assert (far(world).under_way, far(world).sealed) == (False, 2)

    def test_it_is_told_in_the_journal(self, world: World) -> None:
        (old,) = put(world, "notes")
        begin(world)
        rest(world)
        events = [state_pb2.Event.FromString(value).object for _, value in world.owner.store.events()]
        told = [(event.outcome, event.former) for event in events if "e" in event.outcome]
        assert [each for each in told if "encrypt" in each[0] or "anew" in each[0]] == [
            ("reencryption begun", ""), ("sealed anew", old), ("reencryption ended", ""),
        ]  # fmt: skip


class TestMeanwhile:
    """`world.on_reseal` stands between what the machine asks for and its being done."""

    def held(self, world: World, *, new: bool) -> list[Reseal]:
        """What is asked of the sealing, or of the wrapping that comes before the switch, waits here."""
        waiting: list[Reseal] = []

        def hold(node: Node, work: Reseal) -> None:
            if bool(work.new_id) is new:
                waiting.append(work)
            else:
                node.resealing.reseal(work)

        world.on_reseal = hold
        return waiting

    def go_on(self, world: World, waiting: list[Reseal]) -> None:
        world.on_reseal = lambda node, work: node.resealing.reseal(work)
        for work in waiting:
            world.owner.resealing.reseal(work)
        rest(world)

    def test_until_then_the_old_one_is_the_object(self, world: World) -> None:
        (old,) = put(world, "notes")
        waiting = self.held(world, new=True)
        begin(world)
        assert listed(world) == [("notes", old)]
        assert world.owner.info("notes").object_id == old
        self.go_on(world, waiting)
        assert [name for name, _ in listed(world)] == ["notes"]
        check_clean(world)

    @pytest.mark.parametrize("wrapped", [False, True], ids=["its wraps not made", "its wraps made"])
    def test_shared_and_unshared(self, world: World, wrapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        (old,) = put(world, "notes")
        share(world, "notes", "host-0")
        waiting = self.held(world, new=True)
        begin(world)
        made: list[object] = []
        if wrapped:
            deliver = world.owner.runtime.deliver
            monkeypatch.setattr(world.owner.runtime, "deliver", lambda domain, event: made.append(event))
            world.owner.resealing.reseal(waiting.pop())
            monkeypatch.setattr(world.owner.runtime, "deliver", deliver)
        share(world, "notes", "host-1")
        world.owner.ask("UnshareObject", objects_pb2.UnshareObjectRequest(object="notes", node="host-0"))
        world.on_reseal = lambda node, work: node.resealing.reseal(work)
        for event in made:
            world.owner.runtime.deliver("objects", event)
        self.go_on(world, waiting)
        new = world.owner.info("notes").object_id
        assert new != old
        assert [listed(world, host) for host in world.hosts] == [[], [("notes", new)], []]
        assert world.hosts[1].read("notes") == data(0)
        check_clean(world)

    def test_shared_in_the_moment_in_which_it_takes_its_place(self, world: World) -> None:
        (old,) = put(world, "notes")
        waiting = self.held(world, new=True)
        begin(world)
        world.on_reseal = lambda node, work: node.resealing.reseal(work)
        world.owner.resealing.reseal(waiting.pop())  # its end is in the inbox before the share
        share(world, old, "host-1")
        rest(world)
        assert listed(world, world.hosts[1]) == listed(world) != [("notes", old)]
        assert world.hosts[1].read("notes") == data(0)

    @pytest.mark.parametrize("new", [False, True], ids=["not sealed", "not in its place"])
    def test_deleted(self, world: World, new: bool) -> None:
        put(world, "notes")
        waiting = self.held(world, new=new)
        begin(world)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes"))
        self.go_on(world, waiting)
        world.pass_ms(60_000)
        rest(world)
        assert listed(world) == []
        assert not far(world).under_way
        check_clean(world)

    @pytest.mark.parametrize("new", [False, True], ids=["not sealed", "not in its place"])
    def test_expired(self, world: World, new: bool) -> None:
        request = objects_pb2.PutObjectRequest(name="soon", data=data(0), expires_after_ms=HOUR_MS)
        world.owner.ask("PutObject", request)
        world.pass_ms(1_000)
        waiting = self.held(world, new=new)
        begin(world)
        world.pass_ms(2 * HOUR_MS)
        self.go_on(world, waiting)
        world.pass_ms(60_000)
        rest(world)
        assert listed(world) == []
        assert not far(world).under_way
        check_clean(world)

    def test_another_of_its_name_is_put(self, world: World) -> None:
        (old,) = put(world, "notes")
        waiting = self.held(world, new=True)
        begin(world)
        world.owner.put(b"later", name="notes")
        self.go_on(world, waiting)
        assert (world.owner.read("notes"), world.owner.read(old)) == (b"later", data(0))

    @pytest.mark.parametrize("new", [False, True], ids=["before it is sealed", "before it takes its place"])
    def test_needed_by_a_job_it_waits(self, world: World, new: bool) -> None:
        (old,) = put(world, "notes")
        waiting = self.held(world, new=new)
        begin(world)
        write(world.owner, SCHEDULE_JOBS, b"s-1", jobs_pb2.JobPayload(input_object_id=old).SerializeToString())
        self.go_on(world, waiting)
        assert listed(world) == [("notes", old)]
        told = far(world)
        assert (told.under_way, told.left) == (True, 1)
        assert [(each.object_id, each.why) for each in told.waiting] == [(old, "schedule s-1 needs it")]
        write(world.owner, SCHEDULE_JOBS, b"s-1", None)
        world.pass_ms(PASS_MAX_MS)
        rest(world)
        assert (far(world).under_way, far(world).sealed) == (False, 1)
        assert world.owner.read(old) == data(0)
        check_clean(world)

    def test_one_that_cannot_be_read_keeps_none_back(self, world: World) -> None:
        lost, _ = put(world, "lost", "there")

        def gone(node: Node, work: Reseal) -> None:
            if work.object_id == lost:
                node.runtime.deliver("objects", Resealed(lost, fault=Unavailable("no host gives it")))
            else:
                node.resealing.reseal(work)

        world.on_reseal = gone
        begin(world)
        rest(world)
        told = far(world)
        assert (told.sealed, told.left, told.under_way) == (1, 1, True)
        assert [(each.object_id, each.why) for each in told.waiting] == [(lost, "no host gives it")]
        world.on_reseal = lambda node, work: node.resealing.reseal(work)
        world.pass_ms(PASS_MS)
        rest(world)
        assert (far(world).sealed, far(world).under_way) == (2, False)

    def test_where_no_host_takes_it_the_old_one_stays_until_one_does(self, world: World) -> None:
        (old,) = put(world, "notes")
        world.bend = refusing
        begin(world)
        for _ in range(3):
            world.pass_ms(LOOK_MS)
        assert world.owner.info("notes").object_id == old
        (waiting,) = far(world).waiting
        assert waiting.object_id == old
        assert "waits for acks" in waiting.why
        world.bend = lambda letter: None
        for _ in range(4):
            world.pass_ms(60_000)
        assert world.owner.info("notes").object_id != old
        assert world.owner.read("notes") == data(0)

    def test_one_that_gets_no_acks_makes_room_after_a_while(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resealing, "PENDING_MIN", 1)
        monkeypatch.setattr(resealing, "PENDING_MAX", 1)
        put(world, "a", "b", "c")
        refused: list[str] = []

        def one(letter: Letter) -> Fault | None:
            if letter.short != "OpenReplica":
                return None
            object_id = letter.request.manifest.SerializeToString()
            refused[:] = refused or [object_id]
            return Unavailable("not now") if object_id == refused[0] else None

        world.bend = one
        begin(world)
        rest(world)
        assert (far(world).sealed, len(list(world.owner.store.scan(RESEALED)))) == (0, 1)
        for _ in range(2):
            world.pass_ms(ACKS_MS)
            rest(world)
        told = far(world)
        assert (told.sealed, told.under_way) == (3, False)  # its next form is not refused
        check_clean(world)

    def test_an_id_of_what_is_not_in_its_place_names_the_object(self, world: World) -> None:
        (old,) = put(world, "notes")
        waiting = self.held(world, new=True)
        begin(world)
        new = waiting[0].new_id
        assert world.owner.info(new).object_id == world.owner.info(new[:20]).object_id == old
        share(world, new, "host-1")
        self.go_on(world, waiting)
        assert listed(world, world.hosts[1]) == [("notes", new)]
        assert world.hosts[1].read("notes") == data(0)

    def test_deleted_by_such_an_id_the_object_goes(self, world: World) -> None:
        put(world, "notes")
        waiting = self.held(world, new=True)
        begin(world)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=waiting[0].new_id))
        with pytest.raises(NotFound):
            world.owner.info(waiting[0].new_id)
        self.go_on(world, waiting)
        world.pass_ms(60_000)
        assert listed(world) == []

    def test_given_up_by_hand_what_was_to_take_its_place_goes(self, world: World) -> None:
        (old,) = put(world, "notes")
        world.bend = refusing
        begin(world)
        (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest(open_only=True)).entries
        world.owner.ask("CancelOutboxEntry", objects_pb2.CancelOutboxEntryRequest(id=entry.id))
        world.pass_ms(LOOK_MS)
        assert listed(world) == [("notes", old)]
        assert list(world.owner.store.scan(RESEALED)) == []
        assert far(world).left == 1

    def test_given_up_before_it_is_left_out(self, world: World) -> None:
        world.bend = refusing
        old = world.owner.put(data(0), name="notes").object_id
        (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest(open_only=True)).entries
        world.owner.ask("CancelOutboxEntry", objects_pb2.CancelOutboxEntryRequest(id=entry.id))
        world.pass_ms(1)
        begin(world)
        rest(world)
        assert (far(world).under_way, far(world).left_out) == (False, 1)
        assert listed(world) == [("notes", old)]

    def test_its_hosts_that_are_away_drop_the_old_one_when_they_are_back(self, world: World) -> None:
        put(world, "notes")
        world.hosts[0].up = False
        begin(world)
        rest(world)
        world.hosts[0].up = True
        world.hosts[0].restart()
        world.settle()
        for _ in range(4):
            world.pass_ms(60_000)
        check_clean(world)

    def stop(self, world: World) -> objects_pb2.Reencryption:
        told: objects_pb2.Reencryption
        told = world.owner.ask("StopReencryption", objects_pb2.StopReencryptionRequest()).reencryption
        return told

    def test_stopped(self, world: World) -> None:
        made = put(world, "a", "b")
        waiting = self.held(world, new=False)
        begin(world)
        assert not self.stop(world).under_way
        self.go_on(world, waiting)
        assert listed(world) == [("a", made[0]), ("b", made[1])]
        check_clean(world)
        self.stop(world)
        assert begin(world).objects == 2
        rest(world)
        assert (far(world).under_way, far(world).sealed) == (False, 2)

    def test_stopped_what_has_no_acks_goes(self, world: World) -> None:
        made = put(world, "a", "b")
        world.bend = refusing
        begin(world)
        assert not self.stop(world).under_way
        world.bend = lambda letter: None
        rest(world)
        assert listed(world) == [("a", made[0]), ("b", made[1])]

    def test_stopped_what_is_durable_takes_its_place_and_nothing_else_is_begun(self, world: World) -> None:
        """A restored owner may have forgotten that it has done so already: its hosts have nothing else."""
        put(world, "a")
        waiting = self.held(world, new=True)
        begin(world)
        (half,) = [new.decode() for _, new in world.owner.store.scan(RESEALED)]
        (kept,) = put(world, "z")
        write(world.owner, "meta", BEGUN_KEY, (world.clock.now().utc_us + 1).to_bytes(8, "big"))
        assert self.stop(world).under_way
        self.go_on(world, waiting)
        assert listed(world) == [("a", half), ("z", kept)]
        told = far(world)
        assert (told.under_way, told.sealed, told.left) == (False, 1, 0)
        check_clean(world)
        assert begin(world).objects == 2, "asked for again it begins again"

    def test_asked_for_again_what_has_no_acks_yet_is_sealed_once_more(self, world: World) -> None:
        put(world, "a", "b")
        world.bend = refusing
        begin(world)
        halves = {new.decode() for _, new in world.owner.store.scan(RESEALED)}
        world.pass_ms(HOUR_MS // 4)
        assert begin(world).objects == len(halves) == 2
        before_us = far(world).before_us
        world.bend = lambda letter: None
        for _ in range(4):
            world.pass_ms(PASS_MS)
            rest(world)
        told = far(world)
        assert (told.under_way, told.sealed, told.left) == (False, 2, 0)
        assert not {object_id for _, object_id in listed(world)} & halves
        assert all(row.resealed_us >= before_us for _, row in rows(world.owner))

    def test_a_clock_that_was_set_back_has_none_sealed_again_and_again(self, world: World) -> None:
        (old,) = put(world, "notes")
        ahead_us = world.clock.now().utc_us + HOUR_MS * 1_000
        write(world.owner, "meta", BEGUN_KEY, ahead_us.to_bytes(8, "big"))
        asked = objects_pb2.ReencryptObjectsRequest()
        assert world.owner.ask("ReencryptObjects", asked).reencryption.objects == 1
        rest(world)
        assert (far(world).under_way, far(world).sealed) == (False, 1)
        assert world.owner.info("notes").object_id != old
        assert world.owner.ask("ReencryptObjects", asked).reencryption.objects == 0

    def test_a_key_that_was_begun_by_a_clock_far_ahead_has_nothing_sealed_anew_that_came_after_it(
        self, world: World
    ) -> None:
        (old,) = put(world, "before")
        ahead_us = world.clock.now().utc_us + 1_000 * HOUR_MS * 1_000
        write(world.owner, "meta", BEGUN_KEY, ahead_us.to_bytes(8, "big"))
        world.members.wrap_numbers[world.owner.node_id] += 1
        world.owner.meet(world.owner)
        world.settle()
        after = put(world, "after")
        asked = objects_pb2.ReencryptObjectsRequest()
        assert world.owner.ask("ReencryptObjects", asked).reencryption.objects == 1
        rest(world)
        now = dict(listed(world))
        assert [now["after"]] == after
        assert now["before"] != old

    def test_asked_for_again_under_a_later_key_all_of_it_begins_anew(self, world: World) -> None:
        made = put(world, "a", "b", "c")
        waiting = list[Reseal]()
        last = max(made)

        def hold(node: Node, work: Reseal) -> None:
            if work == Reseal(last):
                waiting.append(work)
            else:
                node.resealing.reseal(work)

        world.on_reseal = hold
        begin(world)
        rest(world)
        assert far(world).sealed == 2
        assert begin(world).objects == 3
        self.go_on(world, waiting)
        assert (far(world).under_way, far(world).sealed, far(world).left) == (False, 3, 0)
        assert not {object_id for _, object_id in listed(world)} & {*made}


class TestItsJournalAtHosts:
    """`safe_seq`: up to which event it would come back if it lost its disk now."""

    def test_the_old_one_stays_until_the_journal_there_knows_the_new_one(self, world: World) -> None:
        (old,) = put(world, "notes")
        owner, asked_at = world.owner, list[int]()
        owner.safe_seq = 0

        def seen(node: Node, work: Reseal) -> None:
            if work.new_id:
                asked_at.append(node.store.journal_seq)
            node.resealing.reseal(work)

        world.on_reseal = seen
        begin(world)
        (made,) = (row for _, row in rows(owner) if row.replaces)
        assert made.object.state == DURABLE
        owner.safe_seq = asked_at[0] - 1
        world.pass_ms(HOUR_MS)
        assert owner.info("notes").object_id == old
        assert is_kept(world, old)
        (waiting,) = far(world).waiting
        assert (waiting.object_id, waiting.why) == (old, "sealed anew, it waits until the journal at hosts says so")
        owner.put(b"more", name="more")  # the journal goes on: what counts is where it was
        owner.safe_seq = asked_at[0]
        world.pass_ms(SAFE_LOOK_MS)
        rest(world)
        assert owner.info("notes").object_id == made.object.object_id
        assert not is_kept(world, old)
        assert not far(world).waiting
        check_clean(world)

    def test_meanwhile_others_are_sealed_until_they_take_too_much_of_the_disk(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resealing, "PENDING_BYTES_MAX", 6 * len(data(0)))
        put(world, *(f"n-{index}" for index in range(9)))
        world.owner.safe_seq = 0
        begin(world)
        rest(world)
        assert len(list(world.owner.store.scan(RESEALED))) == 6
        world.owner.restart()
        rest(world)
        assert len(list(world.owner.store.scan(RESEALED))) == 6
        monkeypatch.setattr(resealing, "PENDING_MAX", 8)
        monkeypatch.setattr(resealing, "PENDING_BYTES_MAX", 1 << 20)
        world.pass_ms(LOOK_MS)
        assert len(list(world.owner.store.scan(RESEALED))) == 8
        world.owner.safe_seq = 1 << 60
        for _ in range(9):
            world.pass_ms(SAFE_LOOK_MS)
        rest(world)
        assert (far(world).under_way, far(world).sealed) == (False, 9)
        check_clean(world)

    def test_deleted_while_it_waits_for_that(self, world: World) -> None:
        put(world, "notes")
        world.owner.safe_seq = 0
        begin(world)
        world.pass_ms(SAFE_LOOK_MS)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes"))
        rest(world)
        rest(world)
        assert (listed(world), far(world).under_way) == ([], False)
        check_clean(world)


def die(node: Node) -> None:
    node.runtime.machines = {}  # nothing comes of what is in the inbox
    node.restart()


class TestCrashes:
    NAMES = ("a", "b", "c")

    def check_done(self, world: World, made: list[str]) -> None:
        for _ in range(3):
            world.pass_ms(60_000)
        rest(world)
        assert not far(world).under_way
        assert [name for name, _ in listed(world)] == [*self.NAMES]
        assert not {object_id for _, object_id in listed(world)} & {*made}
        for index, object_id in enumerate(made):
            assert world.owner.read(object_id) == world.owner.read(self.NAMES[index]) == data(index)
        assert [name for name, _ in listed(world, world.hosts[0])] == ["a"]
        assert world.hosts[0].read("a") == data(0)
        check_clean(world)

    @pytest.mark.parametrize("step", range(6))
    @pytest.mark.parametrize("worked", [False, True], ids=["before its work", "in the midst of it"])
    def test_killed_at_a_step_it_goes_on(self, world: World, step: int, worked: bool) -> None:
        made = put(world, *self.NAMES)
        share(world, "a")
        steps: list[Reseal] = []

        def killed(node: Node, work: Reseal) -> None:
            steps.append(work)
            turn = len(steps) - 1 == step
            if worked or not turn:
                node.resealing.reseal(work)
            if turn:
                die(node)

        world.on_reseal = killed
        begin(world)
        self.check_done(world, made)
        assert len(steps) > step

    @pytest.mark.parametrize("kind", [AddObject, Resealed], ids=["it is added", "its wraps are heard of"])
    def test_killed_before(self, world: World, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
        made, killed = put(world, *self.NAMES), []
        share(world, "a")
        rest(world)
        runtime = world.owner.runtime
        sound, deliver = runtime.ask, runtime.deliver

        def ask(domain: str, caller: str, command: object, **more: int) -> Ticket:
            if isinstance(command, kind):
                killed.append(command)
                die(world.owner)
                return Ticket()
            return sound(domain, caller, command, **more)

        def delivered(domain: str, event: object) -> None:
            if isinstance(event, kind) and event.new_id:
                killed.append(event)
                die(world.owner)
            else:
                deliver(domain, event)

        monkeypatch.setattr(runtime, "ask", ask)
        monkeypatch.setattr(runtime, "deliver", delivered)
        begin(world)
        assert len(killed) == 1
        sweep(world.owner.blobs, lambda name: is_known(world.owner.store, name), lambda staged: True)
        self.check_done(world, made)

    @pytest.mark.parametrize("calls", range(12))
    def test_killed_at_a_call_it_goes_on(self, world: World, calls: int) -> None:
        made = put(world, *self.NAMES)
        share(world, "a")
        rest(world)
        left = calls

        def killed(letter: Letter) -> Fault | None:
            nonlocal left
            if letter.source == world.owner.node_id:
                if left == 0:
                    world.owner.restart()
                left -= 1
            return None

        world.bend = killed
        begin(world)
        self.check_done(world, made)

    @pytest.mark.parametrize("commit", range(24))
    @pytest.mark.parametrize("applied", [False, True], ids=["not written", "written"])
    def test_a_commit_fails_or_is_not_heard_of(self, world: World, commit: int, applied: bool) -> None:
        made = put(world, *self.NAMES)
        share(world, "a")
        rest(world)
        rotated(world)
        sound, left = world.owner.store.commit, commit

        def failing(batch: Any) -> int:
            nonlocal left
            left -= 1
            if left == -1:
                world.owner.store.fail_next(Unavailable("the disk"), applied=applied)
            return sound(batch)

        world.owner.store.commit = failing  # type: ignore[method-assign]
        try:
            world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest())
        except Unavailable:
            world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest())
        world.pass_ms(60_000)
        for other in world.by_id.values():
            world.owner.meet(other)  # machines that were loaded anew are told of all peers
        self.check_done(world, made)


class TestTheAsking:
    def test_no_owner_says_more_ids_of_before_than_may_be(self, world: World) -> None:
        put(world, "notes")
        share(world, "notes")
        rest(world)
        ((_, value),) = world.hosts[0].store.scan(SHARED)
        shared = objects_pb2.SharedRow.FromString(value).shared
        for formerly in (["o-" + "a" * 32] * 9, ["no id"]):
            shared.formerly[:] = formerly
            with pytest.raises(Fault, match="formerly"):
                world.hosts[0].ask_as(world.owner, "DeliverNotices", objects_pb2.DeliverNoticesRequest(shared=[shared]))

    def test_the_new_one_keeps_no_byte_of_the_old_ones_seal(self, world: World) -> None:
        (old,) = put(world, "notes")
        before = Manifest.decode(world.owner.info(old).manifest.signed.body)
        begin(world)
        rest(world)
        after = Manifest.decode(world.owner.info("notes").manifest.signed.body)
        assert before.nonce != after.nonce
        assert not {*before.roots} & {*after.roots}
        assert (
            objects_pb2.Deletion.FromString(world.owner.store.get(DELETED, old.encode()) or b"").moved_to
            == after.object_id
        )


def test_a_row_that_nobody_can_read_is_left_out_and_said(world: World) -> None:
    ids = sorted(put(world, "a", "b", "c"))
    world.owner.store.damage(OBJECTS, ids[1].encode())
    begin(world)
    for _ in range(3):
        rest(world)
    told = far(world)
    assert (told.under_way, told.sealed, told.left_out) == (False, 2, 1)
    assert world.owner.runtime.failures == 0


@pytest.mark.parametrize("half", [False, True])
def test_a_row_that_is_damaged_while_its_object_waits_for_acks_keeps_no_other_from_it(
    world: World, *, half: bool
) -> None:
    made = put(world, "a", "b", "c")
    ids = sorted(made)
    world.bend = refusing
    begin(world)
    rest(world)
    halves = {old.decode(): new.decode() for old, new in world.owner.store.scan(RESEALED)}
    damaged = halves[ids[1]] if half else ids[1]
    world.owner.store.damage(OBJECTS, damaged.encode())
    world.owner.restart()
    world.bend = lambda letter: None
    rest(world)
    for _ in range(3):
        world.pass_ms(HOUR_MS)
    assert world.owner.runtime.failures == 0
    assert far(world).sealed >= 2
    if half:
        return
    assert world.owner.store.get(OBJECTS, halves[ids[1]].encode()) is not None, "the half that is sound stays"
    index = made.index(ids[1])
    for wanted in (ids[1], "abc"[index], halves[ids[1]]):
        assert world.owner.read(wanted) == data(index), "and is read in the place of what nobody can read"
        with pytest.raises(Corrupt):
            world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=wanted))
