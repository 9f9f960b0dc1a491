"""When audits are due: each object within its days, soon where an ack could not be checked, and what their ends do."""

from itertools import pairwise

import pytest
from object_world import HostSpec, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects import audits
from offgrid_node.protocol.objects.commands import AuditSoon
from offgrid_node.protocol.objects.tables import OBJECTS, UNPROVED, VERIFIED, number_of
from offgrid_node.protocol.objects.verified import count_of, oldest_us

DAY_MS = 60_000  # a day, as short as the tests want it
SLACK_MS = 40_000


@pytest.fixture(autouse=True)
def short_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "DAY_US", DAY_MS * 1_000)
    monkeypatch.setattr(audits, "WALK_AGAIN_MS", 10_000)
    monkeypatch.setattr(audits, "PAGE_MS", 100)
    monkeypatch.setattr(audits, "FIRST_MS", 1_000)


def world(hosts: int = 3, **options) -> World:
    made = World([HostSpec()] * hosts, **options)
    made.meet(*range(hosts))
    return made


def spread(home: World, count: int) -> list[str]:
    ids = [home.put(number) for number in range(1, count + 1)]
    home.run(10_000)
    assert all(len(home.holders(object_id)) == home.copies for object_id in ids)
    return ids


def asked(home: World) -> list[str]:
    return [object_id for together in home.audits for object_id in together]


def soon(home: World, object_id: str) -> None:
    home.owner.runtime.deliver("objects", AuditSoon(object_id))
    home.turn_owner()


def verified_us(home: World, object_id: str) -> int:
    return home.object(object_id).object.verified_us


class TestItsTurn:
    def test_each_durable_object_has_one_within_its_days_and_not_all_at_once(self) -> None:
        home = world(audit_days=20)
        ids = spread(home, 100)
        home.run(15 * DAY_MS - SLACK_MS)
        assert not home.audits, "nothing in the first three quarters"
        home.run(5 * DAY_MS + 2 * SLACK_MS)
        assert sorted(asked(home)) == sorted(ids)
        assert len(home.audits) > 3
        assert max(map(len, home.audits)) <= audits.TOGETHER_MAX

    def test_each_has_one_though_the_row_of_another_is_damaged(self) -> None:
        home = world(audit_days=4)
        ids = sorted(spread(home, 5))
        home.owner.store.damage(OBJECTS, ids[2].encode())
        home.run(4 * DAY_MS + SLACK_MS)
        assert sorted({*asked(home)}) == [*ids[:2], *ids[3:]]
        assert home.owner.runtime.failures == 0

    def test_what_was_found_whole_is_verified_and_comes_again(self) -> None:
        home = world(audit_days=4)
        (object_id,) = spread(home, 1)
        home.run(4 * DAY_MS + SLACK_MS)
        first_us = verified_us(home, object_id)
        assert first_us
        assert all(ack.verified_us == first_us for ack in home.object(object_id).object.acks)
        home.run(4 * DAY_MS + SLACK_MS)
        assert len(home.audits) == 2
        assert verified_us(home, object_id) > first_us

    def test_a_restart_changes_nothing(self) -> None:
        home = world(audit_days=8)
        ids = spread(home, 5)
        for _ in range(16):
            home.run(DAY_MS // 2 + 1)
            home.restart_owner()
        home.run(SLACK_MS)
        assert sorted(asked(home)) == sorted(ids)

    def test_none_where_they_are_switched_off(self) -> None:
        home = world(audit_days=0)
        spread(home, 3)
        home.run(5 * DAY_MS)
        assert not home.audits

    def test_none_while_too_few_hosts_are_alive_to_tell_anything(self) -> None:
        home = world(audit_days=2)
        (object_id,) = spread(home, 1)
        home.lose(0)
        home.lose(1)
        home.run(3 * DAY_MS)
        assert not home.audits
        home.return_(1)
        home.run(SLACK_MS)
        assert asked(home) == [object_id]

    def test_what_is_not_durable_has_none(self) -> None:
        home = world(1, audit_days=1)
        home.put(1)
        home.run(5 * DAY_MS)
        assert not home.audits

    def test_a_clock_that_went_back_puts_nothing_off(self) -> None:
        home = world(audit_days=2)
        (object_id,) = spread(home, 1)
        home.run(2 * DAY_MS + SLACK_MS)
        home.skew_us = -1_000 * DAY_MS * 1_000
        home.run(SLACK_MS)
        assert asked(home) == [object_id] * 2


class TestSoon:
    def test_it_is_audited_within_seconds_and_once(self) -> None:
        home = world()
        (object_id,) = spread(home, 1)
        soon(home, object_id)
        soon(home, object_id)
        home.run(600_000)
        assert asked(home) == [object_id]
        assert verified_us(home, object_id)
        assert home.owner.store.get(UNPROVED, object_id.encode()) is None

    def test_it_outlives_a_restart(self) -> None:
        home = world(audit_days=0)
        (object_id,) = spread(home, 1)
        soon(home, object_id)
        home.restart_owner()
        home.run(600_000)
        assert asked(home) == [object_id]

    def test_hosts_that_are_away_are_waited_for(self) -> None:
        home = world()
        (object_id,) = spread(home, 1)
        for place in range(3):
            home.lose(place)
        soon(home, object_id)
        home.run(600_000)
        assert not home.audits
        for place in range(3):
            home.return_(place)
        home.run(1_200_000)
        assert asked(home) == [object_id]
        assert verified_us(home, object_id)

    def test_what_was_deleted_meanwhile_is_forgotten(self) -> None:
        home = world()
        (object_id,) = spread(home, 1)
        soon(home, object_id)
        home.delete(object_id)
        home.run(600_000)
        assert not home.audits
        assert home.owner.store.get(UNPROVED, object_id.encode()) is None

    def test_more_than_memory_takes_the_walk_finds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audits, "SOON_MAX", 2)
        home = world(audit_days=0)
        ids = spread(home, 5)
        for object_id in ids:
            soon(home, object_id)
        home.run(SLACK_MS)
        assert sorted(asked(home)) == sorted(ids)
        assert not [*home.owner.store.scan(UNPROVED)]


