"""A host that its owner switches off or empties, and payloads that bring a host down."""

from __future__ import annotations

import pytest
from job_bench import OWNER, RIVAL, HostBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs import quarantine
from offgrid_node.protocol.jobs.commands import ToggleHost
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.pages import LEASES
from offgrid_node.protocol.jobs.quarantine import FORGIVEN_US, QUARANTINE_US, RESTARTS_MAX, SUSPECTS


def toggle(bench: HostBench, state: str) -> jobs_pb2.HostState:
    bench.host.on_toggle(9, ToggleHost(state), bench.now)
    close(bench)
    return bench.replied(jobs_pb2.ToggleHostResponse).host


def close(bench: HostBench) -> None:
    bench.host.say_offer(bench.now)
    bench.settle()


def told(bench: HostBench, etype: EventType) -> list[str]:
    return [e.event.subject for e in bench.effects if isinstance(e, Record) and e.event.etype == etype]


class TestAHostThatIsOff:
    @pytest.mark.parametrize(
        ("state", "refusal"),
        [
            ("off", "paused: its owner has switched this host off"),
            ("drain", "draining: its owner empties this host"),
        ],
    )
    def test_takes_nothing_until_it_is_on_again(self, state: str, refusal: str) -> None:
        bench = HostBench()
        toggle(bench, state)
        assert bench.start() == refusal
        assert bench.host.slots_free == 0, "its own local queue waits as well"
        assert toggle(bench, "on").state == "on"
        assert bench.start() == ""

    def test_is_still_off_after_a_restart(self) -> None:
        bench = HostBench()
        toggle(bench, "off")
        bench.restart()
        assert bench.start().startswith("paused")

    def test_lets_what_runs_go_on_and_be_reported(self) -> None:
        bench = HostBench()
        bench.start()
        toggle(bench, "off")
        bench.finish(*bench.executions())
        assert len(bench.calls("ReportResults")) == 1

    def test_says_so_once(self) -> None:
        bench = HostBench()
        toggle(bench, "off")
        toggle(bench, "off")
        assert told(bench, EventType.HOST_CHANGED) == ["off"]

    def test_tells_brokers_at_once(self) -> None:
        bench = HostBench()
        toggle(bench, "off")
        request = bench.calls("PostOffers")[-1].request
        assert isinstance(request, jobs_pb2.PostOffersRequest)
        assert request.paused

    def test_knows_three_states(self) -> None:
        bench = HostBench()
        bench.host.on_toggle(9, ToggleHost("asleep"), bench.now)
        bench.settle()
        outcome = bench.last_outcome()
        assert isinstance(outcome, InvalidRequest)
        assert outcome.message == "state: 'asleep' is no state; allowed: on, off, drain"


class TestADrain:
    def test_is_over_when_nothing_runs_and_all_is_settled(self) -> None:
        bench = HostBench()
        bench.start()
        state = toggle(bench, "drain")
        assert (state.state, state.slots_busy, state.unsettled) == ("draining", 1, 0)
        bench.finish(*bench.executions())
        close(bench)
        state = bench.host.describe(bench.now)
        assert (state.state, state.slots_busy, state.unsettled) == ("draining", 0, 1)
        bench.acknowledge(OWNER, "j-1", 1)
        close(bench)
        assert bench.host.describe(bench.now).state == "drained"
        assert "it may stop" in bench.host.describe(bench.now).detail
        assert told(bench, EventType.HOST_CHANGED) == ["drain", "drained"]
        close(bench)
        assert len(told(bench, EventType.HOST_CHANGED)) == 2

    def test_waits_for_what_a_cancelled_attempt_still_does(self) -> None:
        bench = HostBench()
        bench.start()
        toggle(bench, "drain")
        bench.host.cancel((OWNER.node_id, "j-1", 1), bench.now)
        close(bench)
        assert bench.host.describe(bench.now).state == "draining"
        bench.finish(*bench.executions())
        close(bench)
        assert bench.host.describe(bench.now).state == "drained"

    def test_of_an_idle_host_is_over_at_once(self) -> None:
        assert toggle(HostBench(), "drain").state == "drained"


