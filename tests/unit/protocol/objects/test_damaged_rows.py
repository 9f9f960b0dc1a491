"""A row of an object that the disk has damaged: nothing more is done with that one, and no other waits for it."""

from __future__ import annotations

import pytest
from object_world import HostSpec, World

from offgrid_node.protocol.objects.outbox import DURABLE
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_node.protocol.objects.tables import OBJECTS

HOSTS, OBJECTS_PUT = 4, 5
MINUTE_MS = 60_000


def world(code: tuple[int, int] | None = None) -> World:
    home = World([HostSpec()] * HOSTS, code=code, copies=2)
    home.meet(*range(HOSTS))
    return home


def put(home: World, required_milli: int = 1_000) -> list[str]:
    """In the order in which walks meet them; the one in the middle is damaged then."""
    ids = sorted(home.put(number, required_milli) for number in range(1, OBJECTS_PUT + 1))
    home.run(10_000)
    home.owner.store.damage(OBJECTS, ids[OBJECTS_PUT // 2].encode())
    del home.acked[ids[OBJECTS_PUT // 2]]  # the world reads the rows of what was acked and is not durable yet
    return ids


def restart(home: World) -> None:
    home.owner.start()
    home.meet(*(place for place in range(HOSTS) if home.hosts[place].up))


def others(ids: list[str]) -> list[str]:
    return [object_id for object_id in ids if object_id != ids[OBJECTS_PUT // 2]]


@pytest.mark.parametrize("restarts", [False, True])
def test_what_else_a_lost_host_held_is_brought_to_others(*, restarts: bool) -> None:
    home = world()
    ids = put(home)
    home.lose(0)
    if restarts:
        restart(home)
    home.run(REPAIR_AFTER_MS + 5 * MINUTE_MS)
    for object_id in others(ids):
        assert len({*home.holders(object_id)} - {home.hosts[0].node_id}) == home.copies
    assert home.owner.runtime.failures == 0


def test_what_else_a_host_has_lost_is_brought_again() -> None:
    home = world()
    ids = put(home)
    home.hosts[0].start()
    home.lose(0)
    home.return_(0)
    home.run(30 * MINUTE_MS)
    assert home.owner.runtime.failures == 0
    assert all(len(home.holders(object_id)) >= home.copies for object_id in others(ids))


def test_what_else_is_on_its_way_becomes_durable_after_a_restart() -> None:
    home = world()
    for place in range(HOSTS):
        home.lose(place)
    ids = put(home)
    restart(home)
    for place in range(HOSTS):
        home.return_(place)
    home.run(5 * MINUTE_MS)
    assert all(home.object(object_id).object.state == DURABLE for object_id in others(ids))
    assert home.owner.runtime.failures == 0
