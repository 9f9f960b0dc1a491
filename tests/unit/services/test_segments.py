"""Segments of a journal over real handlers: objects that nobody's journal speaks of, shown to their owner alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from bulk_world import SALT, Node, World
from msgspec.structs import replace

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import FailedPrecondition, Fault, PeerFault, Unavailable
from offgrid_node.protocol.events import DropSegment, ObjectAdded, SegmentLost
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.errands import KeepSegment, SegmentKept
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.lives import Life, last_life, sign_life
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.segments import KnownSegments, SegmentHead, sign_head
from offgrid_node.protocol.objects.tables import (
    DELETED,
    LIVES,
    NOTICES,
    OBJECTS,
    OUTBOX,
    REPLICAS,
    SEGMENTS_KEPT,
    replica_key,
)
from offgrid_node.protocol.state.segment import unpacked
from offgrid_node.services.flow import run
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner

SEGMENT = state_pb2.Segment(tables=[state_pb2.SegmentTable(name="jobs", rows=[{"key": b"j", "value": b"row" * 50}])])
List = objects_pb2.ListSegmentsRequest


@pytest.fixture
def world() -> World:
    return World()


def sealed(world: World, number: int) -> SegmentKept:
    """A segment as the owner's carrier makes it."""
    ends: list[SegmentKept | Fault] = []
    head = SegmentHead(world.owner.node_id, 1, number, 1, 10 * number, "", "")
    run(world.owner.segments._keep(KeepSegment(b"token", SEGMENT, head)), ends.append)
    (end,) = ends
    assert isinstance(end, SegmentKept)
    return end


def added(world: World, number: int) -> SegmentKept:
    end = sealed(world, number)
    assert end.manifest is not None
    assert end.body is not None
    world.owner.runtime.deliver("objects", ObjectAdded(end.manifest, end.body, "", 2_000))
    world.settle()
    return end


def shown(world: World, host: Node, asker: Node, **how: Any) -> list[SegmentHead]:
    told = host.ask_as(asker, "ListSegments", List(**how))
    return [SegmentHead.decode(manifest.segment.body) for manifest in told.segments]


