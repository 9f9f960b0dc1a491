"""What no put can be quicker than: each of its steps alone, with the very functions that nodes use, on this machine.

All in MB of the owner's data a second, so that the slowest is the bound: where hosts keep 1.67 bytes for one, as much
is hashed, carried and fsynced. One thread each, but for the transfer: a process that sends and one that takes.

They share a machine's processors, though: `together` is the rate at which all of them would be busy with these steps
and nothing else, neither idle for a moment nor at work on a message, a row or a signature.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from offgrid_node.coding.choice import choose
from offgrid_node.keys.stripes import OBJECT_KEY_BYTES, seal_stripe
from offgrid_node.protocol.objects.manifest import NONCE_BYTES, STRIPE_BYTES, Code, stripe_digest
from offgrid_node.storage.disk import sync_file
from offgrid_tools.bench.carriers import Spent, transfer
from offgrid_tools.bench.storage_ours import stretch

MB = 1_000_000
SALT = bytes(16)
TOGETHER = "together"
ROUNDS = 3  # the quickest stands: a bound is what the machine can do


def measure_bounds(folder: Path, code: Code, size_bytes: int, hosts: int) -> dict[str, float]:
    """MB/s by the name of the step, and of all `together`."""
    stripes = [os.urandom(STRIPE_BYTES)] * (size_bytes // STRIPE_BYTES)
    steps: dict[str, Callable[[], object]] = {
        "encrypt": lambda: encrypt(stripes),
        "hash": lambda: hash_rows(stripes, code),
        "fsync": lambda: write_and_sync(folder, stripes, code, hosts),
    }
    if code.needed > 1:
        steps["encode"] = lambda: encode(stripes, code)
    rows = rows_of(stripes, code)
    spent = {name: [spent_on(step) for _ in range(ROUNDS)] for name, step in steps.items()}
    spent["transfer"] = [transfer(rows) for _ in range(ROUNDS)]
    took = {name: min(each.seconds for each in rounds) for name, rounds in spent.items()}
    cpu_s = sum(min(each.cpu_s for each in rounds) for rounds in spent.values())
    took[TOGETHER] = cpu_s / (os.cpu_count() or 1)
    return {name: len(stripes) * STRIPE_BYTES / MB / seconds for name, seconds in took.items()}


def slowest(bounds: Mapping[str, float]) -> tuple[str, float]:
    """Of the steps, each alone."""
    return min(((name, rate) for name, rate in bounds.items() if name != TOGETHER), key=lambda item: item[1])


def spent_on(step: Callable[[], object]) -> Spent:
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    step()
    return Spent(time.perf_counter() - began_s, time.process_time() - began_cpu_s)


def encrypt(stripes: Sequence[bytes]) -> None:
    key, nonce = os.urandom(OBJECT_KEY_BYTES), os.urandom(NONCE_BYTES)
    for index, stripe in enumerate(stripes):
        seal_stripe(key, nonce, index, False, stripe)


def encode(stripes: Sequence[bytes], code: Code) -> None:
    """The rows that are not the stripe itself."""
    coder, parity = choose().coder, range(code.needed, code.total)
    for stripe in stripes:
        coder.encode(code.needed, code.total, cut(stripe, code.needed), parity)


def hash_rows(stripes: Sequence[bytes], code: Code) -> None:
    """Once, whoever does it: copies are one row."""
    rows = 1 if code.needed == 1 else code.total
    for stripe in stripes:
        for row in cut(stripe, code.needed)[:1] * rows:
            stripe_digest(SALT, bytes(row))


def write_and_sync(folder: Path, stripes: Sequence[bytes], code: Code, hosts: int) -> None:
    """What hosts write, in a file for each of them."""
    rows, count = rows_of(stripes, code), min(hosts, code.total)
    paths = [folder / f"fsync{number}" for number in range(count)]
    for number, path in enumerate(paths):
        with path.open("wb", buffering=0) as file:
            for row in rows[number::count]:
                file.write(row)
            sync_file(file.fileno())
    for path in paths:
        path.unlink()


def rows_of(stripes: Sequence[bytes], code: Code) -> list[bytes]:
    """As many bytes as hosts take in, in pieces as large as a stripe."""
    return [stripes[number % len(stripes)] for number in range(round(len(stripes) * stretch(code)))]


def cut(stripe: bytes, needed: int) -> list[memoryview]:
    length = -(-len(stripe) // needed)
    padded = memoryview(stripe.ljust(length * needed, b"\0"))
    return [padded[at : at + length] for at in range(0, len(padded), length)]
