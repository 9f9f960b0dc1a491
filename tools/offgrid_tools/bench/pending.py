"""A broker that comes back to 100,000 orders in line: how long until it dispatches again, from a real store on disk.

The store is opened, the broker's rows are read and its line is made, its core and a host with free slots are there, and
the first awards are made. What is counted is all of that, in time and in the processor's: a machine is never idle.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.awards import QUEUE
from offgrid_node.protocol.jobs.orders import JobOrder, row_key
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

STORE_BYTES_MAX = 2 << 30
BATCH_ROWS = 5_000


class Restart(NamedTuple):
    """Seconds, seconds of the processor, and orders that were awarded."""

    seconds: float
    cpu_seconds: float
    awarded: int


def fill(folder: Path, orders: Iterator[JobOrder]) -> None:
    """The disk of a broker at which these wait."""
    store = LoggedStore.open(folder, limit_bytes=STORE_BYTES_MAX)
    batch = Batch()
    for number, order in enumerate(orders, 1):
        row = jobs_pb2.BrokerOrder(order=order.encode(), number=number)
        batch.writes[QUEUE, row_key(order.key)] = row.SerializeToString()
        if len(batch.writes) == BATCH_ROWS:
            store.commit(batch)
            batch = Batch()
    if batch:
        store.commit(batch)
    store.close()


def restart(folder: Path, pending: int) -> Restart:
    """One start of a broker on that disk."""
    from offgrid_tools.bench.market import CORE_ID, Scene

    scene = Scene(pending)
    gc.collect()
    began, cpu_began = time.perf_counter(), time.process_time()
    store = LoggedStore.open(folder, limit_bytes=STORE_BYTES_MAX)
    scene.broker.load(store, scene.now)
    scene.broker.on_peer_up(CORE_ID)
    scene.offer(1)
    scene.broker.clear(scene.now)
    scene.settle()
    took = Restart(time.perf_counter() - began, time.process_time() - cpu_began, pending - scene.broker.queued)
    store.close()
    return took
