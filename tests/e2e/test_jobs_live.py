"""Jobs on a live mesh: by the operator's command where it can say it, while hosts and brokers are killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live import COMPLETED, EXIT_3, FAILED, SAY_HI, SPIN, eventually, log_of, offgrid

from offgrid.client import OffgridError, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.local_mesh import LocalMesh, LocalNode

pytestmark = pytest.mark.xdist_group("mesh")

TEXT = "to be or not to be\nthat is the question\n"
RUNNING = jobs_pb2.JOB_STATE_RUNNING
RETRIES_S = 14.0  # 2, 4 and 8 s: promised to users, then NoHostsAvailable


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "hamlet.txt"
    file.write_text(TEXT)
    return file


@dataclass(frozen=True)
class Hopeless:
    """A job for a command that no host offers; it needs its time to say so."""

    job_id: str


@pytest.fixture(scope="module", autouse=True)
def hopeless(mesh: LocalMesh) -> Iterator[Hopeless]:
    """Sent first and looked at last: its retries pass while the others are tested."""
    with mesh["core"].client() as core:
        task = core.tasks.create(core.missions.create("hopeless").mission_id, "hopeless", "compute")
        job = core.jobs.create(task.task_id, payloads.command("nosuch"))
        core.jobs.dispatch(job.job_id)
        yield Hopeless(job.job_id)


def job_of(out: str) -> dict[str, object]:
    job = json.loads(out)["job"]
    assert isinstance(job, dict)
    return job


def completions(core: LocalNode, job_id: str) -> int:
    with core.client() as client:
        return len(list(client.events.list(subject=job_id, types=["JOB_COMPLETED"])))


class TestTheCommand:
    def test_runs_a_module_on_a_file(self, mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
        module = tmp_path / "stats.wat"
        module.write_bytes(programs.load("textstats"))
        done = offgrid(mesh["core"], "job", "run", text, "--wasm", module)
        assert done.code == 0, done.said
        assert "words 10" in done.out, done.said
        assert "receipt      signed by host-" in done.out, done.said

    def test_runs_a_listed_program_and_keeps_its_output(self, mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
        kept = tmp_path / "out.txt"
        done = offgrid(mesh["core"], "job", "run", text, "--command", "wc", "--output", kept, "--json", "--", "-w")
        assert done.code == 0, done.said
        assert kept.read_text().split() == ["10"]
        with mesh["core"].client() as client:
            (job,) = [job for job in client.jobs.list() if job.input_name == "hamlet.txt" and job.needs == "process:wc"]
            job = client.jobs.get(job.job_id)
        facts = job.result.receipt.facts
        assert job.host == facts.node_id
        assert mesh.by_id(job.host).roles == ("host",)
        assert facts.compute_tokens_m > 0
        assert facts.latency_ms > 0
        assert facts.executor.startswith("process:wc@")

    def test_says_when_the_program_failed(self, mesh: LocalMesh, text: Path) -> None:
        done = offgrid(
            mesh["core"], "job", "run", text, "--command", "sh", "--", "-c", "echo so far; echo why >&2; exit 3"
        )
        assert done.code == 1, done.said
        for fact in ("ExecutionFailed", "exit code 3", "so far", "why"):
            assert fact in done.out, done.said

    def test_says_when_a_module_failed(self, mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
        module = tmp_path / "three.wat"
        module.write_bytes(EXIT_3)
        done = offgrid(mesh["core"], "job", "run", text, "--wasm", module)
        assert done.code == 1, done.said
        assert "exit code 3" in done.out, done.said

    def test_says_when_the_time_is_over(self, mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
        module = tmp_path / "spin.wat"
        module.write_bytes(SPIN)
        done = offgrid(mesh["core"], "job", "run", text, "--wasm", module, "--timeout", "0.5")
        assert done.code == 1, done.said
        assert "JobTimeout" in done.out, done.said

    def test_refuses_a_kind_that_does_not_exist(self, mesh: LocalMesh) -> None:
        with mesh["core"].client() as client:
            mission = client.missions.create("kinds").mission_id
        done = offgrid(mesh["core"], "task", "create", mission, "x", "--kind", "compute-ish")
        assert done.code == 2, done.said
        assert "compute" in done.err, done.said

    def test_refuses_what_is_no_module(self, mesh: LocalMesh, text: Path) -> None:
        done = offgrid(mesh["core"], "job", "run", text, "--wasm", text)
        assert done.code == 2, done.said
        assert f"--wasm: {text} is no WebAssembly" in done.err, done.said

    def test_tells_what_its_host_found_wrong_with_a_module(self, mesh: LocalMesh, text: Path, tmp_path: Path) -> None:
        (tmp_path / "broken.wasm").write_bytes(b"\0asm and nothing of the kind")
        done = offgrid(mesh["core"], "job", "run", text, "--wasm", tmp_path / "broken.wasm")
        assert done.code == 1, done.said
        assert "ExecutionFailed" in done.out, done.said


class TestTheDeathOfAHost:
    def test_in_the_middle_of_a_job(self, mesh: LocalMesh) -> None:
        core = mesh["core"]
        with core.client() as client:
            task = client.tasks.create(client.missions.create("d").mission_id, "d", "compute").task_id
            job = client.jobs.create(task, payloads.command("sh", ["-c", "sleep 2; cat"], input=b"alive"))
            client.jobs.dispatch(job.job_id)
            eventually(lambda: client.jobs.get(job.job_id).state == RUNNING, "the job runs")
            victim = mesh.by_id(client.jobs.get(job.job_id).host)
            victim.kill()
            *_, ended = client.jobs.watch(job.job_id)
        assert ended.state == COMPLETED, (ended.error, ended.error_detail)
        assert ended.result.output == b"alive"
        assert ended.host != victim.node_id
        assert ended.attempt > 1
        assert completions(core, job.job_id) == 1
        victim.run("run")
        victim.wait_ready()
        mesh.wait_alive()
        mesh.wait_offers(3)


def test_that_no_host_offers_it_is_said_while_it_waits(mesh: LocalMesh) -> None:
    with mesh["core"].client() as core:
        task = core.tasks.create(core.missions.create("soon").mission_id, "soon", "compute")
        job = core.jobs.create(task.task_id, payloads.command("nobody-has-it"))
        core.jobs.dispatch(job.job_id)
        told = next(seen for seen in core.jobs.watch(job.job_id) if seen.waiting)
        core.jobs.cancel([job.job_id])
    assert told.waiting.startswith("up to 14 s for a host: no live host offers 'process:nobody-has-it'"), told.waiting
    assert '[host.process] commands = { nobody-has-it = "/usr/bin/nobody-has-it" }' in told.waiting


def test_no_host_for_it_is_said_after_three_retries(mesh: LocalMesh, hopeless: Hopeless) -> None:
    done = offgrid(mesh["core"], "job", "watch", hopeless.job_id, timeout_s=2 * RETRIES_S)
    assert done.code == 1, done.said
    assert "NoHostsAvailable" in done.out, done.said
    assert "process:nosuch" in done.out, done.said
    with mesh["core"].client() as client:
        job = client.jobs.get(hopeless.job_id)
    assert job.state == FAILED
    for node in mesh.nodes.values():
        log_of(node)


class TestDeathsThatCutTheRoad:
    def test_of_the_broker(self, mesh: LocalMesh, text: Path) -> None:
        """A job that runs goes on; new ones take the local queue, or are refused where the mesh is insisted on."""
        core, broker = mesh["core"], mesh["broker"]
        with core.client() as client:
            task = client.tasks.create(client.missions.create("b").mission_id, "b", "compute").task_id
            before = client.jobs.create(task, payloads.command("sh", ["-c", "sleep 1; echo done"]))
            client.jobs.dispatch(before.job_id)
            eventually(lambda: client.jobs.get(before.job_id).state == RUNNING, "the job runs")
            broker.kill()
            *_, ended = client.jobs.watch(before.job_id)
            assert ended.state == COMPLETED

            eventually(lambda: self.is_seen_dead(core, broker), "the broker is seen dead")
            after = client.jobs.create(task, payloads.wasm(SAY_HI))
            sent = client.jobs.dispatch(after.job_id)
            assert (sent.route, sent.reason) == (jobs_pb2.ROUTE_FILE_QUEUE, "no broker of the mesh is alive")
            *_, ended = client.jobs.watch(after.job_id)
            assert (ended.state, ended.host, ended.result.output) == (COMPLETED, core.node_id, b"hi")
            assert ended.result.receipt.facts.node_id == core.node_id

            insisting = client.jobs.create(task, payloads.wasm(SAY_HI))
            with pytest.raises(OffgridError) as refused:
                client.jobs.dispatch(insisting.job_id, "offgrid")
            assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "BrokerUnavailable")
        done = offgrid(core, "job", "dispatch", insisting.job_id, "--mode", "offgrid", timeout_s=30)
        assert done.code == 5, done.said
        assert "--mode auto" in done.err, done.said

        broker.run("run")
        broker.wait_ready()
        mesh.wait_alive()
        mesh.wait_offers(3)
        done = offgrid(core, "job", "dispatch", insisting.job_id, "--mode", "offgrid")
        assert done.code == 0, done.said

    def is_seen_dead(self, by: LocalNode, node: LocalNode) -> bool:
        with by.client() as client:
            return any(p.member.node_id == node.node_id and p.liveness == 3 for p in client.mesh.peers())

    def test_of_the_core_with_jobs_under_way(self, mesh: LocalMesh) -> None:
        """What it has acknowledged it finishes after its restart, once."""
        core = mesh["core"]
        with core.client() as client:
            task = client.tasks.create(client.missions.create("c").mission_id, "c", "compute").task_id
            jobs = [client.jobs.create(task, payloads.command("sh", ["-c", "sleep 1; echo x"])) for _ in range(4)]
            for job in jobs:
                client.jobs.dispatch(job.job_id)
        core.kill()
        core.run("run")
        core.wait_ready()
        mesh.wait_alive()
        with core.client() as client:
            for job in jobs:
                *_, ended = client.jobs.watch(job.job_id)
                assert (ended.state, ended.result.output) == (COMPLETED, b"x\n"), (ended.error, ended.error_detail)
                assert completions(core, job.job_id) == 1
