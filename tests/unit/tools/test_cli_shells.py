"""Real shells, at a terminal, complete what is typed: commands, options, files, and what the node and the user have."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from small_node import SmallNode
from typed_shell import SHELLS, TypedShell

from offgrid.v1 import jobs_pb2
from offgrid_tools.cli import run

HERE = [shell for shell in SHELLS if shutil.which(shell)]


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TypedShell]:
    if request.param not in HERE:
        pytest.skip(f"there is no {request.param} here")
    folder = tmp_path_factory.mktemp(request.param)
    with CliRunner().isolation() as (out, _, _):
        run(["completion", request.param])
        script = out.getvalue().decode()
    (folder / "offgrid").mkdir()
    contexts = {"current": "", "contexts": {"lab": {"node_dir": "/x"}, "field": {"node_dir": "/y"}}}
    (folder / "offgrid" / "contexts.json").write_text(json.dumps(contexts))
    (folder / "notes of mine.txt").write_text("")
    (folder / "offgrid-mesh").mkdir()
    plan = {"mesh": "m", "nodes": [{"name": n, "roles": ["host"], "port": 1, "door_port": 2} for n in ("core", "barn")]}
    (folder / "offgrid-mesh" / "mesh.json").write_text(json.dumps(plan))
    with TypedShell(request.param, folder, script) as typing:
        yield typing


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("offgrid jo\twh\tj-1", ["job", "why", "j-1"]),
        ("offgrid job list --sta\tfai\t", ["job", "list", "--state", "failed"]),
        ("offgrid --context l\tstatus", ["--context", "lab", "status"]),
        ("offgrid put note\t", ["put", "notes of mine.txt"]),
        ("offgrid-node dow\tba\t", ["down", "barn"]),
        ("offgrid-node rotate id\t--dir x", ["rotate", "identity", "--dir", "x"]),
        ("offgrid events --type=JOB_CRE\t", ["events", "--type=JOB_CREATED"]),
    ],
)
def test_words_files_and_names_are_completed(shell: TypedShell, line: str, words: list[str]) -> None:
    assert shell.typed(f"{line}\n") == words


def test_what_the_node_has_is_completed(shell: TypedShell, node: SmallNode) -> None:
    node.jobs["j-4kq7"] = jobs_pb2.Job(job_id="j-4kq7", state=jobs_pb2.JOB_STATE_RUNNING)
    where = ["--socket", node.address]
    assert shell.typed(f"offgrid {' '.join(where)} job show j-\t\n") == [*where, "job", "show", "j-4kq7"]
    assert shell.typed(f"offgrid {' '.join(where)} ping att\t\n") == [*where, "ping", "attic"]
