"""10 kB over two emulated RNodes, SF7 at 125 kHz, in real time: ours and Reticulum, each on a channel of its own.

Both have a session before the clock starts, send the same number of random bytes, and stop it when the sender knows
that all of it arrived: ours by the answer to a call, theirs by the proof of a Resource. The three shares of loss are
measured at the same time, as it is the air that takes it, and not the processor.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.link_end import TAKE, LinkEnd
from offgrid_tools.bench.lora_pair import NAMES, SF7
from offgrid_tools.bench.reticulum import RNODE, START_S, Reticulum, install, line_of, reticulum, running
from offgrid_transports.transport import BROADCAST

LOSSES = (0, 10, 20)  # percent
SIZE_BYTES = 10_000
ROUNDS, ROUNDS_QUICK = 5, 1
THEIR_S, THEIR_S_QUICK = 120, 60
MEET_S, LINK_S = 180.0, 60.0
STATS_S = 2.5  # in which the emulators write what they have counted
ANY_REGION = """[BENCH]
about = "none: an emulated channel"
usual_mhz = 869.525
gain_free_dbi = 2.15
[[BENCH.bands]]
low_mhz = 863.0
high_mhz = 870.0
power_dbm = 27
limits = []
"""


class Seen(msgspec.Struct):
    """At one share of loss: shares of the rate, theirs 0 where it was not reached; what a link of theirs took on the
    air (bytes, milliseconds), and an echo of 32 bytes."""

    ours: list[float] = msgspec.field(default_factory=list)
    theirs: list[float] = msgspec.field(default_factory=list)
    links: list[bool] = msgspec.field(default_factory=list)
    link_air: tuple[int, float] = (0, 0.0)
    echo_air_ms: float = 0.0


def measure(plan: Plan) -> list[Figure]:
    python = install(plan.folder)
    if isinstance(python, str):
        plan.say(f"transports: {python}")
    with ThreadPoolExecutor(len(LOSSES)) as pool:
        seen = list(pool.map(partial(_at, plan, python if isinstance(python, Path) else None), LOSSES))
    limit_s = plan.rounds(THEIR_S, THEIR_S_QUICK)
    figures = [_share(loss, one, limit_s) for loss, one in zip(LOSSES, seen, strict=True)]
    if seen[1].theirs:
        theirs = statistics.median(seen[1].theirs) or _share_of(limit_s)
        ratio = statistics.median(seen[1].ours) / theirs
        figures.append(Figure("lora_loss10_vs_reticulum", ratio, "Reticulum, share", theirs))
        count, air_ms = seen[0].link_air
        figures.append(Figure("reticulum_link_bytes", count, note=f"{air_ms:.0f} ms of air; three packets"))
        figures.append(Figure("reticulum_echo32_air_ms", seen[0].echo_air_ms))
    return figures


def _share(loss: int, seen: Seen, limit_s: int) -> Figure:
    spread = f"{len(seen.ours)} runs, {min(seen.ours):.2f} to {max(seen.ours):.2f}"
    if not seen.theirs:
        return Figure(f"lora_sf7_share_of_phy_loss{loss}", statistics.median(seen.ours), note=spread)
    late = seen.theirs.count(0.0)
    theirs = f"Reticulum {min(seen.theirs):.2f} to {max(seen.theirs):.2f}"
    if late:
        theirs += f", {late} of {len(seen.theirs)} not there in {limit_s} s"
    theirs += f"; {seen.links.count(True)} of {len(seen.links)} links in {LINK_S:.0f} s"
    return Figure(
        f"lora_sf7_share_of_phy_loss{loss}",
        statistics.median(seen.ours),
        "Reticulum",
        statistics.median(seen.theirs),
        f"{spread}; {theirs}",
    )


def _share_of(seconds: float) -> float:
    return SIZE_BYTES * 8 / SF7.bitrate_bps / seconds


def _at(plan: Plan, python: Path | None, loss: int) -> Seen:
    folder = plan.folder / f"lora{loss}"
    folder.mkdir()
    regions = folder / "regions.toml"
    regions.write_text(ANY_REGION, encoding="utf-8")
    seen = Seen()
    with ExitStack() as stack:
        ours = stack.enter_context(_air(folder / "ours", loss))
        specs = [f"lora:{port}?region=BENCH&regions={regions}&sf=7" for port in ours.ports]
        serving = stack.enter_context(running([sys.executable, "-m", "offgrid_tools.bench.link_end", specs[1]]))
        if line_of(serving, START_S) != "ready":
            raise RuntimeError("our answering end did not start")
        theirs = _theirs(stack, python, folder, loss, seen) if python is not None else None
        if python is not None and theirs is None:
            plan.say(f"transports: LoRa, {loss} % loss: Reticulum found no path in {MEET_S:.0f} s")
        asyncio.run(_rounds(plan, specs[0], theirs, loss, seen))
    return seen


async def _rounds(plan: Plan, spec: str, theirs: Reticulum | None, loss: int, seen: Seen) -> None:
    """Ours and theirs in turn."""
    limit_s = plan.rounds(THEIR_S, THEIR_S_QUICK)
    end = LinkEnd(NAMES[0], spec)
    await end.ready()
    end.introduce(NAMES[1], BROADCAST)
    await end.call(NAMES[1], TAKE, b"")
    for number in range(plan.rounds(ROUNDS, ROUNDS_QUICK)):
        body, began = os.urandom(SIZE_BYTES), time.perf_counter()
        await end.call(NAMES[1], TAKE, body)
        seen.ours.append(_share_of(time.perf_counter() - began))
        said = ""
        if theirs is not None:
            seen.theirs.append(await asyncio.to_thread(_their_share, theirs, limit_s, seen))
            said = f", Reticulum {seen.theirs[-1]:.2f}"
        plan.say(f"transports: LoRa, {loss} % loss, run {number + 1}: {seen.ours[-1]:.2f} of the rate{said}")
    end.endpoint.close()


def _theirs(stack: ExitStack, python: Path, folder: Path, loss: int, seen: Seen) -> Reticulum | None:
    air = stack.enter_context(_air(folder / "theirs", loss))
    interfaces = [RNODE.format(port=port) for port in air.ports]
    peer = stack.enter_context(reticulum(python, folder / "reticulum", interfaces[1], interfaces[0]))
    if not peer.meet(MEET_S):
        return None
    before = air.counts()
    linked = bool(peer.order("link", LINK_S)["done"])
    if not loss and linked:
        after = air.counts()
        seen.link_air = after[0] - before[0], (after[1] - before[1]) / 1000
        peer.order("calls", LINK_S, count=1, size=32, in_flight=1)
        seen.echo_air_ms = (air.counts()[1] - after[1]) / 1000
    return peer


def _their_share(peer: Reticulum, limit_s: float, seen: Seen) -> float:
    """0 where it does not arrive in that time. Each transfer has a link of its own, made before."""
    linked = bool(peer.order("link", LINK_S)["done"])
    seen.links.append(linked)
    if not linked:
        return 0.0
    outcome = peer.order("send", limit_s, size=SIZE_BYTES)
    return _share_of(outcome["seconds"]) if outcome["done"] else 0.0


class Air(msgspec.Struct, frozen=True):
    """Two emulated RNodes on a channel of their own."""

    ports: list[Path]
    stats: Path

    def counts(self) -> tuple[int, int]:
        """Bytes and microseconds on the air, when all is still."""
        time.sleep(STATS_S)
        counts = json.loads(self.stats.read_text(encoding="utf-8"))
        return counts["bytes"], counts["airtime_us"]


@contextmanager
def _air(folder: Path, loss: int) -> Iterator[Air]:
    folder.mkdir()
    ports, stats = [folder / "a", folder / "b"], folder / "stats.json"
    options = [f"loss={loss / 100}", f"seed={time.time_ns() % 1_000_000}", f"stats={stats}"]
    command = [sys.executable, "-m", "offgrid_tools.emulators", "lora", "rnode", *map(str, ports), *options]
    with running(command) as emulators:
        if line_of(emulators, START_S) != "ready":
            raise RuntimeError("the emulated modems did not start")
        yield Air(ports, stats)
