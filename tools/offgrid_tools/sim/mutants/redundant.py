"""Planted bugs of redundant jobs: who is believed, who is paid, who may vote twice."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.jobs import redundant
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.redundant import Parent, Redundant
from offgrid_node.protocol.jobs.votes import has_result
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never


def _pay_at_once(sound: Sound) -> Sound:
    def complete(self: Any, entry: Any, *rest: Any) -> None:
        sound(self, entry, *rest)
        job = entry.job
        if job.parent_id:
            cost = CostIncurred(job.job_id, job.attempt, job.host, job.price_micro, job.kind)
            self._post.tell("ledger", cost)

    return complete


def _pay_all(sound: Sound) -> Sound:
    def judge(self: Any, parent: Any, execution: Any, now: Any) -> Any:
        agrees = sound(self, parent, execution, now)
        if not agrees and has_result(execution):
            self._pay(execution)
        return agrees

    return judge


def _call_it_split(sound: Sound) -> Sound:
    def give_up(self: Any, parent: Any, now: Any) -> None:
        self._jobs.fail(self._jobs.get(parent.job.job_id), "ResultsDisagree", "", now)

    return give_up


def _as_few_as_agree(sound: Any) -> Any:
    return property(lambda self: self.job.quorum)


def _one_more(sound: Sound) -> Sound:
    def leading(executions: Any) -> tuple[bytes, int]:
        vote, count = sound(executions)
        return vote, count + bool(vote)

    return leading


MUTANTS: dict[str, Mutant] = {
    "paid-before-agreement": Mutant(
        "an execution of a redundant job is paid as soon as it is done", (Patch(OpenJobs, "complete", _pay_at_once),)
    ),
    "disagreeing-paid": Mutant(
        "an execution that disagrees with what was accepted is paid", (Patch(Redundant, "_judge", _pay_all),)
    ),
    "quorum-too-low": Mutant("one result less than the quorum is believed", (Patch(redundant, "leading", _one_more),)),
    "host-votes-twice": Mutant(
        "two executions of a job may be at one host", (Patch(Redundant, "hosts_of_others", never([])),)
    ),
    "executions-forgotten": Mutant(
        "a restarted core forgets what its redundant jobs have under way", (Patch(Redundant, "load", never(None)),)
    ),
    "split-by-name": Mutant(
        "a redundant job that found too few hosts says that they disagree",
        (Patch(Redundant, "_give_up", _call_it_split),),
    ),
    "split-too-early": Mutant(
        "hosts that disagree are believed to, and no further one is asked", (Patch(Parent, "most", _as_few_as_agree),)
    ),
    "late-execution-unpaid": Mutant(
        "an execution that agrees after its job has ended is not paid", (Patch(Redundant, "_look_late", never(None)),)
    ),
    "late-execution-forgotten": Mutant(
        "a restarted core forgets which executions run on after their jobs' end",
        (Patch(Redundant, "_load_late", never(None)),),
    ),
}
