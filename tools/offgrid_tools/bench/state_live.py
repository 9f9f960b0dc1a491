"""What applications get of a real node, through the real client over its local socket: what recording costs the disk
and the caller, also while the disk is slow, and what a purge leaves."""

from __future__ import annotations

import secrets
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from offgrid.client import OffgridError
from offgrid.client.backlog import BacklogFull
from offgrid.client.sessions import Session
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_tools.bench.disks import disk_bytes_written
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import quantile, timed
from offgrid_tools.bench.slow_disk import SlowDisk, missing
from offgrid_tools.bench.state_events import A_FRAME, CRITICAL, sample

NODE = "node"
CALL_S_MAX = 60.0
RATE = 75  # events a second
PACED_S, PACED_S_QUICK = (
    120.0,
    2.0,
)  # the log's 512 small batches are full once in that time, and go to the store's file
SLOW_BYTES_PER_S = 256 * 1024
FRAME_S, WORK_S = 1 / 60, 0.012  # a frame, and what the loop does in it beside recording
FRAMES, FRAMES_QUICK = 60 * 60, 60
CALLS, CALLS_QUICK = 100_000, 2_000
CALLS_PER_S = 10_000
MARKERS = 1_000
FLUSH_S_MAX = 60.0
MS = 1_000


def measure_live(plan: Plan) -> Iterator[Figure]:
    """All that needs a node."""
    why = missing()
    if why:
        plan.say(f"state: nothing is measured of a slow disk: {why}")
    disk = None if why else SlowDisk(plan.folder / "disk")
    with LocalMesh(plan.folder / "live", "bench", {NODE: ["core"]}) as mesh:
        node = mesh[NODE]
        node.runner = disk.runner if disk is not None else ()
        mesh.start()
        yield from measure_paced(plan, node)
        if disk is not None:
            yield from measure_slow(plan, node, disk)
        yield from measure_purge(plan, node)


# ---- the disk


def measure_paced(plan: Plan, node: LocalNode) -> Iterator[Figure]:
    if disk_bytes_written(plan.folder) is None:
        plan.say("state: nothing is measured of what reaches the disk: this system does not say")
        return
    seconds = PACED_S_QUICK if plan.quick else PACED_S
    count = int(seconds * RATE)
    plan.say(f"state: {RATE} events a second for {seconds:g} s")
    with node.client(CALL_S_MAX) as client, client.session("paced") as session:
        record_paced(session, RATE)  # the log has its whole length, and what the start has left is written
        before = disk_bytes_written(plan.folder) or 0
        record_paced(session, count)
        written = (disk_bytes_written(plan.folder) or 0) - before
    note = f"{count} events in {seconds:g} s, by the disk's own count: others write there too"
    yield Figure("disk_bytes_per_event_at_75_per_s", written / count, note=note)


def record_paced(session: Session, count: int) -> None:
    """Durable in the end."""
    began = time.perf_counter()
    for number in range(count):
        say(session, number)
        wait_until(began + (number + 1) / RATE)
    flush(session)


# ---- a slow disk


def measure_slow(plan: Plan, node: LocalNode, disk: SlowDisk) -> Iterator[Figure]:
    frames, calls = plan.rounds(FRAMES, FRAMES_QUICK), plan.rounds(CALLS, CALLS_QUICK)
    kib = SLOW_BYTES_PER_S // 1024
    plan.say(f"state: {frames} frames of {A_FRAME} events, on a disk of {kib} kB/s")
    with node.client(CALL_S_MAX) as client:
        with client.session("frames") as session:
            disk.at(SLOW_BYTES_PER_S)
            late, otherwise, longest = run_frames(session, frames)
            disk.at(0)
            flush(session)
            figures = session.figures
        kept = sum(1 for _ in client.sessions.records(session.session_id, kinds=[CRITICAL]))
        lost = frames - kept
        dropped = ", ".join(f"{kind} {count}" for kind, count in figures.dropped.items()) or "none"
        note = f"of {frames} on a disk of {kib} kB/s; recording took a frame {longest * MS:.2g} ms at most; "
        yield Figure("late_frames_60hz_slow_disk", late, note=note + f"{otherwise} were late without it")
        yield Figure("critical_lost_60hz_slow_disk", lost, note=f"of {frames}; dropped of what may be: {dropped}")
        plan.say(f"state: {calls:,} calls of record() on that disk")
        with client.session("calls") as session:
            disk.at(SLOW_BYTES_PER_S)
            times, refused = run_calls(session, calls)
            disk.at(0)
            flush(session)
    note = f"{calls:,} calls, {CALLS_PER_S:,} a second, on that disk; p50 {quantile(times, 0.5) * MS:.2g} ms, "
    note += f"most {max(times) * MS:.3g} ms; {refused} were told that there is no room"
    yield Figure("record_p999_ms", quantile(times, 0.999) * MS, note=note)


