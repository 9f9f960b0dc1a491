"""A host that is emptied: what it keeps goes to others first and is dropped then; nothing ever survives less for it."""

from __future__ import annotations

import pytest
from bulk_world import Letter, Node, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.objects import dropping
from offgrid_node.protocol.objects.commands import ChangeReported, HostDrains
from offgrid_node.protocol.objects.comparing import REPORT_GAP_MS as COMPARED_GAP_MS
from offgrid_node.protocol.objects.inventory import count_of, summary_of
from offgrid_node.protocol.objects.measuring import FIRST_MS_MAX, REPORT_GAP_MS
from offgrid_node.protocol.objects.tables import KEPT, KEPT_BYTES, MOVED, number_of

DATA = bytes(range(256)) * 2


def put(world: World, name: str, *, code: tuple[int, int] | None = None) -> str:
    request = objects_pb2.OpenUploadRequest(name=name, size_bytes=len(DATA), required_milli=2_000)
    if code:
        request.code.needed, request.code.total = code
    else:
        request.copies = 2
    opened = world.owner.ask("OpenUpload", request)
    world.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
    commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
    object_id: str = world.owner.ask("CommitUpload", commit).object.object_id
    world.pass_ms(FIRST_MS_MAX)
    return object_id


def drain(world: World, host: Node) -> None:
    host.drains = True
    host.runtime.deliver("objects", HostDrains())
    world.settle()


def kept(world: World, host: Node) -> int:
    return count_of(summary_of(host.store, KEPT, world.owner.node_id))


def holders(world: World, object_id: str) -> set[str]:
    return {ack.node_id for ack in world.owner.info(object_id).acks}


def holder(world: World, object_id: str) -> Node:
    return world.by_id[min(holders(world, object_id))]


def survives(world: World, object_id: str) -> bool:
    made = world.owner.info(object_id)
    return made.acked_milli >= made.required_milli


@pytest.mark.parametrize("code", [None, (2, 4)])
def test_owners_hear_of_it_at_once_and_move_what_they_have_there(code: tuple[int, int] | None) -> None:
    world = World(5)
    ids = [put(world, f"object {n}", code=code) for n in range(4)]
    host = holder(world, ids[0])
    before = kept(world, host)
    assert before
    drain(world, host)
    for _ in range(10):
        world.pass_ms(REPORT_GAP_MS)
        assert all(survives(world, object_id) for object_id in ids)
    assert kept(world, host) == 0
    assert number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"") == 0
    assert not [*host.blobs.names()]
    host.up = False
    for n, object_id in enumerate(ids):
        assert host.node_id not in holders(world, object_id)
        assert world.owner.read(f"object {n}") == DATA


def test_what_no_other_host_can_take_stays() -> None:
    world = World(2)
    object_id = put(world, "object")
    host = holder(world, object_id)
    drain(world, host)
    world.pass_ms(60_000)
    assert kept(world, host) == 1
    assert survives(world, object_id)


def test_an_owner_that_is_away_moves_its_own_when_it_is_back() -> None:
    world = World(4)
    object_id = put(world, "object")
    host = holder(world, object_id)
    world.owner.up = False
    drain(world, host)
    world.pass_ms(60_000)
    assert kept(world, host) == 1
    world.owner.up = True
    world.owner.restart()
    world.settle()
    for _ in range(10):
        world.pass_ms(REPORT_GAP_MS)
    assert kept(world, host) == 0
    assert len(holders(world, object_id)) == 2


def test_it_hears_that_it_may_drop_a_copy_as_soon_as_its_owner_is_sure_of_the_others() -> None:
    """Not with the next comparison of what it keeps, an hour later."""
    world = World(4)
    object_id = put(world, "object")
    host = holder(world, object_id)

    def not_yet(letter: Letter) -> Fault | None:
        return Unavailable("later") if letter.short == "CompareInventory" and letter.target != host.node_id else None

    world.bend = not_yet
    for other in world.hosts:
        if other is not host:
            world.owner.runtime.deliver("objects", ChangeReported(other.node_id))
    world.pass_ms(COMPARED_GAP_MS)  # so that it is compared at once when it says that it drains, before anything moves
    drain(world, host)
    for _ in range(6):
        world.pass_ms(REPORT_GAP_MS)
    assert host.node_id not in holders(world, object_id)
    assert kept(world, host) == 1
    world.bend = lambda letter: None
    for _ in range(30):
        world.pass_ms(COMPARED_GAP_MS)
    assert kept(world, host) == 0
    assert survives(world, object_id)


def test_who_keeps_nothing_tells_nobody() -> None:
    world = World(2)
    world.log.clear()
    drain(world, world.hosts[0])
    assert "ReportChange" not in world.log


def test_fences_of_what_was_moved_end_somewhere_and_refuse_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropping, "FENCES_MAX", 1)
    world = World(4)
    ids = [put(world, f"object {n}") for n in range(6)]
    host = holder(world, ids[0])
    assert kept(world, host) > 1
    drain(world, host)
    for _ in range(10):
        world.pass_ms(REPORT_GAP_MS)
    assert kept(world, host) == 0
    assert len([*host.store.scan(MOVED)]) == 1