def test_it_lies_at_hosts_durably_and_no_journal_says_so(world: World) -> None:
    before = [node.store.journal_seq for node in (world.owner, *world.hosts)]
    end = added(world, 1)
    assert end.body is not None
    row = objects_pb2.ObjectRow.FromString(world.owner.store.get(OBJECTS, end.body.object_id.encode()) or b"")
    assert row.object.state == objects_pb2.OBJECT_STATE_DURABLE
    assert [node.store.journal_seq for node in (world.owner, *world.hosts)] == before
    assert not world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
    (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
    assert entry.key == "journal segment 1"
    assert unpacked(world.owner.read(end.body.object_id)) == SEGMENT


def test_its_owner_is_shown_it_with_its_key_and_nobody_else(world: World) -> None:
    ends = [added(world, number) for number in (1, 2, 3)]
    world.owner.put(b"an object like any other")
    for host in world.hosts:
        heads = shown(world, host, world.owner)
        assert {head.object_id for head in heads} == {end.body.object_id for end in ends if end.body}
        assert shown(world, host, world.hosts[0] if host is not world.hosts[0] else world.hosts[1]) == []
        told = host.ask_as(world.owner, "ListSegments", List(page_size=2))
        assert len(told.segments) == 2
        rest = host.ask_as(world.owner, "ListSegments", List(page_size=2, page_token=told.next_page_token))
        assert len(rest.segments) == 1
        assert not rest.next_page_token
        assert [wrap.node_id for wrap in rest.segments[0].wraps] == [world.owner.node_id]


@pytest.mark.parametrize("known", [None, KnownSegments(1, 0, b"").message()])
def test_its_owner_is_shown_the_others_where_the_row_of_one_is_damaged(
    world: World, known: objects_pb2.KnownSegments | None
) -> None:
    names = [end.body.object_id for end in (added(world, number) for number in (1, 2, 3)) if end.body]
    host = world.hosts[0]
    host.store.damage(REPLICAS, replica_key(names[1], world.owner.node_id))
    heads = shown(world, host, world.owner, known=known)
    assert {head.object_id for head in heads} == {names[0], names[2]}


def test_what_its_owner_does_not_know_is_found_without_a_look_at_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner may have any number of them here; whoever asks holds nobody up."""
    ends = [added(world, number) for number in (1, 2, 3)]
    names = [end.body.object_id for end in ends if end.body]
    other = added(world, 2)
    assert other.body is not None
    host = world.hosts[0]
    looked: list[str] = []
    real = host.store.get
    monkeypatch.setattr(host.store, "get", lambda table, key: looked.append(table) or real(table, key))
    known = KnownSegments.of(1, 3, names).message()
    assert [head.object_id for head in shown(world, host, world.owner, known=known)] == [other.body.object_id]
    assert looked.count(REPLICAS) == 1
    assert len(shown(world, host, world.owner)) == 4


def test_what_its_owner_does_not_know_comes_page_by_page_the_newest_first(world: World) -> None:
    names = [end.body.object_id for end in (added(world, number) for number in (1, 2, 3, 4)) if end.body]
    host = world.hosts[0]
    for knows, numbers in ((KnownSegments(1, 0, b""), [4, 3, 2, 1]), (KnownSegments.of(1, 3, names[1:3]), [4, 1])):
        told, token = list[int](), ""
        while True:
            request = List(known=knows.message(), page_size=1, page_token=token)
            page = host.ask_as(world.owner, "ListSegments", request)
            told += [SegmentHead.decode(manifest.segment.body).number for manifest in page.segments]
            if not (token := page.next_page_token):
                break
        assert told == numbers
    assert shown(world, host, world.owner, known=KnownSegments(2, 0, b"").message()) == [], "of lives before"


@pytest.mark.parametrize("damaged", [False, True])
def test_one_that_is_dropped_leaves_nothing_behind(world: World, *, damaged: bool) -> None:
    end = added(world, 1)
    assert end.body is not None
    for host in world.hosts if damaged else []:
        host.store.damage(REPLICAS, replica_key(end.body.object_id, world.owner.node_id))
    world.owner.runtime.deliver("objects", DropSegment(end.body.object_id))
    world.settle()
    world.pass_ms(GATHER_MS)
    assert [*world.owner.store.scan(DELETED)] == [*world.owner.store.scan(OUTBOX)] == []
    assert all(not shown(world, host, world.owner) for host in world.hosts)
    assert all([*host.blobs.names()] == [] for host in world.hosts)
    assert all([*host.store.scan(SEGMENTS_KEPT)] == [] for host in world.hosts)


def test_one_that_a_restored_owner_has_no_rows_of_is_dropped_by_whoever_keeps_it(world: World) -> None:
    end = added(world, 1)
    assert end.body is not None
    name = end.body.object_id
    world.owner.store.commit(Batch(writes={(OBJECTS, name.encode()): None}))
    world.owner.runtime.deliver("objects", DropSegment(name))
    world.settle()
    world.pass_ms(GATHER_MS)
    assert all(not shown(world, host, world.owner) for host in world.hosts)
    assert [*world.owner.store.scan(DELETED)] == []


class TestOneThatIsDamaged:
    """At hosts that have acked it, or here before any has."""

    @pytest.fixture
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """What the journal's machine hears."""
        told: list[object] = []
        tell = Draft.tell
        monkeypatch.setattr(
            Draft, "tell", lambda draft, domain, event: (tell(draft, domain, event), told.append(event))[0]
        )
        return told

    def rots(self, world: World, host: Node, object_id: str) -> None:
        host.blobs.delete(object_id)
        host.runtime.deliver("objects", ReplicasLost(world.owner.node_id, (Holding(object_id, (0,)),)))
        for _ in range(30):
            world.pass_ms(1_000)

    def test_at_one_host_is_brought_there_anew(self, world: World, told: list[object]) -> None:
        end = added(world, 1)
        assert end.body is not None
        self.rots(world, world.hosts[0], end.body.object_id)
        assert world.hosts[0].kept.size(end.body.object_id) == end.body.sealed_bytes
        assert SegmentLost(1) not in told

    def test_at_all_of_them_is_lost_and_that_is_said(self, world: World, told: list[object]) -> None:
        end = added(world, 1)
        assert end.body is not None
        for host in world.hosts:
            host.blobs.delete(end.body.object_id)
        for host in world.hosts:
            self.rots(world, host, end.body.object_id)
        assert told.count(SegmentLost(1)) >= 1
        assert [node.store.journal_seq for node in world.hosts] == [0, 0, 0]

    def test_before_any_host_has_it_is_lost_too(self, world: World, told: list[object]) -> None:
        world.bend = lambda letter: Unavailable("not now") if letter.short in ("OpenReplica", "PutReplica") else None
        end, before = added(world, 1), world.owner.store.journal_seq
        assert end.body is not None
        kept = world.owner.blobs._kept[end.body.object_id].data
        kept[:] = bytes(byte ^ 0x10 for byte in kept)
        world.bend = lambda letter: None
        for _ in range(30):
            world.pass_ms(1_000)
        assert told.count(SegmentLost(1)) == 1
        assert world.owner.store.journal_seq == before, "no journal says so"


@pytest.mark.parametrize("forged", ["another's signature", "another object", "another owner"])
def test_a_host_takes_none_whose_head_is_not_its_owners(world: World, forged: str) -> None:
    end = sealed(world, 1)
    assert end.manifest is not None
    head, signer = SegmentHead.decode(end.manifest.segment.body), world.owner.signer
    match forged:
        case "another's signature":
            signer = SimSigner("stranger")
        case "another object":
            head = replace(head, object_id="o-" + "a" * 32)
        case "another owner":
            head = replace(head, owner=world.hosts[1].node_id)
    end.manifest.segment.CopyFrom(sign_head(head, signer, SALT))
    assert end.body is not None
    world.owner.runtime.deliver("objects", ObjectAdded(end.manifest, end.body, "", 2_000))
    world.settle()
    (entry,) = world.owner.ask("ListOutbox", objects_pb2.ListOutboxRequest()).entries
    assert entry.acked_milli == 0
    assert "segment" in entry.trouble
    assert all(not shown(world, host, world.owner) for host in world.hosts)


class TestALife:
    def begun(self, world: World, life: Life, asker: Node | None = None) -> Any:
        asker = asker or world.owner
        request = objects_pb2.BeginLifeRequest(life=sign_life(life, asker.signer, SALT))
        return world.hosts[0].ask_as(asker, "BeginLife", request)

    def test_is_noted_durably_and_shown_to_its_owner_alone(self, world: World) -> None:
        life, host = Life(world.owner.node_id, 4, 9, b"t" * 16), world.hosts[0]
        assert not host.ask_as(world.owner, "ListSegments", List()).HasField("life")
        self.begun(world, life)
        assert host.store.get(LIVES, world.owner.node_id.encode())
        for how in ({}, {"known": objects_pb2.KnownSegments(life=5)}):
            told = host.ask_as(world.owner, "ListSegments", List(**how))
            assert Life.decode(told.life.body) == life
            assert not host.ask_as(world.hosts[1], "ListSegments", List(**how)).HasField("life")

    def test_is_begun_once_and_by_nobody_else(self, world: World) -> None:
        life = Life(world.owner.node_id, 4, 9, b"t" * 16)
        self.begun(world, life)
        with pytest.raises(FailedPrecondition, match="has begun elsewhere"):
            self.begun(world, replace(life, token=b"u" * 16))
        with pytest.raises(PeerFault, match="life 9 is of"):
            self.begun(world, replace(life, life=9), world.hosts[1])

    def test_beyond_what_a_key_may_begin_is_not_noted(self, world: World) -> None:
        with pytest.raises(PeerFault, match="its present key begins"):
            self.begun(world, Life(world.owner.node_id, last_life(0) + 1, 9, b"t" * 16))
        self.begun(world, Life(world.owner.node_id, last_life(0), 9, b"t" * 16))

    def test_of_a_key_of_before_holds_up_none_of_the_present_one(self, world: World) -> None:
        last, host = Life(world.owner.node_id, last_life(0), 9, b"t" * 16), world.hosts[0]
        signed = sign_life(last, SimSigner("before"), SALT)
        host.store.commit(Batch(writes={(LIVES, world.owner.node_id.encode()): signed.SerializeToString()}))
        life = replace(last, life=4)
        self.begun(world, life)
        assert Life.decode(host.ask_as(world.owner, "ListSegments", List()).life.body) == life
        with pytest.raises(FailedPrecondition, match="has begun elsewhere"):
            self.begun(world, replace(life, life=3))


def test_one_that_became_no_object_leaves_nothing_on_the_disk_when_the_next_is_cut(world: World) -> None:
    work = KeepSegment(b"token", SEGMENT, SegmentHead(world.owner.node_id, 1, 1, 1, 10, "", ""))
    world.owner.runtime.machines = {}  # nobody takes what is sealed: its commit failed
    for _ in range(5):
        world.owner.segments.keep(work)
        assert len(list(world.owner.blobs.names())) == 1


def test_one_that_became_an_object_stays_when_the_next_is_cut(world: World) -> None:
    for host in world.hosts:
        host.up = False
    end = added(world, 1)
    assert end.body is not None
    world.owner.segments.keep(KeepSegment(b"2", SEGMENT, SegmentHead(world.owner.node_id, 1, 2, 1, 10, "", "")))
    assert world.owner.blobs.size(end.body.object_id) == end.body.sealed_bytes


def test_nobody_deletes_one_by_hand(world: World) -> None:
    end = added(world, 1)
    assert end.body is not None
    with pytest.raises(FailedPrecondition, match="journal") as refused:
        world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=end.body.object_id))
    assert refused.value.reason == "JournalSegment"
    assert world.owner.store.get(OBJECTS, end.body.object_id.encode()) is not None


