"""Planted bugs of the auction, the fence and the host's one execution."""

from __future__ import annotations

from typing import Any

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Execute
from offgrid_node.protocol.jobs.backlog import Backlog
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.fence import Fence
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.reports import Reports
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED, RUNNING
from offgrid_node.protocol.requests import Requests
from offgrid_tools.sim.mutants.patches import Break, Mutant, Patch, Sound, after, never


def _keep_only_first_attempts(sound: Sound) -> Sound:
    def keep(self: Any, job: Any, now: Any, *etypes: Any) -> None:
        if job.state != QUEUED or job.attempt == 1:
            sound(self, job, now, *etypes)

    return keep


def _accept_though(words: str) -> Break:
    def breaks(sound: Sound) -> Sound:
        def refusal(self: Any, host: Any, report: Any) -> Any:
            why: str = sound(self, host, report)
            entry = self._jobs.get(report.key[0])
            return "" if words in why and entry and entry.job.state in (AWARDED, RUNNING) else why

        return refusal

    return breaks


def _without_output(sound: Sound) -> Sound:
    def complete(self: Any, entry: Any, result: jobs_pb2.JobResult, *rest: Any) -> None:
        result.ClearField("output")
        sound(self, entry, result, *rest)

    return complete


def _never_busy(sound: Sound) -> Sound:
    def refusal(self: Any, order: Any, price_micro: int, now: Any) -> Any:
        why = sound(self, order, price_micro, now)
        return "" if why == "busy" else why

    return refusal


def _let_timers_pass(sound: Sound) -> Sound:
    def on_wake(self: Any, now: Any, rng: Any) -> None:
        self._jobs.timers.take_due(now.mono_ms)

    return on_wake


def _reset_attempts(core: Any) -> None:
    for entry in core._jobs:
        entry.job.attempt = min(entry.job.attempt, 1)


def _execute_again(host: Any) -> None:
    for key, lease in host._leases.items():
        if lease.report is None:
            host._running.add(key)
            host._timers.cancel(key)
            core, job_id, attempt = key
            host._post.execute(Execute(core, job_id, attempt, jobs_pb2.JobPayload(), lease.order.timeout_ms))


def _forget_queue(broker: Any) -> None:
    broker._queue = Backlog(broker._settings.queue_max)


def _without_doubt(core: Any) -> None:
    for entry in core._jobs:
        entry.doubtful = False


MUTANTS: dict[str, Mutant] = {
    "attempt-not-durable": Mutant(
        "the number of a second attempt is not written", (Patch(OpenJobs, "keep", _keep_only_first_attempts),)
    ),
    "attempt-reset": Mutant(
        "a restarted core counts attempts from one", (Patch(Core, "load", after(_reset_attempts)),)
    ),
    "doubt-missing": Mutant(
        "a restarted core lets an attempt be awarded again that it may have begun",
        (Patch(Core, "load", after(_without_doubt)),),
    ),
    "old-attempt-accepted": Mutant(
        "the core accepts a report of an attempt that it gave up",
        (Patch(Reports, "_refusal", _accept_though("is over")),),
    ),
    "other-host-accepted": Mutant(
        "the core accepts a report from a host that the attempt was not awarded to",
        (Patch(Reports, "_refusal", _accept_though("another host")),),
    ),
    "work-repeated": Mutant(
        "a restarted host carries out its leases again", (Patch(Host, "load", after(_execute_again)),)
    ),
    "fence-missing": Mutant("a host forgets what it has settled", (Patch(Fence, "settle", never(None)),)),
    "request-id-ignored": Mutant(
        "a repeated request makes a second job",
        (Patch(Requests, "made", never("")),),
    ),
    "output-lost": Mutant("the core keeps no outputs", (Patch(OpenJobs, "complete", _without_output),)),
    "slots-ignored": Mutant("a host takes whatever comes", (Patch(Host, "refusal", _never_busy),)),
    "queue-forgotten": Mutant("a restarted broker forgets what waits", (Patch(Broker, "load", after(_forget_queue)),)),
    "timers-ignored": Mutant("the core never repeats itself", (Patch(Core, "on_wake", _let_timers_pass),)),
}
