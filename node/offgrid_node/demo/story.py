"""What the demo tells: the whole road of a job, what it leaves behind, what it costs, and what dies without loss."""

from __future__ import annotations

import time
from functools import partial

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2, ledger_pb2, objects_pb2
from offgrid_node.demo.show import Show, in_credits
from offgrid_node.demo.waiting import PATIENCE_S, until
from offgrid_node.executors import programs
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.quorum.enough import decimal

LONG_JOB_S = 4.0  # long enough to be killed in the middle on a fast machine
LONG_JOB_TIMEOUT_MS = 180_000  # a small board counts ten times slower
BYTES_PER_S = 370_000_000  # what the program counts a second on a laptop, roughly
PASS_BYTES = 4  # what beginning a pass costs, in bytes counted: an empty file takes time too
LARGE_NAME = "the text, many times over"
LARGE_BYTES = 300_000  # over the 64 KiB at which inputs and results become objects
RUNNING, COMPLETED = jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_COMPLETED
FINAL = ledger_pb2.TX_STATE_FINAL


class Story:
    """Told once, to whoever watches `show`."""

    def __init__(self, mesh: LocalMesh, show: Show) -> None:
        self._mesh, self._show = mesh, show

    def tell(self, name: str, text: bytes) -> bool:
        """Whether all went as it should. Raises what the client raises, and TimeoutError."""
        self._start()
        with self._mesh["core"].client(timeout_s=30) as core:
            before = self._open_ledger(core)
            first = self._count(core, name, text)
            second = self._killed_in_the_middle(core, name, text, first)
            third = self._outlived(core, name, text)
            well = self._paid(core, [first, second, third], before)
            self._trail(core, second)
        checks = (
            first.result.output == counted(text),
            second.attempt > 1 and second.result.output == first.result.output,
            third.state == COMPLETED,
            well,
        )
        return all(checks)

    # ---- the chapters

    def _start(self) -> None:
        mesh, show = self._mesh, self._show
        with show.step("starting one core, one broker and three hosts, each a process of its own"):
            mesh.start()
            mesh.wait_alive()
            mesh.wait_offers(3)
        for node in mesh.nodes.values():
            assert node.process is not None
            show.line(f"    {node.name:7} {node.node_id}  pid {node.process.pid:<7} {node.folder}")

    def _open_ledger(self, core: Client) -> dict[str, int]:
        self._show.title("opening the ledger: every node is a witness, every wallet begins with a million credits")
        genesis = core.ledger.open()
        for node in self._mesh.nodes.values():
            with node.client() as client:
                until(partial(_knows_ledger, client), f"{node.name} knows the ledger")
        self._show.line(
            f"    five witnesses; final is what {decimal(genesis.quorum_milli)} of 5.0 have confirmed: "
            f"{genesis.faults_survived} may lie or die"
        )
        return self._balances(core)

    def _count(self, core: Client, name: str, text: bytes) -> jobs_pb2.Job:
        self._show.title(f"job 1: count {name} ({len(text):,} bytes) in a WebAssembly sandbox")
        job = core.jobs.run(payloads.wasm(programs.load("textstats"), input=text, input_name=name), title="demo")
        self._result(job)
        same = job.result.output == counted(text)
        self._show.line(f"    counted again here: {'the same' if same else 'NOT THE SAME'}")
        return job

    def _killed_in_the_middle(self, core: Client, name: str, text: bytes, first: jobs_pb2.Job) -> jobs_pb2.Job:
        passes = max(2, round(LONG_JOB_S * BYTES_PER_S / (len(text) + PASS_BYTES)))
        show = self._show
        show.title(f"job 2: the same, {passes:,} times over; its host will be killed in the middle")
        payload = payloads.wasm(programs.load("textstats"), [str(passes)], input=text, input_name=name)
        job = core.jobs.create(first.task_id, payload, timeout_ms=LONG_JOB_TIMEOUT_MS)
        core.jobs.dispatch(job.job_id)
        job = until(lambda: _at_work(core.jobs.get(job.job_id)), "job 2 runs")
        if job.state > RUNNING:
            return job
        winner = self._mesh.by_id(job.host)
        time.sleep(LONG_JOB_S / 8)
        self._kill(winner, "has it")
        killed = time.monotonic()
        for seen in core.jobs.watch(job.job_id):
            job = seen
            if job.state == jobs_pb2.JOB_STATE_AWARDED and job.host != winner.node_id:
                show.line(f"    given to {self._mesh.by_id(job.host).name} {time.monotonic() - killed:.1f} s later")
        self._result(job)
        with show.step(f"starting {winner.name} again"):
            winner.run("run")
            winner.wait_ready()
            self._mesh.wait_alive()
            self._mesh.wait_offers(3)
        return job

    def _outlived(self, core: Client, name: str, text: bytes) -> jobs_pb2.Job:
        large = (text or b"nothing\n") * -(-LARGE_BYTES // max(1, len(text)))
        show = self._show
        show.title(f"job 3: {len(large):,} bytes made capitals; input and result are too large to travel in messages")
        job = core.jobs.run(
            payloads.wasm(programs.load("upper"), input=large, input_name=LARGE_NAME), task_id=self._task(core)
        )
        if job.state != COMPLETED or not job.result.output_object:
            show.line(f"    FAILED: {job.error or 'the result is no object'}: {job.error_detail}")
            return job
        winner = self._mesh.by_id(job.host)
        self._receipt(job)
        for what, wanted in (("input", LARGE_NAME), ("result", job.result.output_object)):
            self._acked(what, until(partial(_spread, core, wanted), f"{what} is durable"))
        self._payment(core, job)
        self._kill(winner, "made the result")
        same = core.objects.read(job.result.output_object) == large.upper()
        show.line(f"    the result, read back from the others: {'complete' if same else 'NOT THE SAME'}")
        if not same:
            job.state = jobs_pb2.JOB_STATE_FAILED
        return job

    def _paid(self, core: Client, jobs: list[jobs_pb2.Job], before: dict[str, int]) -> bool:
        show = self._show
        show.title("what it cost")
        well = True
        for number, job in enumerate(jobs, 1):
            show.line(f"    job {number}:")
            well = self._payment(core, job) and well
        after = self._balances(core)
        earned = {name: after[name] - before[name] for name in before if after[name] != before[name]}
        changes = (f"{name} {'+' if micro > 0 else '-'}{in_credits(abs(micro))}" for name, micro in earned.items())
        show.line(f"    changed: {', '.join(changes)}")
        answer = core.ledger.balances()
        conserved = sum(after.values()) + answer.fees_micro == answer.supply_micro == sum(before.values())
        show.line(f"    balances and {in_credits(answer.fees_micro)} of fees: {'' if conserved else 'NOT '}the supply")
        return well and conserved and bool(earned)

    def _trail(self, core: Client, job: jobs_pb2.Job) -> None:
        show, mesh = self._show, self._mesh
        show.title("where everything went")
        names = {node.node_id: node.name for node in mesh.nodes.values()}
        for attempt in job.attempts:
            show.line(f"    attempt {attempt.number}: {names.get(attempt.host, attempt.host):7} {attempt.outcome}")
        for name, client in (("core", core), ("broker", mesh["broker"].client())):
            trail = [f"#{event.seq} {event.type}" for event in client.events.list(subject=job.job_id)]
            show.line(f"    {name}'s journal on job 2: {' → '.join(trail)}")
        for node in mesh.nodes.values():
            show.line(f"    {node.name:7} store {node.folder / 'data' / 'memory.db'}, log {node.log_path}")

    # ---- what recurs

    def _task(self, core: Client) -> str:
        return core.tasks.create(core.missions.create("capitals").mission_id, "capitals", "compute").task_id

    def _kill(self, node: LocalNode, why: str) -> None:
        assert node.process is not None
        self._show.line(f"    {node.name} {why}; kill -9 {node.process.pid}")
        node.kill()

    def _result(self, job: jobs_pb2.Job) -> None:
        if job.state != COMPLETED:
            self._show.line(f"    FAILED: {job.error}: {job.error_detail}")
            return
        lines = job.result.output.decode(errors="replace").split("\n")
        self._show.line(f"    result   {', '.join(lines[:4])}")
        self._receipt(job)

    def _receipt(self, job: jobs_pb2.Job) -> None:
        facts = job.result.receipt.facts
        host = self._mesh.by_id(facts.node_id).name
        self._show.line(
            f"    receipt  signed by {host} ({facts.node_id[:8]}…), checked by the core: attempt "
            f"{facts.attempt}, {facts.compute_tokens_m:.6f} M tokens, {facts.latency_ms:.1f} ms, "
            f"{in_credits(facts.price_micro)} credits"
        )
        self._show.line(f"             result digest {facts.result_digest.hex()[:32]}…, executor {facts.executor}")

    def _acked(self, what: str, made: objects_pb2.Object) -> None:
        acks = ", ".join(f"{self._mesh.by_id(ack.node_id).name} {decimal(ack.weight_milli)}" for ack in made.acks)
        self._show.line(
            f"    {what:8} {made.object_id}: {made.size_bytes:,} bytes, sealed; acked by {acks}: "
            f"{decimal(made.acked_milli)} of {decimal(made.required_milli)}; no copy stays at the core"
        )

    def _payment(self, core: Client, job: jobs_pb2.Job) -> bool:
        booking = until(lambda: _promised(core, job.job_id), f"{job.job_id} is promised to its host")
        if not booking.tx_id:
            with self._mesh.by_id(booking.payee).client(timeout_s=30) as host:
                host.ledger.settle()
        booking = until(lambda: _booked(core, job.job_id), f"{job.job_id} is paid")
        tx = core.ledger.settled(booking.tx_id, PATIENCE_S)
        self._show.line(
            f"    paid     {in_credits(booking.amount_micro)} to {self._mesh.by_id(booking.payee).name} for "
            f"{booking.action!r}, fee {in_credits(booking.fee_micro)}: transaction {tx.tx_id[:16]}… is "
            f"{ledger_pb2.TxState.Name(tx.state).removeprefix('TX_STATE_').lower()}, confirmed by "
            f"{decimal(tx.confirmed_milli)} of 5.0"
        )
        return tx.state == FINAL

    def _balances(self, core: Client) -> dict[str, int]:
        found = {balance.name or balance.account: balance.final_micro for balance in core.ledger.balances().balances}
        found = {name: micro for name, micro in found.items() if micro}
        self._show.line(
            f"    balances {', '.join(f'{name} {in_credits(micro)}' for name, micro in sorted(found.items()))}"
        )
        return found


def _at_work(job: jobs_pb2.Job) -> jobs_pb2.Job | None:
    return job if job.state >= RUNNING else None


def _knows_ledger(client: Client) -> bool:
    return client.ledger.status().open


def _spread(core: Client, wanted: str) -> objects_pb2.Object | None:
    """An object that all its hosts have, so that the core has let its own copy go."""
    made = core.objects.get(wanted)
    return made if made.state == objects_pb2.OBJECT_STATE_DURABLE and not made.local else None


def _promised(core: Client, job_id: str) -> ledger_pb2.Booking | None:
    return next(
        (booking for booking in core.ledger.bookings(job_id=job_id).bookings if booking.delivered or booking.tx_id),
        None,
    )


def _booked(core: Client, job_id: str) -> ledger_pb2.Booking | None:
    return next((booking for booking in core.ledger.bookings(job_id=job_id).bookings if booking.tx_id), None)


def counted(text: bytes) -> bytes:
    """What the program says, worked out here: a check that does not trust the hosts."""
    words = len(text.split())
    lines = text.count(b"\n")
    longest = max((len(line) for line in text.split(b"\n")), default=0)
    digest = 0xCBF29CE484222325
    for byte in text:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"lines {lines}\nwords {words}\nbytes {len(text)}\nlongest_line {longest}\nfnv1a64 {digest:016x}\n".encode()
