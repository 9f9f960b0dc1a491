"""What is deleted is gone: at its owner at once, at every host that was ever asked for it in the end, and for good."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from object_world import QUIET_MS, SALT, TIMEOUT_MS, Chaos, HostSpec, World
from seeds import seeds

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Fault, NotFound, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects import dropping, notices
from offgrid_node.protocol.objects.commands import Compared, KeepReplica
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import (
    DELETED,
    DROPPED,
    DROPPED_AGES,
    KEPT_BYTES,
    NOTICES,
    OBJECT_NAMES,
    OBJECTS,
    OUTBOX_OPEN,
    REPLICAS,
    SPREADING,
    quorum_id_of,
    replica_key,
)
from offgrid_node.protocol.quorum.records import Epoch, verify_epoch
from offgrid_node.protocol.quorum.tables import CHANGES, QUORUMS, quorum_key
from offgrid_tools.sim.crypto import sim_verify

CANCELLED = objects_pb2.OUTBOX_STATUS_CANCELLED


def world(hosts: int = 3, **more: object) -> World:
    home = World([HostSpec() for _ in range(hosts)], **more)  # type: ignore[arg-type]
    home.meet(*range(hosts))
    return home


def mark_of(home: World, object_id: str) -> objects_pb2.Deletion:
    return home.owner.find(DELETED, object_id.encode(), objects_pb2.Deletion)  # type: ignore[no-any-return]


def check_gone(home: World, object_id: str, *, everywhere: bool = True) -> None:
    store = home.owner.store
    assert home.object(object_id) is None
    assert object_id not in home.owner.blobs
    for table in (OUTBOX_OPEN, SPREADING, OBJECT_NAMES):
        assert object_id.encode() not in [value for _, value in store.scan(table)], table
    assert store.get(QUORUMS, quorum_key(home.owner.node_id, quorum_id_of(object_id))) is None
    assert quorum_id_of(object_id).encode() not in [value for _, value in store.scan(CHANGES)]
    if everywhere:
        assert home.holders(object_id) == set()
        assert all(next(host.store.scan(REPLICAS), None) is None for host in home.hosts)
        assert mark_of(home, object_id).untold == []
        assert list(store.scan(NOTICES)) == []


def outcomes(home: World) -> list[tuple[int, str]]:
    events = [state_pb2.Event.FromString(value) for _, value in home.owner.store.events()]
    return [(event.etype, event.object.outcome) for event in events if event.HasField("object")]


class TestTheWay:
    def test_it_is_gone_at_its_owner_at_once_and_at_its_hosts_soon(self) -> None:
        home = world()
        object_id = home.put(1)
        home.run()
        assert len(home.holders(object_id)) == 3
        answer = home.delete(object_id)
        assert isinstance(answer, objects_pb2.DeleteObjectResponse)
        assert answer.deletion == mark_of(home, object_id)
        assert sorted(answer.deletion.untold) == sorted(host.node_id for host in home.hosts)
        check_gone(home, object_id, everywhere=False)
        home.run()
        check_gone(home, object_id)
        assert outcomes(home)[-2:] == [(EventType.OBJECT_DELETED, "deleted"), (EventType.OBJECT_DELETED, "gone")]
        assert {host.store.get(KEPT_BYTES, home.owner.node_id.encode()) for host in home.hosts} == {bytes(8)}

    def test_the_journal_of_a_host_says_so_too(self) -> None:
        home = world(1, copies=1)
        object_id = home.put(1, 1_000)
        home.run()
        home.delete(object_id)
        home.run()
        events = [state_pb2.Event.FromString(value) for _, value in home.hosts[0].store.events()]
        assert [event.object.outcome for event in events] == ["replica kept", "replica dropped"]
        assert events[-1].object.object_id == object_id

    def test_its_name_is_free_and_the_one_before_it_has_it_again(self) -> None:
        home = world()
        first, second = (home.ask(n, name="notes").outcome.object.object_id for n in (1, 2))  # type: ignore[union-attr]
        home.delete(second)
        assert [value.decode() for _, value in home.owner.store.scan(OBJECT_NAMES)] == [first]

    def test_what_was_never_put_is_not_found(self) -> None:
        fault = world().delete("o-" + "a" * 32)
        assert isinstance(fault, NotFound)
        assert fault.reason == "ObjectNotFound"

    def test_deleted_twice_it_is_deleted_once(self) -> None:
        home = world()
        object_id = home.put(1)
        first = home.delete(object_id)
        assert home.delete(object_id) == first
        home.run()
        assert home.delete(object_id).deletion.untold == []  # type: ignore[union-attr]
        assert [outcome for _, outcome in outcomes(home)].count("deleted") == 1

    def test_without_hosts_there_is_nobody_to_tell(self) -> None:
        home = World([])
        object_id = home.put(1)
        home.delete(object_id)
        check_gone(home, object_id)
        assert outcomes(home)[-1] == (EventType.OBJECT_DELETED, "gone")

    def test_a_late_request_under_the_id_that_made_it_makes_nothing(self) -> None:
        home = world()
        made = home.ask(1, request_id="r", digest=b"d").outcome
        home.delete(made.object.object_id)  # type: ignore[union-attr]
        again = home.ask(2, request_id="r", digest=b"d").outcome
        assert isinstance(again, Fault)
        assert again.reason == "ObjectDeleted"
        assert home.object(home.manifest(2)[1].object_id) is None

    def test_an_open_entry_is_given_up_with_it(self) -> None:
        home = World([])
        object_id = home.put(1)
        entry_id = home.object(object_id).outbox_id
        home.delete(object_id)
        assert home.machine.outbox_depth == 0
        assert home.cancel(entry_id).entry.status == CANCELLED  # type: ignore[union-attr]
        home.meet()
        home.run()


class TestOnItsWay:
    def test_deleted_while_it_is_shipped_it_arrives_nowhere(self) -> None:
        home = world()
        object_id = home.put(1)
        home.delete(object_id)  # three Ships are on the road
        assert len(home.ships) == 3
        home.run()
        check_gone(home, object_id)
        assert len(home.ships) == 3, "nothing is sent any more"

    def test_a_late_ack_of_it_changes_nothing(self) -> None:
        home = world()
        object_id = home.put(1)
        home.at(0, lambda: None)
        home.deliver_all()  # the acks are in the owner's inbox
        home.delete(object_id)
        home.run()
        check_gone(home, object_id)

    def test_a_slot_at_a_host_is_free_again(self) -> None:
        home = world(1, copies=1)
        ids = [home.put(n, 1_000) for n in range(20)]
        for object_id in ids[:10]:
            home.delete(object_id)
        home.run()
        assert [bool(home.holders(object_id)) for object_id in ids] == [False] * 10 + [True] * 10

    def test_a_host_that_was_asked_and_never_answered_is_told_as_well(self) -> None:
        home = world(1, copies=1)
        home.hosts[0].refuses = True
        object_id = home.put(1, 1_000)
        home.run(TIMEOUT_MS + 10)
        home.delete(object_id)
        home.run()
        assert home.hosts[0].store.get(DROPPED, replica_key(object_id, home.owner.node_id)) is not None

    def test_a_host_that_said_once_that_it_keeps_it_unasked_is_told_at_once(self) -> None:
        """An owner that lost its disk learns so of hosts that it had asked before, maybe before all of it has acks."""
        home = world(2, copies=1)
        object_id = home.put(1, 1_000)
        home.run(QUIET_MS)
        (holder,) = home.holders(object_id)
        other = next(host.node_id for host in home.hosts if host.node_id != holder)
        home.lose(next(place for place, host in enumerate(home.hosts) if host.node_id == holder))
        home.owner.runtime.deliver("objects", Compared(other, strays=(Holding(object_id, (0,)),)))
        home.turn_owner()
        home.delete(object_id)
        assert set(mark_of(home, object_id).untold) == {holder, other}


class TestAway:
    def test_a_host_hears_of_it_when_it_comes_back_after_weeks(self) -> None:
        home = world()
        object_id = home.put(1)
        home.run()
        home.lose(0)
        home.delete(object_id)
        home.run()
        assert list(mark_of(home, object_id).untold) == [home.hosts[0].node_id]
        assert home.holders(object_id) == {home.hosts[0].node_id}
        home.restart_owner()
        home.pass_days(30)
        assert home.holders(object_id) == {home.hosts[0].node_id}
        home.return_(0)
        home.run()
        check_gone(home, object_id)

    def test_a_host_that_is_no_host_any_more_is_told_all_the_same(self) -> None:
        home = world(1, copies=1)
        object_id = home.put(1, 1_000)
        home.run()
        home.lose(0)
        home.hosts[0].up = True
        home._tell_up(home.hosts[0], 1, HostSpec())
        home.delete(object_id)
        home.run()
        check_gone(home, object_id)

    def test_one_that_was_removed_from_the_mesh_is_not_waited_for(self) -> None:
        home = world(1, copies=1)
        object_id = home.put(1, 1_000)
        home.run()
        home.call = lambda site, life, call: site.runtime.deliver(  # type: ignore[method-assign]
            call.domain, Answered(call.tag, call.node, None, NotFound("no member", reason="NotAMember"))
        )
        home.delete(object_id)
        home.run()
        assert mark_of(home, object_id).untold == []

    def test_many_are_told_in_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notices, "PAGE_NOTICES", 4)
        home, calls = world(1, copies=1), list[Call]()
        ids = [home.put(n, 1_000) for n in range(10)]
        home.run()
        carry = home.call
        home.call = lambda site, life, call: (calls.append(call), carry(site, life, call))  # type: ignore[method-assign,assignment,func-returns-value]
        for object_id in ids:
            home.delete(object_id)
        home.run()
        told = [len(call.request.deleted) for call in calls if call.method == notices.DELIVER]  # type: ignore[attr-defined]
        assert told == [4, 4, 2]
        for object_id in ids:
            check_gone(home, object_id)

    def test_what_is_to_be_told_in_the_very_step_that_has_told_all_is_told_all_the_same(self) -> None:
        """Once nothing is left, a node is not thought of any more: it had better be nothing."""
        home = world(1, copies=1)
        first, second = home.put(1, 1_000), home.put(2, 1_000)
        home.run()
        home.delete(first)
        while [*home.owner.store.scan(NOTICES)]:
            home.run(1)
        home.now_ms += notices.GATHER_MS  # when it is looked at again
        home.delete(second)
        home.run(10_000)
        check_gone(home, second)

    def test_one_that_does_not_answer_is_asked_less_and_less(self) -> None:
        home, calls = world(1, copies=1), list[int]()
        object_id = home.put(1, 1_000)
        home.run()

        def refuse(site: object, life: int, call: Call) -> None:
            calls.append(home.now_ms)
            home.owner.runtime.deliver("objects", Answered(call.tag, call.node, None, Unavailable("busy")))

        home.call = refuse  # type: ignore[method-assign,assignment]
        home.delete(object_id)
        home.run(QUIET_MS)
        pauses = [later - sooner for sooner, later in itertools.pairwise(calls)]
        assert pauses[:4] == [1_000, 2_000, 4_000, 8_000]
        assert max(pauses) == notices.RETRY_MAX_MS


class TestTheFence:
    def test_a_late_epoch_brings_nothing_back(self) -> None:
        home = world(1, copies=1)
        object_id = home.put(1, 1_000)
        home.run()
        row = home.object(object_id)
        home.delete(object_id)
        home.run()
        host, body = home.hosts[0], Manifest.decode(row.object.manifest.signed.body)
        epoch = verify_epoch(row.epoch, [home.owner.signer.public_key], sim_verify, SALT)
        for _ in range(2):
            command = KeepReplica(row.object.manifest, body, row.epoch, epoch, body.roots[0])
            ticket = host.runtime.ask("objects", home.owner.node_id, command)
            host.turn()
            assert isinstance(ticket.outcome, Fault)
            assert ticket.outcome.reason == "ReplicaDropped"
            host.start()
        assert isinstance(epoch, Epoch)

    def test_an_owner_fills_no_disk_with_fences(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dropping, "FENCES_MAX", 2)
        home = world(1, copies=1)
        ids = [home.put(n, 1_000) for n in range(3)]
        home.run()
        for object_id in ids:
            home.delete(object_id)
            home.run()
            assert not mark_of(home, object_id).untold, "one more is never refused"
        fences = {key.decode().partition("/")[0] for key, _ in home.hosts[0].store.scan(DROPPED)}
        assert fences == {*ids[1:]}, "the oldest gives way"
        assert len(list(home.hosts[0].store.scan(DROPPED_AGES))) == 2

    def test_more_at_once_than_there_may_be_fences_are_told_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dropping, "FENCES_MAX", 2)
        home = world(1, copies=1)
        ids = [home.put(n, 1_000) for n in range(3)]
        home.run()
        home.lose(0)
        for object_id in ids:
            home.delete(object_id)
        home.return_(0)
        home.run()
        assert len(list(home.hosts[0].store.scan(DROPPED))) == 2

    def test_another_owner_of_the_same_bytes_keeps_them(self) -> None:
        home = world(1, copies=1)
        object_id = home.put(1, 1_000)
        home.run()
        host = home.hosts[0]
        value = host.store.get(REPLICAS, replica_key(object_id, home.owner.node_id))
        assert value is not None
        home.delete(object_id)
        assert host.store.get(REPLICAS, replica_key(object_id, home.owner.node_id)) == value


@pytest.mark.parametrize("seed", seeds(12))
def test_whatever_is_lost_and_whenever_the_owner_dies_what_is_deleted_is_gone_in_the_end(seed: int) -> None:
    rng = Random(seed)
    home = World([HostSpec() for _ in range(4)], Chaos(lost=0.2, twice=0.2, late_ms=1_500), seed=seed)
    home.meet(0, 1, 2, 3)
    ids, deleted = [home.put(n) for n in range(6)], set[str]()
    for _ in range(12):
        home.run(rng.choice([0, 1, 60, 700, 3_000]))
        match rng.randrange(4):
            case 0:
                home.restart_owner()
            case 1:
                place = rng.randrange(4)
                home.lose(place) if home.hosts[place].up else home.return_(place)
            case _:
                object_id = rng.choice(ids)
                home.acked.pop(object_id, None)
                home.delete(object_id)
                deleted.add(object_id)
    for place, host in enumerate(home.hosts):
        if not host.up:
            home.return_(place)
    home.chaos = Chaos()
    home.run(10 * QUIET_MS)
    assert list(home.owner.store.scan(NOTICES)) == []
    for object_id in ids:
        if object_id in deleted:
            assert home.holders(object_id) == set()
            assert mark_of(home, object_id).untold == []
        else:
            assert len(home.holders(object_id)) >= 2
    assert {key.decode() for key, _ in home.owner.store.scan(OBJECTS)} == set(ids) - deleted
