"""What the ledger of a month takes on a witness' disk: real machines of four witnesses and two owners, a real store at
one of them, epochs that end and are pruned behind.

Days are short here: some transactions, and the end of an epoch. Once more days have gone by than are kept, what there
is does not grow any more: rows of transactions of the days that are kept, in lists that are joined but for the last
day's, and blocks of the epoch that it is and the one before. Each is told for one transaction, by the pages that its
tables take in LMDB, and taken as often as a month has it: 10,000 transactions a day, 30 days, blocks of two. What a
node keeps of its own jobs and transfers, and its journal, have budgets of their own.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from offgrid_node.protocol.ledger.commands import EndEpoch
from offgrid_node.protocol.ledger.tables import CHAINS, LOG, PLACES, TX_INDEX, TXS
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_tools.bench.figures import Figure
from offgrid_tools.ledgersim.whole.world import World

A_DAY, DAYS = 10_000, 30
BLOCK_DAYS = 2  # of the epoch that it is, at its end, and the one before
CALM_MS, PAID_MS, LOOK_MS, LOOKS_MAX = 10_000, 1_000, 1_000, 60
BLOCKS = (LOG, PLACES, CHAINS)
LIMIT_BYTES = 1 << 30


class Shape(msgspec.Struct, frozen=True):
    """`txs` a day, of which each is final before the next; `days` in all, of which `kept` are kept."""

    txs: int
    days: int
    kept: int


FULL, QUICK = Shape(300, 5, 3), Shape(100, 4, 2)


class Kept(msgspec.Struct, frozen=True):
    """Bytes for one transaction: of its blocks; of its row; of its places in lists, on the day on which it was made and
    once they are joined."""

    block_bytes: float
    row_bytes: float
    fresh_bytes: float
    list_bytes: float

    @property
    def month_mb(self) -> float:
        """At the end of a day, before the oldest of those that are kept goes."""
        rows = (DAYS + 1) * self.row_bytes + DAYS * self.list_bytes + self.fresh_bytes
        return A_DAY * (BLOCK_DAYS * self.block_bytes + rows) / 1e6


def measure_store(folder: Path, shape: Shape) -> Figure:
    kept = store_of(folder, shape)
    note = (
        f"for each of {A_DAY:,} transactions a day, each by itself: {kept.block_bytes:.0f} B of blocks for two days, a "
        f"row of {kept.row_bytes:.0f} B and {kept.list_bytes:.0f} B in lists for {DAYS}; measured over {shape.days} "
        f"days of {shape.txs}, of which {shape.kept} are kept"
    )
    return Figure("store_30_days_mb", kept.month_mb, note=note)


def store_of(folder: Path, shape: Shape) -> Kept:
    """Measured at the end of the last day."""
    world = World(1, 4, observers=2)
    node, store = world.nodes[world.names[0]], LmdbStore.open(folder, limit_bytes=LIMIT_BYTES)
    try:
        node.store = store  # type: ignore[assignment] # what is asked of it here both can do
        node.keep_txs = shape.kept * shape.txs
        node.crash()
        node.start()
        world.open()
        world.run(CALM_MS)
        for _ in range(shape.days - 1):
            _pay(world, shape.txs)
            _end(world)
        joined = store.table_bytes(TX_INDEX)
        _pay(world, shape.txs)
        return Kept(
            sum(store.table_bytes(table) for table in BLOCKS) / shape.txs / BLOCK_DAYS,
            store.table_bytes(TXS) / shape.txs / (shape.kept + 1),
            (store.table_bytes(TX_INDEX) - joined) / shape.txs,
            joined / shape.txs / shape.kept,
        )
    finally:
        store.close()


def _pay(world: World, count: int) -> None:
    names = world.names
    for number in range(count):
        world.nodes[names[number % len(names)]].transfer(names[(number + 1) % len(names)], 5)
        world.run(PAID_MS)


def _end(world: World) -> None:
    """The epoch ends, and is pruned behind."""
    nodes = [*world.nodes.values()]
    epoch = nodes[0].epoch
    for node in nodes[:3]:
        node.ask(EndEpoch())
    for _ in range(LOOKS_MAX):
        world.run(LOOK_MS)
        if nodes[0].epoch > epoch and not nodes[0].machine.prunes:
            return
    raise RuntimeError(f"epoch {epoch} does not end")
