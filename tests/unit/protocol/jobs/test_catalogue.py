"""Missions: however many an owner makes, memory has the latest alone; each can be changed until it is completed."""

from __future__ import annotations

import pytest
from job_bench import OWNER, Bench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Reply
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.jobs import catalogue
from offgrid_node.protocol.jobs.catalogue import COMPLETED, Catalogue
from offgrid_node.protocol.jobs.commands import CreateMission, UpdateMission
from offgrid_node.protocol.requests import Requests


class Owner:
    """Who makes missions and changes them; what is not settled is not in the rows."""

    def __init__(self) -> None:
        self.bench = Bench(OWNER)
        self.start()

    def start(self) -> None:
        self.catalogue = Catalogue(self.bench.post, Requests(self.bench.post))
        self.catalogue.load(self.bench.disk)

    def make(self, title: str) -> str:
        self.catalogue.on_create_mission(1, CreateMission(title, "", "", b""), self.bench.now, self.bench.rng)
        answer = self.answer()
        assert isinstance(answer, jobs_pb2.CreateMissionResponse)
        return answer.mission.mission_id

    def change(self, mission_id: str, title: str | None = None, status: str | None = None) -> jobs_pb2.Mission:
        self.catalogue.on_update_mission(1, UpdateMission(mission_id, title, None, status), self.bench.now)
        answer = self.answer()
        if isinstance(answer, Fault):
            raise answer
        assert isinstance(answer, jobs_pb2.UpdateMissionResponse)
        return answer.mission

    def answer(self) -> object:
        self.bench.settle()
        return next(effect.outcome for effect in reversed(self.bench.effects) if isinstance(effect, Reply))


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Owner:
    monkeypatch.setattr(catalogue, "MISSIONS_RECENT_MAX", 3)
    return Owner()


def test_memory_holds_the_latest_and_a_start_reads_none(owner: Owner) -> None:
    for number in range(10):
        owner.make(f"m{number}")
    assert len(owner.catalogue._missions) == 3
    owner.start()
    assert not owner.catalogue._missions


def test_an_old_one_is_changed_by_its_row(owner: Owner) -> None:
    first, *_ = [owner.make(f"m{number}") for number in range(5)]
    assert owner.change(first, title="new").title == "new"
    assert owner.change(first, status=COMPLETED).title == "new"


@pytest.mark.parametrize("between", ["nothing", "others", "a start"])
def test_a_completed_one_stays_as_it_is(owner: Owner, between: str) -> None:
    mission_id = owner.make("m")
    owner.change(mission_id, status=COMPLETED)
    if between == "others":
        for number in range(5):
            owner.make(f"m{number}")
    elif between == "a start":
        owner.start()
    with pytest.raises(FailedPrecondition, match=f"mission {mission_id} is completed"):
        owner.change(mission_id, title="new")
