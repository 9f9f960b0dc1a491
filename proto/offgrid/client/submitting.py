"""From a function, a payload or a spec to a job on its way: what is behind `client.submit` and `client.map`."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

from offgrid.client import functions
from offgrid.client.futures import Future, JobFailed
from offgrid.client.jobs import Jobs
from offgrid.client.options import JobOptions, Work
from offgrid.job_function import FunctionOptions, JobFunction
from offgrid.v1 import jobs_pb2

Submittable = Callable[..., Any] | jobs_pb2.JobPayload | jobs_pb2.JobSpec
COMPLETED = jobs_pb2.JOB_STATE_COMPLETED
OWN_OPTIONS = ("executor", "trusted", "task_id", "mode")


class Prepared(NamedTuple):
    """Encoded once, however often it is called."""

    given: Work | None
    function: jobs_pb2.JobPayload | None  # without its call
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]


def prepared(work: Submittable, options: FunctionOptions) -> Prepared:
    """Raises TypeError for what is no work, or cannot be pickled, and TooLarge."""
    if isinstance(work, jobs_pb2.JobPayload | jobs_pb2.JobSpec):
        return Prepared(work, None, (), {}, {**options})
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    merged: dict[str, Any] = {**options}
    function: Any = work
    while isinstance(function, functools.partial | JobFunction):
        if isinstance(function, functools.partial):
            function, args, kwargs = function.func, (*function.args, *args), {**function.keywords, **kwargs}
        else:
            function, merged = function.function, {**function.options, **merged}
    if not callable(function):
        raise TypeError(f"{function!r} is neither a function nor a JobPayload nor a JobSpec")
    return Prepared(None, _payload(function, merged.get("executor", "python")), args, kwargs, merged)


def submit(jobs: Jobs, work: Prepared, args: tuple[Any, ...]) -> Future[Any]:
    if work.function is None:
        if args:
            raise TypeError(f"{len(args)} arguments; only functions take any, a payload has its input")
        future, sent = Future(jobs, _job), work.given
    else:
        future = Future(jobs, functools.partial(_value, jobs, trusted=bool(work.options.get("trusted"))))
        sent = jobs_pb2.JobPayload()
        sent.CopyFrom(work.function)
        sent.input = functions.encode_call((*work.args, *args), work.kwargs)
    assert sent is not None
    asked = cast("JobOptions", {name: value for name, value in work.options.items() if name not in OWN_OPTIONS})
    task_id, mode = work.options.get("task_id", ""), work.options.get("mode", "")
    jobs.send(sent, future, task_id=task_id, mode=mode, options=asked)
    return future


def in_order(jobs: Jobs, work: Prepared, calls: Iterable[tuple[Any, ...]], in_flight: int) -> Iterator[Any]:
    """The results of all calls, in their order, `in_flight` of them under way at once. Those that are under way when a
    result raises, or nobody wants more, are given up."""
    under_way: deque[Future[Any]] = deque()
    try:
        for args in calls:
            under_way.append(submit(jobs, work, args))
            if len(under_way) >= in_flight:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()


def _payload(function: Callable[..., Any], executor: str) -> jobs_pb2.JobPayload:
    code, name, python = functions.encode_function(function), functions.name_of(function), functions.PYTHON
    match executor:
        case "python":
            return jobs_pb2.JobPayload(python=jobs_pb2.PythonTask(function=code, python=python, name=name))
        case "dask":
            return jobs_pb2.JobPayload(dask=jobs_pb2.DaskTask(function=code, python=python, name=name))
    raise ValueError(f"executor {executor!r} runs no functions; there are python and dask")


def _job(job: jobs_pb2.Job) -> jobs_pb2.Job:
    """What a spec's job has become."""
    if job.state != COMPLETED:
        raise JobFailed(job)
    return job


def _value(jobs: Jobs, job: jobs_pb2.Job, *, trusted: bool) -> Any:
    """What a function returned; raises what it raised."""
    if job.state == COMPLETED:
        return functions.decode_result(jobs.output(job), trusted=trusted)
    raised = functions.decode_failure(jobs.output(job), trusted=trusted) if job.HasField("result") else None
    if raised is not None:
        raised.add_note(f"in job {job.job_id}, on host {job.host}")
        raise raised
    raise JobFailed(job)
