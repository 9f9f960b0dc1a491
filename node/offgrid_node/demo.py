"""`offgrid-node demo`: everything at work on this machine, in one command and under a minute.

One core, one broker and three hosts, each a process of its own. A job counts a real text; during a second one the
host that won is killed (kill -9) and another finishes it. Then the demo says where everything went and stops.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from offgrid.client import Client, OffgridError, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.protocol.errors import InvalidRequest, Unavailable
from offgrid_node.protocol.jobs.needs import INPUT_BYTES_MAX

NODES = {"core": ["core"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
LONG_JOB_S = 4.0  # long enough to be killed in the middle on a fast machine
LONG_JOB_TIMEOUT_MS = 180_000  # a small board counts ten times slower
BYTES_PER_S = 370_000_000  # what the program counts a second on a laptop, roughly
PASS_BYTES = 4  # what beginning a pass costs, in bytes counted: an empty file takes time too
EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells have it
PROGRAM = "textstats"
RUNNING, COMPLETED = jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_COMPLETED


def demonstrate(file: Path | None, *, keep: bool, folder: Path | None) -> int:
    """Returns the exit code: 0 when everything went as it should. Raises a Fault for a file that cannot be used."""
    name, text = read_input(file)
    home = folder or Path(tempfile.mkdtemp(prefix="offgrid-demo-"))
    show = Show()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # through the `with`: nodes are stopped first
    well = False
    try:
        with LocalMesh(home, "demo", NODES) as mesh:
            try:
                well = _story(mesh, show, name, text)
            except (Unavailable, OffgridError) as error:
                show.line(str(error))
            if keep and well:
                folder = None
                _keep(mesh, show, home)
                return 0
            well = _stopped(mesh, show) and well
    finally:
        if not well or folder is not None:
            show.line(f"everything is in {home}")
        elif not keep:
            shutil.rmtree(home, ignore_errors=True)
    show.line("done." if well else "the demo did NOT go as it should; the nodes' logs say why.")
    return 0 if well else 1


def _stopped(mesh: LocalMesh, show: Show) -> bool:
    with show.step("stopping the five nodes"):
        codes = mesh.stop()
    late = [node for node, code in codes.items() if code is None]
    if late:
        show.line(f"had to be killed: {', '.join(late)}")
    return not late


def read_input(file: Path | None) -> tuple[str, bytes]:
    """Name and content of the file, or of the text that ships with the node."""
    if file is None:
        return "demo_text.txt", (resources.files("offgrid_node") / "demo_text.txt").read_bytes()
    try:
        with file.open("rb") as source:
            text = source.read(INPUT_BYTES_MAX + 1)  # a device or pipe does not say how much it holds
    except OSError as error:
        raise InvalidRequest(f"{file}: {error.strerror}") from error
    if len(text) > INPUT_BYTES_MAX:
        raise InvalidRequest(f"{file}: too large; a job's input may have {INPUT_BYTES_MAX} bytes")
    return file.name, text


class Show:
    """Lines for a person, with the time since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def line(self, text: str = "") -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def title(self, text: str) -> None:
        self.line(f"\n[{time.monotonic() - self._began:5.1f} s] {text}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        self.title(f"{text} …")
        began = time.monotonic()
        yield
        self.line(f"    {time.monotonic() - began:.1f} s")


def _story(mesh: LocalMesh, show: Show, name: str, text: bytes) -> bool:
    with show.step("starting one core, one broker and three hosts, each a process of its own"):
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
    for node in mesh.nodes.values():
        assert node.process is not None
        show.line(f"    {node.name:7} {node.node_id}  pid {node.process.pid:<7} {node.folder}")
    with mesh["core"].client(timeout_s=30) as core:
        show.title(f"job 1: count {name} ({len(text):,} bytes) in a WebAssembly sandbox")
        first = core.jobs.run(payloads.wasm(programs.load(PROGRAM), input=text, input_name=name), title="demo")
        ok = _show_result(mesh, show, first)
        same = first.result.output == _count(text)
        show.line(f"    counted again here: {'the same' if same else 'NOT THE SAME'}")
        second = _killed(mesh, show, core, name, text, first)
        ok = _show_result(mesh, show, second) and ok and same and second.attempt > 1
        ok = ok and second.result.output == first.result.output
        _show_trail(mesh, show, core, second)
    return ok


def _killed(mesh: LocalMesh, show: Show, core: Client, name: str, text: bytes, first: jobs_pb2.Job) -> jobs_pb2.Job:
    passes = max(2, round(LONG_JOB_S * BYTES_PER_S / (len(text) + PASS_BYTES)))
    show.title(f"job 2: the same, {passes:,} times over; its host will be killed in the middle")
    payload = payloads.wasm(programs.load(PROGRAM), [str(passes)], input=text, input_name=name)
    task_id = first.task_id
    job = core.jobs.create(task_id, payload, timeout_ms=LONG_JOB_TIMEOUT_MS)
    core.jobs.dispatch(job.job_id)
    while (job := core.jobs.get(job.job_id)).state != RUNNING:
        if job.state > RUNNING:
            return job
        time.sleep(0.02)
    winner = mesh.by_id(job.host)
    time.sleep(LONG_JOB_S / 8)
    assert winner.process is not None
    show.line(f"    {winner.name} has it; kill -9 {winner.process.pid}")
    winner.kill()
    killed = time.monotonic()
    for seen in core.jobs.watch(job.job_id):
        job = seen
        if job.state == jobs_pb2.JOB_STATE_AWARDED and job.host != winner.node_id:
            show.line(f"    given to {mesh.by_id(job.host).name} {time.monotonic() - killed:.1f} s later")
    return job


def _show_result(mesh: LocalMesh, show: Show, job: jobs_pb2.Job) -> bool:
    if job.state != COMPLETED:
        show.line(f"    FAILED: {job.error}: {job.error_detail}")
        return False
    facts = job.result.receipt.facts
    host = mesh.by_id(facts.node_id).name
    show.line(f"    result   {', '.join(job.result.output.decode(errors='replace').split(chr(10))[:4])}")
    show.line(
        f"    receipt  signed by {host} ({facts.node_id[:8]}…), checked by the core: attempt {facts.attempt}, "
        f"{facts.compute_tokens_m:.6f} M tokens, {facts.latency_ms:.1f} ms, {facts.price_micro} micro-units"
    )
    show.line(f"             result digest {facts.result_digest.hex()[:32]}…, executor {facts.executor}")
    return True


def _show_trail(mesh: LocalMesh, show: Show, core: Client, job: jobs_pb2.Job) -> None:
    show.title("where everything went")
    names = {node.node_id: node.name for node in mesh.nodes.values()}
    for attempt in job.attempts:
        show.line(f"    attempt {attempt.number}: {names.get(attempt.host, attempt.host):7} {attempt.outcome}")
    for name, client in (("core", core), ("broker", mesh["broker"].client())):
        trail = [f"#{event.seq} {event.type}" for event in client.events.list(subject=job.job_id)]
        show.line(f"    {name}'s journal on job 2: {' → '.join(trail)}")
    for node in mesh.nodes.values():
        show.line(f"    {node.name:7} store {node.folder / 'data' / 'memory.db'}, log {node.log_path}")


def _keep(mesh: LocalMesh, show: Show, home: Path) -> None:
    """Leaves the mesh running, with lines to copy."""
    core = mesh["core"]
    pids = [str(node.process.pid) for node in mesh.nodes.values() if node.process is not None and node.alive]
    socket = core.socket.removeprefix("unix:")
    show.title("the mesh stays up; try")
    for line in (
        f"offgrid --socket {socket} status",
        f"offgrid --socket {socket} peers",
        f"offgrid --socket {socket} job list",
        f"grpcurl -plaintext -unix {socket} list",
        f"grpcurl -plaintext -unix {socket} offgrid.v1.JobService/ListJobs",
    ):
        show.line(f"    {line}")
    show.line(f"everything is in {home}")
    show.line(f"stop it with: kill {' '.join(pids)}")
    for node in mesh.nodes.values():
        node.process = None  # theirs now: leaving the `with` block must not stop them


def _count(text: bytes) -> bytes:
    """What the program says, worked out here: a check that does not trust the hosts."""
    words = len(text.split())
    lines = text.count(b"\n")
    longest = max((len(line) for line in text.split(b"\n")), default=0)
    digest = 0xCBF29CE484222325
    for byte in text:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"lines {lines}\nwords {words}\nbytes {len(text)}\nlongest_line {longest}\nfnv1a64 {digest:016x}\n".encode()
