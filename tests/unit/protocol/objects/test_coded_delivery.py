"""Coded objects on their way to hosts: what is laid where, moved when, and never called durable too soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from object_world import TIMEOUT_MS, Chaos, HostSpec, Site, World
from seeds import seeds

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Unavailable
from offgrid_node.protocol.objects import slots
from offgrid_node.protocol.objects.errands import Rebuild, Shipped
from offgrid_node.protocol.objects.parcels import MOVES_AT_ONCE
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_node.protocol.objects.tables import GIVEN, SPREADING
from offgrid_node.protocol.objects.walks import WALK_AGAIN_MS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import laid

COMPLETED, PENDING = objects_pb2.OUTBOX_STATUS_COMPLETED, objects_pb2.OUTBOX_STATUS_PENDING
DURABLE, ACCEPTED = objects_pb2.OBJECT_STATE_DURABLE, objects_pb2.OBJECT_STATE_ACCEPTED
CODE = (3, 5)


def world(hosts: int, **more: object) -> World:
    return World([HostSpec() for _ in range(hosts)], code=CODE, **more)  # type: ignore[arg-type]


def epoch(home: World, object_id: str) -> Epoch:
    return Epoch.decode(home.quorum(object_id).epoch.body)


def counts(home: World, object_id: str) -> list[int]:
    """How many shards the owner wants at each host."""
    at = Counter(laid(epoch(home, object_id)))
    return [at[host.node_id] for host in home.hosts]


def settled(home: World, object_id: str) -> None:
    """It is durable and every shard is where the layout says; the owner's copy went."""
    kept = home.object(object_id).object
    assert (kept.state, kept.local, home.entry(object_id).status) == (DURABLE, False, COMPLETED)
    assert kept.acked_milli == home.really_acked(object_id) >= kept.required_milli
    for place, host in enumerate(home.hosts):
        mine = epoch(home, object_id).shards.get(host.node_id, ())
        assert set(mine) <= set(home.shards_at(place, object_id))
    assert list(home.owner.store.scan(SPREADING)) == []
    given = sorted((f"{ack.node_id}/{object_id}".encode(), bytes(ack.shards)) for ack in kept.acks)
    assert sorted(home.owner.store.scan(GIVEN)) == given
    assert home.machine._delivery._parcels == {}


class TestTheWay:
    def test_each_host_gets_its_shards_and_the_owners_copy_goes(self) -> None:
        home = world(5)
        home.meet(*range(5))
        object_id = home.put(1)
        home.run(1_000)
        settled(home, object_id)
        assert counts(home, object_id) == [1] * 5
        kept = home.object(object_id).object
        assert (kept.shards_needed, kept.shards_total, kept.acked_milli) == (*CODE, 3_000)
        assert sorted(shard for ack in kept.acks for shard in ack.shards) == list(range(5))
        assert len(home.ships) == 5

    def test_fewer_hosts_than_shards_hold_several(self) -> None:
        home = world(3)
        home.meet(0, 1, 2)
        object_id = home.put(1)
        home.run(1_000)
        settled(home, object_id)
        assert sorted(counts(home, object_id)) == [1, 2, 2]
        assert home.object(object_id).object.acked_milli == 2_000
        assert len(home.ships) == 3, "one Ship brings all that a host is to hold"

    def test_it_is_durable_before_all_shards_are_there_and_keeps_its_copy_until_they_are(self) -> None:
        home = world(5)
        home.hosts[4].refuses = True
        home.meet(*range(5))
        object_id = home.put(1)
        home.run(1_000)
        kept = home.object(object_id).object
        assert (kept.state, kept.local, kept.acked_milli) == (DURABLE, True, 2_000)
        home.hosts[4].refuses = False
        home.run(WALK_AGAIN_MS + 10_000)
        settled(home, object_id)

    def test_without_hosts_it_waits_and_says_so(self) -> None:
        home = world(3)
        object_id = home.put(1)
        home.run(1_000)
        assert home.entry(object_id).trouble.startswith("required 2.0, but no host is known")
        home.meet(0)
        home.run(1_000)
        assert home.entry(object_id).trouble == "required 2.0, but the hosts known weigh 1.0 altogether"
        home.meet(1)
        home.run(1_000)
        entry = home.entry(object_id)
        assert (entry.status, entry.acked_milli) == (PENDING, 1_000)
        assert entry.trouble == "required 2.0, but as its shards can lie on the hosts of now, 1.0 lost would lose it"
        home.meet(2)
        home.run(1_000)
        settled(home, object_id)

    def test_a_host_that_brings_nothing_more_opens_no_epoch(self) -> None:
        home = world(6)
        home.meet(*range(5))
        object_id = home.put(1)
        home.meet(5)
        home.run()
        assert epoch(home, object_id).epoch == 1
        settled(home, object_id)


