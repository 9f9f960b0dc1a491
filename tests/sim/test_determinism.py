"""A seed is a whole run: the same bytes from every process, whatever Python's hash seed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from offgrid_tools.sim.main import run, simulate, sweep
from offgrid_tools.sim.plan import HOME, TALK_MESH, draw
from offgrid_tools.sim.vices import LIES

PROGRAM = (
    "import sys; from offgrid_tools.sim.main import run; "
    "sys.exit(run(seed=int(sys.argv[1]), mesh=sys.argv[2], json=True))"
)


def in_a_process(seed: int, hash_seed: str, mesh: str = HOME) -> bytes:
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seed), mesh], env=env, capture_output=True, check=True, timeout=60
    )
    return done.stdout


def test_processes_with_other_hash_seeds_print_the_same_bytes() -> None:
    eventful = next(seed for seed in range(100) if draw(seed).joins and draw(seed).having(LIES) and draw(seed).payments)
    first, second = (in_a_process(eventful, hash_seed) for hash_seed in ("0", "4711"))
    assert first == second
    assert json.loads(first)["trace"] == simulate(eventful).trace


def test_so_does_another_process_of_sessions() -> None:
    assert json.loads(in_a_process(3, "1", TALK_MESH))["trace"] == simulate(3, mesh=TALK_MESH).trace


def test_seeds_differ() -> None:
    assert simulate(0, mesh=TALK_MESH).trace != simulate(7, mesh=TALK_MESH).trace


def test_a_violation_is_printed_with_its_seed_and_exits_non_zero() -> None:
    out = io.StringIO()
    assert run(0, out=out, mutant="reply-before-commit") == 1
    assert "VIOLATION" in out.getvalue()
    assert "--seed 0" in out.getvalue()


def test_a_sound_seed_exits_zero() -> None:
    out = io.StringIO()
    assert run(0, json=True, out=out) == 0
    assert json.loads(out.getvalue())["violation"] == ""


def test_the_trace_tells_what_happened_and_does_not_change_it(tmp_path: Path) -> None:
    told = simulate(3, trace=tmp_path / "trace.txt")
    assert told == simulate(3)
    lines = (tmp_path / "trace.txt").read_text().splitlines()
    assert any("SubmitJobs" in line for line in lines)
    assert any("PushBlocks" in line for line in lines)
    assert any("nemesis" in line for line in lines)


def test_a_sweep_in_processes_finds_what_a_sweep_in_one_finds() -> None:
    assert sweep(range(2), mesh=TALK_MESH, jobs=2) == sweep(range(2), mesh=TALK_MESH)