class TestAHostThatWasPutBackFromABackup:
    """It keeps a segment that its owner has deleted since."""

    @pytest.fixture
    def host(self, world: World) -> Node:
        end = added(world, 1)
        assert end.body is not None
        self.object_id = end.body.object_id
        host = next(host for host in world.hosts if list(host.store.scan(SEGMENTS_KEPT)))
        backup, blobs = copy.deepcopy(host.store), copy.deepcopy(host.blobs)
        world.owner.runtime.deliver("objects", DropSegment(self.object_id))
        world.settle()
        world.pass_ms(GATHER_MS)
        assert not list(host.store.scan(SEGMENTS_KEPT))
        host.store, host.blobs = backup, blobs
        host.restart()
        world.settle()
        return host

    @pytest.mark.parametrize("marked", [False, True])
    def test_drops_it_when_it_shows_it(self, world: World, host: Node, marked: bool) -> None:
        silent = next(other for other in world.hosts if other is not host)
        silent.up = False
        if marked:  # another has yet to hear of that very one
            mark = objects_pb2.Deletion(object_id=self.object_id, is_segment=True, untold=[silent.node_id])
            world.owner.store.commit(Batch(writes={(DELETED, self.object_id.encode()): mark.SerializeToString()}))
            world.pass_ms(1)
        assert list(host.store.scan(SEGMENTS_KEPT))
        world.owner.runtime.deliver("objects", DropSegment(self.object_id, host.node_id))
        world.settle()
        waiting = list(world.owner.store.scan(NOTICES))
        world.owner.runtime.deliver("objects", DropSegment(self.object_id, host.node_id))  # shown again
        world.settle()
        assert list(world.owner.store.scan(NOTICES)) == waiting, "it waits for the word already"
        world.pass_ms(GATHER_MS)
        assert not list(host.store.scan(SEGMENTS_KEPT))
        assert not list(host.store.scan(REPLICAS))
        marks = [objects_pb2.Deletion.FromString(value).untold for _, value in world.owner.store.scan(DELETED)]
        assert marks == ([[silent.node_id]] if marked else [])