class TestWhatWasRebuilt:
    def test_is_audited_soon_since_nobody_here_had_its_bytes(self) -> None:
        home = world(6, code=(3, 5), audit_days=0)
        object_id = home.put(1)
        home.run(10_000)
        assert not home.object(object_id).object.local
        home.lose(next(place for place in range(6) if home.shards_at(place, object_id)))
        home.run(900_000)
        assert len(home.object(object_id).object.acks) == 5
        assert object_id in asked(home)
        assert verified_us(home, object_id)


class TestWhatIsLost:
    @pytest.mark.parametrize("code", [None, (3, 5)])
    def test_is_brought_again_and_audited_anew(self, code) -> None:
        home = world(5, code=code)
        (object_id,) = [home.put(1)]
        home.run()
        victim = next(host for host in home.hosts if any(name.startswith(object_id) for name in host.blobs))
        before = set(victim.blobs)
        victim.blobs.clear()
        soon(home, object_id)
        home.run(600_000)
        assert victim.blobs == before
        assert len(asked(home)) == 2
        assert verified_us(home, object_id)

    def test_again_and_again_at_the_same_host_is_audited_ever_more_seldom(self) -> None:
        home = world(audit_days=0)
        (object_id,) = spread(home, 1)
        victim = next(host for host in home.hosts if object_id in host.blobs)
        soon(home, object_id)
        times = list[int]()
        while home.now_ms < 3_600_000:
            before = len(home.audits)
            victim.blobs.clear()
            home.run(1_000)
            times += [home.now_ms] * (len(home.audits) - before)
        gaps = [after - before for before, after in pairwise(times)]
        assert len(times) < 15
        assert gaps[-1] > 8 * gaps[1]
        home.run(7_200_000)
        assert verified_us(home, object_id), "once it is there it is proved"

    def test_of_copies_is_proved_once_another_host_has_it_instead(self) -> None:
        """Who lost it is brought nothing more then, and drained hosts wait for the proof."""
        home = world(4, audit_days=0)
        (object_id,) = spread(home, 1)
        victim = next(host for host in home.hosts if object_id in host.blobs)
        victim.blobs.clear()
        victim.refuses = True
        soon(home, object_id)
        home.run(600_000)
        assert victim.node_id not in {ack.node_id for ack in home.object(object_id).object.acks}
        assert len(home.holders(object_id)) == home.copies
        assert home.owner.store.get(UNPROVED, object_id.encode()) is None

    def test_an_ack_that_came_since_is_not_verified_by_what_was_found_before(self) -> None:
        home = world()
        (object_id,) = spread(home, 1)
        soon(home, object_id)
        home.run(20_000)
        assert verified_us(home, object_id)
        victim = next(host for host in home.hosts if object_id in host.blobs)
        victim.blobs.clear()
        home.hosts[0].refuses = home.hosts[1].refuses = home.hosts[2].refuses = True
        soon(home, object_id)
        home.run(20_000)
        row = home.object(object_id).object
        assert victim.node_id not in {ack.node_id for ack in row.acks}
        assert all(ack.verified_us for ack in row.acks), "the others' stay"
        for host in home.hosts:
            host.refuses = False
        home.run(600_000)
        assert verified_us(home, object_id)


