"""What a job's owner asks for beyond the work itself: which hosts, how soon, at what price, after which other jobs.

Checked once, where a job comes in; what depends on the time or on other jobs is checked by the machine that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.bounds import ID_CHARS_MAX, PRICE_MAX, PRIORITY_MAX
from offgrid_node.protocol.jobs.requirements import parse

LOSSES_MAX = 8  # hosts that may die under one job before it is taken for the cause; its owner may say otherwise
LOSSES_ALLOWED_MAX = 100
AFTER_MAX = 256  # jobs that one job may wait for: as many as one RunJobs makes
REPLICAS_MAX = 8  # with two more that may be needed, an execution's order can name the hosts of all its siblings
AFTER_CALL_MAX = 4_096  # names in `after` in all of one RunJobs: each is looked up in one step, and kept in a row

_HERE = re.compile(r"#(0|[1-9][0-9]{0,3})\Z")  # "#n": the job of this very call with that number


class Terms(NamedTuple):
    """`after` are ids, or "#n" for jobs of the same call; `losses_max` 0 is LOSSES_MAX. `deadline_us` is UTC."""

    requirements: str = ""
    priority: int = 0
    deadline_us: int = 0
    after: tuple[str, ...] = ()
    price_max_micro: int = 0
    losses_max: int = 0
    replicas: int = 0
    quorum: int = 0
    adaptive: bool = False
    input_job: str = ""  # one of `after`


NO_TERMS = Terms()


def terms_of(field: str, spec: jobs_pb2.JobSpec, index: int = 0) -> Terms:
    """What the spec asks for; it stands at `index` in its call. Raises InvalidRequest that names what is wrong, below
    `field`."""
    if _is_plain(spec):
        return NO_TERMS
    parse(spec.requirements, f"{field}requirements")
    if not -PRIORITY_MAX <= spec.priority <= PRIORITY_MAX:
        text = f"{spec.priority}; -{PRIORITY_MAX} to {PRIORITY_MAX} are allowed"
        raise InvalidRequest.field(f"{field}priority", text)
    if spec.deadline_us < 0:
        raise InvalidRequest.field(f"{field}deadline_us", f"{spec.deadline_us}; it is a time, in microseconds of UTC")
    _most(f"{field}price_max_micro", spec.price_max_micro, PRICE_MAX, "millionths")
    _most(f"{field}losses_max", spec.losses_max, LOSSES_ALLOWED_MAX, "hosts")
    _check_replicas(field, spec)
    _check_after(f"{field}after", spec.after, index)
    if spec.payload.input_job and spec.payload.input_job not in spec.after:
        text = f"{spec.payload.input_job[:ID_CHARS_MAX]!r} is not among the jobs that it goes after (after)"
        raise InvalidRequest.field(f"{field}payload.input_job", text)
    return Terms(
        spec.requirements,
        spec.priority,
        spec.deadline_us,
        tuple(spec.after),
        spec.price_max_micro,
        spec.losses_max,
        spec.replicas,
        spec.quorum or (spec.replicas // 2 + 1 if spec.replicas > 1 else 0),
        spec.adaptive,
        spec.payload.input_job,
    )


def _is_plain(spec: jobs_pb2.JobSpec) -> bool:
    """Whether it asks for nothing of all this, as most do by the thousand."""
    return not (
        spec.requirements
        or spec.priority
        or spec.deadline_us
        or spec.after
        or spec.price_max_micro
        or spec.losses_max
        or spec.replicas
        or spec.quorum
        or spec.adaptive
        or spec.payload.input_job
    )


def here(name: str) -> int | None:
    """The number of the job of the same call that "#n" names; None for an id."""
    found = _HERE.match(name)
    return int(found[1]) if found else None


def _check_replicas(field: str, spec: jobs_pb2.JobSpec) -> None:
    """A quorum is more than half of the replicas, lest two of them be reached; 0 is the least that is."""
    _most(f"{field}replicas", spec.replicas, REPLICAS_MAX, "executions")
    least = spec.replicas // 2 + 1
    if spec.replicas <= 1 and (spec.quorum > 1 or spec.adaptive):
        text = f"{spec.replicas}; a job with a quorum, or an adaptive one, has 2 to {REPLICAS_MAX} executions"
        raise InvalidRequest.field(f"{field}replicas", text)
    if spec.replicas > 1 and spec.quorum and not least <= spec.quorum <= spec.replicas:
        text = f"{spec.quorum}; of {spec.replicas} executions {least} to {spec.replicas} must agree"
        raise InvalidRequest.field(f"{field}quorum", text)


def _check_after(field: str, after: Sequence[str], index: int) -> None:
    _most(field, len(after), AFTER_MAX, "jobs")
    if len(set(after)) < len(after):
        raise InvalidRequest.field(field, "a job is named twice")
    for name in after:
        number = here(name)
        if number is None and (name.startswith("#") or not 1 <= len(name) <= ID_CHARS_MAX):
            text = f"{name[:ID_CHARS_MAX]!r} is neither the id of a job nor '#0', '#1', … for one of this call"
            raise InvalidRequest.field(field, text)
        if number is not None and number >= index:
            text = f"{name!r} does not stand before this job, which is #{index} of its call"
            raise InvalidRequest.field(field, text)


def _most(field: str, number: int, most: int, what: str) -> None:
    if number > most:
        raise InvalidRequest.field(field, f"{number} {what}; at most {most} are allowed")
