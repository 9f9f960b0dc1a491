"""Schedules: one job for a due time, whatever crashes and whatever the clock does."""

from __future__ import annotations

import pytest
from job_bench import PAYLOAD, TASK
from redundant_world import World

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.errors import AlreadyExists, Exhausted, NotFound
from offgrid_node.protocol.jobs import schedules
from offgrid_node.protocol.jobs.commands import CreateSchedule, DeleteSchedule, UpdateSchedule
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.schedules import LATE_US, RETRY_MS

SECOND, MINUTE, HOUR = 1_000_000, 60_000_000, 3_600_000_000
BEGAN_US = 1_000 * HOUR


class EachMinute:
    """Due at each full minute, whatever the expression says."""

    def next_us(self, cron: str, timezone: str, after_us: int) -> int | None:
        return (after_us // MINUTE + 1) * MINUTE

    def last_us(self, cron: str, timezone: str, at_us: int) -> int | None:
        return at_us // MINUTE * MINUTE


class Clockwork(World):
    """A core with schedules; its wall clock stands `offset_us` from the monotonic one."""

    def __init__(self, *, reloads: bool = False) -> None:
        self.offset_us = BEGAN_US
        super().__init__(reloads=reloads)
        self.disk.rows["tasks", TASK.task_id.encode()] = TASK.SerializeToString()

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.offset_us + self.now_ms * 1_000)

    def reload(self) -> None:
        self.machine = JobsMachine(self.settings, cron=EachMinute())
        self.machine.load(self.disk, self.now)
        for answer in self._answers(self._step([*self._peers(), Woke()])):
            self.step(answer, reloads=False)

    def create(self, request_id: str = "", digest: bytes = bytes(16), **fields: object) -> object:
        schedule = jobs_pb2.Schedule(task_id=TASK.task_id, cron="* * * * *", timezone="UTC", **fields)
        job = jobs_pb2.ScheduledJob(job=jobs_pb2.JobSpec(payload=PAYLOAD, timeout_ms=9_000), input_bytes=1)
        reply = self.ask(CreateSchedule(schedule, job, request_id, digest))
        return reply.schedule if isinstance(reply, jobs_pb2.CreateScheduleResponse) else reply

    def schedule(self) -> jobs_pb2.Schedule:
        """The only one, as it is on disk."""
        (row,) = [value for (table, _), value in self.disk.rows.items() if table == "schedules"]
        return jobs_pb2.Schedule.FromString(row)

    def made(self) -> list[int]:
        """The due times of all jobs that were ever made, in minutes since the beginning."""
        jobs = [jobs_pb2.Job.FromString(value) for _, value in self.disk.scan("jobs")]
        return sorted((job.due_us - BEGAN_US) // MINUTE for job in jobs)

    def pass_minutes(self, minutes: int) -> None:
        for _ in range(60 * minutes):
            self.wait(1_000)
            self.finish_all()

    def set_clock(self, by_us: int) -> None:
        """Somebody sets the wall clock; whoever sleeps is not told."""
        self.offset_us += by_us


@pytest.fixture(params=[False, True], ids=["", "reloaded at every step"])
def clock(request: pytest.FixtureRequest) -> Clockwork:
    return Clockwork(reloads=request.param)


def test_a_job_is_made_at_each_due_time_and_says_whose_it_is(clock: Clockwork) -> None:
    clock.create()
    clock.pass_minutes(3)
    assert clock.made() == [1, 2, 3]
    job = clock.job(clock.schedule().last_job_id)
    assert (job.schedule_id, job.timeout_ms) == (clock.schedule().schedule_id, 9_000)
    assert (clock.schedule().last_due_us, job.due_us) == (BEGAN_US + 3 * MINUTE,) * 2


def test_a_repeated_request_makes_one_schedule(clock: Clockwork) -> None:
    first = clock.create("once")
    assert clock.create("once") == first
    assert isinstance(clock.create("once", b"another request."), AlreadyExists)


def test_a_paused_one_makes_nothing_and_makes_up_for_nothing(clock: Clockwork) -> None:
    clock.create(catch_up=True)
    clock.pass_minutes(1)
    schedule_id = clock.schedule().schedule_id
    clock.ask(UpdateSchedule(schedule_id, paused=True))
    clock.pass_minutes(5)
    clock.ask(UpdateSchedule(schedule_id, paused=False))
    clock.pass_minutes(1)
    assert clock.made() == [1, 7]


def test_a_deleted_one_is_gone(clock: Clockwork) -> None:
    clock.create("mine")
    clock.ask(DeleteSchedule(clock.schedule().schedule_id))
    clock.pass_minutes(2)
    assert clock.made() == []
    assert not [table for table, _ in clock.disk.rows if table.startswith("schedule")]
    assert isinstance(clock.create("mine"), NotFound)
    assert isinstance(clock.ask(DeleteSchedule("s-none")), NotFound)
    assert isinstance(clock.ask(UpdateSchedule("s-none", paused=True)), NotFound)


def test_there_are_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "SCHEDULES_MAX", 2)
    clock = Clockwork()
    clock.create()
    clock.create("again")
    assert isinstance(clock.create(), Exhausted)
    assert isinstance(clock.create("again"), jobs_pb2.Schedule)