def counted(home: World) -> tuple[int, int]:
    """How many are verified, and since when, as it is asked for; the index says what the rows say."""
    store = home.owner.store
    verified = [row for _, value in store.scan(OBJECTS) if (row := objects_pb2.ObjectRow.FromString(value).object)]
    times = sorted((row.verified_us, row.object_id) for row in verified if row.verified_us)
    keys = [key for key, _ in store.scan(VERIFIED)]
    assert [(number_of(key[:8]), key[8:].decode()) for key in keys] == times
    return count_of(store), oldest_us(store)


class TestHowManyAreVerified:
    def test_is_counted_with_the_one_that_was_so_the_longest_ago(self) -> None:
        home = world(audit_days=0)
        ids = spread(home, 3)
        assert counted(home) == (0, 0)
        for object_id in ids[:2]:
            soon(home, object_id)
            home.run(20_000)
        first_us, second_us = (verified_us(home, object_id) for object_id in ids[:2])
        assert first_us < second_us
        assert counted(home) == (2, first_us)
        soon(home, ids[0])
        home.run(20_000)
        assert counted(home) == (2, second_us)

    def test_is_the_same_after_a_restart_and_goes_on_from_there(self) -> None:
        home = world(audit_days=0)
        ids = spread(home, 3)
        soon(home, ids[0])
        home.run(20_000)
        before = counted(home)
        home.restart_owner()
        assert counted(home) == before
        soon(home, ids[1])
        home.run(120_000)
        assert counted(home) == (2, before[1])

    def test_is_without_what_was_deleted(self) -> None:
        home = world(audit_days=0)
        ids = spread(home, 2)
        for object_id in ids:
            soon(home, object_id)
        home.run(20_000)
        assert counted(home)[0] == 2
        home.delete(ids[0])
        home.run(20_000)
        assert counted(home) == (1, verified_us(home, ids[1]))
        home.delete(ids[1])
        home.run(20_000)
        assert counted(home) == (0, 0)

    def test_is_without_what_was_brought_anew_until_that_is_shown(self) -> None:
        home = world(audit_days=0)
        (object_id,) = spread(home, 1)
        soon(home, object_id)
        home.run(20_000)
        assert counted(home)[0] == 1
        first_us = verified_us(home, object_id)
        next(host for host in home.hosts if object_id in host.blobs).blobs.clear()
        soon(home, object_id)
        seen = set[int]()
        for _ in range(600):
            home.run(1_000)
            seen.add(counted(home)[0])
        assert seen == {0, 1}
        assert verified_us(home, object_id) > first_us
