"""Ids of jobs that belong together: those that one call made, and the executions of a redundant one."""

from __future__ import annotations

PREFIXED = b"*"  # a row's value: its key stands for all jobs whose ids go on from it with a "-"
NUMBER_CHARS = 3  # of a job among those made with it; enough for RUN_MAX
EXECUTION = ".r"  # in no other id


def ids_of(stem: str, count: int) -> list[str]:
    """The ids of jobs made together."""
    return [f"{stem}-{number:0{NUMBER_CHARS}}" for number in range(count)]


def stem_of(job_id: str) -> str:
    """The beginning that the ids of jobs made together share, and those of their executions; another job's id is its
    own."""
    if EXECUTION in job_id:
        job_id = job_id.partition(EXECUTION)[0]
    stem = job_id[: -NUMBER_CHARS - 1]
    is_one_of_many = job_id[-NUMBER_CHARS:].isdigit() and "-" in stem and job_id[len(stem)] == "-"
    return stem if is_one_of_many else job_id


def execution_id(job_id: str, number: int) -> str:
    """Of a redundant job, the execution with this number: 1 and up."""
    return f"{job_id}{EXECUTION}{number}"
