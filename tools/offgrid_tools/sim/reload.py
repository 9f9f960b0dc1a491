"""Memory and disk: what a node's machines know of open work must be what its rows say, after every start and at last.

Looks into the machines' memory, which is nobody else's business: that is the very thing under test.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.node import Node
from offgrid_node.protocol.effects import Delete
from offgrid_node.protocol.jobs import awards, host
from offgrid_node.protocol.jobs.index import JOBS
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
    leases = [jobs_pb2.HostLease.FromString(value) for key, value in store.scan(host.LEASES) if key not in late]
    for what, memory, disk in (
        (
            "open jobs",
            (_promised(entry.job) for entry in machine.core._jobs),
            (_promised(job) for job in jobs if job.state not in ENDED),
        ),
        ("queue", machine.broker.waiting(), orders),
        ("leases", (lease.row() for lease in machine.host._leases.values()), leases),
    ):
        if _bytes(memory) != _bytes(disk):
            raise Violation(f"{name}: its {what} in memory are not those on its disk")
    if Directory.load(store, sim_verify, sim_check_certificate).digest() != node.directory.digest():
        raise Violation(f"{name}: its directory in memory is not that on its disk")


def _bytes(messages: Iterable[Message]) -> list[bytes]:
    return sorted(message.SerializeToString(deterministic=True) for message in messages)


def _promised(job: jobs_pb2.Job) -> jobs_pb2.Job:
    """All but the payload, which memory has apart."""
    copy = jobs_pb2.Job()
    copy.CopyFrom(job)
    copy.ClearField("kept_payload")
    return copy
