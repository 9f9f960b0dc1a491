"""Redundant jobs: one piece of work on several hosts, of whose results enough must agree.

A job with replicas is a parent. It makes executions `<job id>.r1`, `.r2`, … : jobs as any other, but that the next one
is made when the one before has a host (so that no two are at one host), that their results are held, and that nobody is
paid before `quorum` of them agree. Then the agreeing ones are paid, whoever disagreed is not, and the parent ends with
one of the agreeing results; all of it in one step. What has not been started is taken back. What runs was started in
good faith: it runs on, at most for its own time-out, and is paid if it agrees as well; if it loses its host it is
dropped. Without a quorum up to EXTRA_MAX more are made. An adaptive job begins with one execution, and stays with it
where its host may run it alone (`trust.py`).

Nothing is remembered but rows of jobs: whatever is to be done next follows from them, after a crash as before it. What
this node runs itself, in its local queue, needs no second opinion.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.jobs.closing import DISAGREED, REFUTED, SERVED
from offgrid_node.protocol.jobs.failures import CLAIMS
from offgrid_node.protocol.jobs.held import is_large
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.naming import execution_id, stem_of
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import TASK_JOBS, OpenJobs
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.table import CREATED, ENDED, QUEUED, RUNNING
from offgrid_node.protocol.jobs.trust import Trust
from offgrid_node.protocol.jobs.votes import has_result, leading, told, vote_of
from offgrid_node.protocol.rng import Rng

REPLICAS_MAX = 8
EXTRA_MAX = 2  # executions beyond the replicas, where those cannot agree
LATE_MAX = 1_024  # ended jobs with executions that run on: each is kept in memory; those of more are taken back
STRAYS_MAX = 4  # that found no road; from the local queue a job comes back to the mesh so often
NO_ROAD = frozenset({"NoHostsAvailable", "BrokerUnavailable"})
HOPELESS = NO_ROAD | {"AttemptsExhausted"}  # another execution would find no road either, or cost more hosts
LOCAL, MESH = jobs_pb2.ROUTE_FILE_QUEUE, jobs_pb2.ROUTE_OFFGRID


class Roads(Protocol):
    """What the core does with single jobs."""

    def send(self, entry: Open, now: Now, rng: Rng) -> None: ...

    def take_back(self, entry: Open, why: str, now: Now) -> None:
        """Ends the job; whatever is under way for it is stopped, and not paid."""

    def to_local_queue(self, entry: Open, now: Now) -> None: ...


class Parent(msgspec.Struct):
    """A redundant job that is open, with its executions in order: those that are open are the core's own messages.
    `alone` is (host, attempt, whether it may) of the first execution, as it was last drawn; `excused` is how many of
    the executions went before the job came back from the local queue: that those found no road says nothing now."""

    job: jobs_pb2.Job
    executions: list[jobs_pb2.Job] = msgspec.field(default_factory=list)
    alone: tuple[str, int, bool] = ("", 0, False)
    excused: int = 0
    late: list[jobs_pb2.Job] = msgspec.field(default_factory=list)  # executions that run on after the job's end

    @property
    def under_way(self) -> list[jobs_pb2.Job]:
        return [each for each in self.executions if each.state not in ENDED]

    @property
    def most(self) -> int:
        """How many executions there may ever be."""
        strays = sum(each.error in NO_ROAD for each in self.executions)
        return self.job.replicas + EXTRA_MAX + min(strays, STRAYS_MAX)

    @property
    def latest(self) -> list[jobs_pb2.Job]:
        """Those that have set out since the job did so last."""
        return self.executions[self.excused :]


class Redundant:
    """Open redundant jobs by id. `pump` does what is due; the rest takes note."""

    def __init__(self, jobs: OpenJobs, post: Post, roads: Roads) -> None:
        self._jobs, self._post, self._roads = jobs, post, roads
        self.trust = Trust(post)
        self._parents: dict[str, Parent] = {}
        self._late: dict[str, Parent] = {}  # those that have ended, and have late executions
        self._due: dict[str, None] = {}
        jobs.avoided = self.hosts_of_others

    def load(self, rows: Rows) -> None:
        """After the open jobs."""
        self.trust.load(rows)
        for entry in self._jobs:
            if not entry.packed and entry.job.replicas > 1 and entry.job.state != CREATED:
                self._parents[entry.job.job_id] = Parent(entry.job, list(self._executions(entry.job, rows)))
                self._due[entry.job.job_id] = None
        for entry in self._jobs:
            if not entry.packed and entry.job.parent_id and entry.job.parent_id not in self._parents:
                self._load_late(entry.job, rows)

    # ---- questions

    def hosts_of_others(self, execution: jobs_pb2.Job) -> list[str]:
        """Hosts that have, or had to its end, another execution of the same job."""
        parent = self._parents.get(execution.parent_id)
        others = parent.executions if parent is not None else []
        return sorted({each.host for each in others if each.host and each.job_id != execution.job_id})

    def losses(self, job: jobs_pb2.Job) -> int:
        """Hosts that were lost under the job; under an execution are those of its siblings."""
        parent = self._parents.get(job.parent_id)
        return sum(each.losses for each in parent.executions) if parent is not None else job.losses

    def may_return(self, job: jobs_pb2.Job) -> bool:
        """Whether a job of the local queue may make more executions, should it have to."""
        parent = self._parents.get(job.job_id)
        return parent is None or len(parent.executions) < parent.most

    @property
    def goes_on(self) -> bool:
        """Whether `pump` has something to do."""
        return bool(self._due or self._jobs.moved_kin)

    # ---- inputs

    def begin(self, entry: Open) -> None:
        """The parent has been dispatched over the mesh, for the first time or again."""
        parent = self._parents.setdefault(entry.job.job_id, Parent(entry.job))
        parent.excused = len(parent.executions)
        self._due[entry.job.job_id] = None

    def on_award(self, job: jobs_pb2.Job) -> None:
        """It has a host; of an execution, the next one may follow."""
        if job.parent_id:
            self._due[job.parent_id] = None

    def pump(self, now: Now, rng: Rng) -> None:
        """Whatever follows from what has happened in this step."""
        while self.goes_on:
            moved, self._jobs.moved_kin = self._jobs.moved_kin, []
            for job in moved:
                if job.parent_id:
                    self._due[job.parent_id] = None
                elif (parent := self._parents.pop(job.job_id, None)) is not None:
                    self._wind_up(parent, now)
            due, self._due = self._due, {}
            for job_id in due:
                if (parent := self._parents.get(job_id)) is not None:
                    self._look(parent, now, rng)
                elif (ended_parent := self._late.get(job_id)) is not None:
                    self._look_late(ended_parent, now)

    # ---- what is due

    def _look(self, parent: Parent, now: Now, rng: Rng) -> None:
        job, executions = parent.job, parent.executions
        if not is_parent(job) or job.state != QUEUED:
            return
        alone = self._is_alone(parent, rng)
        vote, count = leading(executions)
        quorum = 1 if alone else job.quorum
        if vote and count >= quorum:
            self._agree(parent, vote, now)
        elif not any(each.state == QUEUED for each in parent.under_way):  # else the next one waits for its host
            out_of_reach = count + len(parent.under_way) < quorum
            most = parent.most - (0 if out_of_reach else EXTRA_MAX)
            if len(executions) < (1 if alone else most) and not any(each.error in HOPELESS for each in parent.latest):
                self._make(parent, now, rng)
            elif not parent.under_way:
                self._give_up(parent, now)

    def _is_alone(self, parent: Parent, rng: Rng) -> bool:
        """Whether the first execution is to stay the only one, as far as is known. Drawn once for each host that it
        comes to; a draw that a crash forgets is drawn again."""
        if not parent.job.adaptive or len(parent.executions) > 1:
            return False
        if not parent.executions:
            return True
        first = parent.executions[0]
        if first.state in ENDED and not has_result(first):
            return False
        if not first.host:
            return True
        if parent.alone[:2] != (first.host, first.attempt):
            parent.alone = first.host, first.attempt, self.trust.may_run_alone(first.host, rng)
        return parent.alone[2]

    def _make(self, parent: Parent, now: Now, rng: Rng) -> None:
        entry = self._jobs.get(parent.job.job_id)
        assert entry is not None
        hosts = self.hosts_of_others(jobs_pb2.Job(parent_id=parent.job.job_id))
        name = execution_id(parent.job.job_id, len(parent.executions) + 1)
        made = self._jobs.create_execution(entry, name, hosts, now)
        parent.executions.append(made.job)
        if stem_of(parent.job.job_id) == parent.job.job_id:  # else the stem's entry stands for it
            self._post.put_bytes(TASK_JOBS, f"{made.job.task_id}/{name}".encode(), b"")
        self._roads.send(made, now, rng)
        self._jobs.keep(made.job, now, EventType.JOB_CREATED)

    def _agree(self, parent: Parent, vote: bytes, now: Now) -> None:
        entry = self._jobs.get(parent.job.job_id)
        assert entry is not None
        agreeing = [each for each in parent.executions if vote_of(each) == vote]
        cost_micro = sum(each.price_micro for each in agreeing if has_result(each))
        self._jobs.take_over(entry, agreeing[0], cost_micro, now)  # what follows for the others follows from that end

    def _give_up(self, parent: Parent, now: Now) -> None:
        """No quorum, and none in reach: since hosts disagree, or for want of them."""
        entry = self._jobs.get(parent.job.job_id)
        assert entry is not None
        executions = parent.executions
        stuck = next((each for each in parent.latest if each.error in NO_ROAD), None)
        if stuck is not None and stuck.error == "BrokerUnavailable" and parent.job.mode == jobs_pb2.DISPATCH_MODE_AUTO:
            self._roads.to_local_queue(entry, now)
        elif len({vote for each in executions if (vote := vote_of(each))}) > 1:
            detail = f"{parent.job.quorum} of {len(executions)} executions must agree"
            if stuck is not None:
                detail += ", and there is no other host to ask"
            self._jobs.fail(entry, "ResultsDisagree", f"{detail}; {told(executions)}", now)
        elif stuck is not None:
            detail = f"{len(executions)} executions, {parent.job.quorum} must agree: {stuck.error_detail}"
            self._jobs.fail(entry, stuck.error, f"{detail}; {told(executions)}", now)
        else:  # what there is agrees, and it is too little: the trouble is with those that brought nothing
            last = next((each for each in reversed(executions) if not vote_of(each)), executions[-1])
            self._jobs.fail(entry, last.error, f"{last.error_detail}; {told(executions)}", now)

    def _wind_up(self, parent: Parent, now: Now) -> None:
        """The parent has ended: whoever brought what was accepted is paid, and what runs goes on if it may yet be."""
        has_room = has_result(parent.job) and len(self._late) < LATE_MAX
        for each in parent.executions:
            if each.state in ENDED:
                self._judge(parent, each, now)
            elif each.state == RUNNING and has_room:
                parent.late.append(each)
                self._jobs.keep(each, now)  # that it runs may not have been said yet, and nobody would ask its broker
            else:
                self._take_back(parent, each, now)
        if parent.late:
            self._late[parent.job.job_id] = parent

    def _look_late(self, parent: Parent, now: Now) -> None:
        """Each of them is judged in the step that it ends in, so what is open after a crash is what is not judged."""
        for each in parent.late:
            if each.state in ENDED:
                if self._judge(parent, each, now) and has_result(each):
                    parent.job.price_micro += each.price_micro
                    self._jobs.keep(parent.job, now)
            elif each.state == QUEUED:  # its host is lost, and nobody else is to begin
                self._take_back(parent, each, now)
        parent.late = [each for each in parent.late if each.state not in ENDED]
        if not parent.late:
            del self._late[parent.job.job_id]

    def _take_back(self, parent: Parent, execution: jobs_pb2.Job, now: Now) -> None:
        entry = self._jobs.get(execution.job_id)
        assert entry is not None
        self._roads.take_back(entry, f"job {parent.job.job_id} has ended", now)

    def _judge(self, parent: Parent, execution: jobs_pb2.Job, now: Now) -> bool:
        """By what was accepted, if anything was; whether it agrees. What it has brought is wanted of one alone."""
        if execution.job_id != parent.job.result_of and is_large(execution.result):
            self._jobs.held.drop(execution.result)
            self._jobs.keep(execution, now)
        accepted = vote_of(parent.job)
        agrees = bool(accepted) and vote_of(execution) == accepted
        if agrees:
            self._approve(execution, now, compared=len(parent.executions) > 1)
        elif accepted and execution.host:
            self.trust.failed(execution.host)
            if has_result(execution) or execution.error in CLAIMS:
                end = DISAGREED if has_result(execution) else REFUTED
                self._jobs.close(execution.broker, (execution.job_id, execution.attempt), now, end)
        return agrees

    def _approve(self, execution: jobs_pb2.Job, now: Now, *, compared: bool) -> None:
        if has_result(execution):
            self._pay(execution)
            self._jobs.close(execution.broker, (execution.job_id, execution.attempt), now, SERVED)
        if compared:
            self.trust.agreed(execution.host)

    def _pay(self, execution: jobs_pb2.Job) -> None:
        cost = CostIncurred(execution.job_id, execution.attempt, execution.host, execution.price_micro, execution.kind)
        self._post.tell("ledger", cost)

    # ---- from rows

    def _load_late(self, execution: jobs_pb2.Job, rows: Rows) -> None:
        """Its parent is among the open jobs no more."""
        parent = self._late.get(execution.parent_id)
        if parent is None:
            job = jobs_pb2.Job.FromString(rows.get(JOBS, execution.parent_id.encode()) or b"")
            parent = self._late[execution.parent_id] = Parent(job, list(self._executions(job, rows)))
        parent.late.append(execution)
        self._due[execution.parent_id] = None

    def _executions(self, parent: jobs_pb2.Job, rows: Rows) -> list[jobs_pb2.Job]:
        """They are numbered without a gap. Open ones are those that the core drives."""
        found = []
        for name in execution_ids(parent):
            entry = self._jobs.get(name)
            value = rows.get(JOBS, name.encode()) if entry is None else None
            if entry is None and value is None:
                break
            found.append(entry.job if entry is not None else jobs_pb2.Job.FromString(value or b""))
        return found


def is_parent(job: jobs_pb2.Job) -> bool:
    """Whether others do the job's work for it: a redundant one, on its way through the mesh."""
    return job.replicas > 1 and job.route == MESH


def execution_ids(parent: jobs_pb2.Job) -> list[str]:
    """As many as there may be; they are made in this order."""
    most = parent.replicas + EXTRA_MAX + STRAYS_MAX
    return [execution_id(parent.job_id, number) for number in range(1, most + 1)]
