"""The benchmark: what is judged, how pairs are taken, what is written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from offgrid_tools.bench import __main__ as bench
from offgrid_tools.bench import hosted
from offgrid_tools.bench.document import DOCUMENT, refresh
from offgrid_tools.bench.figures import Figure, Goal, Verdict, read_goals
from offgrid_tools.bench.groups import GROUPS, Group, Plan
from offgrid_tools.bench.harness import Pairs, quantile, side_by_side
from offgrid_tools.bench.report import show


class TestGoals:
    @pytest.mark.parametrize(
        ("goal", "value", "verdict"),
        [
            (Goal("ratio", least=10, step=5), 10, Verdict.MET),
            (Goal("ratio", least=10, step=5), 9.9, Verdict.STEP),
            (Goal("ratio", least=10, step=5), 4.9, Verdict.MISSED),
            (Goal("ratio", most=0.3, step=0.5), 0.3, Verdict.MET),
            (Goal("ratio", most=0.3, step=0.5), 0.5, Verdict.STEP),
            (Goal("ratio", most=0.3, step=0.5), 0.6, Verdict.MISSED),
            (Goal("ms", most=0), 1, Verdict.MISSED),
            (Goal("events/s"), 1, Verdict.REPORT),
        ],
    )
    def test_a_value_meets_its_goal_its_step_or_neither(self, goal: Goal, value: float, verdict: Verdict) -> None:
        assert goal.judge(value) is verdict

    def test_there_are_goals_for_the_groups_that_exist_and_no_others(self) -> None:
        assert read_goals().keys() == GROUPS.keys()

    def test_every_figure_has_a_unit(self) -> None:
        assert all(goal.unit for group in read_goals().values() for goal in group.values())


class TestPairs:
    def test_both_sides_are_warmed_up_and_then_take_turns_at_being_first(self) -> None:
        order: list[str] = []

        def sample(side: str, value: float) -> float:
            order.append(side)
            return value

        pairs = side_by_side(lambda: sample("a", 3.0), lambda: sample("b", 2.0), 3)
        assert "".join(order) == "ab" + "ab" + "ba" + "ab"
        assert (pairs.ours, pairs.theirs) == ([3.0] * 3, [2.0] * 3)

    def test_the_ratio_is_the_middle_one_of_the_pairs(self) -> None:
        pairs = Pairs([10.0, 1.0, 8.0], [5.0, 5.0, 5.0])  # the second pair was disturbed
        assert pairs.ratio == 1.6
        assert (pairs.our_median, pairs.their_median) == (8.0, 5.0)
        assert pairs.spread == "3 pairs, 0.20 to 2.00"

    def test_quantiles(self) -> None:
        values = [float(n) for n in range(100, 0, -1)]
        assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.999)) == (51.0, 100.0, 7.0)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Plan]:
    """One group in place of all, that measures nothing; returns the plans that it was given."""
    plans: list[Plan] = []

    def measure(group: Group, plan: Plan) -> Sequence[Figure]:
        plans.append(plan)
        return [Figure("single_p50_ms", 2.5, "Dask", 10.0, "12 jobs"), Figure("inflight64_per_s", 1234567.8)]

    monkeypatch.setattr(Group, "measure", measure)
    monkeypatch.chdir(tmp_path)
    return plans


class TestTheCommand:
    def test_it_runs_what_is_named_on_the_disk_it_is_told_and_leaves_nothing_there(
        self, made_up: list[Plan], tmp_path: Path
    ) -> None:
        assert bench.main(["jobs", "--quick", "--dir", str(tmp_path / "here")]) == 0
        [plan] = made_up
        assert plan.folder.parent == tmp_path / "here"
        assert plan.rounds(10, 1) == 1
        assert [*(tmp_path / "here").iterdir()] == []

    @pytest.mark.parametrize(("load", "warned"), [(0.9, False), (1.1, True)])
    def test_it_warns_when_others_have_more_than_half_of_the_machine(
        self,
        made_up: list[Plan],
        load: float,
        warned: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0), raising=False)
        assert bench.main(["jobs"]) == 0
        assert ("the machine is busy (load 1.1, fsync " in capsys.readouterr().err) is warned

    def test_it_shows_value_goal_verdict_and_peer(self, capsys: pytest.CaptureFixture[str]) -> None:
        figures = [("jobs", Figure("single_p50_ms", 2.5, "Dask", 10.0, "12 jobs"))]
        goals = {"jobs": {"single_p50_ms": Goal("ms", most=2, step=3)}}
        show(figures, goals, Console(width=160, color_system=None))
        row = capsys.readouterr().out.splitlines()[1]
        assert re.split(r"\s{2,}", row.strip()) == [
            "jobs.single_p50_ms", "2.5", "ms", "≤ 2 (now 3)", "step met", "Dask 10", "12 jobs",
        ]  # fmt: skip

    def test_it_writes_a_list_by_the_names_of_the_goals(self, made_up: list[Plan], tmp_path: Path) -> None:
        assert bench.main(["jobs", "--json", str(tmp_path / "out.json")]) == 0
        first, second = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
        assert first == {
            "name": "single_p50_ms", "value": 2.5, "unit": "ms", "peer": "Dask", "peer_value": 10.0, "note": "12 jobs",
        }  # fmt: skip
        assert (second["value"], second["peer_value"]) == (1234567.8, None)

    def test_it_refreshes_its_table_in_the_document_and_nothing_else(
        self, made_up: list[Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        document = tmp_path / "performance.md"
        before, after = "# Speed\n\n<!-- bench jobs -->\n", "<!-- end -->\n\n<!-- bench state -->\nold\n<!-- end -->\n"
        document.write_text(f"{before}| old |\n{after}", encoding="utf-8")
        monkeypatch.setattr(bench, "DOCUMENT", document)
        for _ in range(2):
            assert bench.main(["jobs", "--docs"]) == 0
            text = document.read_text(encoding="utf-8")
            assert text.startswith(before)
            assert text.endswith(after)
            rows = text.removeprefix(before).removesuffix(after).strip().splitlines()
            assert [row.split(" | ")[:2] for row in rows[2:]] == [
                ["| single_p50_ms", "2.5"],
                ["| inflight64_per_s", "1,234,568"],
            ]

    def test_a_document_without_a_place_for_a_table_is_left_as_it_is(self, tmp_path: Path) -> None:
        document = tmp_path / "performance.md"
        document.write_text("<!-- bench jobs -->\n<!-- end -->\n", encoding="utf-8")
        with pytest.raises(ValueError, match="no place for the table 'state'"):
            refresh(document, {"jobs": "new", "state": "new"})
        assert document.read_text(encoding="utf-8") == "<!-- bench jobs -->\n<!-- end -->\n"

    def test_the_document_has_a_place_for_every_group(self) -> None:
        text = DOCUMENT.read_text(encoding="utf-8")
        assert all(f"<!-- bench {name} -->" in text for name in [*GROUPS, "jobs profile"])

    def test_a_group_that_is_none(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            bench.main(["jbos"])
        assert f"there is no group 'jbos'; there are {', '.join(GROUPS)}" in capsys.readouterr().err


class TestTheHostedGroup:
    @pytest.mark.skipif(os.name != "posix", reason="measures behind limits and sandboxes")
    def test_it_measures_every_figure_that_has_a_goal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("WARM_QUICK", "COLD_QUICK", "DRIVERS_QUICK"):
            monkeypatch.setattr(hosted, name, 1)
        figures = hosted.measure(Plan(tmp_path, quick=True, say=lambda line: None))
        named = {figure.name for figure in figures}
        missing = {name for name in read_goals()["hosted"] if name not in named}
        assert named <= read_goals()["hosted"].keys()
        assert all("bwrap" in name or "dask" in name for name in missing)  # where they are not installed
        assert all(figure.value > 0 for figure in figures)
