"""The groups of the benchmark: one file each, and the one table that names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import msgspec

from offgrid_tools.bench.figures import Figure


class Plan(msgspec.Struct, frozen=True):
    """How one run is done: `folder` is on the disk to measure, `quick` means fewer rounds, for a look.

    `tables` takes what a group has to show beside its figures, as Markdown by name.
    """

    folder: Path
    quick: bool
    say: Callable[[str], None]
    profile: bool = False
    tables: dict[str, str] = msgspec.field(default_factory=dict)

    def rounds(self, full: int, quick: int) -> int:
        return quick if self.quick else full


class Group(msgspec.Struct, frozen=True):
    """One group; its module has `measure(plan)`, and is imported when it is asked for only."""

    summary: str
    module: str

    def measure(self, plan: Plan) -> Sequence[Figure]:
        figures: Sequence[Figure] = import_module(self.module).measure(plan)
        return figures


GROUPS = {
    "jobs": Group("jobs through three nodes, beside Dask, Ray, Celery and JetStream", "offgrid_tools.bench.jobs"),
    "market": Group("what clearing a job costs a broker", "offgrid_tools.bench.market"),
    "executors": Group("modules and programs at a host, beyond the work itself", "offgrid_tools.bench.executors"),
    "faults": Group("hosts that are killed, frozen or cut off under a job", "offgrid_tools.bench.faults"),
    "hosted": Group("functions, models and clusters at a host, by themselves", "offgrid_tools.bench.hosted"),
    "memory": Group("what each role has in use with 100,000 jobs in flight", "offgrid_tools.bench.memory"),
    "storage": Group("objects on ten hosts, beside Tahoe-LAFS", "offgrid_tools.bench.storage"),
    "storage1gb": Group("what each process has in use for 1 GB up and down", "offgrid_tools.bench.storage_memory"),
    "ledger": Group("payments through four witnesses, beside signature checks alone", "offgrid_tools.bench.ledger"),
    "state": Group("sessions of events, beside raw LMDB and eventsourcing", "offgrid_tools.bench.state"),
    "gateway": Group("what HTTP costs a node, beside a bare route of its server", "offgrid_tools.bench.gateway"),
    "startup": Group("how soon a command has answered, beside Dask's and Celery's", "offgrid_tools.bench.startup"),
    "transports": Group("links: what they carry, and how soon they are back", "offgrid_tools.bench.transports"),
}
