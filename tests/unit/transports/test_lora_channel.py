"""What the emulated channel does to frames, and what the emulated firmware does with them."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from lora_world import FAST, World
from msgspec.structs import replace

from offgrid_tools.emulators import lora
from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_transports.lora import rnode
from offgrid_transports.lora.kiss import KissDecoder, encode
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.rnode_firmware import DIFS_SLOTS, QUEUE_BYTES_MAX, slot_ms
from offgrid_transports.transport import BROADCAST

STRENGTHS = {("a", "c"): -60.0, ("b", "c"): -90.0, ("c", "a"): -60.0, ("c", "b"): -90.0}


class Ear:
    """A station that only listens and tells."""

    def __init__(self, name: str, channel: Channel, tuned: Modulation | None = FAST) -> None:
        self.name, self.tuned, self.heard = name, tuned, list[bytes]()
        self.changes = 0
        channel.join(self)

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        self.heard.append(frame)

    def on_medium(self) -> None:
        self.changes += 1


def channel_of(*names: str, loss: float = 0.0) -> tuple[VirtualClock, Channel, list[Ear]]:
    clock = VirtualClock()
    channel = Channel(clock, Random(1), loss=loss)
    return clock, channel, [Ear(name, channel) for name in names]


def nothing() -> None:
    pass


def test_a_frame_takes_its_airtime_and_reaches_all_who_are_tuned_to_it() -> None:
    clock, channel, (a, b, c) = channel_of("a", "b", "c")
    c.tuned = replace(FAST, sf=8)
    channel.send(a, FAST, bytes(100), nothing)
    air_us = FAST.airtime_us(100)
    clock.run(air_us - 1)
    assert b.heard == []
    clock.run(air_us)
    assert (b.heard, c.heard, a.heard) == ([bytes(100)], [], [])
    assert (channel.counts.airtime_us, channel.counts.frames) == (air_us, 1)


def test_frames_that_overlap_are_lost_and_who_sends_hears_nothing() -> None:
    clock, channel, (a, b, c) = channel_of("a", "b", "c")
    channel.send(a, FAST, b"from a", nothing)
    clock.run(1000)
    channel.send(b, FAST, b"from b", nothing)
    clock.run(10**6)
    assert (a.heard, b.heard, c.heard) == ([], [], [])
    assert (channel.counts.collided, channel.counts.deaf) == (2, 2)


def test_the_stronger_of_two_is_heard() -> None:
    clock, channel, (a, b, c) = channel_of("a", "b", "c")
    channel.reach = lambda sender, hearer: STRENGTHS.get((sender, hearer))
    channel.send(b, FAST, b"weak", nothing)
    channel.send(a, FAST, b"strong", nothing)
    clock.run(10**6)
    assert c.heard == [b"strong"]


def test_a_channel_is_sensed_busy_only_after_some_symbols_and_by_those_in_reach() -> None:
    clock, channel, (a, b, c) = channel_of("a", "b", "c")
    channel.reach = lambda sender, hearer: STRENGTHS.get((sender, hearer))
    channel.send(a, FAST, bytes(50), nothing)
    assert not channel.busy(c)
    clock.run(5_000)
    assert (channel.busy(c), channel.busy(b), channel.busy(a)) == (True, False, False)
    clock.run(10**6)
    assert not channel.busy(c)
    assert c.changes == 2


def test_loss_is_as_frequent_as_asked() -> None:
    clock, channel, (a, b) = channel_of("a", "b", loss=0.2)
    for _ in range(1000):
        channel.send(a, FAST, b"x", nothing)
        clock.run(clock.now_us + 10**6)
    assert 0.75 < len(b.heard) / 1000 < 0.85


def device(channel: Channel) -> tuple[RNodeEmulator, list[tuple[int, bytes]]]:
    said: list[tuple[int, bytes]] = []
    decoder = KissDecoder()
    emulator = RNodeEmulator("r", channel, lambda data: said.extend(decoder.feed(data)))
    for command, value in (
        (rnode.FREQUENCY, FAST.freq_hz.to_bytes(4, "big")),
        (rnode.BANDWIDTH, FAST.bw_hz.to_bytes(4, "big")),
        (rnode.POWER, b"\x0e"),
        (rnode.SF, b"\x07"),
        (rnode.RADIO, b"\x01"),
    ):
        emulator.on_bytes(encode(command, value))
    assert emulator.on
    said.clear()
    return emulator, said


def test_the_firmware_splits_long_packets_and_joins_them_again() -> None:
    world = World()
    channel, clock = world.channel, world.clock
    emulator, _ = device(channel)
    world.rnode("b")
    world.run(1)
    long = bytes(range(256)) + bytes(240)
    emulator.on_bytes(encode(rnode.DATA, long))
    clock.run(clock.now_us + 5_000_000)
    assert world.heard["b"] == [long]
    assert channel.counts.frames == 2


def test_the_firmware_says_ready_only_when_asked_and_cuts_off_what_its_queue_has_no_room_for() -> None:
    clock, channel, (ear,) = channel_of("e")
    emulator, said = device(channel)
    for _ in range(25):
        emulator.on_bytes(encode(rnode.DATA, bytes(254)))
    assert [command for command, _ in said if command == rnode.READY] == []
    emulator.on_bytes(encode(rnode.READY, b"\x00"))
    assert said[-1] == (rnode.READY, b"\x00")
    clock.run(60_000_000)
    assert sum(len(frame) - 1 for frame in ear.heard) == QUEUE_BYTES_MAX
    emulator.on_bytes(encode(rnode.READY, b"\x00"))
    assert said[-1] == (rnode.READY, b"\x01")


def starts_ms(world: World) -> list[int]:
    """When each frame began, after the end of the one before."""
    log = world.channel.log or []
    return [(later[1] - earlier[2]) // 1000 for earlier, later in itertools.pairwise(log)]


def test_the_firmware_sends_in_one_go_what_it_had_and_reads_on_after_that() -> None:
    world = World()
    emulator, said = device(world.channel)
    for _ in range(3):
        emulator.on_bytes(encode(rnode.DATA, bytes(100)))
    while not world.channel.sending(emulator):
        world.run(0.001)
    emulator.on_bytes(encode(rnode.DATA, bytes(200)) + encode(rnode.READY, b"\x00"))
    while world.channel.counts.frames < 4:
        assert said == [] or not world.channel.sending(emulator)
        world.run(0.001)
    assert starts_ms(world)[:2] == [0, 0]
    assert [command for command, _ in said] == [rnode.CHANNEL, rnode.READY]


def test_the_firmwares_random_wait_begins_with_the_burst_before_unless_the_channel_was_busy() -> None:
    world = World(2)
    emulator, _ = device(world.channel)
    difs_ms = DIFS_SLOTS * slot_ms(FAST)
    emulator.on_bytes(encode(rnode.DATA, bytes(200)))
    world.run(2)
    for _ in range(5):
        sent_us = world.clock.now_us
        emulator.on_bytes(encode(rnode.DATA, bytes(200)))
        world.run(2)
        assert world.channel.log is not None
        assert world.channel.log[-1][1] - sent_us == difs_ms * 1000
    (other,) = (Ear("o", world.channel),)
    waits_ms = []
    for _ in range(20):
        emulator.on_bytes(encode(rnode.DATA, bytes(20)))
        world.run(0.02)
        world.channel.send(other, FAST, bytes(50), lambda: None)
        world.run(3)
        waits_ms.append(starts_ms(world)[-1])
    assert min(waits_ms) >= difs_ms
    assert max(waits_ms) > difs_ms + 5 * slot_ms(FAST)


def test_fast_modulations_leave_one_packet_at_a_time() -> None:
    world = World()
    emulator, _ = device(world.channel)
    emulator.on_bytes(encode(rnode.BANDWIDTH, (500_000).to_bytes(4, "big")))
    for _ in range(3):
        emulator.on_bytes(encode(rnode.DATA, bytes(100)))
    world.run(3)
    assert min(starts_ms(world)) >= DIFS_SLOTS * slot_ms(replace(FAST, bw_hz=500_000))


def test_two_who_send_at_will_share_the_channel_with_few_collisions() -> None:
    world = World(3)
    links = [world.rnode("a"), world.rnode("b")]
    world.run(1)
    for _ in range(600):
        for link in links:
            link.send(BROADCAST, bytes(100))
        world.run(0.1)
    counts = world.channel.counts
    assert len(world.heard["a"]) > 40
    assert len(world.heard["b"]) > 40
    assert counts.airtime_us / 60e6 > 0.5
    assert counts.deaf / counts.frames < 0.2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "at least one device"),
        (["a"], "name a kind first"),
        (["rnode"], "at least one device"),
        (["rnode", "a", "loss=2"], "from 0 to 1"),
        (["rnode", "a", "speed=fast"], "from 0.01 to 1000"),
        (["meshtastic", "a"], "0 to 65535"),
    ],
)
def test_a_wrong_command_line_says_what_is_allowed(words: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        lora.parse(words)


def test_a_command_line_names_kinds_devices_and_conditions() -> None:
    wanted = lora.parse(["rnode", "a", "b", "meshcore", "c", "loss=0.1", "speed=4"])
    assert wanted.devices == [("rnode", "a"), ("rnode", "b"), ("meshcore", "c")]
    assert (wanted.loss, wanted.speed) == (0.1, 4.0)
