"""Power cuts, as many as asked for, at whatever owners and hosts of objects are just writing: before a write, after it,
between two fsyncs of one blob, before and after a commit, and while a start sweeps what the last cut left. Then as many
at the files of a node's sessions (session_cuts.py).

The store is cut between commits; what a torn one leaves, `tests/unit/storage/test_store_crashes.py` tries page by page.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from offgrid_tools.sim.main import replay, sweep
from offgrid_tools.sim.plan import CUTS_MESH
from offgrid_tools.soak.session_cuts import cut_sessions
from offgrid_tools.soak.toll import Say

CHUNK = 8
CUT = "power cuts at a write of "


def soak_cuts(seed: int, rounds: int, say: Say) -> list[str]:
    """Runs seeds from `seed` on until there were `rounds` cuts of either kind; returns what was violated."""
    return [*_cut_objects(seed, rounds, say), *_cut_sessions(seed, rounds, say)]


def _cut_objects(seed: int, rounds: int, say: Say) -> list[str]:
    broken: list[str] = []
    cuts, kept, began = Counter[str](), 0, time.monotonic()
    while cuts.total() < rounds:
        summary = sweep(range(seed, seed + CHUNK), mesh=CUTS_MESH, jobs=os.cpu_count() or 1)
        cuts.update({what: count for what, count in summary.met.items() if what.startswith(CUT)})
        kept += summary.kept
        broken += [f"{what}; replay: {replay(CUTS_MESH, number)}" for number, what in summary.violations.items()]
        seed += CHUNK
        say(f"   {cuts.total():6} cuts, {len(broken)} violations, {time.monotonic() - began:.0f} s")
    told = ", ".join(f"{count} of {what.removeprefix(CUT)}" for what, count in sorted(cuts.items()))
    say(f"   {cuts.total()} power cuts at a write ({told}), {kept} objects acked, {len(broken)} violations")
    return broken


def _cut_sessions(seed: int, rounds: int, say: Say) -> list[str]:
    broken: list[str] = []
    cuts, began = Counter[str](), time.monotonic()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        while cuts.total() < rounds:
            lives = range(seed, seed + CHUNK)
            for number, (met, wrong) in zip(lives, pool.map(cut_sessions, lives), strict=True):
                cuts.update(met)
                broken += [f"sessions, seed {number}: {what}" for what in wrong]
            seed += CHUNK
            say(f"   {cuts.total():6} cuts, {len(broken)} violations, {time.monotonic() - began:.0f} s")
    told = ", ".join(f"{count} while it was to {what}" for what, count in sorted(cuts.items()))
    say(f"   {cuts.total()} power cuts at the files of sessions ({told}), {len(broken)} violations")
    return broken