class TestTheNodeWasDown:
    def down_for(self, clock: Clockwork, us: int) -> None:
        clock.now_ms += us // 1_000
        clock.reload()
        clock.pass_minutes(1)

    def test_what_was_missed_is_passed_over(self) -> None:
        clock = Clockwork()
        clock.create()
        clock.pass_minutes(1)
        self.down_for(clock, HOUR + LATE_US // 2)
        assert clock.made() == [1, 61, 62]  # the last one by less than a minute: that is not missed

    def test_the_last_of_them_is_made_up_for_where_its_owner_wants_that(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(schedules, "LATE_US", SECOND)
        for catch_up, made in ((False, [1, 62]), (True, [1, 61, 62])):
            clock = Clockwork()
            clock.create(catch_up=catch_up)
            clock.pass_minutes(1)
            self.down_for(clock, HOUR + MINUTE // 2)
            assert clock.made() == made
            assert clock.schedule().trouble == ""


class TestTheClock:
    def test_set_forward_makes_up_for_one_at_most(self, clock: Clockwork) -> None:
        clock.create(catch_up=True)
        clock.pass_minutes(1)
        clock.set_clock(24 * HOUR)
        clock.pass_minutes(1)
        assert clock.made() == [1, 24 * 60 + 1, 24 * 60 + 2]

    def test_set_back_makes_no_job_a_second_time(self, clock: Clockwork) -> None:
        clock.create(catch_up=True)
        clock.pass_minutes(3)
        clock.set_clock(-2 * MINUTE)
        clock.pass_minutes(4)
        assert clock.made() == [1, 2, 3, 4, 5]

    def test_set_right_again_after_a_leap_forward_goes_on_at_once(self, clock: Clockwork) -> None:
        clock.create(catch_up=True)
        clock.pass_minutes(1)
        clock.set_clock(24 * HOUR)
        clock.pass_minutes(1)
        clock.set_clock(-24 * HOUR)
        clock.pass_minutes(2)
        assert clock.made()[:3] == [1, 3, 4]

    def test_set_back_while_the_node_was_down_is_noticed(self) -> None:
        clock = Clockwork()
        clock.create()
        clock.pass_minutes(1)
        clock.set_clock(24 * HOUR)
        clock.pass_minutes(1)
        clock.set_clock(-24 * HOUR)
        clock.reload()
        clock.pass_minutes(2)
        assert clock.made()[:3] == [1, 3, 4]


class TestNoJobCanBeMade:
    def test_one_that_must_not_overlap_waits_for_the_end_of_the_last(self) -> None:
        clock = Clockwork()
        clock.create(no_overlap=True)
        for _ in range(3 * 60):
            clock.wait(1_000)
        assert clock.made() == [1]
        assert "had not ended" in clock.schedule().trouble
        clock.finish_all()
        clock.pass_minutes(1)
        assert clock.made() == [1, 4]
        assert clock.schedule().trouble == ""

    def test_one_that_may_overlap_does(self) -> None:
        clock = Clockwork()
        clock.create()
        for _ in range(3 * 60):
            clock.wait(1_000)
        assert clock.made() == [1, 2, 3]

    def test_without_a_broker_it_is_tried_again_and_says_why(self) -> None:
        clock = Clockwork()
        clock.market_up = False
        clock.reload()
        clock.create(mode=jobs_pb2.DISPATCH_MODE_OFFGRID)
        clock.pass_minutes(1)
        clock.wait(RETRY_MS)
        assert clock.made() == []
        assert "no broker of the mesh is alive" in clock.schedule().trouble
        clock.market_up = True
        clock.reload()
        clock.pass_minutes(1)
        assert clock.made() == [1, 2]
        assert clock.schedule().trouble == ""

    def test_a_time_zone_that_is_gone_ends_it_with_a_word_until_it_is_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clockwork()
        clock.create()
        with monkeypatch.context() as gone:
            gone.setattr(EachMinute, "next_us", lambda *asked: None)
            gone.setattr(EachMinute, "last_us", lambda *asked: None)
            clock.reload()
            clock.pass_minutes(2)
            assert (clock.made(), clock.schedule().next_us) == ([1], 0)
            assert "time zone" in clock.schedule().trouble
        clock.reload()
        clock.pass_minutes(2)
        assert clock.made() == [1, 3, 4]
        assert clock.schedule().trouble == ""