class TestWhatMoves:
    def test_shards_of_a_dead_host_at_once_before_the_object_is_durable(self) -> None:
        home = world(6, copies=1)
        home.meet(*range(6))
        object_id = home.put(1, 3_000)
        victim = next(place for place, count in enumerate(counts(home, object_id)) if count)
        home.lose(victim)
        home.run(100)
        assert home.object(object_id).object.state == DURABLE
        home.run(TIMEOUT_MS)
        assert counts(home, object_id)[victim] == 0
        settled(home, object_id)

    def test_shards_of_a_failing_host(self) -> None:
        home = world(6)
        for place in range(5):
            home.meet(place)
        home.hosts[0].refuses = True
        object_id = home.put(1, 3_000)
        home.meet(5)
        home.run(60_000)
        assert counts(home, object_id)[0] == 0
        settled(home, object_id)

    def test_what_a_dead_host_has_acked_stays_for_a_while(self) -> None:
        home = world(6)
        home.meet(*range(6))
        object_id = home.put(1)
        home.run(1_000)
        victim = next(place for place, count in enumerate(counts(home, object_id)) if count)
        home.lose(victim)
        home.run(REPAIR_AFTER_MS - 10_000)
        assert (epoch(home, object_id).epoch, home.fetches) == (1, [])
        home.return_(victim)
        home.run(2 * REPAIR_AFTER_MS)
        assert (epoch(home, object_id).epoch, home.fetches) == (1, [])

    @pytest.mark.parametrize("restarted", [False, True])
    def test_and_is_made_again_elsewhere_then_from_the_other_hosts(self, restarted: bool) -> None:
        home = world(6)
        home.meet(*range(6))
        object_ids = [home.put(number) for number in range(4)]
        home.run(1_000)
        assert not any(home.object(object_id).object.local for object_id in object_ids)
        lost = [object_id for object_id in object_ids if counts(home, object_id)[0]]
        home.lose(0)
        home.hosts[0].blobs.clear()
        if restarted:
            home.restart_owner()
        home.run(REPAIR_AFTER_MS + 60_000)
        assert (sorted({object_id for object_id, _ in home.rebuilds}), home.fetches) == (sorted(lost), [])
        for object_id in lost:
            assert (epoch(home, object_id).epoch, counts(home, object_id)[0]) == (2, 0)
            assert home.can_be_read(object_id, home.hosts[1:4]) or home.really_acked(object_id) == 3_000
        assert object_id not in home.owner.blobs
        assert (len(home.ships), len(home.rebuilds)) == (5 * len(object_ids), len(lost)), "only what was lost travels"

    def test_the_hosts_that_are_left_take_several_where_there_is_no_other(self) -> None:
        home = world(5)
        home.meet(*range(5))
        object_id = home.put(1)
        home.run(1_000)
        home.lose(0)
        home.lose(1)
        home.run(2 * REPAIR_AFTER_MS)
        settled(home, object_id)
        assert sorted(counts(home, object_id)) == [0, 0, 1, 2, 2]
        assert home.object(object_id).object.acked_milli == 2_000

    def test_too_many_lost_at_once_is_tried_again_until_a_host_comes_back(self) -> None:
        home = world(6)
        home.meet(*range(6))
        object_id = home.put(1)
        home.run(1_000)
        gone = [place for place, count in enumerate(counts(home, object_id)) if count][:3]
        for place in gone:
            home.lose(place)
        home.run(2 * REPAIR_AFTER_MS)
        assert home.object(object_id).object.state == DURABLE
        assert not home.object(object_id).object.local
        home.return_(gone[0])
        home.run(300_000)
        assert home.object(object_id).object.acked_milli >= 1_000
        assert home.can_be_read(object_id, [host for host in home.hosts if host.up])

    def test_a_host_that_comes_and_goes_makes_no_epoch_each_time(self) -> None:
        home = world(3)
        home.meet(0, 1)
        object_id = home.put(1, 9_000)
        for _ in range(50):
            home.lose(1)
            home.run(10)
            home.return_(1)
            home.run(10)
        assert epoch(home, object_id).epoch <= 1 + MOVES_AT_ONCE + 1

    def test_deleted_while_it_is_fetched_nothing_is_left(self) -> None:
        home = world(6)
        home.meet(*range(6))
        object_id = home.put(1)
        home.run(1_000)
        victim = next(place for place, count in enumerate(counts(home, object_id)) if count)
        home.lose(victim)
        home.chaos = Chaos(late_ms=1_000)
        for host in home.hosts:
            host.spoils = True
        while not home.fetches:
            home.run(1_000)
        home.delete(object_id)
        home.run()
        assert home.object(object_id) is None
        assert not any(name.startswith(object_id) for name in home.owner.blobs)
        assert (home.machine._delivery._slots.at_host.total(), home.machine._delivery._parcels) == (0, {})


