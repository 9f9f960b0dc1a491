"""Bluetooth links that break, stall and whose controllers are pulled out, again and again, under traffic.

Three nodes by Bumble over virtual controllers in another process, on a lossy air. After each blow all three must be
neighbours again; a frame arrives whole, once at most, and only if it was sent; nothing is left over of what is gone.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from random import Random

from offgrid_tools.soak.chance import chance
from offgrid_transports.ble.adapter import BleTransport, open_transport
from offgrid_transports.registry import parse_spec
from offgrid_transports.transport import LinkHost

BLOWS = {
    "drop 0 1": 0.05,
    "drop 1 2": 0.05,
    "cut 0 2 1200": 1.3,
    "stall 0 1 300": 0.35,
    "unplug 0": 0.05,
    "unplug 1": 0.05,
}
"""And how long until each has struck, in seconds."""
LOSS = 0.05
BACK_S_MAX = 20.0  # for a machine that is busy; what it took is told
TASKS_MAX = 40
FRAME_BYTES_MAX = 2_000
TRAFFIC_S, LOOK_S = 0.02, 0.005


def soak_bluetooth(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """What was violated; says how long it took to be back."""
    return asyncio.run(_soak(seed, rounds, say))


async def _soak(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    command = [sys.executable, "-m", "offgrid_tools.emulators", "ble", "0", "0", "0", f"loss={LOSS}", f"seed={seed}"]
    emulator = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    assert emulator.stdin is not None
    assert emulator.stdout is not None
    ports = [int(port) for port in (await emulator.stdout.readline()).split()[1:]]
    town = Town(seed, ports)
    took: dict[str, list[float]] = defaultdict(list)
    try:
        await town.linked()
        for number in range(rounds):
            blow = town.rng.choice(list(BLOWS))
            emulator.stdin.write(f"{blow}\n".encode())
            await asyncio.sleep(BLOWS[blow])
            took[blow.split()[0]].append(await town.linked())
            if town.violations:
                town.violations.append(f"in round {number}, after {blow!r}")
                break
    finally:
        await town.close()
        emulator.stdin.close()
        await emulator.wait()
    for blow, times in sorted(took.items()):
        say(f"{blow}: {len(times)} times, back in {statistics.median(times):.2f} s, {max(times):.2f} s at worst")
    say(f"{town.heard_frames} of {town.sent_frames} frames arrived")
    return town.violations


class Town:
    """Three nodes, their traffic, and what it has to keep to."""

    def __init__(self, seed: int, ports: list[int]) -> None:
        self.rng = chance(f"bluetooth {seed}")
        self.violations: list[str] = []
        self.sent_frames = self.heard_frames = 0
        self._sent: dict[bytes, str] = {}
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.violations.append(f"nobody took: {context}"))
        self.ends = [self._open(loop, number, port) for number, port in enumerate(ports)]
        self._traffic = loop.create_task(self._talk())

    def _open(self, loop: asyncio.AbstractEventLoop, number: int, port: int) -> BleTransport:
        host = LinkHost(
            Random(self.rng.getrandbits(64)),  # noqa: S311 - names of the ends
            partial(_later, loop),
            lambda: int(loop.time() * 1000),
            hello=b"soakmesh" + bytes([number]),
        )
        end = open_transport(parse_spec(f"ble:tcp-client:127.0.0.1:{port}"), host)
        end.on_frame = partial(self._hear, end)
        return end

    async def linked(self) -> float:
        """How long until all have each other."""
        began = time.monotonic()
        while any(len(end.neighbours()) != len(self.ends) - 1 for end in self.ends):
            if time.monotonic() > began + BACK_S_MAX:
                self.violations.append(f"not back in {BACK_S_MAX:g} s: {[dict(end.figures()) for end in self.ends]}")
                break
            await asyncio.sleep(LOOK_S)
        return time.monotonic() - began

    async def close(self) -> None:
        """Looks what is left over, too."""
        self._traffic.cancel()
        tasks = len(asyncio.all_tasks())
        if tasks > TASKS_MAX:
            self.violations.append(f"{tasks} tasks are left")
        for end in self.ends:
            if bad := end.figures().get("bad_packets"):
                self.violations.append(f"{bad} packets broke something")
            end.close()
        for end in self.ends:
            await end.wait_closed()

    async def _talk(self) -> None:
        while True:
            for end in self.ends:
                for peer in end.neighbours():
                    frame = self.sent_frames.to_bytes(4, "big") + self.rng.randbytes(
                        self.rng.randrange(FRAME_BYTES_MAX)
                    )
                    if end.send(peer, frame):
                        self.sent_frames += 1
                        self._sent[frame] = peer
            while len(self._sent) > 2_000:  # more than all queues hold: what has not come by now never may
                del self._sent[next(iter(self._sent))]
            await asyncio.sleep(TRAFFIC_S)

    def _hear(self, end: BleTransport, address: str, frame: bytes) -> None:
        self.heard_frames += 1
        if self._sent.pop(frame, None) != end.address:
            self.violations.append(f"{len(frame)} bytes arrived from {address} that were not sent, or twice")


def _later(loop: asyncio.AbstractEventLoop, delay_ms: int, then: Callable[[], object]) -> None:
    loop.call_later(delay_ms / 1000, then)
