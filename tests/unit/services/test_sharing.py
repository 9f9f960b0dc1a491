"""Sharing over real handlers: who is told reads it, nobody else does, and no byte of the object moves for that."""

from __future__ import annotations

import copy

import pytest
from bulk_world import SALT, Letter, Node, World
from msgspec.structs import replace

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PeerFault,
)
from offgrid_node.protocol.mesh.wrapping import BEGUN_KEY
from offgrid_node.protocol.objects import notices, sharing
from offgrid_node.protocol.objects.manifest import MANIFEST_KIND, Manifest
from offgrid_node.protocol.objects.notices import GATHER_MS, PAGE_NOTICES
from offgrid_node.protocol.objects.tables import NOTICES, OBJECTS, READ, REPLICAS, SHARED
from offgrid_node.protocol.quorum.records import Epoch, sign_epoch
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.objects.bounds import WRAP_BYTES_MAX
from offgrid_node.services.objects.sealing import sign_manifest
from offgrid_node.storage.store import Batch

DATA = b"what was written" * 20
Share, Unshare, List, Notices = (
    objects_pb2.ShareObjectRequest,
    objects_pb2.UnshareObjectRequest,
    objects_pb2.ListObjectsRequest,
    objects_pb2.DeliverNoticesRequest,
)


@pytest.fixture
def world() -> World:
    return World(4)


@pytest.fixture
def made(world: World) -> objects_pb2.Object:
    return world.owner.put(DATA, name="notes")


def share(world: World, node: str = "host-0") -> objects_pb2.Object:
    answer = world.owner.ask("ShareObject", Share(object="notes", node=node)).object
    world.pass_ms(GATHER_MS)
    return answer  # type: ignore[no-any-return]


def shared_with(node: Node) -> list[objects_pb2.Object]:
    return [*node.ask("ListObjects", List(shared=True)).objects]


