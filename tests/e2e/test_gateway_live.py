"""The gateway of a real node: what its document says, a job and an object by `curl`, and how fast it answers."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from live import GIVE_UP_S, eventually, mesh_of, promised, run

from offgrid.client import connect, payloads
from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.checkout.environment import ROOT
from offgrid_tools.soak.http_cases import wrong_answers

SHELL = """command -v jq >/dev/null || jq() {
  python3 -c 'import json, sys; print(list(list(json.load(sys.stdin).values())[0].values())[0])'; }"""
CURL = shutil.which("curl") or ""
pytestmark = pytest.mark.skipif(not CURL, reason="no curl")


@pytest.fixture(scope="module")
def only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    roles = {"only": ["core", "broker", "host"]}
    with mesh_of(tmp_path_factory.mktemp("gateway"), roles, gateway__listen="127.0.0.1:0") as mesh:
        yield mesh


@pytest.fixture(scope="module")
def url(only: LocalMesh) -> str:
    with only["only"].client() as client:
        return client.mesh.status().gateway


def curl(*arguments: str | Path) -> bytes:
    argv = [CURL, "--silent", "--show-error", "--max-time", str(GIVE_UP_S), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(curl("--data", json.dumps(body), address))
    assert "error" not in found, found
    return found


def test_a_job_from_mission_to_result(only: LocalMesh, url: str) -> None:
    only.wait_offers(1)
    mission = post(f"{url}/v1/missions", {"title": "letters"})["mission"]
    task = post(f"{url}/v1/tasks", {"mission_id": mission["mission_id"], "name": "count", "kind": "compute"})["task"]
    payload = {"builtin": {"name": "echo"}, "input": "aGVsbG8="}
    job = post(f"{url}/v1/jobs", {"task_id": task["task_id"], "job": {"payload": payload}})["job"]
    assert post(f"{url}/v1/jobs/{job['job_id']}:dispatch", {})["route"] == "ROUTE_OFFGRID"
    lines = curl("--no-buffer", f"{url}/v1/jobs/{job['job_id']}:watch").splitlines()
    assert json.loads(lines[-1])["job"]["state"] == "JOB_STATE_COMPLETED"
    listed = json.loads(curl(f"{url}/v1/jobs?task_id={task['task_id']}&states=JOB_STATE_COMPLETED"))["jobs"]
    assert [each["job_id"] for each in listed] == [job["job_id"]]


def test_a_program_elsewhere_sends_jobs_by_the_hundred(url: str) -> None:
    with connect(url) as client:
        jobs = [client.jobs.submit(payloads.builtin(input=f"{number}".encode())) for number in range(100)]
        assert [job.result(60).result.output for job in jobs] == [f"{number}".encode() for number in range(100)]


def test_a_file_goes_up_and_comes_back(url: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.write_bytes(bytes(range(256)) * 20_000)
    assert (
        json.loads(curl("--upload-file", here, f"{url}/v1/objects/photos/a.jpg"))["object"]["size_bytes"] == 5_120_000
    )
    curl("--output", there, f"{url}/v1/objects/photos/a.jpg:bytes")
    assert there.read_bytes() == here.read_bytes()
    there.write_bytes(here.read_bytes()[:1_000_000])
    curl("--continue-at", "-", "--output", there, f"{url}/v1/objects/photos/a.jpg:bytes")
    assert there.read_bytes() == here.read_bytes()


def test_every_line_of_the_manual_works(only: LocalMesh, url: str, tmp_path: Path) -> None:
    only.wait_offers(1)
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks[0].startswith("node=http://127.0.0.1:8001")
    script = "\n".join([SHELL, f"node={url}", *blocks[1:]])
    done = run(["bash", "-euc", f"cd {tmp_path}\n{script}"])
    assert done.code == 0, done.said
    lines = [json.loads(line) for line in done.out.splitlines() if line]
    assert not [line for line in lines if "error" in line]
    assert [line["job"]["state"] for line in lines if "job" in line][-1] == "JOB_STATE_COMPLETED"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_of_this_machine_is_not_served(url: str, tmp_path: Path) -> None:
    backup = json.dumps({"path": str(tmp_path / "x.zip")})
    for path, body in (("/v1/invites", "{}"), ("/v1/backups", backup)):
        os.seteuid(65534)
        try:
            theirs = socket.socket()  # it is theirs from now on
        finally:
            os.seteuid(0)
        with theirs:
            theirs.connect(("127.0.0.1", urlsplit(url).port))
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = theirs
            connection.request("POST", path, body)
            error = json.loads(connection.getresponse().read())["error"]
        assert (error["code"], error["details"][0]["reason"]) == (401, "OtherUser")
    assert not (tmp_path / "x.zip").exists()


def test_no_request_that_the_document_allows_or_forbids_meets_a_defect(url: str) -> None:
    assert wrong_answers(url, seed=0, rounds=1, every=8) == []


def test_an_answer_takes_three_milliseconds(url: str) -> None:
    place = urlsplit(url)
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=GIVE_UP_S)) as connection:

        def took_s() -> float:
            began = time.perf_counter()
            connection.request("GET", "/v1/status")
            with connection.getresponse() as answer:
                assert answer.read()
            return time.perf_counter() - began

        def whole() -> bool:
            return statistics.median(took_s() for _ in range(50)) <= promised(0.003)

        eventually(whole, "GET /v1/status in 3 ms")
