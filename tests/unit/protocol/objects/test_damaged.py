"""An object whose own copy rots before it is durable: made anew where hosts have enough of it, else it is said."""

from __future__ import annotations

import pytest
from object_world import HostSpec, World

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.errands import Shipped
from offgrid_node.protocol.objects.outbox import ACCEPTED, DAMAGED, DURABLE, LOCAL

COMPLETED, PENDING = objects_pb2.OUTBOX_STATUS_COMPLETED, objects_pb2.OUTBOX_STATUS_PENDING
CANCELLED = objects_pb2.OUTBOX_STATUS_CANCELLED
CODES = pytest.mark.parametrize("code", [None, (2, 4)])


def world(code: tuple[int, int] | None, willing: int) -> World:
    """Four hosts, of which so many take anything."""
    home = World([HostSpec()] * 4, code=code, copies=2)
    for host in home.hosts[willing:]:
        host.refuses = True
    home.meet(*range(4))
    return home


def rot(home: World, object_id: str) -> None:
    """Found as it is brought to a host that refuses."""
    home.owner.blobs.discard(object_id)
    fault, node = Corrupt("gone", reason="BlobLost"), home.hosts[3].node_id
    home.owner.runtime.deliver("objects", Shipped(object_id, node, None, fault, source_bad=True))
    home.turn_owner()


def outcomes(home: World) -> list[str]:
    return [state_pb2.Event.FromString(value).object.outcome for _, value in home.owner.store.events()]


@CODES
def test_it_is_made_anew_from_those_who_have_acked_and_becomes_durable(code: tuple[int, int] | None) -> None:
    home = world(code, 1 if code is None else 2)
    object_id = home.put(1, 2_000 if code is None else 3_000)
    home.run(5_000)
    assert home.object(object_id).object.state == ACCEPTED
    rot(home, object_id)
    home.run(1_000)
    assert home.fetches == [object_id]
    assert object_id in home.owner.blobs
    assert home.machine.damaged == 0
    for place, host in enumerate(home.hosts):
        host.refuses = False
        home.return_(place)
    home.run()
    assert home.object(object_id).object.state == DURABLE
    assert home.entry(object_id).status == COMPLETED


@CODES
def test_where_hosts_have_too_few_it_says_so_and_is_brought_to_nobody(code: tuple[int, int] | None) -> None:
    home = world(code, 0 if code is None else 1)
    object_id = home.put(1, 2_000)
    home.run(5_000)
    rot(home, object_id)
    row, entry = home.object(object_id), home.entry(object_id)
    assert (row.object.state, row.object.local) == (DAMAGED, True)
    assert (entry.status, home.machine.damaged) == (PENDING, 1)
    assert "put it again" in entry.trouble
    home.run(60_000)  # what was under way has ended
    home.ships.clear()
    home.run(600_000)
    assert (home.ships, home.rebuilds, home.fetches) == ([], [], [])
    assert outcomes(home).count("damaged") == 1
    assert home.entry(object_id).trouble == entry.trouble


def test_a_late_ack_brings_it_back() -> None:
    home = world(None, 1)
    home.hosts[0].refuses = True
    object_id = home.put(1, 2_000)
    rot(home, object_id)
    assert home.object(object_id).object.state == DAMAGED
    home.run(1)
    home.restart_owner()
    home.owner.blobs.add(object_id)  # as it was: only some of it is damaged
    home.hosts[0].refuses = False
    home.run(30_000)
    rot(home, object_id)
    home.run(1_000)
    assert home.object(object_id).object.state == ACCEPTED
    for host in home.hosts:
        host.refuses = False
    home.run()
    assert home.object(object_id).object.state == DURABLE
    assert home.machine.damaged == 0


def test_what_hosts_do_not_give_now_is_asked_for_again() -> None:
    home = world(None, 1)
    object_id = home.put(1, 2_000)
    home.run(5_000)
    home.lose(0)
    rot(home, object_id)
    home.run(30_000)
    assert 1 < len(home.fetches) < 10
    assert home.object(object_id).object.state == ACCEPTED, "there is one who has it"
    assert "is to be made anew" in home.entry(object_id).trouble
    home.return_(0)
    for host in home.hosts:
        host.refuses = False
    home.run()
    assert home.object(object_id).object.state == DURABLE


@pytest.mark.parametrize("delete", [True, False])
def test_given_up_or_deleted_it_is_counted_no_more(*, delete: bool) -> None:
    home = world(None, 0)
    object_id = home.put(1, 2_000)
    home.run(5_000)
    rot(home, object_id)
    assert home.machine.damaged == 1
    if delete:
        home.acked.pop(object_id)
        home.delete(object_id)
        assert home.object(object_id) is None
    else:
        home.cancel(home.object(object_id).outbox_id)
        assert home.object(object_id).object.state == LOCAL
        assert home.entry(object_id).status == CANCELLED
    home.run()
    assert (home.machine.damaged, home.machine.outbox_depth) == (0, 0)
