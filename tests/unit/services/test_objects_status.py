"""What `offgrid status` says of a node's own objects."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.tables import BACK, META, REGAINED, missing_key, number_key
from offgrid_node.services.objects.status import BACK_TOLD_US, object_notices
from offgrid_node.storage.store import Batch


@pytest.fixture
def world() -> World:
    return World()


def said(world: World, writes: dict[Any, bytes]) -> tuple[str, ...]:
    """By an owner with these rows."""
    world.owner.store.commit(Batch(writes=dict(writes)))
    world.owner.restart()
    world.settle()
    return object_notices(world.owner.runtime.machine("objects", ObjectsMachine), world.clock.now().utc_us)


def test_nothing_where_all_is_well(world: World) -> None:
    assert said(world, {}) == ()


@pytest.mark.parametrize(("count", "what"), [(1, "an object that"), (3, "3 objects that")])
def test_that_something_came_back_after_the_disk_was_lost_for_a_month(world: World, count: int, what: str) -> None:
    now_us = world.clock.now().utc_us
    for since_us, told in ((now_us - BACK_TOLD_US, 1), (now_us - BACK_TOLD_US - 1, 0)):
        notices = said(world, {(META, BACK): number_key(count) + number_key(since_us)})
        assert len(notices) == told
        assert all(notice.startswith(what) and "`offgrid ls --regained`" in notice for notice in notices)


def test_that_something_could_not_be_taken_back_as_long_as_that_is_so(world: World) -> None:
    for count, what in ((1, "an object that"), (2, "2 objects that")):
        row = objects_pb2.RegainedObject(object_id=f"o-{count}", since_us=1)
        (notice,) = said(world, {(REGAINED, missing_key(f"o-{count}")): row.SerializeToString()})
        assert notice.startswith(what)
        assert "could not be taken back" in notice
