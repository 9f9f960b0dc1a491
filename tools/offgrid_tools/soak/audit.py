"""What must be true when the killing is over: of the core's jobs, and of every node's store read at rest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.folder import Folder, open_store
from offgrid_node.keys import NodeKey, check_identity_certificate, verify
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.receipts import ReceiptBody, verify_receipt
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.storage.store import Store
from offgrid_tools.soak.audit_money import audit_ledgers
from offgrid_tools.soak.load import Acked

COMPLETED, CANCELLED = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_CANCELLED
ENDS = (EventType.JOB_COMPLETED, EventType.JOB_FAILED, EventType.JOB_CANCELLED)


def audit_jobs(core: LocalNode, acked: Iterable[Acked]) -> list[str]:
    """Every acknowledged job is there; what was dispatched is completed with the right output and files, or taken back
    where its client wanted that."""
    broken = []
    with core.client(30) as client:
        present = {job.job_id: job for job in client.jobs.list()}
        for wanted in acked:
            job = present.get(wanted.job_id)
            if job is None:
                broken.append(f"job {wanted.job_id} was acknowledged and is gone")
            elif wanted.dispatched and job.state not in ends_of(wanted):
                state = jobs_pb2.JobState.Name(job.state)
                broken.append(f"job {wanted.job_id} is {state}: {job.error} {job.error_detail}")
            elif wanted.dispatched and job.state == COMPLETED:
                done = client.jobs.get(wanted.job_id)
                if done.result.output != wanted.expected or client.jobs.files(done) != wanted.files:
                    broken.append(f"job {wanted.job_id} has another's output")
    return broken


def ends_of(wanted: Acked) -> tuple[jobs_pb2.JobState.ValueType, ...]:
    """The states in which it may be at last."""
    if wanted.is_cancelled:
        return (CANCELLED,)
    return (COMPLETED, CANCELLED) if wanted.taken_back else (COMPLETED,)


class Stores(msgspec.Struct, frozen=True):
    """What the stores of the stopped nodes say: figures in a line, jobs whose result was accepted, what is wrong."""

    figures: str
    accepted: frozenset[str]
    broken: list[str]


def audit_stores(mesh: LocalMesh, acked: Iterable[Acked]) -> Stores:
    """Opens every node's store and reads it whole."""
    broken: list[str] = []
    receipts: dict[AttemptKey, list[tuple[str, jobs_pb2.Receipt]]] = defaultdict(list)
    completed: dict[str, list[jobs_pb2.Job]] = defaultdict(list)
    ends: Counter[str] = Counter()
    stores: dict[str, Store] = {}
    events = 0
    keys = {node.node_id: _public_key(node.folder) for node in mesh.nodes.values()}
    salt = b""
    try:
        for node in mesh.nodes.values():
            try:
                stores[node.name] = store = open_store(Folder(node.folder).config({}), create=False)
            except Fault as fault:
                broken.append(f"{node.name}: its store does not open: {fault.message}")
                continue
            broken += [f"{node.name}: {wrong}" for wrong in store.verify()]
            salt = Directory.load(store, verify, check_identity_certificate).salt
            for event in _events(store.events()):
                events += 1
                if event.etype in ENDS and event.HasField("job"):
                    ends[event.job.job_id] += 1
                if event.etype == EventType.JOB_COMPLETED:
                    completed[event.job.job_id].append(event.job)
                elif event.etype == EventType.JOB_EXECUTED and event.attempt.HasField("receipt"):
                    receipts[event.attempt.job_id, event.attempt.attempt].append((node.node_id, event.attempt.receipt))
        broken += audit_ledgers(stores)
    finally:
        for opened in stores.values():
            opened.close()
    broken += audit_receipts(receipts)
    broken += [f"job {job_id} has ended {count} times" for job_id, count in ends.items() if count > 1]
    broken += audit_results(acked, completed, receipts, keys, salt)
    last = [jobs[-1] for jobs in completed.values()]
    attempts = Counter(min(job.attempt, 5) for job in last)
    local = sum(job.route == jobs_pb2.ROUTE_FILE_QUEUE for job in last)
    spread = ", ".join(f"{count} in {'5 or more' if n == 5 else n}" for n, count in sorted(attempts.items()))
    parents = {job.job_id for job in last if job.result_of}  # they have the receipt of one of their executions
    used = sum(job.result.HasField("receipt") for job in last) - len(parents)
    unused = sum(map(len, receipts.values())) - used
    agreed = sum(bool(job.parent_id) for job in last)
    ways = f"{spread} attempts; {local} by the local queue; {agreed} executions of {len(parents)} redundant ones"
    figures = f"{len(last)} completed ({ways}), {unused} receipts not accepted"
    paid = [job for job in last if not job.result_of and (not job.parent_id or job.parent_id in parents)]
    accepted = frozenset(job.job_id for job in paid if job.result.HasField("receipt"))
    return Stores(f"{figures}; {len(mesh.nodes)} stores verified, {events} events", accepted, broken)


def _events(stored: Iterable[tuple[int, bytes]]) -> Iterator[state_pb2.Event]:
    return (state_pb2.Event.FromString(event) for _, event in stored)


def audit_receipts(receipts: dict[AttemptKey, list[tuple[str, jobs_pb2.Receipt]]]) -> list[str]:
    """An attempt is carried out at most once, by one node, and signed for once."""
    return [
        f"job {job_id} attempt {attempt}: {len(signed)} receipts, by {', '.join(node for node, _ in signed)}"
        for (job_id, attempt), signed in receipts.items()
        if len(signed) > 1
    ]


def audit_results(
    acked: Iterable[Acked],
    completed: dict[str, list[jobs_pb2.Job]],
    receipts: dict[AttemptKey, list[tuple[str, jobs_pb2.Receipt]]],
    keys: dict[str, bytes],
    salt: bytes,
) -> list[str]:
    """One accepted result per job, with a receipt that its host signed and has in its own journal."""
    broken = []
    for wanted in acked:
        accepted = completed.get(wanted.job_id, [])
        if len(accepted) != 1:
            if wanted.dispatched and not (wanted.taken_back and not accepted):
                broken.append(f"job {wanted.job_id} has {len(accepted)} accepted results")
            continue
        (job,) = accepted
        if not wanted.has_receipt:
            broken += [f"job {job.job_id} has a receipt, and no host"] if job.result.HasField("receipt") else []
            continue
        receipt = job.result.receipt
        body = ReceiptBody.decode(receipt.body)
        host, executed = body.node, job.result_of or job.job_id
        signed = receipts.get((executed, body.attempt), [])
        if body.job_id != executed or [(node, kept.body) for node, kept in signed] != [(host, receipt.body)]:
            broken.append(f"job {job.job_id}: its receipt is not the one in the journal of {host}")
        try:
            verify_receipt(receipt, keys[host], verify, salt)
        except Fault as fault:
            broken.append(f"job {job.job_id}: {fault.message}")
    return broken


def _public_key(folder: Path) -> bytes:
    return NodeKey.load(Folder(folder).keys_path).public_key
