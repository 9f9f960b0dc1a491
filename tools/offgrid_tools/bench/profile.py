"""Where processes spend their time: py-spy looks at every thread's stack, C and Python, and each sample gets a name.

A sample belongs to the innermost frame that RULES know, so malloc called by protobuf is protobuf, and a digest that a
machine asks for is signing. Threads that wait are left out; what waits for the disk is told apart from what computes.
py-spy must be allowed to look (root, or kernel.yama.ptrace_scope = 0) and to unwind C (`--native`: Linux and Windows on
x86-64, Linux on arm64).
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

RATE = 60  # samples a second: each stops the process for a moment
SECONDS, SECONDS_QUICK = 20, 5
WAITS = frozenset({
    "epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pthread_cond_wait", "pthread_cond_timedwait",
    "sem_wait", "sem_timedwait", "nanosleep", "clock_nanosleep", "PyThread_acquire_lock_timed",
})  # fmt: skip
SYNCS = frozenset({"fdatasync", "fsync", "mdb_env_write_meta"})  # LMDB writes its meta page with O_DSYNC
LEAF_FRAMES = 3  # how deep a waiting call may hide below frames that often have no names
DISK, OTHER = "waits for the disk", "the rest"
Rules = tuple[tuple[str, tuple[str, ...]], ...]
"""Names, and what a frame has in it that belongs to one."""
RULES: Rules = (
    ("LMDB", ("mdb.c", "lmdb/", "offgrid_node/storage/")),
    ("signing and digests", ("nacl/", "_sodium", "cryptography/", "_rust", "blake2", "hashlib", "offgrid_node/keys/")),
    ("protobuf", ("_upb", "google/protobuf")),
    (
        "carriers and TLS",
        (
            "cygrpc",
            "grpc/",
            "offgrid_node/services/grpc_",
            "offgrid_node/services/lane_",
            "offgrid_node/services/frame",
            "sslproto",
            "/ssl.py",
            "offgrid/client/calls.py",
            "offgrid/client/framed.py",
        ),
    ),
    ("executors", ("offgrid_node/executors/", "wasmtime")),
    ("machines", ("offgrid_node/protocol/",)),
    ("runtime", ("offgrid_node/runtime.py", "offgrid_node/inbox.py", "offgrid_node/driver.py")),
    ("handlers", ("offgrid_node/services/",)),
    ("client library", ("offgrid/client/",)),
    ("event loop and threads", ("asyncio", "selectors.py", "selectmodule", "threading.py", "concurrent/futures")),
)


class CannotLook(Exception):
    """py-spy was refused; the message is its own."""


def profile(
    pids: Mapping[str, int], folder: Path, seconds: int, work: Callable[[], object], rules: Rules = RULES
) -> dict[str, Counter[str]]:
    """Repeats `work` while py-spy looks; samples by process and name. Raises CannotLook."""
    watchers = {name: _watch(pid, folder / f"{name}.stacks", seconds) for name, pid in pids.items()}
    while any(watcher.poll() is None for watcher in watchers.values()):
        work()
    counts: dict[str, Counter[str]] = {}
    for name, watcher in watchers.items():
        stacks = folder / f"{name}.stacks"
        if watcher.returncode or not stacks.exists():
            raise CannotLook((folder / f"{name}.stacks.log").read_text(errors="replace").strip())
        counts[name] = sort_stacks(stacks.read_text(errors="replace").splitlines(), rules)
    return counts


def _watch(pid: int, stacks: Path, seconds: int) -> subprocess.Popen[bytes]:
    how = ("--native", "--threads", "--rate", str(RATE), "--duration", str(seconds), "--format", "raw")
    py_spy = Path(sys.executable).with_name("py-spy")
    with stacks.with_name(stacks.name + ".log").open("wb") as log:
        return subprocess.Popen(
            [str(py_spy), "record", *how, "--output", str(stacks), "--pid", str(pid)], stdout=log, stderr=log
        )


def sort_stacks(lines: Iterable[str], rules: Rules = RULES) -> Counter[str]:
    """Samples by name, of lines "outermost (file:line);…;innermost (file:line) count"; those that wait are left out."""
    counts: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        name = name_of(stack.split(";"), rules)
        if name is not None:
            counts[name] += int(count)
    return counts


def name_of(frames: list[str], rules: Rules = RULES) -> str | None:
    """What a stack belongs to, outermost frame first; None when it waits."""
    leaf = {frame.partition(" ")[0] for frame in frames[-LEAF_FRAMES:]}
    if leaf & SYNCS:
        return DISK
    if leaf & WAITS:
        return None
    for frame in reversed(frames):
        for name, marks in rules:
            if any(mark in frame for mark in marks):
                return name
    return OTHER


def table(
    counts: Mapping[str, Counter[str]],
    us_each: Mapping[str, float],
    seconds: int,
    rules: Rules = RULES,
    unit: str = "µs a job",
) -> str:
    """Markdown: microseconds of processor time for one, by name and process, and the share of the time at the disk."""
    roles = [*counts]
    busy = {role: sum(count for name, count in counts[role].items() if name != DISK) or 1 for role in roles}
    rows = [(unit, roles), ("---", ["---:"] * len(roles))]
    for name in (*(name for name, _ in rules), OTHER):
        rows.append((name, [f"{us_each[role] * counts[role][name] / busy[role]:.0f}" for role in roles]))
    rows.append(("**all that computes**", [f"**{us_each[role]:.0f}**" for role in roles]))
    rows.append((DISK, [f"{counts[role][DISK] / (RATE * seconds):.0%} of the time" for role in roles]))
    return "\n".join(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)
