"""What can be asked of a job beyond its payload, under the same names everywhere: `client.submit`, `client.jobs.*` and
`@offgrid.job`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypedDict

from offgrid.v1 import jobs_pb2

MODES = {
    "": jobs_pb2.DISPATCH_MODE_UNSPECIFIED,
    "auto": jobs_pb2.DISPATCH_MODE_AUTO,
    "offgrid": jobs_pb2.DISPATCH_MODE_OFFGRID,
    "disabled": jobs_pb2.DISPATCH_MODE_DISABLED,
}
TIMEOUT_MAX_S = 86_400
FileSource = Path | bytes | str


class Sent(Protocol):
    """A job that is on its way, such as a future."""

    def wait_sent(self, timeout: float | None = None) -> str: ...


class JobOptions(TypedDict, total=False):
    """Each may be left out.

    requirements    what a host must be, an expression (docs/requirements.md): "memory_mb >= 4096 and gpu.count > 0"
    priority        -100 to 100; higher goes first, of what waits
    deadline        when the job is given up: a datetime with its time zone, or a timedelta from now
    after           jobs of the same task, by id or as futures, that must have completed before
    input_from      a job of the same task whose output is this one's input; it goes after that one
    replicas        executions on different hosts, of which `quorum` must agree
    adaptive        hosts that have proved themselves may run it alone, but for spot checks
    price_max_micro the most that is paid, in millionths per million tokens of its size
    losses_max      hosts that may die under it before it is taken for the cause
    timeout_s       how long one attempt may run (or timeout_ms)
    size_tokens     how large the work is; else estimated from the input
    files           what lies in the job's folder, by name: a Path, bytes, or an object's id as text
    outputs         names or glob patterns of files that belong to the result
    """

    requirements: str
    priority: int
    deadline: datetime | timedelta
    after: Sequence[str | Sent]
    input_from: str | Sent
    replicas: int
    quorum: int
    adaptive: bool
    price_max_micro: int
    losses_max: int
    timeout_s: float
    timeout_ms: int
    size_tokens: int
    files: Mapping[str, FileSource]
    outputs: Sequence[str]


AS_THEY_ARE = {
    "requirements": "text (docs/requirements.md)",
    "priority": "-100 to 100",
    "replicas": "a whole number from 1",
    "quorum": "a whole number, at most that of replicas",
    "adaptive": "True, False",
    "price_max_micro": "a whole number from 0",
    "losses_max": "a whole number from 1",
    "timeout_ms": "100 to 86400000",
    "size_tokens": "a whole number from 0",
}  # what the wire can carry of them; the node says what it takes
Work = jobs_pb2.JobPayload | jobs_pb2.JobSpec


def mode_of(mode: str) -> jobs_pb2.DispatchMode.ValueType:
    """Raises ValueError."""
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no mode; there are {', '.join(name for name in MODES if name)}")
    return MODES[mode]


def spec_of(work: Work, options: JobOptions) -> jobs_pb2.JobSpec:
    """The job as the wire has it, but for `files`, which have to be put first (`Jobs`). What is given in `options`
    stands in place of what a JobSpec says. Raises TypeError for an unknown option, ValueError for a wrong one."""
    if isinstance(work, jobs_pb2.JobSpec):
        spec = jobs_pb2.JobSpec()
        spec.CopyFrom(work)
    else:
        spec = jobs_pb2.JobSpec(payload=work)
    if not options:  # as most of those who send jobs by the thousand
        return spec
    if unknown := options.keys() - JobOptions.__annotations__.keys():
        known = ", ".join(JobOptions.__annotations__)
        raise TypeError(
            f"{', '.join(sorted(unknown))}: no such option of a job; there are {known}. "
            "A function's own arguments by name: functools.partial, or @offgrid.job"
        )
    for name in options.keys() & AS_THEY_ARE.keys():
        _set(spec, name, options[name])  # type: ignore[literal-required]  # each is a key of JobOptions
    if "timeout_s" in options:
        spec.timeout_ms = _timeout_ms(options["timeout_s"])
    if "deadline" in options:
        spec.deadline_us = _utc_us(options["deadline"])
    if "after" in options:
        spec.after[:] = map(_id_of, options["after"])
    if "input_from" in options:
        spec.payload.input_job = _id_of(options["input_from"])
        if spec.payload.input_job not in spec.after:
            spec.after.append(spec.payload.input_job)
    if "outputs" in options:
        spec.payload.outputs[:] = options["outputs"]
    return spec


def _id_of(job: str | Sent) -> str:
    """An id as it is; of a future once the node has made its job."""
    return job if isinstance(job, str) else job.wait_sent()


def _set(spec: jobs_pb2.JobSpec, name: str, value: object) -> None:
    try:
        setattr(spec, name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {value!r}; allowed: {AS_THEY_ARE[name]}") from error


def _timeout_ms(timeout_s: float) -> int:
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise ValueError(f"timeout_s: {timeout_s!r}; allowed: 0.1 to {TIMEOUT_MAX_S} seconds")
    return max(1, round(timeout_s * 1000))


def _utc_us(deadline: datetime | timedelta) -> int:
    if not isinstance(deadline, datetime | timedelta):
        raise TypeError(f"deadline: {deadline!r}; allowed: a datetime with its time zone, a timedelta from now")
    if isinstance(deadline, timedelta):
        return round(time.time() * 1e6) + round(deadline / timedelta(microseconds=1))
    if deadline.tzinfo is None:
        raise ValueError(
            f"deadline {deadline}: it has no time zone; say datetime.now(UTC) + …, or a timedelta from now"
        )
    return round(deadline.timestamp() * 1e6)
