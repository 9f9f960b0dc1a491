"""Memory and disk: what a node's machines know of open work must be what its rows say, after every start and at last.

Looks into the machines' memory, which is nobody else's business: that is the very thing under test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.node import Node
from offgrid_node.protocol.effects import Delete
from offgrid_node.protocol.jobs import awards
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.pages import LEASES
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.storage.store import Store
from offgrid_tools.sim.crypto import sim_check_certificate, sim_verify
from offgrid_tools.sim.monitor import Violation


def check_reload(name: str, node: Node, store: Store) -> None:
    """Raises Violation when memory and disk differ. The node must not be in a commit."""
    machine = node.jobs
    jobs = [jobs_pb2.Job.FromString(value) for _, value in store.scan(JOBS)]
    late = {
        key for (_, key), effect in machine._post._late.items() if isinstance(effect, Delete)
    }  # rows that are to go
    queued = [value for key, value in store.scan(awards.QUEUE) if key not in late]
    orders = [jobs_pb2.BrokerOrder.FromString(value) for value in queued]
    leases = _open_leases((value for key, value in store.scan(LEASES) if key not in late), machine.host)
    for what, memory, disk in (
        (
            "open jobs",
            (_promised(entry.job) for entry in machine.core._jobs),
            (_promised(job) for job in jobs if job.state not in ENDED),
        ),
        ("queue", machine.broker.waiting(), orders),
        ("leases", _kept(machine.host), leases),
    ):
        if _bytes(memory) != _bytes(disk):
            raise Violation(f"{name}: its {what} in memory are not those on its disk")
    if Directory.load(store, sim_verify, sim_check_certificate).digest() != node.directory.digest():
        raise Violation(f"{name}: its directory in memory is not that on its disk")


def _open_leases(rows: Iterable[bytes], host: Host) -> Iterator[jobs_pb2.HostLease]:
    """As a restarted host finds them: what is settled stays in its row while others of the row are not."""
    for row in rows:
        for lease in jobs_pb2.HostLeases.FromString(row).leases:
            order = JobOrder.decode(lease.order)
            if host._fence.highest(order.core, order.job_id) < order.attempt:
                yield lease


def _kept(host: Host) -> Iterator[jobs_pb2.HostLease]:
    """What is no row yet was told to nobody."""
    for lease in host._leases.values():
        if lease.page is not None:
            row = jobs_pb2.HostLease()
            lease.write(row)
            yield row


def _bytes(messages: Iterable[Message]) -> list[bytes]:
    return sorted(message.SerializeToString(deterministic=True) for message in messages)


def _promised(job: jobs_pb2.Job) -> jobs_pb2.Job:
    """All but the payload, which memory has apart."""
    copy = jobs_pb2.Job()
    copy.CopyFrom(job)
    copy.ClearField("kept_payload")
    return copy
