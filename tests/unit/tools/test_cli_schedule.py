"""`offgrid schedule`: made, listed, paused, resumed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_run import Run
from small_node import SmallNode

from offgrid.command_line import exits


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "site.txt"
    path.write_text("one two")
    return str(path)


ADD = "--command", "wc", "--timezone", "Europe/Berlin", "--name", "nightly"


def test_added_it_has_the_jobs_terms_and_a_task(og: Run, node: SmallNode, text: str) -> None:
    more = "--no-overlap", "--catch-up", "--mode", "offgrid", "--priority", "4", "--timeout", "2", "--", "-w"
    code, out, err = og("schedule", "add", "0 3 * * *", text, *ADD, *more)
    assert code == 0, err
    assert "0 3 * * * (Europe/Berlin)" in out
    [made] = node.schedules.values()
    assert (made.no_overlap, made.catch_up, made.mode, made.job.priority, made.job.timeout_ms) == (
        True,
        True,
        2,
        4,
        2000,
    )
    assert (list(made.job.payload.process.args), made.job.payload.input) == (["-w"], b"one two")
    assert node.tasks[made.task_id].name == "nightly"


def test_paused_resumed_listed_and_removed(og: Run, node: SmallNode, text: str) -> None:
    for _ in range(3):
        og("schedule", "add", "0 3 * * *", text, *ADD)
    first, *others = node.schedules
    assert "paused" in og("schedule", "pause", first)[1]
    assert [line.split()[0] for line in og("schedule", "list")[1].splitlines()] == ["SCHEDULE", first, *others]
    assert "paused" in og("schedule", "list")[1]
    told = og.json("schedule", "resume", first)
    assert isinstance(told, dict)
    assert told["schedule"]["paused"] is False
    assert og("schedule", "rm", first) == (0, f"removed {first}\n", "")
    assert og("schedule", "rm", first)[0] == exits.NOT_FOUND
    assert og.json("schedule", "rm", others[0]) == {"schedule_id": others[0]}
    assert list(node.schedules) == others[1:]


def test_what_the_node_refuses_is_named(og: Run, text: str) -> None:
    code, _, err = og("schedule", "add", "often", text, *ADD)
    assert (code, "schedule.cron" in err) == (exits.USAGE, True)
