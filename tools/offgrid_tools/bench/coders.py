"""Coders side by side: a stripe of 1 MiB, 12 of 20, encoded, and rebuilt with eight rows lost. Processor time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from offgrid_node.coding.choice import FASTEST_FIRST
from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import Fallback
from offgrid_node.protocol.objects.manifest import STRIPE_BYTES, TAG_BYTES
from offgrid_tools.bench.figures import Figure

MB = 1_000_000
NEEDED, TOTAL = 12, 20
ROUNDS, ROUNDS_QUICK = 15, 4
STRIPES = 4  # a round
KEPT = tuple(range(TOTAL - NEEDED, TOTAL))  # the first eight rows are lost, all of them data


def measure_coders(rounds: int) -> list[Figure]:
    """MB/s of user data: each coder's best round, all turn about. Of zfec only where it is installed."""
    rates = coder_rates(rounds)
    figures = [Figure(f"{name}_{step}_mb_per_s", rate) for (name, step), rate in rates.items()]
    for step in ("encode", "rebuild"):
        if zfec := rates.get(("zfec", step)):
            others = ((name, rate) for (name, of), rate in rates.items() if of == step and name != "zfec")
            figures += [Figure(f"{name}_{step}_vs_zfec", rate / zfec, "zfec, MB/s", zfec) for name, rate in others]
    return figures


def coder_rates(rounds: int) -> dict[tuple[str, str], float]:
    """By a coder's name (isal, zfec, python) and "encode" or "rebuild"."""
    length = -(-(STRIPE_BYTES + TAG_BYTES) // NEEDED)
    rows = [os.urandom(length) for _ in range(NEEDED)]
    shards = [*rows, *Fallback().encode(NEEDED, TOTAL, rows, range(NEEDED, TOTAL))]
    have = {row: shards[row] for row in KEPT}
    best: dict[tuple[str, str], float] = {}
    steps: dict[str, Callable[[Coder], object]] = {
        "encode": lambda coder: coder.encode(NEEDED, TOTAL, rows, range(NEEDED, TOTAL)),
        "rebuild": lambda coder: coder.rebuild(NEEDED, TOTAL, have, range(TOTAL - NEEDED)),
    }
    coders = present()
    for _ in range(rounds):
        for coder in coders:
            for name, step in steps.items():
                key = coder.name.replace("-", ""), name
                best[key] = max(best.get(key, 0.0), STRIPES * STRIPE_BYTES / MB / _took(coder, step))
    return best


def present() -> list[Coder]:
    found = []
    for maker in FASTEST_FIRST:
        try:
            found.append(maker())
        except (ImportError, OSError):
            continue
    return found


def _took(coder: Coder, step: Callable[[Coder], object]) -> float:
    """Seconds of this process: others on the machine do not count."""
    began = time.process_time()
    for _ in range(STRIPES):
        step(coder)
    return time.process_time() - began
