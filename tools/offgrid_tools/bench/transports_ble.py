"""Bluetooth LE through our adapter beside Bumble's own L2CAP channel, over the same virtual controllers in one run.

Both ends are in this process, the controllers in another. Paced, they are on air for as long as real ones with the 2M
PHY and the longest packets; not paced, the processor is what limits. Lost links are lost as a controller tells it; out
of reach, one second of silence comes first.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Any

from bumble import hci, l2cap
from bumble.device import Device
from bumble.transport import open_transport as open_controller

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import Pairs
from offgrid_transports.ble.adapter import BleTransport, open_transport
from offgrid_transports.ble.bumble_channels import CocChannel
from offgrid_transports.ble.bumble_radio import PSM
from offgrid_transports.registry import parse_spec
from offgrid_transports.transport import LinkHost

PACED_BYTES, FREE_BYTES = 204_800, 2_048_000
FRAME_BYTES = 2048
PAIRS, PAIRS_QUICK = 5, 2
LOSSES, LOSSES_QUICK = 20, 5
PATIENCE_S = 60.0
LOOK_S = 0.001


def measure(plan: Plan) -> list[Figure]:
    """All figures of Bluetooth."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> list[Figure]:
    pairs = plan.rounds(PAIRS, PAIRS_QUICK)
    plan.say("transports: Bluetooth LE, paced as the 2M PHY")
    paced = await _carried(pairs, PACED_BYTES)
    gatt = await _rate_of_ours(PACED_BYTES, "?channel=gatt")
    plan.say("transports: Bluetooth LE, as fast as the processor")
    free = await _carried(pairs, FREE_BYTES, "paced=0")
    plan.say("transports: Bluetooth LE, links that are lost")
    losses = plan.rounds(LOSSES, LOSSES_QUICK)
    lost, away = await _resumed(losses)
    return [
        Figure("ble_kb_per_s", paced.our_median, "raw CoC", paced.their_median),
        Figure("ble_vs_raw_coc", paced.ratio, "raw CoC", paced.their_median, paced.spread),
        Figure("ble_gatt_kb_per_s", gatt),
        Figure("ble_free_kb_per_s", free.our_median, "raw CoC", free.their_median),
        Figure("ble_free_vs_raw_coc", free.ratio, "raw CoC", free.their_median, free.spread),
        Figure("ble_resume_s", max(lost), note=f"the slowest of {losses}, {statistics.median(lost):.2f} in the middle"),
        Figure("ble_resume_from_silence_s", max(away), note=f"the slowest of {len(away)}, 1 s of silence included"),
    ]


async def _carried(pairs: int, size: int, *options: str) -> Pairs:
    ours, theirs = [], []
    for _ in range(pairs):
        ours.append(await _rate_of_ours(size, "", *options))
        theirs.append(await _rate_of_raw(size, *options))
    return Pairs(ours, theirs)


async def _rate_of_ours(size: int, query: str, *options: str) -> float:
    """kB/s one way."""
    async with _controllers(*options) as (ports, _), _ends(ports, query) as (here, there):
        heard = 0
        room, done = asyncio.Event(), asyncio.Event()

        def hear(address: str, frame: bytes) -> None:
            nonlocal heard
            heard += len(frame)
            if heard >= size:
                done.set()

        there.on_frame = hear
        here.on_room = room.set
        began = time.perf_counter()
        sent = 0
        while sent < size:
            room.clear()
            if here.send(there.address, bytes(FRAME_BYTES)):
                sent += FRAME_BYTES
            else:
                async with asyncio.timeout(PATIENCE_S):
                    await room.wait()
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        return size / 1000 / (time.perf_counter() - began)


async def _rate_of_raw(size: int, *options: str) -> float:
    """kB/s one way, by Bumble alone."""
    async with _controllers(*options) as (ports, _):
        transports = [await open_controller(f"tcp-client:127.0.0.1:{port}") for port in ports]
        addresses = [hci.Address(f"C{number}:00:00:00:00:00") for number in range(2)]
        devices = [
            Device.with_hci("raw", address, transport.source, transport.sink)
            for address, transport in zip(addresses, transports, strict=True)
        ]
        for device in devices:
            await device.power_on()
            device.host.local_le_features &= ~hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
        heard = 0
        done = asyncio.Event()

        def hear(message: bytes) -> None:
            nonlocal heard
            heard += len(message)
            if heard >= size:
                done.set()

        def take(channel: l2cap.LeCreditBasedChannel) -> None:
            channel.sink = hear

        devices[1].create_l2cap_server(CocChannel.spec(PSM), take)
        await devices[1].start_advertising(advertising_interval_min=20, advertising_interval_max=20)
        connection = await devices[0].connect(addresses[1], timeout=PATIENCE_S)
        await connection.set_data_length(251, 2120)
        await connection.set_phy([hci.Phy.LE_2M], [hci.Phy.LE_2M])
        channel = await connection.create_l2cap_channel(CocChannel.spec(PSM))
        began = time.perf_counter()
        for _ in range(0, size, FRAME_BYTES):
            channel.write(bytes(FRAME_BYTES))
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        took_s = time.perf_counter() - began
        await connection.disconnect()
        for transport in transports:
            await transport.close()
        return size / 1000 / took_s


async def _resumed(losses: int) -> tuple[list[float], list[float]]:
    """Seconds until both have each other again: after they were told of a loss, and after they were out of reach."""
    async with _controllers() as (ports, tell), _ends(ports, "") as (here, there):

        async def back(command: str, since_loss: bool) -> float:
            tell(command)
            began = time.perf_counter()
            await _until(lambda: not (here.neighbours() or there.neighbours()))
            if since_loss:
                began = time.perf_counter()
            await _until(lambda: here.neighbours() and there.neighbours())
            return time.perf_counter() - began

        lost = [await back("drop 0 1", True) for _ in range(losses)]
        away = [await back("cut 0 1 1000", False) for _ in range(max(1, losses // 4))]
        return lost, away


@asynccontextmanager
async def _controllers(*options: str) -> AsyncIterator[tuple[list[int], Callable[[str], None]]]:
    """Two, in a process of their own; and what tells it something."""
    command = [sys.executable, "-m", "offgrid_tools.emulators", "ble", "0", "0", *options]
    emulator = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    assert emulator.stdin is not None
    assert emulator.stdout is not None
    stdin = emulator.stdin
    ports = [int(port) for port in (await emulator.stdout.readline()).split()[1:]]
    try:
        yield ports, lambda line: stdin.write(f"{line}\n".encode())
    finally:
        stdin.close()
        await emulator.wait()


@asynccontextmanager
async def _ends(ports: list[int], query: str) -> AsyncIterator[tuple[BleTransport, BleTransport]]:
    """Both, connected."""
    loop = asyncio.get_running_loop()
    here, there = (
        open_transport(
            parse_spec(f"ble:tcp-client:127.0.0.1:{port}{query}"),
            LinkHost(
                Random(port),  # noqa: S311 - names of two ends of one process
                partial(_later, loop),
                lambda: int(loop.time() * 1000),
                hello=b"benchmesh" + bytes([number]),
            ),
        )
        for number, port in enumerate(ports)
    )
    try:
        await _until(lambda: here.neighbours() and there.neighbours())
        yield here, there
    finally:
        for end in (here, there):
            end.close()
            await end.wait_closed()


def _later(loop: asyncio.AbstractEventLoop, delay_ms: int, then: Callable[[], object]) -> None:
    loop.call_later(delay_ms / 1000, then)


async def _until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - looked at from outside: what is measured calls nothing for it
            await asyncio.sleep(LOOK_S)
