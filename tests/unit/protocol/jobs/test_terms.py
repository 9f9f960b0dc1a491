"""What a job's owner may ask for beyond the work: each bound, by the name of its field."""

from __future__ import annotations

from typing import Any

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.terms import NO_TERMS, here, terms_of

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "requirements too long": ({"requirements": "x" * 1_025}, "jobs[3].requirements: 1025 characters; at most 1024"),
    "too urgent": ({"priority": 101}, "jobs[3].priority: 101; -100 to 100"),
    "too idle": ({"priority": -101}, "jobs[3].priority: -101; -100 to 100"),
    "a deadline before all time": ({"deadline_us": -1}, "jobs[3].deadline_us: -1"),
    "a price that no receipt carries": ({"price_max_micro": 10**15 + 1}, "jobs[3].price_max_micro"),
    "hosts without end": ({"losses_max": 101}, "jobs[3].losses_max: 101 hosts; at most 100"),
    "too many executions": ({"replicas": 9}, "jobs[3].replicas: 9 executions; at most 8"),
    "more to agree than there are": ({"replicas": 3, "quorum": 4}, "jobs[3].quorum: 4; of 3 executions 2 to 3"),
    "half of them, twice": ({"replicas": 4, "quorum": 2}, "jobs[3].quorum: 2; of 4 executions 3 to 4"),
    "one that is to agree with nobody": ({"quorum": 2}, "jobs[3].replicas: 0; a job with a quorum"),
    "trust where nothing is compared": ({"replicas": 1, "adaptive": True}, "jobs[3].replicas: 1; a job with a quorum"),
    "itself": ({"after": ["#3"]}, "jobs[3].after: '#3' does not stand before this job, which is #3"),
    "one that comes later": ({"after": ["#4"]}, "jobs[3].after: '#4' does not stand before"),
    "a number that is none": ({"after": ["#01"]}, "jobs[3].after: '#01' is neither the id of a job nor '#0'"),
    "no name": ({"after": [""]}, "jobs[3].after: '' is neither"),
    "a name too long": ({"after": ["j" * 65]}, "is neither the id of a job"),
    "one twice": ({"after": ["#1", "#1"]}, "jobs[3].after: a job is named twice"),
    "too many to wait for": ({"after": [f"j-{n}" for n in range(257)]}, "jobs[3].after: 257 jobs; at most 256"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_out_of_bounds_is_refused_by_its_field(case: str) -> None:
    fields, words = REFUSED[case]
    with pytest.raises(InvalidRequest) as refused:
        terms_of("jobs[3].", jobs_pb2.JobSpec(**fields), 3)
    assert words in refused.value.message


def test_whoever_asks_for_nothing_gets_no_terms() -> None:
    assert terms_of("", jobs_pb2.JobSpec()) == NO_TERMS


def test_what_is_in_bounds_is_kept_as_it_is() -> None:
    spec = jobs_pb2.JobSpec(
        requirements="cpus >= 4",
        priority=-100,
        deadline_us=1,
        after=["#2", "j-1"],
        price_max_micro=7,
        losses_max=100,
        replicas=8,
        quorum=8,
        adaptive=True,
    )
    assert terms_of("", spec, 3) == ("cpus >= 4", -100, 1, ("#2", "j-1"), 7, 100, 8, 8, True, "")


@pytest.mark.parametrize(("replicas", "quorum"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 3), (8, 5)])
def test_without_a_quorum_more_than_half_must_agree(replicas: int, quorum: int) -> None:
    assert terms_of("", jobs_pb2.JobSpec(replicas=replicas)).quorum == quorum


@pytest.mark.parametrize(("name", "number"), [("#0", 0), ("#255", 255), ("j-1", None), ("#", None), ("#-1", None)])
def test_a_number_sign_names_a_job_of_the_same_call(name: str, number: int | None) -> None:
    assert here(name) == number
