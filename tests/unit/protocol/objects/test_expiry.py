"""Objects that expire: gone at their time and not before, whatever clocks do; at a host a day later by itself."""

from __future__ import annotations

from typing import Any

import pytest
from object_world import HostSpec, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.objects import expiry
from offgrid_node.protocol.objects.deletion import Deletion
from offgrid_node.protocol.objects.expiry import AWAY_MAX_US, DAY_MS, HOUR_MS, LOOK_MS, PROBATION_MS
from offgrid_node.protocol.objects.tables import (
    DELETED,
    DROPPED,
    EXPIRING,
    META,
    REPLICAS,
    REPLICAS_EXPIRING,
    SEEN_CLOCK,
)

DAY_US, YEAR_US = DAY_MS * 1_000, 365 * DAY_MS * 1_000


def world(expires_us: int = 3 * DAY_US, **more: object) -> World:
    """One host; object 1 expires. Its time is long after zero, as that of any real clock."""
    home = World([HostSpec()], copies=1, **more)  # type: ignore[arg-type]
    home.expires_us[1] = expires_us
    home.meet(0)
    return home


def put(home: World) -> str:
    object_id = home.put(1, 1_000)
    home.run(1_000)
    assert home.holders(object_id) != set()
    return object_id


def gone(home: World, object_id: str) -> bool:
    return home.object(object_id) is None


class TestAtItsTime:
    def test_it_is_deleted_and_its_hosts_are_told(self) -> None:
        home = world()
        object_id = put(home)
        home.put(2, 1_000)
        home.run(3 * DAY_MS - 10_000)
        assert not gone(home, object_id)
        home.run(LOOK_MS + 20_000)
        assert gone(home, object_id)
        assert home.holders(object_id) == set()
        mark = home.owner.find(DELETED, object_id.encode(), objects_pb2.Deletion)
        assert mark.untold == []
        assert list(home.owner.store.scan(EXPIRING)) == list(home.hosts[0].store.scan(REPLICAS_EXPIRING)) == []
        assert not gone(home, home.manifest(2)[1].object_id), "what never expires stays"

    def test_deleted_before_that_it_is_forgotten(self) -> None:
        home = world()
        object_id = put(home)
        home.delete(object_id)
        home.run(4 * DAY_MS)
        assert list(home.owner.store.scan(EXPIRING)) == []

    def test_a_start_finds_what_is_to_expire(self) -> None:
        home = world()
        object_id = put(home)
        home.restart_owner()
        home.run(3 * DAY_MS + 2 * LOOK_MS)
        assert gone(home, object_id)

    def test_many_go_in_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "ACTS_MAX", 3)
        home = world()
        home.expires_us.update(dict.fromkeys(range(10), 3 * DAY_US))
        ids = [home.put(number, 1_000) for number in range(10)]
        home.run(3 * DAY_MS + LOOK_MS + 1_000)
        assert all(gone(home, object_id) for object_id in ids)

    def test_one_that_cannot_go_keeps_no_other_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        home = world()
        home.expires_us[2] = 3 * DAY_US
        stuck, free = sorted((home.put(1, 1_000), home.put(2, 1_000)))
        home.run(1_000)
        on_delete = Deletion.on_delete

        def refuse(self: Deletion, object_id: str, *more: Any) -> objects_pb2.Deletion:
            if object_id == stuck:
                raise Exhausted("not now", reason="QuotaFull")
            return on_delete(self, object_id, *more)

        monkeypatch.setattr(Deletion, "on_delete", refuse)
        home.run(3 * DAY_MS + LOOK_MS)
        assert not gone(home, stuck)
        assert gone(home, free)

    def test_a_node_with_nothing_to_expire_never_looks(self) -> None:
        home = world(0)
        put(home)
        home.run()
        assert home.owner.store.get(META, SEEN_CLOCK) is None