def test_a_rebuild_that_ends_once_its_owner_has_the_bytes_counts_only_when_these_were_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host gives the others' sums back wrong, so the owner fetches the object while another host still rebuilds."""
    home = world(7)
    home.meet(*range(7))
    object_id = home.put(1)
    home.run(1_000)
    rebuild, slow = home.rebuild, list[Callable[[], None]]()

    def one_is_slow(owner: Site, life: int, work: Rebuild) -> None:
        if not slow:
            slow.append(partial(rebuild, owner, life, work))
            return
        fault = FailedPrecondition("another root", reason="WrongRoot")
        owner.runtime.deliver("objects", Shipped(object_id, work.node, None, fault, spoilt=True, rebuilt=True))

    monkeypatch.setattr(home, "rebuild", one_is_slow)
    for place in [place for place, count in enumerate(counts(home, object_id)) if count][:2]:
        home.lose(place)
    while not home.object(object_id).object.local:
        home.run(1_000)
    _, node_id = home.rebuilds[0]
    assert node_id not in [to for _, to in home.ships]
    slow[0]()
    home.run(60_000)
    assert (object_id, node_id) in home.ships
    settled(home, object_id)


def test_what_is_nearest_to_loss_is_rebuilt_first(monkeypatch: pytest.MonkeyPatch) -> None:
    home = world(9)
    home.meet(*range(9))
    object_ids = [home.put(number) for number in range(12)]
    home.run(2_000)
    lost = {each: sum(counts(home, each)[:2]) for each in object_ids}
    assert {*lost.values()} >= {1, 2}
    monkeypatch.setattr(slots, "SHIPS_MAX", 1)
    home.chaos = Chaos(late_ms=200)
    for place in (0, 1):
        home.lose(place)
    home.run(REPAIR_AFTER_MS + 120_000)
    order = [lost[object_id] for object_id, _ in home.rebuilds]
    assert len(order) == sum(lost.values())
    assert order[: order.count(2)] == [2] * order.count(2), "whatever was put first"


class TestNothingMovesBeforeItsBytesAreHere:
    """The next epoch forgets who holds what it moves: it is asked for only once this node can ship."""

    def stored(self, hosts: int, required_milli: int) -> tuple[World, str]:
        home = World([HostSpec() for _ in range(hosts)], code=(12, 20))
        home.meet(*range(hosts))
        object_id = home.put(1, required_milli)
        home.run(5_000)
        settled(home, object_id)
        return home, object_id

    def test_an_owner_that_was_cut_off_finds_all_again(self) -> None:
        home, object_id = self.stored(10, 2_000)
        for place in range(10):
            home.lose(place)
        home.run(REPAIR_AFTER_MS + 60_000)
        for place in range(10):
            home.return_(place)
            home.run(3_000)
            assert len(home.findable(object_id)) >= min(12, 2 * (place + 1)) or object_id in home.owner.blobs
        home.run(REPAIR_AFTER_MS)
        settled(home, object_id)
        assert home.findable(object_id) == {*range(20)}

    def test_so_does_one_whose_hosts_were_dark_by_half(self) -> None:
        home, object_id = self.stored(10, 2_000)
        for place in range(5):
            home.lose(place)
        home.run(REPAIR_AFTER_MS + 60_000)
        assert epoch(home, object_id).epoch == 1, "ten shards of the twelve that it takes: nothing can be shipped"
        for place in range(5):
            home.return_(place)
        home.run(WALK_AGAIN_MS)
        settled(home, object_id)
        assert home.findable(object_id) == {*range(20)}

    def test_what_a_drained_host_holds_is_fetched_before_it_moves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        home, object_id = self.stored(2, 1_000)
        fetch, findable = home.fetch, []

        def watched(*fetched: object) -> None:
            findable.append(home.findable(object_id))
            fetch(*fetched)  # type: ignore[arg-type]

        monkeypatch.setattr(home, "fetch", watched)
        home.specs[0].capacity.drained = True
        home.run()
        assert findable == [{*range(20)}]
        settled(home, object_id)
        assert counts(home, object_id) == [0, 20]


