"""Reload: whoever loads a node's store anew must come to what the running machines know.

Looks into the machines' memory, which is nobody else's business: that is the very thing under test.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.table import QUEUED
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_tools.sim.crypto import sim_check_certificate, sim_verify
from offgrid_tools.sim.monitor import Violation
from offgrid_tools.sim.process import Process


def check_reload(process: Process) -> None:
    """Raises Violation when memory and disk differ. The node must not be in a commit."""
    node, name = process.running, process.spec.name
    fresh = JobsMachine(node.jobs.core._settings)
    fresh.load(process.store, node.runtime.clock.now())
    running = node.jobs
    for what, here, there in (
        ("open jobs", _jobs(running), _jobs(fresh)),
        ("broker's queue", sorted(running.broker._queue), sorted(fresh.broker._queue)),
        ("broker's leases", _rows(running.broker._leases), _rows(fresh.broker._leases)),
        ("host's leases", _rows(running.host._leases), _rows(fresh.host._leases)),
    ):
        if here != there:
            raise Violation(f"{name}: its {what} in memory are not those on its disk")
    if Directory.load(process.store, sim_verify, sim_check_certificate).digest() != node.directory.digest():
        raise Violation(f"{name}: its directory in memory is not that on its disk")


def _jobs(machine: JobsMachine) -> dict[str, bytes]:
    found = {}
    for job_id, entry in sorted(machine.core._open.items()):
        job = type(entry.job).FromString(entry.job.SerializeToString())
        if job.state == QUEUED:
            job.ClearField("broker")  # which broker is asked is no promise: after a restart any will do
        found[job_id] = job.SerializeToString(deterministic=True)
    return found


def _rows(leases: Mapping[AttemptKey, Message]) -> list[tuple[AttemptKey, bytes]]:
    return [(key, row.SerializeToString(deterministic=True)) for key, row in sorted(leases.items())]