class TestAHost:
    def keep(self) -> tuple[World, str]:
        home = world()
        object_id = put(home)
        home.owner.up = False  # what it says is heard by nobody from here on
        home.call = lambda site, life, call: None  # type: ignore[method-assign]
        return home, object_id

    def look(self, home: World, at_ms: int) -> None:
        home.now_ms = at_ms
        home.hosts[0].turn()

    def test_drops_it_by_itself_a_day_later(self) -> None:
        home, object_id = self.keep()
        host = home.hosts[0]
        for hour in range(1, 4 * 24 - 1):
            self.look(home, hour * HOUR_MS)
        assert object_id in host.blobs
        self.look(home, 4 * DAY_MS + HOUR_MS)
        assert object_id not in host.blobs
        assert list(host.store.scan(REPLICAS)) == list(host.store.scan(REPLICAS_EXPIRING)) == []

    def test_keeps_no_fence_for_what_expired(self) -> None:
        """Nobody deleted it: what comes late expires as well."""
        home, object_id = self.keep()
        for hour in range(1, 4 * 24 + 2):
            self.look(home, hour * HOUR_MS)
        assert object_id not in home.hosts[0].blobs
        assert list(home.hosts[0].store.scan(DROPPED)) == []

    @pytest.mark.parametrize("ahead_hours", [1, 23])
    def test_whose_clock_is_hours_ahead_drops_nothing_too_early(self, ahead_hours: int) -> None:
        home, object_id = self.keep()
        home.skew_us = ahead_hours * HOUR_MS * 1_000
        home.hosts[0].start()
        self.look(home, 3 * DAY_MS)
        assert object_id in home.hosts[0].blobs


class TestAClockThatLeaps:
    def leapt(self, by_us: int = 50 * YEAR_US) -> tuple[World, str]:
        home = world()
        object_id = put(home)
        home.run(HOUR_MS)  # by now the clock has been noted
        assert home.owner.store.get(META, SEEN_CLOCK) is not None
        home.skew_us = by_us
        return home, object_id

    def test_drops_nothing_before_it_has_run_a_day_so(self) -> None:
        home, object_id = self.leapt()
        home.run(PROBATION_MS - 2 * HOUR_MS)
        assert not gone(home, object_id)
        home.run(3 * HOUR_MS)
        assert gone(home, object_id), "after a day it is believed"

    def test_set_right_within_the_day_nothing_was_lost(self) -> None:
        home, object_id = self.leapt()
        home.run(PROBATION_MS - HOUR_MS)
        home.skew_us = 0
        home.run(DAY_MS)
        assert not gone(home, object_id)

    def test_a_restart_is_no_way_around(self) -> None:
        home, object_id = self.leapt()
        for _ in range(5):
            home.run(2 * HOUR_MS)
            home.restart_owner()
        home.run(PROBATION_MS - 11 * HOUR_MS)
        assert not gone(home, object_id)

    def test_a_node_that_runs_some_hours_a_day_believes_it_in_the_end(self) -> None:
        home, object_id = self.leapt()
        for _ in range(4):
            home.run(8 * HOUR_MS)
            home.skew_us += 16 * HOUR_MS * 1_000  # it is off meanwhile
            home.restart_owner()
        home.run(2 * LOOK_MS)
        assert gone(home, object_id)

    @pytest.mark.parametrize("restarts", [False, True])
    def test_that_leaps_once_more_has_to_run_a_day_from_then_on(self, restarts: bool) -> None:
        home, object_id = self.leapt()
        home.run(PROBATION_MS - 2 * HOUR_MS)
        if restarts:
            home.restart_owner()
        home.skew_us += 50 * YEAR_US
        home.run(PROBATION_MS - 2 * HOUR_MS)
        assert not gone(home, object_id)
        home.run(3 * HOUR_MS)
        assert gone(home, object_id)

    def test_a_node_that_comes_back_years_later_waits_a_day_too(self) -> None:
        home, object_id = self.leapt(AWAY_MAX_US + 2 * DAY_US)
        home.restart_owner()
        home.run(PROBATION_MS - HOUR_MS)
        assert not gone(home, object_id)
        home.run(2 * HOUR_MS)
        assert gone(home, object_id)

    def test_one_that_was_off_for_a_month_need_not_wait(self) -> None:
        home, object_id = self.leapt(30 * DAY_US)
        home.restart_owner()
        home.run(2 * LOOK_MS)
        assert gone(home, object_id)

    def test_a_clock_that_goes_back_keeps_things_longer_and_no_more(self) -> None:
        home, object_id = self.leapt(-DAY_US)
        home.run(3 * DAY_MS + HOUR_MS)
        assert not gone(home, object_id)
        home.run(DAY_MS)
        assert gone(home, object_id)
