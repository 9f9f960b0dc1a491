"""The commands that look after jobs, on a live mesh: sent, followed, taken back, explained, and proved afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, Done, eventually, offgrid, run

from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh

pytestmark = pytest.mark.xdist_group("mesh")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text("one two three\n")
    return path


def submitted(mesh: LocalMesh, text: Path, *script: str) -> str:
    """The id of a job that runs a shell's script."""
    done = offgrid(mesh["core"], "job", "submit", text, "--command", "sh", "--json", "--", "-c", *script)
    assert done.code == 0, done.said
    return str(json.loads(done.out)["job"]["job_id"])


def anywhere(*arguments: str | Path) -> Done:
    """A command that has no node to ask."""
    return run([BIN / "offgrid", "--socket", "unix:/nonexistent/offgrid.sock", *arguments])


def test_a_receipt_is_proved_without_any_node(mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
    core, out, file = mesh["core"], tmp_path / "out", tmp_path / "receipt.json"
    ran = offgrid(core, "job", "run", text, "--command", "wc", "--output", out, "--json", "--", "-w")
    job = json.loads(ran.out)["job"]
    with core.client() as client:
        mesh_id = client.mesh.status().mesh_id
    assert offgrid(core, "job", "receipt", job["job_id"], "--output", file).code == 0
    proved = anywhere("job", "verify-receipt", file, "--mesh", mesh_id, "--result", out, "--json")
    assert proved.code == 0, proved.said
    told = json.loads(proved.out)
    assert (told["valid"], told["facts"]["job_id"]) == (True, job["job_id"])
    assert told["facts"]["node"] == job["host"]
    assert told["facts"]["output_bytes"] == len(out.read_bytes())
    assert told["facts"]["latency_us"] > 0

    whole = json.loads(file.read_text())
    whole["facts"]["price_micro"] += 1
    file.write_text(json.dumps(whole))
    out.write_text("4")
    refused = anywhere("job", "verify-receipt", file, "--result", out, "--mesh", "a" * 12, "--json")
    assert refused.code == 1, refused.said
    assert [p["field"] for p in json.loads(refused.out)["problems"]] == ["mesh.id", "facts.price_micro", "result"]


def test_files_go_along_and_come_back_with_the_proof(mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
    core, out, file = mesh["core"], tmp_path / "out", tmp_path / "receipt.json"
    script = "mkdir made; tr a-z A-Z < names/given.txt > made/upper.txt; echo done"
    ran = offgrid(
        core, "job", "run", text, "--command", "sh", "--file", f"names/given.txt={text}", "--output-file", "made/*",
        "--save-files", tmp_path / "left", "--output", out, "--json", "--", "-c", script,
    )  # fmt: skip
    assert ran.code == 0, ran.said
    assert (tmp_path / "left" / "made" / "upper.txt").read_text() == "ONE TWO THREE\n"
    job_id = json.loads(ran.out)["job"]["job_id"]
    assert offgrid(core, "job", "receipt", job_id, "--output", file).code == 0
    assert anywhere("job", "verify-receipt", file, "--result", out).code == 0
    whole = json.loads(file.read_text())
    whole["result"]["files_digest"] = "00" * 32
    file.write_text(json.dumps(whole))
    assert anywhere("job", "verify-receipt", file, "--result", out).code == 1


def test_what_a_job_says_is_followed_while_it_runs(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    job_id = submitted(mesh, text, "echo ::progress 0.5 half way >&2; echo first >&2; sleep 600")
    argv = [BIN / "offgrid", "--node-dir", core.folder, "job", "logs", "--follow", job_id]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        while follower.stdout.readline() not in ("first\n", ""):
            pass
        assert offgrid(core, "job", "cancel", job_id).code == 0
        _, err = follower.communicate(timeout=GIVE_UP_S)
    assert follower.returncode == 1, "it ends as its job did"
    assert "50% half way" in err
    ended = submitted(mesh, text, "echo all of it >&2")
    assert offgrid(core, "job", "watch", ended).code == 0
    assert offgrid(core, "job", "logs", ended).out == "all of it\n"


def test_a_job_is_taken_back_where_it_runs(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    job_id = submitted(mesh, text, "sleep 600")
    with core.client() as client:
        eventually(lambda: client.jobs.get(job_id).state == jobs_pb2.JOB_STATE_RUNNING, "it runs")
        host = mesh.by_id(client.jobs.get(job_id).host)
    cancelled = offgrid(core, "job", "cancel", job_id, "--reason", "thought better of it")
    assert cancelled.out == f"cancelled {job_id}\n", cancelled.said
    watched = offgrid(core, "job", "watch", job_id)
    assert watched.code == 1, watched.said
    assert "thought better of it" in watched.out, watched.said
    with host.client() as client:
        eventually(lambda: client.mesh.status().slots_busy == 0, "its host is free again")
    assert offgrid(core, "job", "cancel", job_id).out == "nothing was open\n"


def test_a_whole_task_is_taken_back(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    first = submitted(mesh, text, "sleep 600")
    with core.client() as client:
        task_id = client.jobs.get(first).task_id
    more = [offgrid(core, "job", "submit", text, "--command", "nosuch", "--task", task_id, "--json") for _ in range(2)]
    ids = {first, *(json.loads(done.out)["job"]["job_id"] for done in more)}
    top = offgrid(core, "job", "top", "--json", "--count", "1", "--limit", "1000")
    assert ids <= {job["job_id"] for job in json.loads(top.out)["jobs"]}, top.said
    assert set(json.loads(offgrid(core, "job", "cancel", "--task", task_id, "--json").out)["job_ids"]) == ids
    shown = json.loads(offgrid(core, "task", "show", task_id, "--json").out)
    assert shown["counts"] == {"cancelled": len(ids)}
    listed = offgrid(core, "job", "list", "--task", task_id, "--state", "cancelled", "--json")
    assert {job["job_id"] for job in json.loads(listed.out)["jobs"]} == ids


def test_one_takes_what_another_has_made(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    first = submitted(mesh, text, "sleep 0.5; cat; echo four")
    with core.client() as client:
        task_id = client.jobs.get(first).task_id
    count = "--command", "wc", "--arg", "-w", "--task", task_id, "--input-from", first
    second = offgrid(core, "job", "run", "-", *count, "--output", "-")
    assert (second.code, second.out.split()) == (0, ["4"]), second.said


def test_one_waits_for_another(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    first = submitted(mesh, text, "sleep 0.5; cat")
    with core.client() as client:
        task_id = client.jobs.get(first).task_id
    second = offgrid(core, "job", "run", text, "--command", "wc", "--task", task_id, "--after", first, "--output", "-")
    assert second.code == 0, second.said
    with core.client() as client:
        assert client.jobs.get(first).state == jobs_pb2.JOB_STATE_COMPLETED


def test_why_says_what_a_job_waits_for_host_by_host(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    hopeless = offgrid(core, "job", "submit", text, "--command", "wc", "--requires", "memory_mb > 99999999", "--json")
    job_id = json.loads(hopeless.out)["job"]["job_id"]
    shown = offgrid(core, "job", "why", job_id)
    assert shown.code == 0, shown.said
    told = json.loads(offgrid(core, "job", "why", job_id, "--json").out)
    hosts = {node.node_id for node in mesh.nodes.values() if node.roles == ("host",)}
    assert {verdict["host"] for verdict in told["verdicts"]} >= hosts, shown.said
    assert not any(verdict["able"] for verdict in told["verdicts"])
    assert all("memory_mb" in v["reason"] for v in told["verdicts"] if v["host"] in hosts), shown.said
    assert told["story"]
    offgrid(core, "job", "cancel", job_id)


def test_what_is_late_expires(mesh: LocalMesh, text: Path) -> None:
    late = offgrid(mesh["core"], "job", "run", text, "--command", "sh", "--deadline", "700ms", "--", "-c", "sleep 600")
    assert late.code == 1, late.said
    assert "expired" in late.out, late.said


def test_a_schedule_is_kept_by_the_core(mesh: LocalMesh, text: Path) -> None:
    core = mesh["core"]
    when = "--timezone", "Europe/Berlin", "--name", "yearly"
    made = offgrid(core, "schedule", "add", "0 3 1 1 *", text, "--command", "wc", *when, "--json")
    assert made.code == 0, made.said
    schedule = json.loads(made.out)["schedule"]
    assert schedule["next_us"] > schedule["created_us"]
    assert offgrid(core, "schedule", "pause", schedule["schedule_id"]).code == 0
    listed = offgrid(core, "schedule", "list")
    assert "paused" in listed.out, listed.said
    assert offgrid(core, "schedule", "rm", schedule["schedule_id"]).code == 0
    wrong = offgrid(core, "schedule", "add", "0 25 * * *", text, "--command", "wc")
    assert wrong.code == 2, wrong.said


def test_a_host_is_emptied_and_takes_work_again(mesh: LocalMesh, text: Path) -> None:
    core, host = mesh["core"], mesh["host-a"]
    try:
        drained = offgrid(host, "host", "drain", "--no-wait", "--json")  # every other host has its copies already
        assert drained.code == 0, drained.said
        assert json.loads(drained.out)["host"]["state"] in ("draining", "drained")
        array = offgrid(core, "job", "array", *[text] * 12, "--command", "wc", "--json")
        assert array.code == 0, array.said
        with core.client() as client:
            hosts = {client.jobs.get(job["job_id"]).host for job in json.loads(array.out)["jobs"]}
        assert host.node_id not in hosts
    finally:
        assert offgrid(host, "host", "toggle", "on").code == 0
    assert "on" in offgrid(host, "host", "show").out.split()[1]
    mesh.wait_offers(3)
