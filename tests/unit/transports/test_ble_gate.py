"""What stands between a controller and its host: portions, bounds, and what is left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from offgrid_transports.ble import hci_gate
from offgrid_transports.ble.adverts import Advert, advertisement
from offgrid_transports.ble.hci_gate import BACKLOG_PACKETS_MAX, HciGate

ADVERT = bytes((0x04, 0x3E, 0x2B, 0x02))


class Host:
    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.cost_s = 0.0
        self.told_lost = 0
        self.breaks = False

    def on_transport_lost(self) -> None:
        self.told_lost += 1

    def on_packet(self, packet: bytes) -> None:
        self.packets.append(packet)
        if self.cost_s:
            time.sleep(self.cost_s)
        if self.breaks:
            raise IndexError(packet)


class Bench:
    def __init__(self) -> None:
        self.host, self.controller = Host(), Host()
        self.lost: list[str] = []
        self.gate = HciGate(self.host, self.controller, self.lost.append)


def within(test: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Bench())

    asyncio.run(main())


def test_packets_arrive_in_order_and_in_portions() -> None:
    async def test(bench: Bench) -> None:
        bench.host.cost_s = hci_gate.PORTION_MS / 1000
        for number in range(6):
            bench.gate.on_packet(bytes((2, number)))
        assert bench.host.packets == [], "nothing from within the call"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(bench.host.packets) < 6
        for _ in range(12):
            await asyncio.sleep(0)
        assert bench.host.packets == [bytes((2, number)) for number in range(6)]

    within(test)


def test_adverts_of_others_never_reach_the_host_and_broken_packets_break_nothing() -> None:
    async def test(bench: Bench) -> None:
        ours = ADVERT + advertisement(Advert(0xA7, b"mesh"))[0]
        bench.host.breaks = True
        for packet in (ADVERT + bytes(40), ours, ADVERT, b"\x04", b"\x04\x3e", b"\x02"):
            bench.gate.on_packet(packet)
        await asyncio.sleep(0)
        assert bench.host.packets == [ours, b"\x04", b"\x04\x3e", b"\x02"]
        assert (bench.gate.other_adverts, bench.gate.bad_packets, bench.lost) == (2, 4, [])

    within(test)


def test_a_controller_that_sends_more_than_can_be_taken_is_given_up_once_and_for_all() -> None:
    async def test(bench: Bench) -> None:
        for _ in range(BACKLOG_PACKETS_MAX + 10):
            bench.gate.on_packet(b"\x02")
        bench.gate.on_transport_lost()
        bench.gate.towards_controller.on_packet(b"\x02\0\0")
        await asyncio.sleep(0)
        assert (bench.lost, bench.host.told_lost) == (["it sends more than can be taken"], 1)
        assert (bench.host.packets, bench.controller.packets) == ([], [])

    within(test)
