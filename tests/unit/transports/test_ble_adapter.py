"""Bluetooth as a Transport: neighbours, their loss and return, and what bad ones may do; on radios that are objects."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from ble_world import FakeChannel, World, run

from offgrid_transports.ble import adapter
from offgrid_transports.ble.adapter import LINGER_S, STRANGERS_MAX
from offgrid_transports.ble.adverts import Advert, Sighting
from offgrid_transports.ble.greeting import FRAME_BYTES_MAX, Greeting
from offgrid_transports.ble.neighbour import GREETING_S, QUEUE_FRAMES_MAX, STALL_S
from offgrid_transports.ble.seeking import BRISK_MS
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST, BadSpec, LinkHost, Priority, Transport

REGISTRY = TransportRegistry({"ble": adapter.open_transport})


def test_nodes_of_a_mesh_find_each_other_and_exchange_frames() -> None:
    async def main() -> None:
        async with World() as world:
            a, b, c = (world.node(b"meshmesh" + bytes([n])) for n in range(3))
            stranger = world.node(b"other...")
            await world.until(lambda: all(len(end.neighbours()) == 2 for end in (a, b, c)))
            link: Transport = a
            assert link.send(b.address, b"one")
            assert link.send(BROADCAST, b"all")
            await world.until(lambda: len(world.heard[b.address]) == 2 and world.heard[c.address])
            assert world.heard[b.address] == [(a.address, b"one"), (a.address, b"all")]
            assert world.heard[c.address] == [(a.address, b"all")]
            assert b.send(a.address, bytes(FRAME_BYTES_MAX))
            await world.until(lambda: world.heard[a.address])
            assert stranger.neighbours() == ()
            assert stranger.figures()["other_meshes"] != 0

    run(main)


def test_two_that_connect_to_each_other_at_once_keep_one_link_and_lose_nothing() -> None:
    async def main() -> None:
        async with World() as world:
            world.air.connect_s = 1.0  # so both begin before either has connected
            a, b = world.node(), world.node()
            await world.linked()
            sent = 0
            while not all(end.figures().get("doubled_links") for end in (a, b)):
                sent += sum(a.send(b.address, bytes([sent % 200])) for _ in range(5))  # more than can leave
                await asyncio.sleep(0.01)
            changes = len(world.changes)
            await world.until(lambda: a.send(b.address, b"last"))
            await world.until(lambda: (a.address, b"last") in world.heard[b.address])
            await asyncio.sleep(LINGER_S * 2)
            assert [channel.open for channel in world.air.channels].count(True) == 2
            (here,) = (channel for channel in world.air.channels if channel.open and channel.outgoing)
            lower = min((a, b), key=lambda end: end.address)
            assert here.address != f"radio{world.ends.index(lower)}", "the one that the lower name opened"
            assert len(world.heard[b.address]) == sent + 1
            assert len(world.changes) == changes

    run(main)


def test_a_lost_link_is_back_within_a_second_and_a_half_under_the_same_address() -> None:
    async def main() -> None:
        async with World() as world:
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            await asyncio.sleep(BRISK_MS / 1000 + 2)
            assert (a.figures()["duty"], b.figures()["duty"]) == ("settled", "settled")
            before = a.neighbours()
            world.air.break_all()
            assert a.neighbours() == ()
            assert not a.send(b.address, b"lost")
            await silence()
            assert (a.figures()["duty"], b.figures()["duty"]) == ("brisk", "brisk")
            assert await world.linked() <= 1.5
            assert a.neighbours() == before
            assert a.send(b.address, b"again")
            await world.until(lambda: world.heard[b.address] == [(a.address, b"again")])

    run(main)


def test_a_loss_that_only_one_side_has_noticed_is_mended_by_the_newer_link() -> None:
    async def main() -> None:
        async with World() as world:
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            (mine,) = (channel for channel in world.air.channels if channel.outgoing)
            mine.lose("lost")  # the other end believes in it for now
            await world.linked()
            assert a.send(b.address, b"x")
            assert b.send(a.address, b"y")
            await world.until(lambda: world.heard[a.address] and world.heard[b.address])
            await asyncio.sleep(LINGER_S * 2)
            assert [channel.open for channel in world.air.channels].count(True) == 2

    run(main)


def test_only_so_many_links_at_once() -> None:
    async def main() -> None:
        async with World() as world:
            hub = world.node(b"meshmesh1", links_max=2)
            for number in range(4):
                world.node(b"meshmesh2" + bytes([number]), links_max=1)
            await world.until(lambda: len(hub.neighbours()) == 2)
            await asyncio.sleep(3)
            assert len(hub.neighbours()) == 2
            assert hub.figures()["duty"] == "full"

    run(main)


def intrude(world: World) -> FakeChannel:
    """Somebody who connects to the first node and holds the other end himself."""
    here, there = FakeChannel(world.air, "intruder", False), FakeChannel(world.air, "radio0", True)
    here.other, there.other = there, here
    world.air.radios["radio0"].on_channel(here)
    return there


async def silence() -> None:
    await asyncio.sleep(0.05)


def test_who_says_nothing_and_who_talks_nonsense_is_dropped() -> None:
    async def main() -> None:
        async with World() as world:
            a = world.node()
            await silence()
            silent = [intrude(world) for _ in range(STRANGERS_MAX)]
            refused = intrude(world)
            await silence()
            assert (refused.open, a.figures()["refused_channels"]) == (False, 1)
            await asyncio.sleep(GREETING_S)
            assert not any(channel.open for channel in silent)
            nonsense, echo = intrude(world), intrude(world)
            nonsense.write(b"GET / HTTP/1.1")
            echo.write(bytes(Greeting(bytes.fromhex(a.address), 2048, b"")))
            await silence()
            assert (nonsense.open, echo.open, a.figures()["own_name"]) == (False, False, 1)
            assert a.neighbours() == ()

    run(main)


def test_frames_that_are_too_long_or_empty_are_dropped_and_a_small_neighbour_gets_small_ones() -> None:
    async def main() -> None:
        async with World() as world:
            a = world.node()
            await silence()
            guest = intrude(world)
            guest.write(bytes(Greeting(b"guestgue", 100, b"")))
            await silence()
            (name,) = a.neighbours()
            for frame in (b"", bytes(FRAME_BYTES_MAX + 1), b"\xf0link", b"fine"):
                guest.write(frame)
                await silence()
            assert world.heard[a.address] == [(name, b"fine")]
            assert (a.mtu_bytes(name), a.mtu_bytes()) == (100, 100)
            with pytest.raises(ValueError, match="101 bytes; this link carries 100"):
                a.send(BROADCAST, bytes(101))

    run(main)


def test_a_neighbour_that_takes_nothing_fills_a_short_queue_and_is_dropped() -> None:
    async def main() -> None:
        async with World() as world:
            a = world.node(b"meshmesh1")
            b = world.node(b"meshmesh2")
            await world.linked()
            room: list[bool] = []
            a.on_room = lambda: room.append(True)
            for channel in world.air.channels:
                channel.stuck = True
            took = [a.send(b.address, bytes(10), Priority.BULK) for _ in range(QUEUE_FRAMES_MAX + 1)]
            assert (took.count(True), took[-1], room) == (QUEUE_FRAMES_MAX, False, [])
            assert a.wait_ms(1, Priority.CONTROL) == 0
            assert a.wait_ms(1, Priority.BULK) == pytest.approx(QUEUE_FRAMES_MAX * 1.1)
            for channel in world.air.channels:
                channel.stuck = False
                channel.on_room()
            await world.until(lambda: room)
            assert room == [True]
            await world.until(lambda: len(world.heard[b.address]) == QUEUE_FRAMES_MAX)
            for channel in world.air.channels:
                channel.stuck = True
            a.send(b.address, b"x")
            gone = await world.until(lambda: not a.neighbours())
            assert gone == pytest.approx(STALL_S, abs=0.1)

    run(main)


def test_urgent_frames_go_first_and_nothing_is_sent_or_told_from_within_a_call() -> None:
    async def main() -> None:
        async with World() as world:
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            await silence()
            written = [len(channel.written) for channel in world.air.channels]
            for priority in (Priority.BULK, Priority.JOB, Priority.PAYMENT, Priority.CONTROL):
                a.send(b.address, priority.name.encode(), priority)
            assert [len(channel.written) for channel in world.air.channels] == written
            await world.until(lambda: len(world.heard[b.address]) == 4)
            assert [frame for _, frame in world.heard[b.address]] == [b"CONTROL", b"PAYMENT", b"JOB", b"BULK"]

    run(main)


def test_a_controller_that_is_gone_is_taken_again_when_it_is_back() -> None:
    async def main() -> None:
        async with World() as world:
            world.air.unplugged.add("radio0")
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await silence()
            assert (a.up, a.figures()["state"], a.figures()["trouble"]) == (False, "down", "radio0 is unplugged")
            assert a.wait_ms(1, Priority.JOB) == float("inf")
            world.air.unplugged.clear()
            await world.linked()
            world.air.radios["radio0"].on_lost("pulled out")
            world.air.break_all()
            assert await world.until(lambda: not a.up) < 0.1
            assert a.neighbours() == ()
            assert await world.linked() <= 2
            assert "trouble" not in a.figures()
            assert b.up

    run(main)


def test_a_neighbour_that_comes_back_under_another_address_is_linked_once_the_old_link_is_lost() -> None:
    async def main() -> None:
        async with World() as world:
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            world.again = "x"
            theirs = next(channel for channel in world.air.channels if not channel.outgoing)
            mine = theirs.other
            theirs.open = False  # pulled out: nobody tells the other end
            world.air.radios["radio1"].on_lost("pulled out")
            await world.until(lambda: "radio1x" in world.air.radios)
            await asyncio.sleep(1)
            assert a.neighbours() == (b.address,), "it still believes in the old one"
            mine.lose("silence")
            assert await world.linked() <= 1.5

    run(main)


def test_a_radio_that_is_switched_on_again_connects_at_once_to_who_was_a_neighbour() -> None:
    async def main() -> None:
        async with World() as world:
            a, _ = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            await asyncio.sleep(1)
            world.again = "x"
            mine = next(channel for channel in world.air.channels if channel.outgoing)
            mine.open = False  # pulled out: nobody tells the other end
            world.air.radios["radio0"].on_lost("pulled out")
            await world.until(lambda: not a.up)
            assert await world.until(a.neighbours) <= 0.9

    run(main)


def test_a_controller_that_is_pulled_out_while_it_connects_is_not_waited_for() -> None:
    async def main() -> None:
        async with World() as world:
            world.air.connect_s = 20.0
            a, _ = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.until(lambda: a.figures().get("connects"))
            world.air.connect_s = 0.05
            world.air.radios["radio0"].on_lost("pulled out")
            assert await world.until(lambda: not a.up) < 0.1
            assert await world.linked() <= 2

    run(main)


def test_adverts_of_nobody_cost_attempts_that_become_rarer() -> None:
    async def main() -> None:
        async with World() as world:
            world.node()
            await silence()
            radio = world.air.radios["radio0"]
            for _ in range(60):
                radio.on_sighting(Sighting("ghost", Advert(0xA7, b"meshmesh!"), -30))
                await asyncio.sleep(1)
            assert 4 <= radio.attempts <= 9

    run(main)


def test_a_closed_link_neither_sends_nor_calls_back() -> None:
    async def main() -> None:
        async with World() as world:
            a, b = world.node(b"meshmesh1"), world.node(b"meshmesh2")
            await world.linked()
            b.send(a.address, b"late")
            a.on_frame = lambda address, frame: pytest.fail("heard something")
            a.on_change = lambda: pytest.fail("told of something")
            a.close()
            a.close()
            assert (a.up, a.send(b.address, b"x"), a.neighbours()) == (False, False, ())
            await a.wait_closed()
            await asyncio.sleep(1)
            assert (b.neighbours(), a.figures()["state"]) == ((), "closed")

    run(main)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ble:hci0", "ble:usb:"),
        ("ble:usb:", "ble:usb:"),
        ("ble:bluez:0", "ble:hci-socket:0"),
        ("ble:hci-socket:hci0", "ble:hci-socket:0"),
        ("ble:tcp-client:127.0.0.1", "ble:tcp-client:127.0.0.1:6402"),
        ("ble:unix-client:", "ble:unix-client:/run/hci.sock"),
        ("ble:usb:0?links=9", "from 1 to 8"),
        ("ble:usb:0?channel=l2cap", "auto, gatt"),
        ("ble:usb:0?chanel=gatt", "did you mean 'channel'"),
    ],
)
def test_a_bad_description_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(BadSpec, match=says):
        REGISTRY.open(text, LinkHost(Random(1), lambda delay_ms, fn: None, lambda: 0))


def test_without_the_extra_it_says_which_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bumble", None)
    with pytest.raises(BadSpec, match=r"offgrid-node\[ble\]"):
        REGISTRY.open("ble:usb:0", LinkHost(Random(1), lambda delay_ms, fn: None, lambda: 0))
