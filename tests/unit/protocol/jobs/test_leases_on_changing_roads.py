"""A job that runs keeps its lease while the road between its host and core changes, whatever each makes of it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from types import SimpleNamespace

import pytest
from job_bench import OWNER, WORKER, CoreBench, HostBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import OutcomeUnknown
from offgrid_node.protocol.jobs.commands import RenewLeases, Started
from offgrid_node.protocol.jobs.heartbeat import LEASE_MS, NEXT_MS_MAX, RENEW_MS, SLOW_LEASES, Heartbeat, renew_ms
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MS, Tag
from offgrid_node.protocol.jobs.table import RUNNING
from offgrid_node.protocol.pace import FREE, Pace

RADIO = Pace(frame_us=20_000, byte_us=1_500, wait_ms=100, frame_bytes=230)
CROWDED = Pace(frame_us=20_000, byte_us=1_500, wait_ms=100, frame_bytes=230, peers=12)
SLOWEST = Pace(frame_us=400_000, byte_us=30_000, wait_ms=1_000, frame_bytes=254)
TICK_MS = 1_000
HOUR_MS = 3_600_000


class Town:
    """A host and a core in one virtual time, and what each of them makes of the road to the other."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = Random(seed)
        self.host, self.core = HostBench(), CoreBench()
        self.host_sees = self.core_sees = FREE
        self.host.peers.pace = lambda node: self.host_sees
        self.core.core.renewals._paces = lambda node: self.core_sees
        self.cable, self.loss = True, 0.0
        self.air_ms = (500, 6_000)
        self.works = True
        self.words = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()

    @property
    def now_ms(self) -> int:
        return self.host.now_ms

    def begin(self) -> str:
        job_id = self.core.awarded()
        entry = self.core.core.jobs.get(job_id)
        assert entry is not None
        entry.job.timeout_ms = 24 * HOUR_MS
        self.host.begin(OWNER, job_id)
        self.host.wait(100)
        answer = self.host.replied(jobs_pb2.StartJobsResponse)
        started = Started(tuple(answer.outcomes), (), answer.next_ms)
        tag = Tag("StartJobs", WORKER.node_id, ((job_id, 1),))
        self._core_now()
        self.core.core.launching.on_started(tag, Answered(tag, WORKER.node_id, started, None), self.core.now, self.rng)
        self.core.settle()
        return job_id

    def after(self, delay_ms: int, fn: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.now_ms + delay_ms, next(self._order), fn))

    def run(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while self.now_ms < end_ms:
            if self.works:
                self.host.wait(TICK_MS)
            else:
                self.host.now_ms += TICK_MS
            self._core_now()
            self.core.core.on_wake(self.core.now, self.core.rng)
            self.core.settle()
            calls = self.host.calls("RenewLeases")
            for bench in (self.host, self.core):
                bench.effects.clear()
            for call in calls:
                self._carry(call)
            self.words += len(calls)
            while self._heap and self._heap[0][0] <= self.now_ms:
                heapq.heappop(self._heap)[2]()

    def runs(self, job_id: str) -> bool:
        entry = self.core.core.jobs.get(job_id)
        assert entry is not None
        return (entry.job.state, entry.job.attempt) == (RUNNING, 1)

    def _core_now(self) -> None:
        self.core.now_ms = self.host.now_ms

    def _carry(self, call: Call) -> None:
        """By cable at once. Without it whoever still believes in it waits for most of the call's time, and then it goes
        by radio, as it does at once for who knows."""
        if self.cable:
            self.after(20, lambda: self._arrive(call, answered=True))
            return
        late_ms = CALL_TIMEOUT_MS * 8 // 9 if self.host_sees.free else 0
        air_ms = self.rng.randint(*self.air_ms)
        if self.rng.random() < self.loss:
            if self.rng.random() < 0.5:
                self.after(late_ms + air_ms, lambda: self._arrive(call, answered=False))
            self.after(late_ms + RADIO.longer_ms(600), lambda: self._end(call, None))
        else:
            self.after(late_ms + air_ms, lambda: self._arrive(call, answered=True))

    def _arrive(self, call: Call, *, answered: bool) -> None:
        request = call.request
        assert isinstance(request, jobs_pb2.RenewLeasesRequest)
        held = tuple((lease.job_id, lease.attempt) for lease in request.held)
        self._core_now()
        command = RenewLeases(WORKER.node_id, held, request.digest, request.next_ms)
        self.core.core.renewals.on_renew(7, command, self.core.now)
        self.core.settle()
        reply = self.core.replied(jobs_pb2.RenewLeasesResponse)
        if answered:
            self.after(20 if self.cable else 1_000, lambda: self._end(call, reply))

    def _end(self, call: Call, reply: jobs_pb2.RenewLeasesResponse | None) -> None:
        fault = None if reply is not None else OutcomeUnknown("no answer", reason="NoAnswer")
        assert isinstance(call.tag, Tag)
        self.host.host.on_renewed(call.tag, Answered(call.tag, OWNER.node_id, reply, fault), self.host.now)
        self.host.settle()


@pytest.mark.parametrize("seed", range(8))
def test_a_job_keeps_its_lease_for_hours_of_changes(seed: int) -> None:
    town = Town(seed)
    rng = town.rng
    town.loss = 0.05
    town.cable = rng.random() < 0.5
    town.host_sees, town.core_sees = rng.choice((FREE, RADIO)), rng.choice((FREE, RADIO))
    job_id = town.begin()
    while town.now_ms < 3 * HOUR_MS:
        town.cable = not town.cable
        slow = rng.choice((RADIO, CROWDED))
        for name in ("host_sees", "core_sees"):
            if name == "host_sees" or rng.random() < 0.8:  # who calls finds out; the other one perhaps not
                sees = FREE if town.cable else slow
                town.after(rng.randint(0, 10_000), lambda name=name, sees=sees: setattr(town, name, sees))
        town.run(rng.choice((5_000, 30_000, 200_000, 900_000)))
        assert town.runs(job_id), f"seed {seed}: lost after {town.now_ms} ms"


def test_a_host_that_alone_finds_the_road_slow_is_waited_for() -> None:
    town = Town()
    town.cable, town.host_sees = False, CROWDED
    job_id = town.begin()
    town.run(2 * HOUR_MS)
    assert town.runs(job_id)
    assert town.words <= 2 * HOUR_MS // renew_ms(CROWDED) + 1


def test_when_the_cable_is_pulled_the_core_is_told_in_time_how_seldom_words_will_come() -> None:
    town = Town()
    job_id = town.begin()
    town.run(60_000)
    town.cable, town.host_sees = False, RADIO
    words = town.words
    town.run(HOUR_MS)
    assert town.runs(job_id)
    assert town.words - words <= HOUR_MS // renew_ms(RADIO) + 3, "the channel is not filled with it"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slow", [RADIO, CROWDED, SLOWEST], ids=["radio", "crowded", "slowest"])
def test_so_it_is_where_an_answer_takes_longer_than_a_call(slow: Pace, seed: int) -> None:
    town = Town(seed)
    town.air_ms = (5_000, 14_000)
    job_id = town.begin()
    town.run(60_000)
    town.cable, town.host_sees = False, slow
    words = town.words
    town.run(HOUR_MS)
    assert town.words - words <= HOUR_MS // renew_ms(slow) + 4
    town.core_sees = slow
    town.run(HOUR_MS)
    assert town.runs(job_id)


def test_a_core_that_is_not_reached_is_not_asked_all_the_time() -> None:
    town = Town()
    town.begin()
    town.run(60_000)
    town.cable, town.host_sees, town.loss = False, RADIO, 1.0
    words = town.words
    town.run(HOUR_MS)
    assert town.words - words <= HOUR_MS // renew_ms(RADIO) + LEASE_MS // RENEW_MS


@pytest.mark.parametrize("sees", [FREE, RADIO], ids=["free", "radio"])
def test_a_host_that_has_lost_an_attempt_loses_its_lease_as_well(sees: Pace) -> None:
    town = Town()
    town.cable, town.host_sees = sees.free, sees
    job_id = town.begin()
    town.run(2 * renew_ms(sees))
    town.works = False
    town.run(LEASE_MS + (0 if sees.free else SLOW_LEASES * renew_ms(sees)) + 2 * RENEW_MS)
    assert not town.runs(job_id)


def test_no_host_is_waited_for_for_days() -> None:
    core = CoreBench()
    job_id = core.awarded()
    core.answers_start(job_id)
    core.core.renewals.on_renew(7, RenewLeases(WORKER.node_id, ((job_id, 1),), b"12345678", 2**32 - 1), core.now)
    [due_ms] = core.core.renewals._slow.values()
    assert due_ms == core.now_ms + LEASE_MS + SLOW_LEASES * NEXT_MS_MAX


def test_a_pause_of_the_core_is_not_counted_against_who_speaks_seldom() -> None:
    town = Town()
    town.cable, town.host_sees = False, RADIO
    job_id = town.begin()
    town.run(2 * renew_ms(RADIO))
    pause_ms = LEASE_MS + SLOW_LEASES * renew_ms(RADIO)
    town.core.now_ms = town.host.now_ms = town.host.now_ms + pause_ms
    town.core.core.on_wake(town.core.now, town.core.rng)
    assert town.runs(job_id)


class Beats:
    """A host's heartbeat alone; each page of a word is answered after `rtt_ms`, but not those in `lost`."""

    def __init__(self, sees: Pace, rtt_ms: int) -> None:
        self.sees, self.rtt_ms, self.now_ms = sees, rtt_ms, 0
        self.said: list[tuple[int, Tag]] = []
        self.lost: set[int] = set()  # by when they were said
        peers, post = Peers(), SimpleNamespace(call=self._call)
        peers.pace = lambda node: self.sees
        peers.is_alive = lambda node_id: True  # type: ignore[method-assign]
        self.heartbeat = Heartbeat(WORKER.node_id, peers, post)  # type: ignore[arg-type]
        self.leases: dict[tuple[str, str, int], Lease] = {}

    def begin(self, count: int = 1) -> None:
        self.leases = {
            (OWNER.node_id, f"{self.now_ms}-{number}", 1): SimpleNamespace(taken_ms=self.now_ms)  # type: ignore[misc]
            for number in range(count)
        }
        self.promised()

    def promised(self) -> None:
        self.heartbeat.watch(Now(self.now_ms, 0))
        self.heartbeat.promise_ms(OWNER.node_id, Now(self.now_ms, 0))

    def run(self, ms: int) -> list[int]:
        """When something was said; each page counts."""
        end_ms, began = self.now_ms + ms, len(self.said)
        while self.now_ms < end_ms:
            self.now_ms += TICK_MS
            self.heartbeat.on_wake(self.leases, Now(self.now_ms, 0))
            for at_ms, tag in self.said:
                if at_ms + self.rtt_ms == self.now_ms:
                    reply = None if at_ms in self.lost else jobs_pb2.RenewLeasesResponse()
                    self.heartbeat.on_answered(tag, Answered(tag, OWNER.node_id, reply, None), Now(self.now_ms, 0))
                    self.lost.discard(at_ms)  # one page of it
        return [at_ms for at_ms, _ in self.said[began:]]

    def _call(self, core: str, method: str, request: jobs_pb2.RenewLeasesRequest, tag: Tag) -> None:
        self.said.append((self.now_ms, tag))


class TestAWordUnderWay:
    def test_says_nothing_of_leases_that_begin_when_its_own_have_ended(self) -> None:
        beats = Beats(SLOWEST, rtt_ms=12_000)
        beats.begin()
        beats.run(renew_ms(SLOWEST))
        assert len(beats.said) == 1
        beats.leases = {}
        beats.run(2_000)
        beats.begin()
        assert beats.run(renew_ms(SLOWEST) - TICK_MS) == []

    def test_is_no_reason_to_wait_longer_than_was_promised_with_a_lease_since(self) -> None:
        beats = Beats(RADIO, rtt_ms=3_000)
        beats.begin()
        beats.run(renew_ms(RADIO))
        assert len(beats.said) == 1
        beats.sees = FREE
        beats.promised()
        beats.sees = RADIO
        assert beats.run(LEASE_MS // 2)

    def test_that_is_lost_is_said_again_in_time_though_the_road_has_become_slower(self) -> None:
        beats = Beats(RADIO, rtt_ms=1_000)
        beats.begin()
        beats.run(3 * renew_ms(RADIO))
        beats.sees, heard_ms = SLOWEST, beats.said[-1][0]
        beats.lost = set(range(heard_ms + TICK_MS, heard_ms + 3 * renew_ms(RADIO), TICK_MS))
        again = beats.run(LEASE_MS + SLOW_LEASES * renew_ms(RADIO))
        assert [said_ms for said_ms in again if said_ms not in range(heard_ms, heard_ms + 3 * renew_ms(RADIO))]

    @pytest.mark.parametrize("lost", [False, True], ids=["whole", "in part"])
    def test_counts_when_all_of_it_was_heard(self, lost: bool) -> None:
        beats = Beats(FREE, rtt_ms=3_000)
        beats.begin(CALL_ITEMS_MAX + 1)
        beats.run(10_000)
        beats.sees = RADIO
        while not (said := beats.run(TICK_MS)):
            pass
        if lost:
            beats.lost.add(said[0])
        beats.run(beats.rtt_ms)
        assert bool(beats.run(2_000)) == lost, "it is said again where its next one was not heard of"

    def test_that_comes_seldom_names_what_has_just_begun_too(self) -> None:
        beats = Beats(RADIO, rtt_ms=1_000)
        beats.begin()
        beats.run(renew_ms(RADIO) // TICK_MS * TICK_MS)
        assert beats.said == []
        beats.leases[OWNER.node_id, "young", 1] = SimpleNamespace(taken_ms=beats.now_ms + 1)  # type: ignore[assignment]
        beats.run(TICK_MS)
        assert [len(tag.keys) for _, tag in beats.said] == [2]
