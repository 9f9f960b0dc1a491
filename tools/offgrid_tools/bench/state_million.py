"""A session of a million events: how soon its state is there after kill -9, and how fast it is folded from the first
event on, beside `eventsourcing` and an aggregate that has a tenth of them.

A process of its own fills the store and goes on recording until it is killed; another one, in which all that it needs
is imported, opens the store then. What it shows must be what all events come to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import side_by_side, timed
from offgrid_tools.bench.peers import PYTHON
from offgrid_tools.bench.state_events import BATCH
from offgrid_tools.bench.state_ours import OurStore
from offgrid_tools.bench.state_peers import EventSourcing

EVENTS, EVENTS_QUICK = 1_000_000, 20_000
THEIRS, THEIRS_QUICK = 100_000, 5_000
BLOCK = 1_000  # as many as one request may bring
KILLS, KILLS_QUICK = 5, 2
PAIRS, PAIRS_QUICK = 5, 1
BEHIND = 5_000  # the newest event but so many has no snapshot before it any more
GOES_ON_S = 0.5  # until it is killed
MS = 1_000


def measure_million(plan: Plan) -> Iterator[Figure]:
    """Ready, and the replay's ratio where the library is there."""
    events, ours = plan.rounds(EVENTS, EVENTS_QUICK), plan.folder / "million"
    times: list[float] = []
    behind: list[int] = []
    for number in range(kills := plan.rounds(KILLS, KILLS_QUICK)):
        plan.say(f"state: {events:,} events and kill -9, round {number + 1} of {kills}")
        record_until_killed(ours, events)
        found = json.loads(subprocess.run(_command(ours, "--look"), check=True, capture_output=True).stdout)
        times.append(found["ready_ms"])
        behind.append(found["number"] - found["snapshot"])
    note = (
        f"the longest of {kills} after kill -9 in the midst of recording, the least {min(times):.3g}; "
        f"{min(behind)} to {max(behind)} events behind the snapshot"
    )
    yield Figure("ready_ms_after_kill_1m_events", max(times), note=note)
    yield from measure_replay(plan, ours, events)


def record_until_killed(folder: Path, events: int) -> None:
    """A process records until there are so many, and on, and is killed in the midst of it."""
    with subprocess.Popen(_command(folder, "--record", str(events)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        time.sleep(GOES_ON_S)
        process.kill()
    if not said:
        raise RuntimeError("the process that was to record has failed")


def measure_replay(plan: Plan, folder: Path, events: int) -> Iterator[Figure]:
    theirs_count, number = plan.rounds(THEIRS, THEIRS_QUICK), events - BEHIND
    with closing(OurStore(folder)) as ours:
        check_whole(ours, number)

        def our_rate() -> float:
            return number / timed(lambda: ours.show(number))

        if why := EventSourcing.missing():
            plan.say(f"state: {EventSourcing.name} is left out: {why}")
            yield Figure("replay_1m_per_s", our_rate())
            return
        plan.say(f"state: {theirs_count:,} events of {EventSourcing.name}, and both from the first event on")
        with closing(EventSourcing(plan.folder / "million-theirs")) as theirs:
            for _ in range(0, theirs_count, BLOCK):
                theirs.append(min(BLOCK, theirs_count))

            def their_rate() -> float:
                return theirs_count / timed(theirs.replay)

            pairs = side_by_side(our_rate, their_rate, plan.rounds(PAIRS, PAIRS_QUICK))
    peer = f"{EventSourcing.name}, {theirs_count:,} events, events/s"
    note = f"{pairs.spread}; ours opens, checks and folds {number:,} in portions, with the pauses that others have"
    yield Figure("replay_1m_vs_eventsourcing", pairs.ratio, peer, pairs.their_median, note)
    yield Figure("replay_1m_per_s", pairs.our_median, note="median of the same samples")


def check_whole(ours: OurStore, number: int) -> None:
    """The newest state is the fold of all events, and that event's has no snapshot to begin with."""
    for shown in (ours.show(), past := ours.show(number)):
        if json.loads(shown.state)["events"] != shown.number:
            raise RuntimeError(f"the state at event {shown.number} is not what {shown.number} events come to")
    if past.snapshot:
        raise RuntimeError(f"the state at event {number} was worked out from a snapshot")


def _command(folder: Path, *what: str) -> list[str]:
    return [PYTHON, "-m", "offgrid_tools.bench.state_million", str(folder), *what]


# ---- the processes


def record(folder: Path, events: int) -> None:
    """Says when there are so many, and goes on."""
    ours = OurStore(folder)
    while ours.recorded + BLOCK <= events:
        ours.append(BLOCK)
    sys.stdout.write("recorded\n")
    sys.stdout.flush()
    while True:
        ours.append(BATCH)


def look(folder: Path) -> dict[str, Any]:
    """From opening the store to the state shown; and whether it is right."""
    began = time.perf_counter()
    ours = OurStore(folder)
    shown = ours.show()
    ready_ms = MS * (time.perf_counter() - began)
    ours.close()
    if json.loads(shown.state)["events"] != shown.number or shown.number != ours.recorded:
        raise RuntimeError(f"{ours.recorded} events are there, and the state shown is that of another number")
    return {"ready_ms": ready_ms, "number": shown.number, "snapshot": shown.snapshot}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", type=int)
    parser.add_argument("--look", action="store_true")
    chosen = parser.parse_args()
    if chosen.look:
        sys.stdout.write(json.dumps(look(chosen.folder)))
    else:
        record(chosen.folder, chosen.record)
