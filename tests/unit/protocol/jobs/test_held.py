"""Large results of redundant jobs: many bring one, and one becomes an object."""

from __future__ import annotations

import pytest
from redundant_world import OWNER, World

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import DropBlob, Raise
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.commands import CancelJobs
from offgrid_node.protocol.jobs.held import HELD
from offgrid_node.protocol.objects.manifest import COPY, STRIPE_BYTES, Manifest


@pytest.fixture(params=[False, True], ids=["", "reloaded at every step"])
def world(request: pytest.FixtureRequest) -> World:
    return World(reloads=request.param)


def large(number: int, name: str = "output") -> ObjectAdded:
    body = Manifest(OWNER.node_id, number.to_bytes(16, "big"), 10, STRIPE_BYTES, 1, COPY, (bytes([number]) * 32,), 1)
    manifest = objects_pb2.Manifest(signed=common_pb2.Signed(body=body.encode(), signature=bytes(64)))
    return ObjectAdded(manifest, body, f"j.{name}", 0)


def ids(*added: ObjectAdded) -> list[str]:
    return [each.body.object_id for each in added]


def objects_made(world: World) -> list[ObjectAdded]:
    return [e.event for e in world.effects if isinstance(e, Raise) and isinstance(e.event, ObjectAdded)]


def dropped(world: World) -> list[str]:
    return [effect.name for effect in world.effects if isinstance(effect, DropBlob)]


def held(world: World) -> list[str]:
    return [key.decode() for key, _ in world.disk.scan(HELD)]


def test_before_enough_agree_a_large_result_is_held_and_no_object(world: World) -> None:
    world.run(3, 2)
    world.finish("a", added=(large(1), large(2, "files")))
    assert sorted(held(world)) == sorted(ids(large(1), large(2)))
    assert (objects_made(world), dropped(world)) == ([], [])


def test_the_accepted_one_becomes_objects_and_the_others_go(world: World) -> None:
    job_id = world.run(3, 2)
    first, files, second = large(1), large(2, "files"), large(3)
    world.finish("a", added=(first, files))
    world.finish("b", added=(second,))
    assert objects_made(world) == [first, files]
    assert dropped(world) == ids(second)
    assert held(world) == []
    result = world.job(job_id).result
    assert [result.output_object, result.files_object] == ids(first, files)


def test_who_disagrees_and_who_comes_late_leave_nothing(world: World) -> None:
    job_id = world.run(4, 2)
    world.finish("a", b"a lie", added=(large(1),))
    world.finish("b", added=(large(2),))
    world.finish("c", added=(large(3),))
    assert dropped(world) == ids(large(1), large(3))
    world.finish("d", added=(large(4),))
    assert dropped(world) == ids(large(1), large(3), large(4))
    assert (objects_made(world), held(world)) == ([large(2)], [])
    shown = [each.result.output_object for each in world.executions(job_id)]
    assert shown == ["", large(2).body.object_id, "", ""]


@pytest.mark.parametrize("end", ["taken back", "without agreement"])
def test_a_job_without_a_result_leaves_nothing(world: World, end: str) -> None:
    job_id = world.run(2, 2)
    world.finish("a", b"one", added=(large(1),))
    if end == "taken back":
        world.ask(CancelJobs((job_id,), "", "not wanted any more"))
    else:
        for number, host in enumerate("bcd", 2):
            world.finish(host, f"what {host} says".encode(), added=(large(number),))
    assert large(1).body.object_id in dropped(world)
    assert (objects_made(world), held(world)) == ([], [])


def test_a_job_of_one_host_has_its_object_at_once() -> None:
    world = World()
    world.run(1, 1)
    world.finish("a", added=(large(1),))
    assert (objects_made(world), held(world)) == ([large(1)], [])
