"""Files in and out of a job, and what it says while it runs, through real processes; nothing in clear at the host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from live import COMPLETED, GIVE_UP_S

from offgrid.client import payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh

MARKER = b"og-marker-of-files-9c1d"
NODES = {"core": ["core"], "broker": ["broker"], "host": ["host"]}
SCRIPT = """
mkdir out; sort words/*.txt > out/sorted; cp out/sorted not-asked-for
echo "::progress 0.5 sorted" >&2; echo "a line of the log" >&2
while [ ! -e /nowhere ] && [ $((n = ${n:-0} + 1)) -lt 12 ]; do sleep 0.1; done
"""


def test_files_go_in_and_out_and_the_owner_hears_how_far_it_is(make_mesh: Callable[..., LocalMesh]) -> None:
    mesh = make_mesh(NODES, host__process__commands={"sh": "/bin/sh"})
    mesh.wait_offers(1)
    heard: list[jobs_pb2.JobProgress] = []
    with mesh["core"].client() as client:
        files = {"words/a.txt": b"c\n" + MARKER + b"\n", "words/b.txt": b"b\n"}

        def listen(job: jobs_pb2.Job) -> None:
            if job.state == jobs_pb2.JOB_STATE_RUNNING and not listeners:
                thread = threading.Thread(target=lambda: heard.extend(client.jobs.progress(job.job_id)))
                thread.start()
                listeners.append(thread)

        listeners: list[threading.Thread] = []
        job = client.jobs.run(payloads.command("sh", ["-c", SCRIPT]), files=files, outputs=["out/*"], on_change=listen)
        for thread in listeners:
            thread.join(GIVE_UP_S)
        assert job.state == COMPLETED, job
        [left] = job.result.files
        assert (left.name, left.size_bytes) == ("out/sorted", len(MARKER) + 5)
        assert client.jobs.files(job) == {"out/sorted": b"b\nc\n" + MARKER + b"\n"}
    assert any(said.HasField("fraction") and said.fraction == 0.5 and said.message == "sorted" for said in heard)
    assert b"a line of the log" in b"".join(said.log for said in heard)
    assert [path for node in ("host", "broker") for path in with_marker(mesh[node].folder)] == []


def with_marker(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and MARKER in path.read_bytes()]
