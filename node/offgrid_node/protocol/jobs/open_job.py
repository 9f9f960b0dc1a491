"""One open job in its core's memory, and what is remembered of one that has ended."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.table import COMPLETED, FAILED

FINAL_ERRORS = frozenset({"JobTimeout", "ExecutionFailed", "OutputTooLarge"})  # reported; no other host would do better


class Look(NamedTuple):
    """What is asked of every open job when a peer comes or goes."""

    state: jobs_pb2.JobState.ValueType
    route: jobs_pb2.Route.ValueType
    host: str
    broker: str


@dataclass(slots=True)
class Open:
    """A job that has not ended. `tries` counts failures in a row to find a host, `refusals` hosts that would not.

    One that nobody has looked at for a while is packed: its message is bytes until somebody does. `look` says the
    little that is asked of all of them at once, packed or not. Nobody keeps `job` from one step to the next, but for
    redundant jobs and their executions, which are never packed."""

    job: jobs_pb2.Job
    tries: int = 0
    refusals: int = 0
    unfound: str = ""  # why no host was found for it, as was last said; empty once its order waits for one, or is won
    avoided: frozenset[str] = frozenset()
    payload: bytes | None = None  # a small one; a large one until it is committed
    confirmed: bool = False  # its host has said, to this very process, that it runs the present attempt
    arriving: bool = False  # its output is on its way here
    trouble: str = ""  # that keeps its output from coming here
    answer_by_ms: int | None = None  # until when the host is asked whether it does
    # It was queued when this process began: it may have been awarded before, and a host be at work on it.
    doubtful: bool = False
    turns: int = 0  # from brokers that kept it waiting
    turned_from: str = ""  # the last of them, until the next one has spoken
    job_id: str = ""
    is_new: bool = True  # made since this process began, or its machines were replaced
    hot: OrderedDict[str, Open] | None = field(default=None, repr=False)  # where it says that it is unpacked
    order: tuple[int, bytes] | None = None  # an attempt's order as it is carried
    packed: bytes = b""
    brief: Look | None = None

    @property
    def look(self) -> Look:
        if self.brief is not None:
            return self.brief
        job = self.job
        return Look(job.state, job.route, job.host, job.broker)

    def pack(self) -> None:
        look, job = self.look, self.job
        if job.parent_id or job.replicas > 1:
            return
        self.brief = look._replace(host=sys.intern(look.host), broker=sys.intern(look.broker))
        self.packed = job.SerializeToString()
        self.order = None
        del self.job

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> jobs_pb2.Job:
            """Asked for only while `job` is not there."""
            if name != "job" or not self.packed:
                raise AttributeError(name)
            self.job = jobs_pb2.Job.FromString(self.packed)
            self.packed, self.brief = b"", None
            self.hot[self.job_id] = self
            return self.job

    @property
    def key(self) -> AttemptKey:
        return self.job_id, self.job.attempt


class Ended(NamedTuple):
    """How a job ended: by a report of this attempt of this host that was `accepted`, or otherwise."""

    attempt: int
    host: str
    task_id: str
    state: jobs_pb2.JobState.ValueType
    accepted: bool

    @classmethod
    def of(cls, job: jobs_pb2.Job) -> Ended:
        accepted = job.state == COMPLETED or (job.state == FAILED and job.error in FINAL_ERRORS)
        return cls(job.attempt, job.host, job.task_id, job.state, accepted)
