"""A job's life: the table of its moves, walked whole."""

from __future__ import annotations

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Internal
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, CREATED, ENDED, EXPIRED, FAILED, TRANSITIONS, move

EVENTS = sorted({event for moves in TRANSITIONS.values() for event in moves})


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", sorted(TRANSITIONS))
def test_a_move_follows_the_table_or_is_refused(state: jobs_pb2.JobState.ValueType, event: str) -> None:
    job = jobs_pb2.Job(state=state)
    if event in TRANSITIONS[state]:
        move(job, event)
        assert job.state == TRANSITIONS[state][event]
    else:
        with pytest.raises(Internal):
            move(job, event)
        assert job.state == state


def test_every_state_is_reachable_and_nothing_leaves_an_end() -> None:
    reached, fresh = {CREATED}, [CREATED]
    while fresh:
        fresh = [to for state in fresh for to in TRANSITIONS[state].values() if to not in reached]
        reached.update(fresh)
    assert reached == set(jobs_pb2.JobState.values()) - {jobs_pb2.JOB_STATE_UNSPECIFIED}
    assert {COMPLETED, FAILED, CANCELLED, EXPIRED} == ENDED
