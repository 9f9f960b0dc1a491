"""Data keys rotated over real handlers: wraps are rewritten, nothing else moves, a crash at any step loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import Letter, Node, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, Unavailable
from offgrid_node.protocol.mesh.commands import RotateWrappingKey
from offgrid_node.protocol.mesh.wrapping import LABEL_BYTES
from offgrid_node.protocol.objects.errands import Rewrap
from offgrid_node.protocol.objects.notices import GATHER_MS, PAGE_NOTICES
from offgrid_node.protocol.objects.rewrapping import RETRY_MS
from offgrid_node.protocol.objects.tables import NOTICES, OBJECTS, SHARED
from offgrid_node.runtime import Ticket
from offgrid_node.services.objects import rewrapping

OBJECTS_PUT, PAGE = 7, 2
Notices = objects_pb2.DeliverNoticesRequest


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A few objects of the owner's, all shared with the first host, in pages of two."""
    monkeypatch.setattr(rewrapping, "PAGE_OBJECTS", PAGE)
    world = World(3)
    for index in range(OBJECTS_PUT):
        world.owner.put(data(index), name=name(index))
        share(world, index)
    world.pass_ms(GATHER_MS)
    world.pass_ms(GATHER_MS)
    world.log.clear()
    return world


def name(index: int) -> str:
    return f"notes-{index}"


def data(index: int) -> bytes:
    return f"what was written {index}".encode() * 9


def share(world: World, index: int) -> None:
    world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object=name(index), node="host-0"))


def rotate(world: World, *nodes: Node) -> None:
    """The mesh knows the nodes' next keys, and says so."""
    for node in nodes:
        world.members.wrap_numbers[node.node_id] += 1
    for node in nodes:
        for other in world.by_id.values():
            other.meet(node)
    world.settle()


def label(world: World, node: Node) -> bytes:
    key = world.members.wrapping_key(node.node_id)
    assert key is not None
    return key.label


def labels(world: World) -> set[tuple[str, bytes]]:
    """For which keys the owner's objects are wrapped."""
    rows = [objects_pb2.ObjectRow.FromString(value) for _, value in world.owner.store.scan(OBJECTS)]
    return {(wrap.node_id, wrap.sealed_key[:LABEL_BYTES]) for row in rows for wrap in row.object.manifest.wraps}


def told(world: World) -> set[bytes]:
    """For which keys the reader has its wraps."""
    rows = [objects_pb2.SharedRow.FromString(value) for _, value in world.hosts[0].store.scan(SHARED)]
    return {row.shared.manifest.wraps[0].sealed_key[:LABEL_BYTES] for row in rows}


def far(world: World) -> Any:
    return world.owner.ask("GetDataKeys", objects_pb2.GetDataKeysRequest())


def check_done(world: World) -> None:
    """All is wrapped for the keys of now, whoever may read it has heard, and reads it."""
    world.pass_ms(GATHER_MS)
    world.pass_ms(60_000)
    owner, reader = world.owner, world.hosts[0]
    assert labels(world) == {(node.node_id, label(world, node)) for node in (owner, reader)}
    assert told(world) == {label(world, reader)}
    assert not far(world).under_way
    assert list(owner.store.scan(NOTICES)) == []
    for index in range(OBJECTS_PUT):
        assert owner.read(name(index)) == reader.read(name(index)) == data(index)


class TestARound:
    def test_an_owners_key_is_rotated_and_no_call_leaves_for_it(self, world: World) -> None:
        rotate(world, world.owner)
        assert set(world.log) <= {"GetCapacity"}
        assert (far(world).objects_looked_at, far(world).wraps_written) == (OBJECTS_PUT, OBJECTS_PUT)
        check_done(world)

    def test_a_readers_key_is_rotated_and_it_is_told_its_wraps_alone(self, world: World) -> None:
        sent: list[Notices] = []
        world.bend = lambda letter: sent.append(letter.request) if letter.short == "DeliverNotices" else None
        rotate(world, world.hosts[0])
        world.pass_ms(GATHER_MS)
        assert set(world.log) - {"GetCapacity", "CompareInventory"} == {"DeliverNotices"}
        assert not any(each.shared for each in sent)
        assert sum(len(each.items) for notices in sent for each in notices.rewrapped) == 68 * OBJECTS_PUT
        world.bend = lambda letter: None
        check_done(world)

    def test_both_at_once(self, world: World) -> None:
        rotate(world, world.owner, world.hosts[0])
        check_done(world)

    def test_again_and_again(self, world: World) -> None:
        for _ in range(3):
            rotate(world, world.owner)
            rotate(world, world.hosts[0])
        check_done(world)

    def test_what_is_wrapped_for_the_keys_of_now_is_left_as_it_is(self, world: World) -> None:
        before = labels(world)
        for node in world.by_id.values():
            world.owner.meet(node)
        world.settle()
        assert (labels(world), far(world).objects_looked_at) == (before, 0)

    def test_an_object_that_was_sealed_for_the_key_of_before_is_found_by_another_round(self, world: World) -> None:
        before, sealer = world.members.wrapping_key(world.owner.node_id), world.owner.sealer
        rotate(world, world.owner)
        sealer._own_key = lambda: before  # type: ignore[assignment,return-value]  # it began before the rotation
        world.owner.put(b"late", name="late")
        check_done(world)
        assert world.owner.read("late") == b"late"

    def test_a_reader_that_was_away_hears_when_it_is_back(self, world: World) -> None:
        reader = world.hosts[0]
        reader.up = False
        rotate(world, world.owner)
        world.members.wrap_numbers[reader.node_id] += 1
        reader.up = True
        reader.restart()
        world.settle()
        check_done(world)

    def test_who_is_told_more_anyway_is_told_all_of_it(self, world: World) -> None:
        reader = world.hosts[0]
        reader.up = False
        share(world, 0)
        rotate(world, reader)
        reader.up = True
        reader.restart()
        world.settle()
        check_done(world)

    def test_who_reads_no_more_is_left_out(self, world: World) -> None:
        world.owner.ask("UnshareObject", objects_pb2.UnshareObjectRequest(object=name(0), node="host-0"))
        rotate(world, world.hosts[0])
        world.pass_ms(60_000)
        row = world.owner.info(name(0))
        assert [wrap.node_id for wrap in row.manifest.wraps] == [world.owner.node_id]
        shared = world.hosts[0].ask("ListObjects", objects_pb2.ListObjectsRequest(shared=True)).objects
        assert {each.name for each in shared} == {name(index) for index in range(1, OBJECTS_PUT)}

    def test_a_page_that_fails_is_tried_again(self, world: World) -> None:
        tries: list[str] = []

        def failing(node: Node, work: Rewrap) -> None:
            if node is world.owner:
                tries.append(work.start)
            if node is world.owner and len(tries) <= 2:
                node.runtime.deliver("objects", rewrapping.Rewrapped(work.start, fault=Unavailable("busy")))
            else:
                node.rewrapping.rewrap(work)

        world.on_rewrap = failing
        rotate(world, world.owner)
        assert tries == [""]
        world.pass_ms(RETRY_MS)
        world.pass_ms(2 * RETRY_MS)
        assert tries[:3] == ["", "", ""]
        check_done(world)