def run_frames(session: Session, frames: int) -> tuple[int, int, float]:
    """How many frames were late that would not have been if recording took no time; how many were without that; the
    longest that recording took in one."""
    late = otherwise = 0
    longest, due = 0.0, time.perf_counter()
    for frame in range(frames):
        due += FRAME_S
        wait_until(due - FRAME_S + WORK_S)
        before = time.perf_counter()
        for number in range(frame * A_FRAME, (frame + 1) * A_FRAME):
            with suppress(BacklogFull):  # it is lost, and missed in the end
                say(session, number)
        after = time.perf_counter()
        longest = max(longest, after - before)
        if before > due:
            otherwise += 1
        elif after > due:
            late += 1
        wait_until(due)
        due = max(due, time.perf_counter() - FRAME_S)  # a frame that was missed is not made up for
    return late, otherwise, longest


def run_calls(session: Session, calls: int) -> tuple[list[float], int]:
    """How long each took, and how many found no room."""
    times: list[float] = []
    refused, began = 0, time.perf_counter()
    for number in range(calls):
        before = time.perf_counter()
        try:
            say(session, number)
        except BacklogFull:
            refused += 1
        times.append(time.perf_counter() - before)
        wait_until(began + (number + 1) / CALLS_PER_S)
    return times, refused


# ---- what a purge leaves


def measure_purge(plan: Plan, node: LocalNode) -> Iterator[Figure]:
    plan.say(f"state: {MARKERS} markers, a backup, a purge")
    markers = [secrets.token_hex(16) for _ in range(MARKERS)]
    backup = plan.folder / "backup.zip"
    with node.client(CALL_S_MAX) as client:
        client.sessions.register_kind("bench.note", {"type": "object"})
        with client.session("secret") as session:
            for marker in markers:
                session.record("bench.note", {"note": marker})
        read = {str(record.data) for record in client.sessions.records(session.session_id)}
        client.sessions.snapshot(session.session_id)
        for _ in client.backups.create(backup):
            pass
        if len(read) != MARKERS:
            raise RuntimeError(f"{len(read)} of {MARKERS} markers could be read before the purge")
        took = timed(lambda: client.sessions.purge([session.session_id]))
        try:
            left = sum(1 for _ in client.sessions.records(session.session_id))
        except OffgridError:
            left = 0
    held = found([node.folder, backup], [marker.encode() for marker in markers])
    note = f"{MARKERS} events; the call comes back once its key is gone from the disk"
    yield Figure("purge_s", took, note=note)
    where = "all files of the node, its log, and the members of a backup from before"
    yield Figure("purge_markers_left", held + left, note=f"of {MARKERS}, sought in {where}, and asked for")


def found(places: list[Path], markers: list[bytes]) -> int:
    """How many markers some file has."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    held = set[bytes]()
    for file in files:
        if file.is_file():
            for content in contents(file):
                held.update(marker for marker in markers if marker in content)
    return len(held)


def contents(file: Path) -> Iterator[bytes]:
    """The file's, and those of what is packed in it."""
    yield file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for name in packed.namelist():
                yield packed.read(name)


# ---- inside


def say(session: Session, number: int) -> None:
    each = sample(number)
    session.record(each.kind, each.data, frame=each.frame, energy_delta=each.energy_delta)


def flush(session: Session) -> None:
    """What was dropped on purpose is no matter here."""
    session.flush(FLUSH_S_MAX)
    if session.figures.waiting:
        raise RuntimeError(f"the node did not take all within {FLUSH_S_MAX:g} s: {session.figures}")


def wait_until(due: float) -> None:
    left = due - time.perf_counter()
    if left > 0:
        time.sleep(left)
