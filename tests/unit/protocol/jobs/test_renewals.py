"""Leases kept alive: what a host says each second, what its core answers, and what becomes of silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import OTHER, OWNER, RIVAL, WORKER, CoreBench, HostBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered, Stop
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.jobs import renewals
from offgrid_node.protocol.jobs.commands import RenewLeases
from offgrid_node.protocol.jobs.heartbeat import LEASE_MS, RENEW_MS, digest_of_page
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MS, Tag
from offgrid_node.protocol.jobs.table import QUEUED, RUNNING


def said(bench: HostBench, core: str = OWNER.node_id) -> list[jobs_pb2.RenewLeasesRequest]:
    return [call.request for call in bench.calls("RenewLeases") if call.node == core]  # type: ignore[misc]


def answer(bench: HostBench, *unwanted: AttemptKey, resend: bool = False) -> None:
    """The core answers the last renewal."""
    tag = bench.calls("RenewLeases")[-1].tag
    assert isinstance(tag, Tag)
    keys = [jobs_pb2.LeaseKey(job_id=job_id, attempt=attempt) for job_id, attempt in unwanted]
    reply = jobs_pb2.RenewLeasesResponse(unwanted=keys, resend=resend)
    bench.host.on_renewed(tag, Answered(tag, tag.node, reply, None), bench.now)
    bench.settle()


class TestAHost:
    def test_renews_what_it_has_had_for_a_second_each_second(self) -> None:
        bench = HostBench()
        bench.start()
        bench.wait(RENEW_MS)
        assert [key.job_id for key in said(bench)[0].held] == ["j-1"]
        answer(bench)
        bench.wait(RENEW_MS)
        assert len(said(bench)) == 2

    def test_says_nothing_of_what_is_over_by_then(self) -> None:
        bench = HostBench()
        bench.start()
        bench.finish(*bench.executions())
        bench.acknowledge(OWNER, "j-1", 1)
        bench.wait(2 * RENEW_MS)
        assert said(bench) == []
        assert bench.host._heartbeat.deadline_ms() is None

    def test_says_a_page_that_was_heard_by_its_digest_alone(self) -> None:
        bench = HostBench()
        bench.start()
        bench.wait(RENEW_MS)
        answer(bench)
        bench.wait(RENEW_MS)
        last = said(bench)[-1]
        assert (list(last.held), last.digest) == ([], digest_of_page([("j-1", 1)]))
        assert last.ByteSize() == 10

    @pytest.mark.parametrize("lost", [True, False])
    def test_says_it_whole_again_when_the_core_does_not_know_it(self, lost: bool) -> None:
        bench = HostBench()
        bench.start()
        bench.wait(RENEW_MS)
        answer(bench)
        bench.wait(RENEW_MS)
        if lost:
            tag = bench.calls("RenewLeases")[-1].tag
            assert isinstance(tag, Tag)
            fault = Unavailable("away", reason="NotConnected")
            bench.host.on_renewed(tag, Answered(tag, OWNER.node_id, None, fault), bench.now)
        else:
            answer(bench, resend=True)
        bench.wait(RENEW_MS)
        assert len(said(bench)[-1].held) == 1

    def test_goes_on_while_its_report_is_not_settled(self) -> None:
        """A large output may be long on its way."""
        bench = HostBench()
        bench.start()
        bench.finish(*bench.executions())
        bench.wait(RENEW_MS)
        assert len(said(bench)) == 1

    def test_stops_what_its_core_does_not_want(self) -> None:
        bench = HostBench()
        bench.start()
        bench.wait(RENEW_MS)
        answer(bench, ("j-1", 1), ("j-7", 1))
        assert [effect for effect in bench.effects if isinstance(effect, Stop)] == [Stop(OWNER.node_id, "j-1", 1)]
        assert bench.start().endswith("is over here")

    def test_says_to_each_core_its_own_and_nothing_to_the_dead(self) -> None:
        bench = HostBench(slots=2)
        bench.start(OWNER)
        bench.start(RIVAL)
        bench.peers.on_down(PeerDown(RIVAL.node_id))
        bench.wait(RENEW_MS)
        assert (len(said(bench)), len(said(bench, RIVAL.node_id))) == (1, 0)

    def test_does_not_pile_up_calls_that_are_not_answered(self) -> None:
        bench = HostBench()
        bench.start()
        for _ in range(5):
            bench.wait(RENEW_MS)
        assert len(said(bench)) == 1
        bench.wait(2 * CALL_TIMEOUT_MS)
        assert len(said(bench)) == 2

    def test_pages_what_is_many(self) -> None:
        bench = HostBench(slots=CALL_ITEMS_MAX + 1)
        bench.begin(OWNER, *(f"j-{number}" for number in range(CALL_ITEMS_MAX + 1)))
        bench.wait(RENEW_MS)
        assert sorted(len(request.held) for request in said(bench)) == [1, CALL_ITEMS_MAX]


class Renewed(CoreBench):
    """A core whose jobs run at WORKER."""

    def begun(self) -> str:
        job_id = self.awarded()
        self.answers_start(job_id)
        return job_id

    def renew(self, *keys: AttemptKey, host: str = WORKER.node_id, digest: bytes = b"") -> list[AttemptKey]:
        command = RenewLeases(host, keys, digest or digest_of_page(keys))
        self.core.renewals.on_renew(7, command, self.now)
        self.settle()
        return [(key.job_id, key.attempt) for key in self.replied(jobs_pb2.RenewLeasesResponse).unwanted]

    def pass_ms(self, ms: int, *renewed: AttemptKey) -> None:
        for _ in range(ms // RENEW_MS):
            self.now_ms += RENEW_MS
            if renewed:
                self.renew(*renewed)
            self.core.on_wake(self.now, self.rng)
            self.settle()

    def state(self, job_id: str) -> tuple[int, int]:
        entry = self.core.jobs.get(job_id)
        assert entry is not None
        return entry.job.state, entry.job.attempt


class TestACore:
    def test_gives_an_attempt_up_whose_host_renews_nothing(self) -> None:
        bench = Renewed()
        job_id = bench.begun()
        bench.pass_ms(LEASE_MS - RENEW_MS)
        assert bench.state(job_id) == (RUNNING, 1)
        bench.pass_ms(2 * RENEW_MS)
        assert bench.state(job_id) == (QUEUED, 2)
        entry = bench.core.jobs.get(job_id)
        assert entry is not None
        assert entry.job.attempts[-1].outcome == "LeaseExpired: its host renewed nothing"

    def test_keeps_one_that_is_renewed(self) -> None:
        bench = Renewed()
        job_id = bench.begun()
        bench.pass_ms(2 * LEASE_MS, (job_id, 1))
        assert bench.state(job_id) == (RUNNING, 1)

    def test_does_not_blame_hosts_for_a_pause_of_its_own(self) -> None:
        bench = Renewed()
        job_id = bench.begun()
        bench.now_ms += 2 * LEASE_MS
        bench.core.on_wake(bench.now, bench.rng)
        assert bench.state(job_id) == (RUNNING, 1)
        bench.pass_ms(LEASE_MS)
        assert bench.state(job_id) == (QUEUED, 2)

    def test_wants_neither_old_attempts_nor_ended_jobs_nor_those_of_others(self) -> None:
        bench = Renewed()
        job_id = bench.begun()
        assert bench.renew((job_id, 1)) == []
        assert bench.renew((job_id, 2), ("j-unknown", 1)) == [(job_id, 2), ("j-unknown", 1)]
        assert bench.renew((job_id, 1), host=OTHER.node_id) == [(job_id, 1)]

    def test_stops_nothing_of_which_it_does_not_know_the_award_yet(self) -> None:
        bench = Renewed()
        job_id = bench.submitted()
        assert bench.renew((job_id, 1)) == []

    def test_takes_a_digest_for_the_page_that_its_host_has_said(self) -> None:
        bench = Renewed()
        job_id = bench.begun()
        digest = digest_of_page([(job_id, 1)])
        bench.renew(digest=digest)
        assert bench.replied(jobs_pb2.RenewLeasesResponse).resend
        bench.renew((job_id, 1))
        bench.pass_ms(LEASE_MS - RENEW_MS)
        bench.renew(digest=digest)
        assert not bench.replied(jobs_pb2.RenewLeasesResponse).resend
        bench.pass_ms(LEASE_MS - RENEW_MS)
        assert bench.state(job_id) == (RUNNING, 1)
        bench.renew(digest=digest, host=OTHER.node_id)
        assert bench.replied(jobs_pb2.RenewLeasesResponse).resend

    def test_remembers_a_few_pages_of_a_host_and_none_of_the_dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renewals, "PAGES_MAX", 2)
        bench = Renewed()
        keys = [(bench.begun(), 1) for _ in range(3)]
        for key in keys:
            bench.renew(key)
        for key, resend in zip(keys, (True, False, False), strict=True):
            bench.renew(digest=digest_of_page([key]))
            assert bench.replied(jobs_pb2.RenewLeasesResponse).resend is resend
        bench.core.on_peer_down(WORKER.node_id, bench.now, bench.rng)
        bench.renew(digest=digest_of_page([keys[2]]))
        assert bench.replied(jobs_pb2.RenewLeasesResponse).resend

    def test_forgets_what_has_ended(self) -> None:
        bench = Renewed()
        for _ in range(10):
            job_id = bench.begun()
            entry = bench.core.jobs.get(job_id)
            assert entry is not None
            bench.core.jobs.fail(entry, "JobTimeout", "", bench.now)
        assert len(bench.core.renewals) <= 2
        bench.pass_ms(2 * RENEW_MS)
        assert len(bench.core.renewals) == 0
        assert bench.core.renewals.deadline_ms() is None


KEYS = st.lists(st.tuples(st.text(max_size=5), st.integers(0, 2**32 - 1)), max_size=4).map(tuple)


@given(KEYS, KEYS)
def test_two_pages_have_two_digests(one: tuple[AttemptKey, ...], other: tuple[AttemptKey, ...]) -> None:
    assert (digest_of_page(one) == digest_of_page(other)) == (one == other)