class TestTheWay:
    def test_the_reader_finds_it_with_its_owner_and_reads_it(self, world: World, made: objects_pb2.Object) -> None:
        reader = world.hosts[0]
        share(world)
        (seen,) = shared_with(reader)
        assert (seen.object_id, seen.name, seen.owner, seen.size_bytes) == (
            made.object_id, "notes", world.owner.node_id, len(DATA),
        )  # fmt: skip
        for wanted in (made.object_id, made.object_id[:8], "notes"):
            assert reader.read(wanted) == DATA
        assert reader.ask("ListObjects", List()).objects == []

    def test_no_byte_of_the_object_moves_and_a_wrap_is_small(self, world: World, made: objects_pb2.Object) -> None:
        before = made.manifest.ByteSize()
        world.log.clear()
        after = share(world).manifest.ByteSize()
        assert set(world.log) - {"GetCapacity"} == {"DeliverNotices"}
        assert after - before <= 150

    def test_nobody_else_can(self, world: World, made: objects_pb2.Object) -> None:
        share(world)
        for other in world.hosts[1:]:
            with pytest.raises(NotFound):
                other.read("notes")

    def test_the_reader_reads_from_the_hosts_when_the_owner_is_away(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        (reader,) = [host for host in world.hosts if made.object_id not in host.blobs.names()]
        share(world, reader.name)
        world.owner.up = False
        assert reader.read("notes") == DATA

    def test_hosts_do_not_learn_who_reads(self, world: World, made: objects_pb2.Object) -> None:
        world.hosts[0].up = world.hosts[1].up = False
        waiting = world.owner.put(DATA, name="waiting", required_milli=4_000)
        world.owner.ask("ShareObject", Share(object="waiting", node="host-3"))
        for host in world.hosts:
            host.up = True
            world.owner.meet(host)
        world.pass_ms(120_000)
        for host in world.hosts:
            for _, value in host.store.scan(REPLICAS, prefix=waiting.object_id.encode()):
                row = objects_pb2.ReplicaRow.FromString(value)
                assert [wrap.node_id for wrap in row.manifest.wraps] == [world.owner.node_id]

    def test_readers_do_not_get_what_the_owner_has_noted_down_and_hosts_do(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        assert made.manifest.note
        share(world)
        ((_, value),) = world.hosts[0].store.scan(SHARED)
        assert not objects_pb2.SharedRow.FromString(value).shared.manifest.note
        kept = [objects_pb2.ReplicaRow.FromString(row) for host in world.hosts for _, row in host.store.scan(REPLICAS)]
        assert {row.manifest.note for row in kept} == {made.manifest.note}

    def test_one_that_is_away_hears_of_it_when_it_is_back(self, world: World, made: objects_pb2.Object) -> None:
        reader = world.hosts[0]
        reader.up = False
        share(world)
        world.owner.restart()
        reader.up = True
        reader.restart()
        world.settle()
        assert [seen.name for seen in shared_with(reader)] == ["notes"]
        assert list(world.owner.store.scan(NOTICES)) == []

    def test_another_epoch_is_told_to_readers(self, world: World, made: objects_pb2.Object) -> None:
        share(world)
        epoch = Epoch.decode(objects_pb2.ObjectRow.FromString(
            world.owner.store.get(OBJECTS, made.object_id.encode()) or b"").epoch.body)  # fmt: skip
        ((_, value),) = world.hosts[0].store.scan(SHARED)
        assert Epoch.decode(objects_pb2.SharedRow.FromString(value).shared.epoch.body) == epoch


class TestAnEnd:
    def test_unshared_it_is_gone_from_the_readers_list(self, world: World, made: objects_pb2.Object) -> None:
        reader = world.hosts[0]
        share(world)
        answer = world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0")).object
        assert [wrap.node_id for wrap in answer.manifest.wraps] == [world.owner.node_id]
        world.pass_ms(GATHER_MS)
        assert shared_with(reader) == []
        with pytest.raises(NotFound):
            reader.read("notes")

    def test_shared_and_unshared_while_it_was_away_it_hears_the_last_word(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        reader = world.hosts[0]
        reader.up = False
        share(world)
        world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
        reader.up = True
        world.pass_ms(120_000)
        assert shared_with(reader) == []
        assert list(world.owner.store.scan(NOTICES)) == []

    def test_deleted_by_its_owner_it_is_gone_for_readers_too(self, world: World, made: objects_pb2.Object) -> None:
        share(world, "host-3")
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes"))
        world.pass_ms(GATHER_MS)
        assert shared_with(world.hosts[3]) == []
        (mark,) = world.owner.ask("ListDeletions", objects_pb2.ListDeletionsRequest()).deletions
        assert mark.untold == []

    def test_the_word_that_it_is_shared_comes_late_and_brings_nothing_back(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        share(world, "host-3")
        reader = world.hosts[3]
        ((_, value),) = reader.store.scan(SHARED)
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes"))
        world.pass_ms(GATHER_MS)
        late = Notices(shared=[objects_pb2.SharedRow.FromString(value).shared])
        reader.ask_as(world.owner, "DeliverNotices", late)
        assert shared_with(reader) == []

    def test_a_late_word_that_it_is_shared_gives_nobody_back_what_was_taken(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        reader, said = world.hosts[0], list[Notices]()

        def lost(letter: Letter) -> Fault | None:
            """Each of them is still on its way, and its sender waits no longer."""
            if letter.short != "DeliverNotices":
                return None
            said.append(copy.deepcopy(letter.request))
            return OutcomeUnknown("no answer came", reason="NoAnswer")

        world.bend = lost
        share(world)
        world.bend = lambda letter: None
        world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
        world.pass_ms(60_000)
        assert shared_with(reader) == []
        (late,) = said
        assert late.shared
        with pytest.raises(FailedPrecondition) as refused:
            reader.ask_as(world.owner, "DeliverNotices", late)
        assert refused.value.reason == "CameLate"
        assert shared_with(reader) == []

    def test_a_reader_deletes_and_shares_nothing_of_anothers(self, world: World, made: objects_pb2.Object) -> None:
        reader = world.hosts[0]
        share(world)
        for method, request in (
            ("DeleteObject", objects_pb2.DeleteObjectRequest(object="notes")),
            ("ShareObject", Share(object="notes", node="host-1")),
        ):
            with pytest.raises(NotFound):
                reader.ask(method, request)


class TestAnothersId:
    """Mallory, host-1, shares an object of its own and says that it had the id of another's."""

    def pass_off(self, world: World, object_id: str, *, name: str = "x") -> None:
        mallory, reader = world.hosts[1], world.hosts[0]
        if not any(seen.owner == mallory.node_id for seen in shared_with(reader)):
            mallory.put(b"what Mallory made", name="x")
            mallory.ask("ShareObject", Share(object="x", node="host-0"))
            world.pass_ms(GATHER_MS)
        rows = [objects_pb2.SharedRow.FromString(value).shared for _, value in reader.store.scan(SHARED)]
        (said,) = [each for each in rows if Manifest.decode(each.manifest.signed.body).owner == mallory.node_id]
        said.formerly.append(object_id)
        said.name = name
        reader.ask_as(mallory, "DeliverNotices", Notices(shared=[said]))

    def check_gone(self, world: World, object_id: str) -> None:
        for method, request in (
            ("GetObject", objects_pb2.GetObjectRequest(object=object_id)),
            ("ReadObject", objects_pb2.ReadObjectRequest(object=object_id, offset=1)),
        ):
            with pytest.raises(NotFound):
                world.hosts[0].ask(method, request)

    @pytest.mark.parametrize("end", ["DeleteObject", "UnshareObject"])
    @pytest.mark.parametrize("late", [False, True])
    def test_nobody_gets_it_once_the_others_is_gone(
        self, world: World, made: objects_pb2.Object, end: str, late: bool
    ) -> None:
        share(world)
        if not late:
            self.pass_off(world, made.object_id)
        request = Unshare(object="notes", node="host-0")
        world.owner.ask(end, request if end == "UnshareObject" else objects_pb2.DeleteObjectRequest(object="notes"))
        world.pass_ms(GATHER_MS)
        self.pass_off(world, made.object_id)
        self.check_gone(world, made.object_id)

    def test_not_by_a_word_that_it_was_deleted_either(self, world: World, made: objects_pb2.Object) -> None:
        world.hosts[0].ask_as(world.hosts[1], "DeliverNotices", Notices(deleted=[made.object_id]))
        self.pass_off(world, made.object_id)
        self.check_gone(world, made.object_id)

    def test_nor_by_its_name(self, world: World, made: objects_pb2.Object) -> None:
        self.pass_off(world, made.object_id, name=made.object_id)
        self.check_gone(world, made.object_id)

    def test_what_was_the_readers_own_and_is_deleted_is_nobody_elses(self, world: World) -> None:
        reader = world.hosts[0]
        own = reader.put(b"its own", name="own")
        reader.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object="own"))
        self.pass_off(world, own.object_id)
        ((key, value),) = reader.store.scan(SHARED)
        row = objects_pb2.SharedRow.FromString(value)
        row.shared.formerly.append(own.object_id)  # had it ever been believed
        reader.store.commit(Batch(writes={(SHARED, key): row.SerializeToString()}))
        self.check_gone(world, own.object_id)


class TestSeveralOwners:
    """Mallory keeps shards of what the owner has put, and shares them with the reader as an object of its own."""

    @pytest.fixture
    def reader(self, world: World, made: objects_pb2.Object) -> Node:
        share(world)
        self.pass_off(world, made)
        return world.hosts[0]

    def pass_off(self, world: World, made: objects_pb2.Object) -> None:
        """The same roots make the same id, whoever signs them."""
        mallory, reader = world.hosts[1], world.hosts[0]
        body = replace(Manifest.decode(made.manifest.signed.body), owner=mallory.node_id)
        manifest = objects_pb2.Manifest(signed=sign_manifest(body, mallory.signer, SALT))
        manifest.wraps.add(node_id=reader.node_id, sealed_key=bytes(86))
        said = objects_pb2.SharedObject(name="notes", manifest=manifest)
        reader.ask_as(mallory, "DeliverNotices", Notices(shared=[said]))

    def test_the_reader_is_told_to_say_whose(self, world: World, made: objects_pb2.Object, reader: Node) -> None:
        for wanted in (made.object_id, made.object_id[:8], "notes"):
            with pytest.raises(InvalidRequest) as refused:
                reader.read(wanted)
            for owner in (world.owner, world.hosts[1]):
                assert f"{owner.node_id}/{wanted}" in str(refused.value)

    def test_and_reads_it_by_its_owner(self, world: World, made: objects_pb2.Object, reader: Node) -> None:
        for owner in (world.owner.node_id, "owner"):
            for wanted in (made.object_id, made.object_id[:8], "notes"):
                assert reader.read(f"{owner}/{wanted}") == DATA
                assert reader.info(f"{owner}/{wanted}").owner == world.owner.node_id

    def test_so_it_is_when_many_do_so(self, world: World, made: objects_pb2.Object, reader: Node) -> None:
        """Their rows come before the true owner's."""
        value = next(v for k, v in reader.store.scan(SHARED) if k.decode().endswith(world.hosts[1].node_id))
        others = {(SHARED, f"{made.object_id}/{index:032}".encode()): value for index in range(20)}
        reader.store.commit(Batch(writes=others))
        assert reader.read(f"owner/{made.object_id}") == DATA
        assert reader.read(f"owner/{made.object_id[:8]}") == DATA

    def test_a_name_with_a_slash_is_a_name_where_its_beginning_is_no_members(self, world: World) -> None:
        world.owner.put(DATA, name="photos/a")
        world.owner.ask("ShareObject", Share(object="photos/a", node="host-0"))
        world.pass_ms(GATHER_MS)
        assert world.hosts[0].read("photos/a") == world.hosts[0].read("owner/photos/a") == DATA
        with pytest.raises(NotFound):
            world.hosts[0].read("host-1/photos/a")


class TestAnIdOfBefore:
    """It was shared with the reader under that, and is another object's by now."""

    def sealed_anew(self, world: World) -> None:
        world.pass_ms(3_600_000)
        begun = world.clock.now().utc_us.to_bytes(8, "big")
        world.owner.store.commit(Batch(writes={("meta", BEGUN_KEY): begun}))
        world.pass_ms(1)
        world.owner.ask("ReencryptObjects", objects_pb2.ReencryptObjectsRequest())
        world.pass_ms(60_000)

    def test_leads_to_it_when_it_was_unshared_meanwhile_and_shared_again(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        reader = world.hosts[0]
        share(world)
        world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
        world.pass_ms(GATHER_MS)
        self.sealed_anew(world)
        with pytest.raises(NotFound):
            reader.read(made.object_id)
        share(world)
        assert reader.info(made.object_id).object_id != made.object_id
        assert reader.read(made.object_id) == DATA
        assert reader.read(f"owner/{made.object_id}") == DATA

    def test_that_another_has_shared_as_his_own_is_nobodys_without_an_owner(
        self, world: World, made: objects_pb2.Object
    ) -> None:
        reader = world.hosts[0]
        share(world)
        TestSeveralOwners().pass_off(world, made)
        self.sealed_anew(world)
        with pytest.raises(InvalidRequest, match=f"{world.owner.node_id}/{made.object_id}"):
            reader.read(made.object_id)
        assert reader.read(f"owner/{made.object_id}") == DATA

    def test_shared_again_as_it_is_it_leaves_no_mark(
        self, world: World, made: objects_pb2.Object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "READ_MAX", 1)
        world.hosts[0].restart()
        for _ in range(3):
            share(world)
            assert list(world.hosts[0].store.scan(READ)) == []
            world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
            world.pass_ms(GATHER_MS)
            assert len(list(world.hosts[0].store.scan(READ))) == 1

    def test_marks_fill_no_readers_disk(
        self, world: World, made: objects_pb2.Object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "READ_MAX", 0)
        world.hosts[0].restart()
        share(world)
        world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
        world.pass_ms(GATHER_MS)
        assert list(world.hosts[0].store.scan(READ)) == []
        assert shared_with(world.hosts[0]) == []


class TestRefused:
    def test_itself_and_strangers(self, world: World, made: objects_pb2.Object) -> None:
        with pytest.raises(InvalidRequest, match="reads its own objects always"):
            share(world, "owner")
        with pytest.raises(NotFound, match="no member is called"):
            share(world, "stranger")

    def test_more_readers_than_there_may_be(
        self, world: World, made: objects_pb2.Object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "READERS_MAX", 1)
        share(world)
        share(world)
        with pytest.raises(Exhausted, match="1 readers"):
            share(world, "host-1")

    def test_one_owner_fills_no_readers_disk(
        self, world: World, made: objects_pb2.Object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "SHARED_MAX", 1)
        world.hosts[0].restart()
        world.owner.put(b"more", name="more")
        share(world)
        world.owner.ask("ShareObject", Share(object="more", node="host-0"))
        world.pass_ms(GATHER_MS)
        assert len(shared_with(world.hosts[0])) == 1
        world.owner.ask("UnshareObject", Unshare(object="notes", node="host-0"))
        world.pass_ms(120_000)
        assert len(shared_with(world.hosts[0])) <= 1

    def test_a_full_reader_hears_first_of_what_makes_room(
        self, world: World, made: objects_pb2.Object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In one page with what needs it, or in the one behind."""
        monkeypatch.setattr(sharing, "SHARED_MAX", 1)
        world.hosts[0].restart()
        share(world)
        world.owner.put(b"more", name="more")
        for page_notices in (PAGE_NOTICES, 1):
            monkeypatch.setattr(notices, "PAGE_NOTICES", page_notices)
            for given, taken in (("more", "notes"), ("notes", "more")):
                world.hosts[0].up = False
                world.owner.ask("ShareObject", Share(object=given, node="host-0"))
                world.owner.ask("UnshareObject", Unshare(object=taken, node="host-0"))
                world.hosts[0].up = True
                for _ in range(6):
                    world.pass_ms(60_000)
                assert [seen.name for seen in shared_with(world.hosts[0])] == [given]
        assert list(world.owner.store.scan(NOTICES)) == []

    @pytest.mark.parametrize(
        "how", ["owner", "signature", "wrap", "epoch", "name", "many", "wrap too large", "unknown fields"]
    )
    def test_what_no_owner_would_say(self, world: World, made: objects_pb2.Object, how: str) -> None:
        reader, owner = world.hosts[0], world.owner
        share(world)
        ((_, value),) = reader.store.scan(SHARED)
        said = objects_pb2.SharedRow.FromString(value).shared
        told = Notices(shared=[said])
        said = told.shared[0]
        body = Manifest.decode(said.manifest.signed.body)
        match how:
            case "owner":
                encoded = replace(body, owner=world.hosts[1].node_id).encode()
                signature = owner.signer.sign(digest_of(MANIFEST_KIND, SALT, encoded))
                said.manifest.signed.CopyFrom(common_pb2.Signed(body=encoded, signature=signature))
            case "signature":
                said.manifest.signed.signature = bytes(64)
            case "wrap":
                said.manifest.wraps[0].node_id = owner.node_id
            case "wrap too large":
                said.manifest.wraps[0].sealed_key = bytes(WRAP_BYTES_MAX + 1)
            case "unknown fields":
                said.MergeFromString(b"\xfa\x3e\x80\x80\x02" + bytes(1 << 15))  # field 1007, kept as it came
            case "epoch":
                other = replace(Epoch.decode(said.epoch.body), quorum_id="object:o-" + "a" * 32)
                said.epoch.CopyFrom(sign_epoch(other, owner.signer, SALT))
            case "name":
                said.name = "\x1b[2J"
            case "many":
                told.unshared.extend([body.object_id] * PAGE_NOTICES)
        with pytest.raises((PeerFault, InvalidRequest)):
            reader.ask_as(owner, "DeliverNotices", told)

    def test_another_member_unshares_nothing(self, world: World, made: objects_pb2.Object) -> None:
        share(world)
        reader = world.hosts[0]
        reader.ask_as(world.hosts[1], "DeliverNotices", Notices(unshared=[made.object_id]))
        assert len(shared_with(reader)) == 1