class TestCrashes:
    PAGES = -(-OBJECTS_PUT // PAGE)

    @pytest.mark.parametrize("step", range(PAGES + 1))
    @pytest.mark.parametrize("worked", [False, True], ids=["before its work", "with its work in the inbox"])
    def test_killed_at_a_page_it_goes_on_where_it_was(self, world: World, step: int, worked: bool) -> None:
        pages: list[Node] = []

        def killed(node: Node, work: Rewrap) -> None:
            pages.append(node)
            turn = node is world.owner and pages.count(node) - 1 == step
            if worked or not turn:
                node.rewrapping.rewrap(work)
            if turn:
                node.restart()

        world.on_rewrap = killed
        rotate(world, world.owner)
        world.owner.restart()
        world.settle()
        check_done(world)
        assert pages.count(world.owner) <= self.PAGES + 2

    @pytest.mark.parametrize("calls", range(3))
    def test_killed_while_its_readers_are_told(self, world: World, calls: int) -> None:
        left = calls

        def killed(letter: Letter) -> Fault | None:
            nonlocal left
            if letter.short == "DeliverNotices":
                if left == 0:
                    world.owner.restart()
                left -= 1
            return None

        world.bend = killed
        rotate(world, world.hosts[0])
        check_done(world)


class TestTheAsking:
    def test_the_reader_believes_no_other_owner(self, world: World) -> None:
        reader, object_id = world.hosts[0], world.owner.info(name(0)).object_id
        before = reader.read(name(0))
        forged = Notices()
        rewrapping_of(forged, object_id)
        reader.ask_as(world.hosts[1], "DeliverNotices", forged)
        assert reader.read(name(0)) == before

    def test_of_what_was_never_shared_nothing_follows(self, world: World) -> None:
        forged = Notices()
        rewrapping_of(forged, world.owner.info(name(0)).object_id)
        world.hosts[1].ask_as(world.owner, "DeliverNotices", forged)
        assert list(world.hosts[1].store.scan(SHARED)) == []

    @pytest.mark.parametrize(
        "wraps",
        [
            objects_pb2.Rewraps(head=bytes(37), items=bytes(68)),
            objects_pb2.Rewraps(head=bytes(38), items=bytes(67)),
            objects_pb2.Rewraps(head=bytes(38), items=bytes(68 * (PAGE_NOTICES + 1))),
        ],
        ids=["a head too short", "half an item", "too many"],
    )
    def test_what_is_no_page_of_wraps_is_refused(self, world: World, wraps: objects_pb2.Rewraps) -> None:
        with pytest.raises(InvalidRequest, match="rewrapped"):
            world.hosts[0].ask_as(world.owner, "DeliverNotices", Notices(rewrapped=[wraps]))


def rewrapping_of(notices: Notices, object_id: str) -> None:
    from offgrid_node.protocol.objects.sharing import add_wrap

    add_wrap(notices, object_id, bytes(86))


def test_a_key_is_begun_behind_all_that_was_sealed_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that was set back since, what it is for would not seem older than it."""
    newest_us = max(world.owner.info(name(index)).created_us for index in range(OBJECTS_PUT))
    asked = list[object]()

    def ask(domain: str, caller: str, command: object) -> Ticket:
        asked.append(command)
        return Ticket()

    monkeypatch.setattr(world.owner.runtime, "ask", ask)
    world.owner.begin("RotateDataKeys", objects_pb2.RotateDataKeysRequest())
    assert asked == [RotateWrappingKey(0, newest_us)]


def test_a_row_that_nobody_can_read_keeps_no_other_from_being_wrapped_anew(world: World) -> None:
    ids = sorted(key for key, _ in world.owner.store.scan(OBJECTS))
    world.owner.store.damage(OBJECTS, ids[1])
    rotate(world, world.owner)
    world.pass_ms(60_000)
    told = world.owner.ask("GetDataKeys", objects_pb2.GetDataKeysRequest())
    assert (told.under_way, told.wraps_written, told.objects_unopened) == (False, OBJECTS_PUT - 1, 1)
