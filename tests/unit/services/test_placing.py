"""ExplainPlacement as it is asked: of an object of this node's, of a size, of a code, and what is refused."""

from __future__ import annotations

import pytest
from bulk_world import World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.objects.measuring import EVERY_MS, FIRST_MS_MAX, SPEED_BYTES_MIN
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.services.objects.placing import SIZE_BYTES_MAX
from offgrid_node.storage.memory_blobs import MemoryBlobs

Request = objects_pb2.ExplainPlacementRequest
GETS, HOLDS = objects_pb2.PLACEMENT_OUTCOME_GETS, objects_pb2.PLACEMENT_OUTCOME_HOLDS


@pytest.fixture
def world() -> World:
    world = World(3)
    world.pass_ms(FIRST_MS_MAX)
    return world


def asked(world: World, request: Request) -> objects_pb2.ExplainPlacementResponse:
    return world.owner.ask("ExplainPlacement", request)  # type: ignore[no-any-return]


def test_of_an_object_it_says_who_holds_it(world: World) -> None:
    made = world.owner.put(b"notes" * 100, name="notes")
    answer = asked(world, Request(object="notes"))
    assert answer.object_id == made.object_id
    assert (answer.code.total, answer.copies, answer.unplaced) == (1, 3, 0)
    *hosts, own = answer.hosts
    assert {host.node_id for host in hosts} == {host.node_id for host in world.hosts}
    assert [(host.outcome, [*host.holds]) for host in hosts] == [(HOLDS, [0])] * 3
    assert all(host.room_bytes > 0 and host.HasField("round_trip_ms") for host in hosts)
    assert (own.node_id, own.outcome) == (world.owner.node_id, objects_pb2.PLACEMENT_OUTCOME_OWNER)
    assert {host.name for host in hosts} == {host.name for host in world.hosts}


def test_of_a_size_it_says_who_would_get_it_and_what_hosts_that_filled_up_lack(world: World) -> None:
    full = world.hosts[0]
    full.blobs = MemoryBlobs(limit_bytes=500)
    full.restart()
    world.pass_ms(1)  # the owner hears that it has come again
    world.pass_ms(EVERY_MS)
    answer = asked(world, Request(size_bytes=600))
    outcomes = {host.node_id: host for host in answer.hosts}
    assert outcomes[full.node_id].outcome == objects_pb2.PLACEMENT_OUTCOME_NO_ROOM
    assert outcomes[full.node_id].reason == f"no room: a copy needs {answer.part_bytes} bytes, it has 500 for this node"
    assert sum(host.outcome == GETS for host in answer.hosts) == 2
    assert answer.unplaced == 1


def test_an_object_says_which_of_its_hosts_are_away(world: World) -> None:
    made, gone = world.owner.put(b"notes" * 100, name="notes"), world.hosts[1]
    assert not any(ack.away for ack in made.acks)
    gone.up = False
    world.owner.runtime.deliver("objects", PeerDown(gone.node_id))
    world.settle()
    listed = world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects[0]
    for told in (world.owner.info("notes"), listed):
        assert {ack.node_id: ack.away for ack in told.acks} == {host.node_id: host is gone for host in world.hosts}


def test_padded_it_is_asked_for_with_its_size_class(world: World) -> None:
    plain, padded = (asked(world, Request(size_bytes=10_001, padded=padded)) for padded in (False, True))
    assert padded.part_bytes - plain.part_bytes == size_class(10_001) - 10_001
    assert size_class(10_001) > 10_001


def test_the_code_is_the_configs_for_that_size_or_the_one_that_is_asked_for(world: World) -> None:
    small, large = (asked(world, Request(size_bytes=size)) for size in (999_999, 1_000_000))
    assert ((small.code.total, small.copies), (large.code.needed, large.code.total, large.copies)) == (
        (1, 3),
        (4, 7, 0),
    )
    assert large.part_bytes == -(-(1_000_000 + 16) // 4)
    assert sorted(shard for host in large.hosts for shard in host.gets) == [*range(7)]
    copies = asked(world, Request(size_bytes=1_000_000, copies=2))
    assert (copies.code.total, copies.copies) == (1, 2)
    coded = asked(world, Request(size_bytes=1, code=objects_pb2.Code(needed=2, total=3)))
    assert (coded.code.needed, coded.code.total, coded.part_bytes) == (2, 3, 9)
    assert all(host.reason.startswith("fails with no other host; ") for host in coded.hosts if host.gets)


def test_another_policy_than_the_configs(world: World) -> None:
    assert asked(world, Request(size_bytes=1)).policy == objects_pb2.PLACEMENT_POLICY_BALANCED
    answer = asked(world, Request(size_bytes=1, policy=objects_pb2.PLACEMENT_POLICY_BANDWIDTH))
    assert answer.policy == objects_pb2.PLACEMENT_POLICY_BANDWIDTH
    assert answer.hosts[0].reason.endswith("its speed is not known yet")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(size_bytes=SIZE_BYTES_MAX + 1), "size_bytes"),
        (Request(copies=65), "copies"),
        (Request(copies=1, code=objects_pb2.Code(needed=1, total=2)), "copies"),
        (Request(code=objects_pb2.Code(needed=2, total=2)), "code"),
        (Request(policy=9), "policy"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(world: World, request_: Request, field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        asked(world, request_)


def test_an_object_that_there_is_not(world: World) -> None:
    with pytest.raises(NotFound):
        asked(world, Request(object="nothing"))


def test_what_is_shipped_shows_how_fast_a_host_is_and_takes_its_room(world: World) -> None:
    before = {host.node_id: host.room_bytes for host in asked(world, Request(size_bytes=1)).hosts}
    world.owner.put(bytes(SPEED_BYTES_MIN))
    *hosts, _ = asked(world, Request(size_bytes=1)).hosts
    assert len(hosts) == 3
    for host in hosts:
        assert host.bytes_per_s >= SPEED_BYTES_MIN
        assert before[host.node_id] - host.room_bytes >= SPEED_BYTES_MIN
