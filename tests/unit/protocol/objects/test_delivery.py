"""The outbox brings every object that was promised to hosts that hold it, whatever fails on the way.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from random import Random

import pytest
from object_world import QUIET_MS, Chaos, HostSpec, World
from seeds import seeds

from offgrid.v1 import objects_pb2, state_pb2
from offgrid_node.protocol.errors import AlreadyExists, Exhausted, FailedPrecondition, NotFound, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.objects import delivery, slots, walks
from offgrid_node.protocol.objects.commands import Compared
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.tables import (
    OBJECT_NAMES,
    OUTBOX_OPEN,
    SPREADING,
    name_prefix,
    outbox_key,
    quorum_id_of,
)
from offgrid_node.protocol.objects.urgency import Urgent
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.tables import QUORUMS, quorum_key

COMPLETED, PENDING = objects_pb2.OUTBOX_STATUS_COMPLETED, objects_pb2.OUTBOX_STATUS_PENDING
CANCELLED, LOCAL = objects_pb2.OUTBOX_STATUS_CANCELLED, objects_pb2.OBJECT_STATE_LOCAL
DURABLE, ACCEPTED = objects_pb2.OBJECT_STATE_DURABLE, objects_pb2.OBJECT_STATE_ACCEPTED
FOUR = [HostSpec(), HostSpec(), HostSpec(), HostSpec()]


def world(*weights: int, copies: int = 3, **more: object) -> World:
    return World([HostSpec(weight) for weight in weights] or list(FOUR), copies=copies, **more)  # type: ignore[arg-type]


def event_words(home: World) -> list[tuple[int, str, str]]:
    found = []
    for _, value in home.owner.store.events():
        event = state_pb2.Event.FromString(value)
        if event.HasField("object"):
            found.append((event.etype, event.subject, event.object.outcome))
    return found


class TestTheWay:
    def test_an_object_becomes_durable_by_its_quorum_and_spreads_to_as_many_hosts_as_are_wanted(self) -> None:
        home = world()
        home.meet(0, 1, 2, 3)
        object_id = home.put(1)
        assert home.object(object_id).object.state == ACCEPTED
        home.run()
        kept, entry = home.object(object_id).object, home.entry(object_id)
        assert (kept.state, entry.status) == (DURABLE, COMPLETED)
        assert len(home.holders(object_id)) == len(kept.acks) == 3
        assert home.really_acked(object_id) == kept.acked_milli == 3_000
        assert home.machine.outbox_depth == 0

    def test_its_own_copy_goes_once_the_wanted_copies_are_there(self) -> None:
        home = world()
        home.meet(0, 1, 2, 3)
        object_id = home.put(1)
        home.run()
        assert not home.object(object_id).object.local
        assert object_id not in home.owner.blobs
        assert list(home.owner.store.scan(SPREADING)) == []

    def test_with_fewer_hosts_than_copies_it_stays(self) -> None:
        home = world(1_000, 1_000)
        home.meet(0, 1)
        object_id = home.put(1)
        home.run()
        assert home.entry(object_id).status == COMPLETED
        assert home.object(object_id).object.local
        assert object_id in home.owner.blobs

    def test_the_journal_says_what_became_of_it(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        object_id = home.put(1)
        home.ask(2, key="note", request_id="r-2", digest=b"2" * 16)
        home.run()
        stored = EventType.OBJECT_STORED
        words = event_words(home)
        assert words[:2] == [(stored, object_id, "accepted"), (15, "note", "enqueued")]
        assert (stored, object_id, "durable") in words

    def test_hosts_write_down_what_they_keep_once(self) -> None:
        home = world(1_000)
        home.chaos = Chaos(twice=1.0)
        home.meet(0)
        home.put(1, 1_000)
        home.run()
        assert len(list(home.hosts[0].store.events())) == 1

    def test_no_host_is_given_what_it_has_acked(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        home.put(1)
        home.run()
        home.restart_owner()
        home.turn_owner()
        home.run()
        assert len(home.ships) == len(set(home.ships)) == 3


class TestWhenHostsFail:
    def test_another_host_takes_the_place_of_one_that_fails_at_once(self) -> None:
        home = world(copies=2)
        home.meet(0, 1, 2, 3)
        for host in home.hosts[:2]:
            host.refuses = True
        object_id = home.put(1)
        home.run(3_000)
        assert home.entry(object_id).status == COMPLETED
        assert home.holders(object_id) == {home.hosts[2].node_id, home.hosts[3].node_id}

    def test_the_same_host_is_tried_again_after_delays_that_double(self) -> None:
        home = world(1_000)
        home.meet(0)
        home.hosts[0].refuses = True
        object_id = home.put(1, 1_000)
        home.run(300_000)
        assert 8 <= len(home.ships) <= 12  # 1, 2, 4, … 60 s, and 2 s for each try
        assert home.entry(object_id).trouble == f"{home.hosts[0].node_id}: no answer"
        home.hosts[0].refuses = False
        home.run(70_000)
        assert home.entry(object_id).status == COMPLETED

    def test_a_host_that_comes_back_is_tried_at_once(self) -> None:
        home = world(1_000)
        home.meet(0)
        home.hosts[0].refuses = True
        object_id = home.put(1, 1_000)
        home.run(120_000)
        home.lose(0)
        home.hosts[0].refuses = False
        home.return_(0)
        home.run(100)
        assert home.entry(object_id).status == COMPLETED

    def test_without_hosts_it_waits_and_says_so(self) -> None:
        home = world()
        object_id = home.put(1)
        home.run()
        entry = home.entry(object_id)
        alone = "required 2.0, but no host is known besides this node, whose own copy does not count"
        assert (entry.status, entry.trouble) == (PENDING, alone)
        home.meet(0)
        home.run()
        short = "required 2.0, but the hosts known weigh 1.0 altogether"
        assert home.entry(object_id).trouble == short, "of the hosts of now, not of the epoch's members"
        home.meet(1)
        home.run()
        assert home.entry(object_id).status == COMPLETED
        assert home.entry(object_id).trouble == ""

    def test_a_dead_host_under_way_is_replaced_before_its_time_is_over(self) -> None:
        home = world(copies=2)
        home.meet(0, 1, 2)
        for host in home.hosts:
            host.refuses = True
        home.put(1)
        first = {node for _, node in home.ships}
        victim = next(place for place, host in enumerate(home.hosts) if host.node_id in first)
        home.lose(victim)
        assert len({node for _, node in home.ships}) == 3

    def test_dead_hosts_are_left_alone(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        home.lose(0)
        home.put(1)
        home.run()
        assert {node for _, node in home.ships} == {home.hosts[1].node_id, home.hosts[2].node_id}

    def test_acks_that_came_are_counted_before_anybody_else_is_asked(self) -> None:
        """In one step three acks come, and a host."""
        home = world()
        home.meet(0, 1, 2, 3)
        object_id = home.put(1)
        home.deliver_all()
        home.meet(3)
        assert home.object(object_id).object.acked_milli == 3_000
        assert len(home.ships) == 3

    def test_a_host_whose_acks_do_not_count_has_failed(self) -> None:
        """It signs for another epoch than it was asked for: the owner never believes it, and takes others."""
        home = world(copies=2)
        home.meet(0, 1, 2)
        liar = home.hosts[0]
        liar.lies = True
        object_id = home.put(1)
        home.run()
        assert home.entry(object_id).status == COMPLETED
        assert liar.node_id not in {ack.node_id for ack in home.object(object_id).object.acks}


class TestEpochs:
    def epoch(self, home: World, object_id: str) -> Epoch:
        return Epoch.decode(home.quorum(object_id).epoch.body)

    def test_hosts_that_join_later_count_by_the_next_epoch(self) -> None:
        home = world()
        home.meet(0)
        object_id = home.put(1)
        home.run()
        assert home.object(object_id).object.acked_milli == 1_000
        assert self.epoch(home, object_id).epoch == 1
        home.meet(1)
        home.run()
        assert self.epoch(home, object_id).epoch == 2
        assert home.entry(object_id).status == COMPLETED
        assert home.really_acked(object_id) == 2_000

    def test_an_ack_under_way_when_the_epoch_ends_is_asked_for_again_at_once(self) -> None:
        home = world()
        home.meet(0)
        object_id = home.put(1)
        home.meet(1)
        assert self.epoch(home, object_id).epoch == 2
        home.run(100)
        assert home.entry(object_id).status == COMPLETED

    def test_an_epoch_that_can_be_reached_stays_until_it_is(self) -> None:
        home = world(copies=2)
        home.meet(0, 1)
        home.hosts[0].refuses = True
        object_id = home.put(1)
        home.run(2_500)
        home.meet(2, 3)
        home.hosts[0].refuses = False
        home.run()
        assert self.epoch(home, object_id).epoch == 1

    def test_a_member_that_keeps_failing_is_not_waited_for(self) -> None:
        home = world()
        home.meet(0, 1)
        home.hosts[0].refuses = True
        object_id = home.put(1)
        home.run(60_000)
        home.meet(2)
        home.run()
        assert home.entry(object_id).status == COMPLETED
        assert self.epoch(home, object_id).epoch == 2

    def test_hosts_that_come_later_bring_the_copies_that_are_wanted(self) -> None:
        home = world()
        home.meet(0, 1)
        object_id = home.put(1)
        home.run()
        assert (self.epoch(home, object_id).epoch, home.object(object_id).object.local) == (1, True)
        home.meet(2, 3)
        home.run(10_000)
        assert (self.epoch(home, object_id).epoch, home.object(object_id).object.local) == (2, False)
        assert home.object(object_id).object.acked_milli == home.really_acked(object_id) == 3_000
        assert home.ships.count((object_id, home.hosts[0].node_id)) == 1, "its ack counts on"

    def test_its_own_number_of_copies_may_be_asked_for(self) -> None:
        home = world()
        home.meet(0, 1, 2, 3)
        home.ask(1, 1_000, copies=4)
        home.run()
        assert len(home.holders(home.manifest(1)[1].object_id)) == 4

    def test_more_than_all_hosts_weigh_stays_open_and_says_so(self) -> None:
        home = world(1_000, 1_500)
        home.meet(0, 1)
        object_id = home.put(1, 3_000)
        home.run()
        entry = home.entry(object_id)
        assert entry.status == PENDING
        assert entry.trouble == "required 3.0, but the hosts known weigh 2.5 altogether"
        assert entry.acked_milli == 2_500


class TestRequests:
    def test_a_repeated_request_finds_the_first_ones_object(self) -> None:
        home = world()
        first = home.ask(1, request_id="r", digest=b"d" * 16).outcome
        again = home.ask(2, request_id="r", digest=b"d" * 16).outcome
        assert isinstance(first, objects_pb2.CommitUploadResponse)
        assert first == again
        assert first.object.object_id in home.owner.blobs
        assert home.manifest(2)[1].object_id not in home.owner.blobs, "the bytes of the second are nobody's"

    def test_an_enqueue_answers_with_its_entry(self) -> None:
        home = world()
        outcome = home.ask(1, key="k", request_id="r", digest=b"d" * 16).outcome
        assert isinstance(outcome, objects_pb2.EnqueueResponse)
        assert (outcome.entry.id, outcome.entry.key, outcome.entry.etype) == (1, "k", 15)
        again = home.ask(2, key="k", request_id="r", digest=b"d" * 16).outcome
        assert isinstance(again, objects_pb2.EnqueueResponse)
        assert again.entry.object_id == outcome.entry.object_id

    def test_one_request_id_makes_no_two_things(self) -> None:
        home = world()
        home.ask(1, request_id="r", digest=b"d" * 16)
        outcome = home.ask(2, request_id="r", digest=b"e" * 16).outcome
        assert isinstance(outcome, AlreadyExists)
        assert outcome.reason == "RequestIdReused"
        assert home.manifest(2)[1].object_id not in home.owner.blobs

    def test_the_outbox_has_a_bound(self) -> None:
        home = world(outbox_max=2)
        home.put(1)
        home.put(2)
        outcome = home.ask(3).outcome
        assert isinstance(outcome, Exhausted)
        assert outcome.reason == "OutboxFull"
        assert home.manifest(3)[1].object_id not in home.owner.blobs
        assert home.ask(1).outcome is not None, "what is there already is answered all the same"
        home.meet(0, 1, 2)
        home.run()
        home.put(3)

    def test_the_newest_object_of_a_name_comes_first(self) -> None:
        home = world()
        for number in (1, 2, 3):
            home.ask(number, name="notes" if number != 2 else "other")
        found = [value.decode() for _, value in home.owner.store.scan(OBJECT_NAMES, prefix=name_prefix("notes"))]
        assert found == [home.manifest(3)[1].object_id, home.manifest(1)[1].object_id]

    def test_its_required_weight_is_the_configs_when_it_names_none(self) -> None:
        home = world()
        assert home.object(home.put(1, 0)).object.required_milli == 2_000

    @pytest.mark.parametrize(("copies", "required_milli"), [(1, 1_000), (2, 2_000), (5, 2_000)])
    def test_fewer_copies_than_that_weighs_require_less(self, copies: int, required_milli: int) -> None:
        home = world()
        home.ask(1, 0, copies=copies)
        assert home.object(home.manifest(1)[1].object_id).object.required_milli == required_milli

    def test_age_and_depth(self) -> None:
        home = world()
        home.put(1)
        home.run(5_000)
        home.put(2)
        assert home.machine.outbox_depth == 2
        assert home.machine.outbox_age_ms(home.now()) == 5_000


class TestACancelledEntry:
    def test_waits_for_nothing_any_more_while_its_object_stays_here(self) -> None:
        home = world()
        object_id = home.put(1, 9_000)
        answer = home.cancel(1)
        assert isinstance(answer, objects_pb2.CancelOutboxEntryResponse)
        assert (answer.entry.status, answer.entry.trouble) == (CANCELLED, "")
        assert home.entry(object_id) == answer.entry
        assert (home.object(object_id).object.state, home.object(object_id).object.local) == (LOCAL, True)
        assert (EventType.OBJECT_STORED, object_id, "cancelled") in event_words(home)
        assert list(home.owner.store.scan(OUTBOX_OPEN)) == []
        assert (home.machine.outbox_depth, home.machine._delivery._parcels) == (0, {})
        assert object_id in home.owner.blobs

    def test_is_brought_to_nobody_whatever_comes(self) -> None:
        home = world()
        home.put(1)
        home.cancel(1)
        home.meet(0, 1, 2)
        home.restart_owner()
        home.run()
        assert home.ships == []

    def test_may_be_cancelled_again_with_the_same_answer(self) -> None:
        home = world()
        home.put(1)
        first = home.cancel(1)
        home.run(1_000)
        assert home.cancel(1) == first

    def test_is_no_completed_one_and_none_that_there_is_not(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        object_id = home.put(1)
        home.run()
        refused, unknown = home.cancel(1), home.cancel(2)
        assert isinstance(refused, FailedPrecondition)
        assert (refused.reason, home.entry(object_id).status) == ("EntryCompleted", COMPLETED)
        assert isinstance(unknown, NotFound)
        assert unknown.reason == "EntryNotFound"

    @pytest.mark.parametrize("refuses", [False, True])
    def test_lets_what_is_under_way_end_and_frees_its_place(self, refuses: bool) -> None:
        home = world()
        home.hosts[0].refuses = refuses
        home.meet(0)
        object_id = home.put(1, 9_000)
        assert home.machine._delivery._slots.at_host.total() == 1
        home.cancel(1)
        home.run()
        assert (home.machine._delivery._slots.at_host.total(), home.machine._delivery._parcels) == (0, {})
        assert (home.entry(object_id).status, home.entry(object_id).trouble) == (CANCELLED, "")
        assert home.object(object_id).object.state == LOCAL

    def test_is_not_undone_by_a_host_that_has_lost_its_copy(self) -> None:
        home = world()
        home.meet(0, 1)
        home.ask(1, 9_000, for_job=True)
        home.run(2_000)
        home.cancel(1)
        home.run(2_000)
        object_id, host = home.manifest(1)[1].object_id, home.hosts[0]
        ships = len(home.ships)
        home.owner.runtime.deliver("objects", Compared(host.node_id, (Holding(object_id, (0,)),)))
        home.turn_owner()
        home.run(5_000)
        assert (home.entry(object_id).status, len(home.ships)) == (CANCELLED, ships)
        assert home.machine._delivery._parcels == {}
        home.delete(object_id)
        assert home.machine._outbox.entries.jobs_open == 0

    def test_makes_room_for_another(self) -> None:
        home = world(outbox_max=1)
        home.put(1)
        assert isinstance(home.ask(2).outcome, Exhausted)
        home.cancel(1)
        home.put(2)


class TestWhatJobsLeave:
    """In a mesh without other hosts it waits for ever, and there may be very much of it."""

    def result(self, home: World, number: int) -> str:
        manifest, body = home.manifest(number)
        home.owner.runtime.deliver("objects", ObjectAdded(manifest, body, f"j-{number}.output", 0))
        home.turn_owner()
        return body.object_id

    def test_stays_deleted_when_it_is_said_again(self) -> None:
        home = world()
        object_id = self.result(home, 1)
        home.delete(object_id)
        home.owner.blobs.add(object_id)
        assert self.result(home, 1) == object_id
        home.run(1_000)
        assert home.object(object_id) is None
        assert object_id not in home.owner.blobs
        assert home.machine._outbox.entries.jobs_open == 0

    def test_takes_no_room_of_what_is_put(self) -> None:
        home = world(outbox_max=2)
        for number in (1, 2):
            home.ask(number, for_job=True)
        for number in (3, 4, 5):
            assert home.entry(self.result(home, number)).for_job
        home.restart_owner()
        home.put(6)
        home.put(7)
        refused = home.ask(8).outcome
        assert isinstance(refused, Exhausted)
        assert refused.message.startswith("2 objects put here still wait")

    def test_has_a_bound_of_its_own_for_what_can_be_refused(self) -> None:
        home = world(outbox_max=2)
        for number in (1, 2):
            self.result(home, number)
        refused = home.ask(3, for_job=True).outcome
        assert isinstance(refused, Exhausted)
        assert refused.message.startswith("2 inputs and results of jobs still wait")
        home.cancel(1)
        home.ask(3, for_job=True)
        assert home.machine.outbox_depth == 2

    def test_counts_no_more_once_it_is_completed(self) -> None:
        home = world(outbox_max=2)
        for number in (1, 2):
            self.result(home, number)
        home.meet(0, 1, 2)
        home.run()
        home.restart_owner()
        for number in (3, 4):
            assert isinstance(home.ask(number, for_job=True).outcome, objects_pb2.CommitUploadResponse)


class TestBounds:
    def test_so_many_ships_are_under_way_at_once(self) -> None:
        home = world(copies=2)
        for number in range(100):
            home.put(number)
        home.meet(0, 1, 2, 3)
        under_way = home.machine._delivery._slots.at_host
        assert under_way.total() == slots.SHIPS_MAX
        assert max(under_way.values()) <= slots.SHIPS_PER_HOST_MAX
        home.run()
        assert all(home.entry(object_id).status == COMPLETED for object_id in home.acked)

    def test_what_last_failed_at_a_host_is_known_until_it_takes_something_or_comes_anew(self) -> None:
        home = world(copies=1)
        home.meet(0)
        host = home.hosts[0]
        host.refuses = True
        object_id = home.put(1, 1_000)
        home.run(3_000)
        assert home.machine.hosts.failure(host.node_id) == (object_id, "no answer")
        host.refuses = False
        home.run(60_000)
        assert home.machine.hosts.failure(host.node_id) is None

    def test_one_slow_host_keeps_no_others_waiting(self) -> None:
        home = world(copies=1)
        home.meet(0, 1)
        home.hosts[0].refuses = True
        for number in range(60):
            home.put(number, 1_000)
        home.run(30_000)
        assert all(home.entry(object_id).status == COMPLETED for object_id in home.acked)

    @pytest.mark.parametrize(("waits", "comes", "first"), [(1, 2, "waits"), (2, 1, "comes"), (1, 1, "waits")])
    def test_a_free_slot_is_for_the_most_urgent_and_of_equals_for_who_waited(
        self, waits: int, comes: int, first: str
    ) -> None:
        urgency = {"comes": comes, "waits": waits}.__getitem__
        ready, turns = Urgent(urgency), slots.Slots(urgency)
        ready.add("comes")
        turns.wait("host", "waits")
        assert [turns.next(ready) == first, turns.next(ready) != first, turns.next(ready)] == [True, True, None]

    def test_more_than_one_step_looks_at_is_looked_at_in_the_next(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivery, "LOOKS_MAX", 3)
        home = world()
        for number in range(20):
            home.put(number)
        home.meet(0, 1, 2)
        home.run()
        assert home.machine.outbox_depth == 0

    def test_what_is_durable_and_short_of_copies_is_kept_on_disk_alone(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        home.lose(2)
        for number in range(10):
            home.put(number)
        home.run()
        assert home.machine.outbox_depth == 0
        assert home.machine._delivery._parcels == {}
        assert len(list(home.owner.store.scan(SPREADING))) == 10
        home.return_(2)
        home.run()
        assert list(home.owner.store.scan(SPREADING)) == []
        assert all(len(home.holders(object_id)) == 3 for object_id in home.acked)

    @pytest.mark.parametrize("most", [1, 3])
    def test_the_walk_over_them_goes_in_steps(self, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walks, "WALK_ROWS", most)
        monkeypatch.setattr(delivery, "SPREADING_MAX", 2)
        home = world()
        home.meet(0, 1, 2)
        home.lose(2)
        for number in range(10):
            home.put(number)
        home.run()
        home.return_(2)
        home.run()
        assert all(len(home.holders(object_id)) == 3 for object_id in home.acked)

    def test_a_failing_third_host_is_tried_again_though_all_is_durable(self) -> None:
        home = world()
        home.meet(0, 1, 2)
        home.hosts[2].refuses = True
        object_id = home.put(1)
        home.run(10_000)
        assert home.entry(object_id).status == COMPLETED
        home.hosts[2].refuses = False
        home.run(walks.WALK_AGAIN_MS + 10_000)
        assert len(home.holders(object_id)) == 3

    def test_after_a_restart_what_is_open_is_looked_at_though_nobody_comes(self) -> None:
        home = world()
        home.put(1)
        home.owner.start()
        assert home.machine.deadline_ms() == home.now_ms
        home.run()
        quiet_ms = home.machine.deadline_ms() or 0
        assert quiet_ms > home.now_ms + 3_600_000, "nothing but the walk over what is due for an audit"

    def test_indexes_hold_only_what_is_open(self) -> None:
        home = world()
        first = home.put(1)
        home.meet(0, 1, 2)
        home.run()
        second = home.put(2, 5_000)
        assert [key for key, _ in home.owner.store.scan(OUTBOX_OPEN)] == [outbox_key(home.object(second).outbox_id)]
        assert home.object(first).outbox_id == 1


def eventful(home: World, rng: Random) -> None:
    """Puts, cancellations, deaths, joins and restarts; at the end everybody is well again."""
    down: set[int] = set()
    number = 0
    for _ in range(40):
        match rng.randrange(8):
            case 0 | 1:
                number += 1
                home.put(number, rng.choice([500, 1_000, 2_000, 2_500]))
            case 2:
                place = rng.randrange(4)
                if place in home.known and place not in down:
                    down.add(place)
                    home.lose(place)
            case 3:
                place = rng.randrange(4)
                down.discard(place)
                home.return_(place)
            case 4:
                home.restart_owner()
            case 5:
                answer = home.cancel(rng.randint(1, max(1, number)))
                if isinstance(answer, objects_pb2.CancelOutboxEntryResponse):
                    home.given_up.add(answer.entry.object_id)
            case 6:
                fault = Unavailable("disk", reason="DiskError")
                home.owner.store.fail_next(fault, applied=rng.random() < 0.5)
            case _:
                pass
        home.run(rng.choice([1, 10, 500, 5_000]))
    home.chaos = Chaos()
    home.put(number + 1)  # takes a fault that is still to come: machines that it makes anew have heard of nobody
    for place in range(4):
        home.return_(place)


def check_all_came_to_their_end(home: World) -> None:
    home.run(QUIET_MS)
    assert home.machine.outbox_depth == 0
    assert home.machine._delivery._slots.at_host.total() == 0
    for object_id in home.given_up:
        assert (home.entry(object_id).status, home.object(object_id).object.state) == (CANCELLED, LOCAL)
        assert object_id in home.owner.blobs
    for object_id, required in home.acked.items():
        if object_id in home.given_up:
            continue
        assert home.entry(object_id).status == COMPLETED
        assert home.object(object_id).object.state == DURABLE
        assert home.really_acked(object_id) >= required


@pytest.mark.parametrize("seed", seeds(12))
def test_whatever_happens_what_was_promised_is_kept(seed: int) -> None:
    rng = Random(seed)
    chaos = Chaos(lost=rng.choice([0.0, 0.1, 0.4]), twice=rng.choice([0.0, 0.3]), late_ms=rng.choice([5, 500, 3_000]))
    specs = [HostSpec(1_000, "attic"), HostSpec(1_000, "attic"), HostSpec(500), HostSpec(2_000, "barn")]
    home = World(specs, chaos, copies=rng.choice([1, 2, 3, 4]), seed=seed)
    home.meet_broker()
    eventful(home, rng)
    check_all_came_to_their_end(home)


@pytest.mark.parametrize("turn", range(1, 40))
def test_the_owner_may_die_after_any_step(turn: int) -> None:
    home = World(list(FOUR), Chaos(lost=0.2, twice=0.2, late_ms=50), seed=turn)
    home.meet(0, 1)
    home.crash_at = turn
    for number in range(3):
        home.put(number)
        home.run(20)
    home.meet(2)
    home.run(200)
    home.chaos = Chaos()
    check_all_came_to_their_end(home)


def test_brokers_know_what_became_of_every_quorum() -> None:
    home = world()
    home.meet(0, 1)
    home.put(1)
    home.run()
    home.meet_broker()
    for number in range(2, 100):
        home.put(number)
    home.run()
    for object_id in home.acked:
        key = quorum_key(home.owner.node_id, quorum_id_of(object_id))
        told, own = home.broker.store.get(QUORUMS, key), home.quorum(object_id)
        own.ClearField("change")
        assert told == own.SerializeToString()