class TestAPayloadThatBringsTheHostDown:
    def go_down(self, bench: HostBench, times: int, first: int = 1) -> None:
        for attempt in range(first, first + times):
            assert bench.start(attempt=attempt) == ""
            bench.restart()
            bench.wait(0)

    def test_is_refused_after_some_times_whoever_sends_it(self) -> None:
        bench = HostBench()
        self.go_down(bench, RESTARTS_MAX)
        refusal = "quarantined: this host went down 3 times under this very payload; ask again in 60 min"
        assert bench.start(OWNER, attempt=9) == refusal
        assert bench.start(RIVAL) == refusal

    def test_is_taken_again_after_a_while_and_not_three_times_more(self) -> None:
        bench = HostBench()
        self.go_down(bench, RESTARTS_MAX)
        bench.now_ms += QUARANTINE_US // 1_000
        self.go_down(bench, 1, RESTARTS_MAX + 1)
        assert bench.start(attempt=9).startswith("quarantined")

    def test_is_cleared_by_coming_to_its_end_once(self) -> None:
        bench = HostBench()
        self.go_down(bench, RESTARTS_MAX - 1)
        bench.start(RIVAL)
        bench.finish(bench.executions()[-1])
        assert list(bench.disk.scan(SUSPECTS)) == []
        self.go_down(bench, 1, RESTARTS_MAX)
        assert bench.start(attempt=9) == ""

    def test_is_forgiven_by_a_day(self) -> None:
        bench = HostBench()
        self.go_down(bench, RESTARTS_MAX - 1)
        bench.now_ms += FORGIVEN_US // 1_000 + 1
        self.go_down(bench, RESTARTS_MAX - 1, RESTARTS_MAX)
        assert bench.start(attempt=9) == ""

    def test_is_counted_once_however_many_jobs_had_it(self) -> None:
        bench = HostBench(slots=4)
        for number in range(4):
            bench.start(job_id=f"j-{number}")
        bench.restart()
        bench.wait(0)
        [(_, value)] = bench.disk.scan(SUSPECTS)
        assert value[0] == 1

    def test_is_not_blamed_for_an_orderly_stop(self) -> None:
        bench = HostBench()
        for attempt in range(1, RESTARTS_MAX + 2):
            assert bench.start(attempt=attempt) == ""
            bench.host.on_stop(9)
            bench.settle()
            bench.restart()
            bench.wait(0)
        self.go_down(bench, RESTARTS_MAX, RESTARTS_MAX + 2)
        assert bench.start(attempt=99).startswith("quarantined"), "the mark of one stop excuses no later crash"

    def test_is_not_blamed_when_the_stop_takes_its_time(self) -> None:
        bench = HostBench()
        for attempt in range(1, RESTARTS_MAX + 2):
            assert bench.start(attempt=attempt) == ""
            bench.host.on_stop(9)
            bench.wait(5_000)
            bench.restart()
            bench.wait(0)

    def test_goes_on_when_only_the_machines_were_replaced(self) -> None:
        bench = HostBench()
        for _ in range(RESTARTS_MAX):
            bench.start()
            bench.restart(still_at_work=[(OWNER.node_id, "j-1", 1)])
            bench.wait(0)
        assert list(bench.disk.scan(SUSPECTS)) == []

    def test_is_one_of_so_many_that_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(quarantine, "SUSPECTS_MAX", 2)
        bench = HostBench()
        book = quarantine.Quarantine(bench.post)
        for number in range(4):
            bench.now_ms += 1
            book.blame([bytes([number]) * 32], bench.now)
            bench.settle()
        assert [key[0] for key, _ in bench.disk.scan(SUSPECTS)] == [2, 3]

    def test_is_blamed_though_its_lease_was_not_durable_yet(self) -> None:
        bench = HostBench()
        for _ in range(RESTARTS_MAX):
            bench.begin(OWNER, "j-1")
            assert list(bench.disk.scan(LEASES)) == []
            [work] = bench.executions()[-1:]
            bench.host = Host(bench.settings, bench.peers, bench.post, at_death=lambda left=work: [left.payload_digest])
            bench.host.load(bench.disk, bench.now)
            bench.wait(0)
        assert bench.start(RIVAL).startswith("quarantined")
