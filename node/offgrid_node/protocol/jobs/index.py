"""Which jobs of a core are open, by their tasks and as rows: a start reads those, and not every job there ever was.

And how many jobs of each task have ended, and how: counted in the transaction of the end, so that no crash miscounts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.naming import EXECUTION, PREFIXED, stem_of
from offgrid_node.protocol.jobs.post import Post

JOBS = "jobs"
OPEN_JOBS = "open_jobs"  # by stem (PREFIXED) or job id (empty), while one of them is open
TASK_ENDS = "task_ends"
TASKS_REMEMBERED = 10_000  # whose ends are counted in memory; those of others are found in the rows

State: TypeAlias = jobs_pb2.JobState.ValueType


class Index:
    """Told of each job that is open from now on, and of each that has ended. Executions of redundant jobs count for
    nothing with their tasks."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._of_task: dict[str, dict[str, None]] = {}
        self._open_of_stem: dict[str, int] = {}
        self._ends: OrderedDict[str, Counter[State]] = OrderedDict()
        self._changed: dict[str, None] = {}
        self._rows: Rows | None = None

    def load(self, rows: Rows) -> Iterator[bytes]:
        """The rows of the jobs that may be open: one that has ended may be among those it was made with."""
        self._rows = rows
        return maybe_open(rows)

    # ---- questions

    def of_task(self, task_id: str) -> Mapping[str, None]:
        """The ids of its open jobs, oldest first."""
        return self._of_task.get(task_id, {})

    def ends(self, task_id: str) -> Mapping[State, int]:
        """How many jobs of the task have ended in which state."""
        return self._ends.get(task_id) or self._ends_by_row(task_id)

    # ---- changes

    def add(self, job_id: str, job: jobs_pb2.Job, *, loaded: bool = False) -> None:
        """`job_id` is the job's, interned."""
        if not job.parent_id:
            self._of_task.setdefault(job.task_id, {})[job_id] = None
        stem = stem_of(job_id)
        others = self._open_of_stem.get(stem, 0)
        self._open_of_stem[stem] = others + 1
        if not others and not loaded:
            self._post.put_bytes(OPEN_JOBS, stem.encode(), PREFIXED if job_id.startswith(f"{stem}-") else b"")

    def end(self, job_id: str, job: jobs_pb2.Job) -> None:
        if not job.parent_id:
            self._end_of_task(job_id, job)
        stem = stem_of(job_id)
        others = self._open_of_stem[stem] = self._open_of_stem[stem] - 1
        if not others:
            del self._open_of_stem[stem]
            self._post.delete(OPEN_JOBS, stem.encode())

    def close_step(self) -> None:
        """Writes the counts that have changed, once for all that ended in this step."""
        for task_id in self._changed:
            ended = [jobs_pb2.JobCount(state=state, jobs=jobs) for state, jobs in sorted(self._ends[task_id].items())]
            self._post.put(TASK_ENDS, task_id.encode(), jobs_pb2.TaskEnds(ended=ended))
        self._changed.clear()

    def begin(self) -> None:
        """What earlier batches wrote is committed: it can be read back."""
        while len(self._ends) > TASKS_REMEMBERED:
            self._ends.popitem(last=False)

    # ---- inside

    def _end_of_task(self, job_id: str, job: jobs_pb2.Job) -> None:
        task_id = job.task_id
        siblings = self._of_task[task_id]
        del siblings[job_id]
        if not siblings:
            del self._of_task[task_id]
        self._count(task_id, job.state)

    def _count(self, task_id: str, state: State) -> None:
        counts = self._ends.get(task_id)
        if counts is None:
            counts = self._ends[task_id] = self._ends_by_row(task_id)
        self._ends.move_to_end(task_id)
        counts[state] += 1
        self._changed[task_id] = None

    def _ends_by_row(self, task_id: str) -> Counter[State]:
        value = self._rows.get(TASK_ENDS, task_id.encode()) if self._rows is not None else None
        row = jobs_pb2.TaskEnds.FromString(value or b"")
        return Counter({count.state: count.jobs for count in row.ended})


def maybe_open(rows: Rows) -> Iterator[bytes]:
    """The rows of all open jobs, and of some that have ended."""
    for key, value in rows.scan(OPEN_JOBS):
        if value == PREFIXED:
            yield from (row for _, row in rows.scan(JOBS, prefix=key + b"-"))
        elif (row := rows.get(JOBS, key)) is not None:
            yield row
            yield from (each for _, each in rows.scan(JOBS, prefix=key + EXECUTION.encode()))
