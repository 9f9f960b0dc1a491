"""Redundant jobs and the drop folder with real processes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from conftest import MakeMesh
from live import COMPLETED, eventually, offgrid

from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh


@pytest.mark.xdist_group("mesh")
def test_three_hosts_do_a_job_and_those_who_agree_are_paid(mesh: LocalMesh, tmp_path: Path) -> None:
    text = tmp_path / "hamlet.txt"
    text.write_text("to be or not to be\n")
    arguments = ("--command", "wc", "--replicas", "3", "--quorum", "3")
    done = offgrid(mesh["core"], "--json", "job", "run", text, *arguments, "--", "-w")
    assert done.code == 0, done.said
    job_id = json.loads(done.out)["job"]["job_id"]
    with mesh["core"].client() as client:
        job, executions = client.jobs.get(job_id), client.jobs.executions(job_id)
    assert job.result.output.split() == [b"6"]
    assert len({each.host for each in executions}) == 3
    assert [each.agreed for each in executions] == [True] * 3
    assert job.price_micro == sum(each.price_micro for each in executions)


def test_another_program_carries_out_what_a_lone_node_cannot(make_mesh: MakeMesh, tmp_path: Path) -> None:
    drops = tmp_path / "webrelay_out"
    node = make_mesh({"lone": ["core"]}, jobs__drop_dir=str(drops))["lone"]
    with node.client() as client:
        task = client.tasks.create(client.missions.create("m").mission_id, "t", "compute")
        job = client.jobs.create(task.task_id, payloads.command("upper", input=b"quiet"))
        client.jobs.dispatch(job.job_id)
        file = drops / f"{job.job_id}.job.json"
        eventually(file.exists, "the job lies in the folder")
        said = json.loads(file.read_text())
        assert (said["needs"], base64.b64decode(said["payload"]["input"])) == ("process:upper", b"quiet")
        node.kill()
        node.run("run")
        node.wait_ready()
        answer = {"status": "completed", "output_base64": base64.b64encode(b"QUIET").decode()}
        (drops / f"{job.job_id}.result.json").write_text(json.dumps(answer))
    with node.client() as client:
        eventually(lambda: client.jobs.get(job.job_id).state == COMPLETED, "the job ends by its result")
        assert client.jobs.get(job.job_id).result.output == b"QUIET"
    eventually(lambda: not list(drops.iterdir()), "the folder is empty again")
