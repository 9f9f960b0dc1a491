"""Bluetooth by Bumble over virtual controllers: both kinds of channel, loss and return, and guests that misbehave."""

from __future__ import annotations

import asyncio
import logging
from random import Random

import pytest

pytest.importorskip("bumble", reason="the extra ble")

from ble_town import BleTown
from bumble import att, l2cap

from offgrid_transports.ble import bumble_connections
from offgrid_transports.ble.adverts import SERVICE_BYTES
from offgrid_transports.ble.bumble_channels import CREDITS
from offgrid_transports.ble.bumble_connections import NOTIFIED_UUID, SERVICE_UUID, WRITTEN_UUID
from offgrid_transports.ble.bumble_radio import PSM
from offgrid_transports.ble.greeting import FRAME_BYTES_MAX, Greeting
from offgrid_transports.transport import BROADCAST

pytestmark = pytest.mark.e2e
RESUME_S = 1.5
MESH = b"meshmesh"


@pytest.mark.parametrize(("query", "kind"), [("", "coc"), ("?channel=gatt", "gatt")])
def test_frames_of_all_lengths_arrive_whole_and_in_order_both_ways(query: str, kind: str) -> None:
    async def main() -> None:
        async with BleTown(2) as town:
            a, b = town.node(MESH + b"1", query), town.node(MESH + b"2")
            await town.linked()
            assert str(a.figures()[f"neighbour {b.address}"]).startswith(f"{kind} ")
            frames = [bytes([length % 240]) * length for length in (1, 2, 243, 247, 248, 511, 1023, FRAME_BYTES_MAX)]

            async def talk(here: str, number: int) -> None:
                for frame in frames:
                    await town.send(town.ends[number], here, frame)

            await asyncio.gather(talk(b.address, 0), talk(a.address, 1))
            await town.until(lambda: all(len(heard) == len(frames) for heard in town.heard.values()))
            assert town.heard[a.address] == [(b.address, frame) for frame in frames]
            assert town.heard[b.address] == [(a.address, frame) for frame in frames]
            assert a.bitrate_bps > 1_000_000, "2M PHY and long packets were agreed on"
            assert a.figures()["bad_packets"] == 0

    asyncio.run(main())


def test_three_nodes_on_a_lossy_air_are_all_connected_and_a_broadcast_reaches_the_others() -> None:
    async def main() -> None:
        async with BleTown(3, "loss=0.2", "phy=1m") as town:
            a, b, c = (town.node(MESH + bytes([number])) for number in range(3))
            await town.linked(2)
            for number in range(20):
                await town.send(a, BROADCAST, bytes([number]) * 500)
            await town.until(lambda: len(town.heard[b.address]) == len(town.heard[c.address]) == 20)

    asyncio.run(main())


def test_two_that_show_the_same_connect_at_once_and_keep_one_link() -> None:
    async def main() -> None:
        async with BleTown(2) as town:
            a, b = town.node(MESH), town.node(MESH)
            await town.linked()
            await asyncio.sleep(0.5)
            assert (a.neighbours(), b.neighbours()) == ((b.address,), (a.address,))
            assert (a.figures()["connections"], b.figures()["connections"]) == (1, 1)

    asyncio.run(main())


def test_a_lost_link_is_back_within_a_second_and_a_half_while_frames_flow() -> None:
    async def main() -> None:
        async with BleTown(2) as town:
            a, b = town.node(MESH + b"1"), town.node(MESH + b"2")
            await town.linked()
            taken = []
            for _ in range(3):
                for number in range(20):
                    a.send(b.address, bytes([number]) * 1000)
                town.tell("drop 0 1")
                await town.until(lambda: not a.neighbours() and not b.neighbours())
                taken.append(await town.linked())
            assert sorted(taken)[1] <= RESUME_S, taken
            assert a.send(b.address, b"again")
            await town.until(lambda: (a.address, b"again") in town.heard[b.address])

    asyncio.run(main())


def test_a_neighbour_that_is_out_of_reach_does_not_stop_the_others() -> None:
    async def main() -> None:
        async with BleTown(3) as town:
            a, b, c = (town.node(MESH + bytes([number])) for number in range(3))
            await town.linked(2)
            town.tell("stall 0 1 60000")
            for _ in range(12):
                a.send(b.address, bytes(FRAME_BYTES_MAX))
            await asyncio.sleep(0.1)
            for number in range(12):
                await town.send(a, c.address, bytes([number]) * FRAME_BYTES_MAX)
            await town.until(lambda: len(town.heard[c.address]) == 12)
            assert b.address in a.neighbours(), "and it was not given up for that"
            assert len(town.heard[b.address]) < 12

    asyncio.run(main())


