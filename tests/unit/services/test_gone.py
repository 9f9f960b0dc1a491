"""What a host keeps for an owner that was removed from the mesh goes by its own owner's word, after a month, and no
sooner."""

from __future__ import annotations

import pytest
from bulk_world import Clock, Node, World
from test_draining import DATA, kept, put

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.objects import gone
from offgrid_node.protocol.objects.commands import DropKept, ReplicasLost
from offgrid_node.protocol.objects.expiry import DAY_MS, HOUR_MS
from offgrid_node.protocol.objects.gone import GRACE_US
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.tables import GONE, KEPT_BYTES, REPLICAS, number_of, replica_key

GRACE_MS = GRACE_US // 1_000
OBJECTS_PUT = 3


@pytest.fixture
def world() -> World:
    world = World(2)
    for number in range(OBJECTS_PUT):
        put(world, f"object {number}")
    return world


@pytest.fixture
def host(world: World) -> Node:
    return world.hosts[0]


def remove(world: World, host: Node) -> None:
    """The owner is a member no more, and says nothing."""
    world.owner.up = False
    host.runtime.deliver("objects", PeerDown(world.owner.node_id, removed=True))
    world.settle()


def drop(world: World, host: Node) -> jobs_pb2.DropKeptResponse:
    ticket = host.runtime.ask("objects", "local admin", DropKept(world.owner.node_id))
    world.settle()
    if isinstance(ticket.outcome, Fault):
        raise ticket.outcome
    assert isinstance(ticket.outcome, jobs_pb2.DropKeptResponse)
    return ticket.outcome


def refusal(world: World, host: Node) -> str:
    with pytest.raises(FailedPrecondition) as caught:
        drop(world, host)
    assert kept(world, host) == OBJECTS_PUT
    return caught.value.reason


def set_ahead(monkeypatch: pytest.MonkeyPatch, by_us: int) -> None:
    """The wall clock alone."""
    right = Clock.now
    monkeypatch.setattr(Clock, "now", lambda self: Now(self.mono_ms, right(self).utc_us + by_us))


def is_there(world: World, host: Node) -> bool:
    assert (kept(world, host) > 0) == bool([*host.blobs.names()]) == bool([*host.store.scan(REPLICAS)])
    return kept(world, host) > 0


def test_nothing_goes_by_itself(world: World, host: Node) -> None:
    remove(world, host)
    world.clock.mono_ms += 100 * GRACE_MS
    host.restart()
    world.pass_ms(60_000)
    assert kept(world, host) == OBJECTS_PUT


def test_it_goes_page_by_page_once_the_month_is_over(world: World, host: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gone, "PAGE_REPLICAS", 2)
    remove(world, host)
    world.clock.mono_ms += GRACE_MS - 1_000
    with pytest.raises(FailedPrecondition, match=r"may be dropped in 1 day$") as caught:
        drop(world, host)
    assert caught.value.reason == "OwnerMayReturn"
    world.clock.mono_ms += 1_000
    assert [(each.dropped, each.left) for each in (drop(world, host), drop(world, host))] == [(2, 1), (1, 0)]
    assert not is_there(world, host)
    assert number_of(host.store.get(KEPT_BYTES, world.owner.node_id.encode()) or b"") == 0
    assert not [*host.store.scan(GONE)]
    assert (drop(world, host).dropped, drop(world, host).left) == (0, 0)


def test_whom_it_was_shared_with_reads_it_until_then() -> None:
    world = World(4)
    object_id = put(world, "n")
    reader = next(each for each in world.hosts if not kept(world, each))
    world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object="n", node=reader.node_id))
    world.pass_ms(2 * GATHER_MS)
    for host in world.hosts:
        remove(world, host)
    world.clock.mono_ms += GRACE_MS
    assert reader.read(object_id) == DATA
    for host in world.hosts:
        drop(world, host)
    with pytest.raises(Fault):
        reader.read(object_id)


