"""ListObjects gives what is sound where a row of the store is damaged, and names what is not."""

from __future__ import annotations

import pytest
from bulk_world import World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX, SHARED, outbox_key
from offgrid_node.services import shelf

List = objects_pb2.ListObjectsRequest
OBJECTS_PUT = 7


@pytest.fixture
def world() -> World:
    world = World(3)
    for index in range(OBJECTS_PUT):
        world.owner.put(b"x" * index, name=f"n-{index}")
    return world


def pages(world: World, page_size: int) -> list[objects_pb2.ListObjectsResponse]:
    found = [world.owner.ask("ListObjects", List(page_size=page_size))]
    while token := found[-1].next_page_token:
        found.append(world.owner.ask("ListObjects", List(page_size=page_size, page_token=token)))
    return found


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
@pytest.mark.parametrize("damaged", [(0,), (3,), (2, 3), (OBJECTS_PUT - 1,)])
def test_each_sound_one_is_listed_once_and_each_damaged_one_named_once(
    world: World, page_size: int, damaged: tuple[int, ...]
) -> None:
    ids = sorted(key.decode() for key, _ in world.owner.store.scan(OBJECTS))
    for index in damaged:
        world.owner.store.damage(OBJECTS, ids[index].encode())
    found = pages(world, page_size)
    assert [made.object_id for page in found for made in page.objects] == [
        object_id for index, object_id in enumerate(ids) if index not in damaged
    ]
    assert [object_id for page in found for object_id in page.damaged] == [ids[index] for index in damaged]


def test_what_others_share_is_listed_likewise(world: World) -> None:
    for index in range(OBJECTS_PUT):
        world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object=f"n-{index}", node="host-0"))
    world.pass_ms(2 * GATHER_MS)
    reader = world.hosts[0]
    keys = sorted(key for key, _ in reader.store.scan(SHARED))
    assert len(keys) == OBJECTS_PUT
    reader.store.damage(SHARED, keys[3])
    page = reader.ask("ListObjects", List(shared=True))
    assert len(page.objects) == OBJECTS_PUT - 1
    assert page.damaged == [keys[3].decode()]


def test_a_damaged_entry_of_the_outbox_is_its_objects_trouble() -> None:
    world = World(3)
    for host in world.hosts:
        host.up = False
    made = world.owner.put(b"x", name="waits")
    (row,) = (objects_pb2.ObjectRow.FromString(value) for _, value in world.owner.store.scan(OBJECTS))
    world.owner.store.damage(OUTBOX, outbox_key(row.outbox_id))
    (listed,) = world.owner.ask("ListObjects", List()).objects
    assert listed.object_id == made.object_id
    assert "fails its checksum" in listed.trouble


def test_of_a_store_that_is_damaged_all_over_no_page_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "DAMAGED_MAX", 2)
    ids = sorted(key for key, _ in world.owner.store.scan(OBJECTS))
    for key in ids[2:5]:
        world.owner.store.damage(OBJECTS, key)
    with pytest.raises(Corrupt, match="more than 2 rows of table objects") as caught:
        world.owner.ask("ListObjects", List())
    assert caught.value.reason == "RowsDamaged"