def test_what_has_gone_is_not_among_what_people_have_deleted(world: World) -> None:
    end = added(world, 1)
    assert end.body is not None
    kept = world.owner.put(b"an object like any other")
    for host in world.hosts:
        host.up = False
    world.owner.runtime.deliver("objects", DropSegment(end.body.object_id))
    world.owner.ask("DeleteObject", objects_pb2.DeleteObjectRequest(object=kept.object_id))
    told = world.owner.ask("ListDeletions", objects_pb2.ListDeletionsRequest(untold_only=True))
    assert [mark.object_id for mark in told.deletions] == [kept.object_id]


def test_one_whose_row_is_damaged_goes_like_any_other(world: World) -> None:
    """In the very step in which a later one becomes durable, which would else never be; nor could all rows be read."""
    end = added(world, 1)
    assert end.body is not None
    assert isinstance(world.owner.store, MemoryStore)
    world.owner.store.damage(OBJECTS, end.body.object_id.encode())
    world.owner.restart()
    world.settle()
    world.owner.runtime.deliver("objects", DropSegment(end.body.object_id, world.hosts[0].node_id))
    world.settle()
    world.owner.runtime.deliver("objects", DropSegment(end.body.object_id))
    world.settle()
    world.pass_ms(GATHER_MS)
    assert world.owner.runtime.failures == 0
    assert all(not shown(world, host, world.owner) for host in world.hosts)
    assert [*world.owner.store.scan(OBJECTS)] == [*world.owner.store.scan(DELETED)] == []