def test_of_whom_the_host_did_not_hear_the_month_begins_when_it_is_asked(world: World, host: Node) -> None:
    world.owner.up = False
    with pytest.raises(FailedPrecondition):
        drop(world, host)
    world.clock.mono_ms += GRACE_MS
    assert drop(world, host).dropped == OBJECTS_PUT


def test_whoever_is_a_member_again_begins_anew(world: World, host: Node) -> None:
    remove(world, host)
    world.clock.mono_ms += GRACE_MS
    world.owner.up = True
    host.meet(world.owner)
    world.settle()
    with pytest.raises(FailedPrecondition):
        drop(world, host)
    assert kept(world, host) == OBJECTS_PUT


def test_whoever_is_a_member_again_and_away_begins_anew_when_removed_again(world: World, host: Node) -> None:
    remove(world, host)
    world.clock.mono_ms += GRACE_MS
    host.runtime.deliver("objects", PeerDown(world.owner.node_id))
    remove(world, host)
    assert refusal(world, host) == "OwnerMayReturn"


def test_a_clock_that_leaps_a_month_ahead_has_nothing_go(
    world: World, host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(world, host)
    set_ahead(monkeypatch, GRACE_US)
    assert refusal(world, host) == "ClockLeapt"
    world.clock.mono_ms += DAY_MS - HOUR_MS
    assert refusal(world, host) == "ClockLeapt"
    world.clock.mono_ms += HOUR_MS
    assert drop(world, host).dropped == OBJECTS_PUT, "it has gone on by itself for a day"


def test_a_clock_that_was_ahead_at_the_removal_makes_nobody_wait_for_longer_than_a_month(
    world: World, host: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ahead:
        set_ahead(ahead, 20 * 365 * DAY_MS * 1_000)
        remove(world, host)
    assert refusal(world, host) == "OwnerMayReturn"
    world.clock.mono_ms += GRACE_MS
    assert drop(world, host).dropped == OBJECTS_PUT


def test_an_owner_that_is_back_all_the_same_brings_it_again(world: World, host: Node) -> None:
    remove(world, host)
    world.clock.mono_ms += GRACE_MS
    drop(world, host)
    assert not is_there(world, host)
    world.owner.up = True
    for _ in range(4):
        host.meet(world.owner)
        world.owner.meet(host)
        world.pass_ms(60_000)
    assert kept(world, host) == OBJECTS_PUT


@pytest.mark.parametrize("lost", [1, OBJECTS_PUT])
@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_known_to_be_lost_goes_too(
    world: World, host: Node, monkeypatch: pytest.MonkeyPatch, lost: int, damaged: bool
) -> None:
    monkeypatch.setattr(gone, "LOOK_ROWS", 1)
    keys = [key for key, _ in host.store.scan(REPLICAS)][:lost]
    holdings = tuple(Holding(key.decode().partition("/")[0], (0,)) for key in keys)
    host.runtime.deliver("objects", ReplicasLost(world.owner.node_id, holdings))
    for key in keys if damaged else []:
        host.store.damage(REPLICAS, key)
    remove(world, host)
    world.clock.mono_ms += GRACE_MS
    answers = [drop(world, host)]
    while answers[-1].more:
        answers.append(drop(world, host))
    assert sum(answer.dropped for answer in answers) == OBJECTS_PUT
    assert not [*host.store.scan(REPLICAS)]
    assert not [*host.blobs.names()]
    assert drop(world, host) == jobs_pb2.DropKeptResponse()


def test_a_damaged_row_goes_like_any_other(world: World, host: Node) -> None:
    remove(world, host)
    world.clock.mono_ms += GRACE_MS
    (key, _), *_ = host.store.scan(REPLICAS)
    assert key == replica_key(key.partition(b"/")[0].decode(), world.owner.node_id)
    host.store.damage(REPLICAS, key)
    assert (drop(world, host).left, is_there(world, host)) == (0, False)