def test_a_controller_that_is_pulled_out_is_taken_again() -> None:
    async def main() -> None:
        async with BleTown(2) as town:
            a, b = town.node(MESH + b"1"), town.node(MESH + b"2")
            await town.linked()
            town.tell("unplug 0")
            await town.until(lambda: not a.up)
            assert "unplugged" in str(a.figures()["trouble"])
            assert a.neighbours() == ()
            await town.until(a.neighbours)
            await town.send(a, b.address, b"back")
            await town.until(lambda: town.heard[b.address] == [(a.address, b"back")])

    asyncio.run(main())


class Log(logging.Handler):
    """What a node's log would have."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


def test_guests_that_say_nothing_or_nonsense_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bumble_connections, "OPEN_S", 0.3)
    log = Log()
    monkeypatch.setattr(logging.root, "handlers", [log])

    async def main() -> None:
        async with BleTown(2, "paced=0") as town:
            a = town.node(MESH)
            guest = await town.guest(1)
            # connects, and that is all
            silent = await guest.connect(await town.address_of(guest, MESH), timeout=20)
            gone = asyncio.Event()
            silent.on("disconnection", lambda reason: gone.set())
            async with asyncio.timeout(20):
                await gone.wait()
            monkeypatch.setattr(bumble_connections, "OPEN_S", 60.0)
            # garbage on every fixed channel, in packets of any length
            connection = await guest.connect(await town.address_of(guest, MESH), timeout=20)
            rng = Random(1)
            for cid in (0, 1, 4, 5, 6, 0x40, 0x7FFF):
                for length in (0, 1, 2, 3, 5, 23, 300):
                    connection.send_l2cap_pdu(cid, rng.randbytes(length))
            for length in range(0, 40, 3):
                guest.host.send_acl_sdu(connection.handle, rng.randbytes(length))
            # values of any size, without and with somebody who takes them
            client = connection.gatt_client
            await client.request_mtu(515)
            (service,) = await client.discover_service(SERVICE_UUID)
            await service.discover_characteristics()
            (written,) = service.get_characteristics_by_uuid(WRITTEN_UUID)
            (notified,) = service.get_characteristics_by_uuid(NOTIFIED_UUID)
            for _ in range(2):
                for length in (0, 1, 2, 20, 512, 513, 600):
                    head = bytes([att.Opcode.ATT_WRITE_COMMAND]) + written.handle.to_bytes(2, "little")
                    connection.send_l2cap_pdu(att.ATT_CID, head + rng.randbytes(length))
                await notified.subscribe()
            await town.until(lambda: int(a.figures()["stray_writes"]) >= 5)
            assert a.neighbours() == ()
            assert (int(a.figures()["silent_connections"]), a.up) == (1, True)
            assert int(a.figures()["bad_packets"]) > 0
            # advertisements that carry our UUID and nonsense
            for data in (SERVICE_BYTES, bytes([31, 0x21]) + SERVICE_BYTES, bytes([18, 0x21]) + SERVICE_BYTES + b"\x01"):
                await guest.start_advertising(advertising_data=data, advertising_interval_min=20)
                await asyncio.sleep(0.05)
            await town.until(lambda: int(a.figures()["bad_adverts"]) > 0)

    asyncio.run(main())
    assert log.said == []


def test_a_guest_whose_channel_takes_nothing_is_sent_away_and_one_without_credits_holds_a_short_queue() -> None:
    async def main() -> None:
        async with BleTown(2, "paced=0") as town:
            a = town.node(MESH)
            guest = await town.guest(1)
            connection = await guest.connect(await town.address_of(guest, MESH), timeout=20)
            small = l2cap.LeCreditBasedChannelSpec(psm=PSM, mtu=23, mps=23)
            channel = await connection.create_l2cap_channel(small)
            await town.until(lambda: channel.state == channel.State.DISCONNECTED)
            assert a.figures()["stray_writes"] == 1
            connection = await guest.connect(await town.address_of(guest, MESH), timeout=20)
            mean = l2cap.LeCreditBasedChannelSpec(psm=PSM, mtu=2048, mps=64, max_credits=1)
            channel = await connection.create_l2cap_channel(mean)
            channel.sink = lambda message: None
            channel.send_control_frame = lambda frame: None  # so it gives no more
            channel.write(bytes(Greeting(b"meanmean", FRAME_BYTES_MAX, b"")))
            await town.until(a.neighbours)
            took = 0
            while a.send(a.neighbours()[0], bytes(1000)):
                took += 1
                await asyncio.sleep(0)
            assert took < 2 * CREDITS
            assert a.wait_ms(1, 3) > 0

    asyncio.run(main())
