"""What two nodes say to each other to find out where 100,000 items of each differ: bytes, calls, processor time.

The messages are those of CompareInventory, without what carries them (frames, TLS). Sets come from a seed, so the bytes
are the same on every machine.
"""

from __future__ import annotations

import statistics
import time
from random import Random

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.inventory import NOTHING_KEPT
from offgrid_node.protocol.reconcile.sessions import Asking, Showing, answer
from offgrid_node.protocol.reconcile.symbols import KEY_BYTES, SymbolCode
from offgrid_node.services.objects.inventories import ID_BYTES
from offgrid_tools.bench.figures import Figure

ITEMS, ITEMS_QUICK = 100_000, 10_000
DIFFERENCES = 100  # scattered, half on either side
SEEDS, SEEDS_QUICK = 5, 3
ITEM_BYTES = 34
CHUNK_SYMBOLS = 8  # of a stream: what is sent in vain, once the listener has enough, is one of these at most
FRAME_BYTES = 4  # around each, and around how many items there are


class Session(msgspec.Struct, frozen=True):
    """`size_bytes` are both sides' messages; `asking_s` and `answering_s` processor time."""

    size_bytes: int
    calls: int
    asking_s: float
    answering_s: float


def measure_reconciling(items: int, seeds: int) -> list[Figure]:
    """The middle of all seeds' processor time, and the most bytes of them."""
    sessions = [reconcile(items, DIFFERENCES, seed) for seed in range(seeds)]
    in_sync = len(objects_pb2.CompareInventoryResponse(summary=NOTHING_KEPT).SerializeToString())
    return [
        Figure("reconcile_in_sync_bytes", in_sync),
        Figure("reconcile_100_bytes", max(session.size_bytes for session in sessions)),
        Figure("reconcile_100_calls", max(session.calls for session in sessions)),
        Figure("reconcile_100_asking_cpu_ms", 1_000 * statistics.median(session.asking_s for session in sessions)),
        Figure("reconcile_100_answering_cpu_ms", 1_000 * statistics.median(each.answering_s for each in sessions)),
    ]


def reconcile(items: int, differences: int, seed: int) -> Session:
    """Two sets of `items`, made equal as far as the asking side learns."""
    rng = Random(seed)  # noqa: S311 - the same sets every time
    code = SymbolCode(rng.randbytes(KEY_BYTES), ID_BYTES)
    shared = [rng.randbytes(ITEM_BYTES) for _ in range(items - differences // 2)]
    here, there = (shared + [rng.randbytes(ITEM_BYTES) for _ in range(differences // 2)] for _ in range(2))
    began = time.process_time()
    asking = Asking(code, map(code.shorten, here))
    asking_s, answering_s, size, calls = time.process_time() - began, 0.0, 0, 0
    while not asking.complete:
        first, count = asking.window
        began = time.process_time()
        raw = answer(code, map(code.shorten, there), first, count)  # as a host does: it keeps nothing in between
        between = time.process_time()
        asking.on_answer(raw, items)
        asking_s += time.process_time() - between
        answering_s += between - began
        request = objects_pb2.CompareInventoryRequest(first=first, count=count, key=code.key)
        response = objects_pb2.CompareInventoryResponse(summary=bytes(NOTHING_KEPT), symbols=raw)
        size, calls = size + request.ByteSize() + response.ByteSize(), calls + 1
    assert len(asking.here) + len(asking.there) == differences
    return Session(size, calls, asking_s, answering_s)


def measure_stream(items: int, seeds: int) -> list[Figure]:
    """One stream of symbols until the listener has enough, no call in between: the middle of all seeds, the worst."""
    sizes = [stream(items, DIFFERENCES, seed) for seed in range(seeds)]
    return [
        Figure("reconcile_stream_100_bytes", statistics.median(sizes), note=f"{DIFFERENCES} differences in {items:,}"),
        Figure("reconcile_stream_100_bytes_worst", max(sizes)),
    ]


def stream(items: int, differences: int, seed: int) -> int:
    """Bytes, the key included with which the listener begins."""
    rng = Random(seed)  # noqa: S311 - the same sets every time
    code = SymbolCode(rng.randbytes(KEY_BYTES), ID_BYTES)
    here, there, shared = (
        [rng.getrandbits(8 * ID_BYTES) for _ in range(count)]
        for count in (differences // 2, differences - differences // 2, items - differences // 2)
    )
    asking, showing = Asking(code, shared + here), Showing(code, shared + there)
    size = KEY_BYTES + FRAME_BYTES + FRAME_BYTES
    while not asking.complete:
        chunk = showing.take(CHUNK_SYMBOLS)
        asking.on_shown(chunk, showing.items)
        size += len(chunk) + FRAME_BYTES
    assert (asking.here, asking.there) == (set(here), set(there))
    return size
