"""Real input: the words of this project's own documents, counted by arrays of jobs on a live mesh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live import offgrid

from offgrid_node.executors import programs
from offgrid_node.local_mesh import LocalMesh

pytestmark = pytest.mark.xdist_group("mesh")

TEXTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
WORDS = {path.name: len(path.read_bytes().split()) for path in TEXTS}
LINES = {path.name: path.read_bytes().count(b"\n") for path in TEXTS}


def test_by_a_program_into_a_folder(mesh: LocalMesh, tmp_path: Path) -> None:
    done = offgrid(
        mesh["core"], "job", "array", *TEXTS, "--command", "wc", "--arg", "-w", "--outputs", tmp_path, "--json"
    )
    assert done.code == 0, done.said
    told = json.loads(done.out)
    assert (told["completed"], told["failed"]) == (len(TEXTS), 0)
    counted = {name: int((tmp_path / f"{name}.out").read_text()) for name in WORDS}
    assert counted == WORDS
    assert sum(counted.values()) == sum(len(path.read_bytes().split()) for path in TEXTS)
    with mesh["core"].client() as client:
        hosts = {client.jobs.get(job["job_id"]).result.receipt.facts.node_id for job in told["jobs"]}
    assert hosts <= {node.node_id for node in mesh.nodes.values() if node.roles == ("host",)}


def test_by_a_module_to_standard_output_in_order(mesh: LocalMesh, tmp_path: Path) -> None:
    module = tmp_path / "stats.wat"
    module.write_bytes(programs.load("textstats"))
    done = offgrid(mesh["core"], "job", "array", *TEXTS, "--wasm", module)
    assert done.code == 0, done.said
    counts = [int(line.split()[1]) for line in done.out.splitlines() if line.startswith("words ")]
    assert counts == [WORDS[path.name] for path in TEXTS]
    assert f"{len(TEXTS)} completed" in done.err, done.said


def test_by_line(mesh: LocalMesh) -> None:
    text = TEXTS[0]
    done = offgrid(mesh["core"], "job", "array", "--each-line", text, "--command", "wc", "--arg", "-w")
    assert done.code == 0, done.said
    counts = list(map(int, done.out.split()))
    assert counts == [len(line.split()) for line in text.read_bytes().splitlines()]
    assert sum(counts) == WORDS[text.name]