def test_a_bad_copy_of_the_owners_is_fetched_from_the_hosts() -> None:
    home = world(5)
    home.hosts[4].refuses = True
    home.meet(*range(5))
    object_id = home.put(1)
    home.run(1_000)
    home.owner.blobs.discard(object_id)
    fault, node = Corrupt("gone", reason="BlobLost"), home.hosts[4].node_id
    home.owner.runtime.deliver("objects", Shipped(object_id, node, None, fault, source_bad=True))
    home.turn_owner()
    assert home.object(object_id).object.local, "what is left of it is better than nothing"
    home.hosts[4].refuses = False
    home.run(WALK_AGAIN_MS + 10_000)
    assert home.fetches == [object_id]
    settled(home, object_id)


def eventful(home: World, rng: Random) -> bool:
    """Puts, deaths, returns and failing disks; whenever something is called durable, it is (`check_completed`). Whether
    the owner's disk did what it did not confirm, as some do: no bytes are dropped by that, and a start sweeps them."""
    number, unconfirmed, lies = 0, False, rng.random() < 0.3
    for _ in range(30):
        match rng.randrange(6):
            case 0 | 1:
                number += 1
                home.put(number, rng.choice([500, 1_000, 1_500, 2_000]))
            case 2 if len(up := [p for p in home.known if home.hosts[p].up]) > 4:
                home.lose(rng.choice(up))
            case 3:
                place = rng.randrange(len(home.hosts))
                home.return_(place)
            case 4:
                home.restart_owner()
            case 5:
                applied = lies and rng.random() < 0.5
                unconfirmed |= applied
                home.owner.store.fail_next(Unavailable("disk", reason="DiskError"), applied=applied)
            case _:
                pass
        home.run(rng.choice([1, 10, 500, 5_000, REPAIR_AFTER_MS]))
        for object_id in home.acked:
            home.check_completed(object_id)
            assert home.can_be_read(object_id, [home.owner, *home.hosts]) or object_id in home.owner.blobs
    home.chaos = Chaos()
    home.put(number + 1)
    for place in range(len(home.hosts)):
        home.return_(place)
    home.run(2 * REPAIR_AFTER_MS)
    return unconfirmed


@pytest.mark.parametrize("seed", seeds(12))
def test_whatever_happens_what_is_called_durable_is(seed: int) -> None:
    rng = Random(seed)
    chaos = Chaos(lost=rng.choice([0.0, 0.1, 0.3]), twice=rng.choice([0.0, 0.3]), late_ms=rng.choice([5, 500, 3_000]))
    specs = [
        HostSpec(1_000, "attic"),
        HostSpec(1_000, "attic"),
        HostSpec(500),
        HostSpec(2_000, "barn"),
        *[HostSpec()] * 3,
    ]
    home = World(specs, chaos, seed=seed, code=rng.choice([(3, 5), (2, 7), (4, 5)]))
    home.meet_broker()
    unconfirmed = eventful(home, rng)
    assert home.machine.outbox_depth == 0
    assert home.machine._delivery._slots.at_host.total() == 0
    if unconfirmed:
        home.restart_owner()
        home.run(1_000)
    for object_id, required in home.acked.items():
        kept = home.object(object_id).object
        assert kept.state == DURABLE
        assert home.really_acked(object_id) >= min(required, kept.required_milli)
        assert (kept.local, object_id in home.owner.blobs) == (False, False)
