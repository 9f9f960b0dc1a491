"""storage1gb: the most that owner, hosts and client have in use while 1 GB goes up and comes down, over their idle.

Looked at twenty times a second. The data lies in a file on both ends, so that the client, which is this process, holds
no more of it than any other would.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.processes import own_pid, resident_mib
from offgrid_tools.bench.storage import CODE, HOSTS
from offgrid_tools.bench.storage_bounds import MB
from offgrid_tools.bench.storage_ours import OurStorage, in_words

SIZE, SIZE_QUICK = 1_000 * MB, 100 * MB
LOOK_S = 0.05


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    source, target = plan.folder / "source", plan.folder / "target"
    digest = fill(source, plan.rounds(SIZE, SIZE_QUICK))
    with OurStorage(plan.folder / "ours", HOSTS, CODE) as ours:
        pids = {"client": own_pid(), **ours.pids}
        ours.wait_spread(ours.put(os.urandom(MB)).object_id)  # whatever is imported late is no one's growth
        idle = {name: resident_mib(pid) for name, pid in pids.items()}
        made = list[str]()
        plan.say(f"storage1gb: {source.stat().st_size // MB} MB up, {in_words(CODE)}")

        def put() -> None:
            made.append(ours.put(source).object_id)
            ours.wait_spread(made[0])

        up = peaks(pids, put)
        plan.say("storage1gb: and down")
        down = peaks(pids, lambda: ours.fetch(made[0], target))
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != digest:
            raise RuntimeError("something else came back")
    return [grown("put_rss_mb_over_idle", idle, up), grown("get_rss_mb_over_idle", idle, down)]


def fill(path: Path, size: int) -> bytes:
    """Random bytes; their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MB):
            piece = os.urandom(MB)
            digest.update(piece)
            file.write(piece)
    return digest.digest()


def peaks(pids: Mapping[str, int], work: Callable[[], object]) -> dict[str, float]:
    """MiB by process while `work` runs."""
    most, ended = {name: resident_mib(pid) for name, pid in pids.items()}, threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            for name, pid in pids.items():
                most[name] = max(most[name], resident_mib(pid))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        work()
    finally:
        ended.set()
        looking.join()
    return most


def grown(name: str, idle: Mapping[str, float], most: Mapping[str, float]) -> Figure:
    over = {process: most[process] - idle[process] for process in idle}
    worst = sorted(over, key=over.__getitem__, reverse=True)[:4]
    note = ", ".join(f"{process} {idle[process]:.0f} to {most[process]:.0f}" for process in worst)
    return Figure(name, max(over.values()), note=note)
