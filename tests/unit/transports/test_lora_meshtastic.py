"""Meshtastic devices: their settings are compared and left alone, and our frames are packets of a port of our own."""

from __future__ import annotations

import asyncio
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lora_world import EU, World
from test_lora_serial import until

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import RealClock
from offgrid_tools.emulators.meshtastic import MeshtasticEmulator, Settings
from offgrid_tools.emulators.ports import TcpPort
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_transports.lora import protobuf
from offgrid_transports.lora.meshtastic import Meshtastic
from offgrid_transports.lora.opening import open_meshtastic
from offgrid_transports.lora.protobuf import Message
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.streamapi import (
    DATA_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    REGIONS,
    WAKE,
    StreamDecoder,
    framed,
    on_air_bytes,
    preset_modulation,
)
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST, BadSpec

REGISTRY = TransportRegistry({"meshtastic": open_meshtastic})


class MeshtasticWorld(World):
    """Devices on one channel."""

    def device(self, name: str, settings: Settings = Settings(), region: str = "EU868") -> RadioLink:  # noqa: B008
        device = MeshtasticEmulator(name, 100 + len(self.links), self.channel, lambda data: None, settings)
        line = self.lines[name] = VirtualLine(self.clock)
        line.plug(device)
        modulation = preset_modulation("LONG_FAST", 869_525_000)
        code = REGIONS[region] if region else 0
        modem = Meshtastic(modulation, "LONG_FAST", code, 0, self.rng)
        return self.link(name, line, modem, EU.band_for(modulation) if region else None)


def test_frames_are_packets_of_a_port_of_our_own() -> None:
    world = MeshtasticWorld()
    a, b = world.device("a"), world.device("b")
    world.run(1)
    assert (a.up, a.mtu_bytes(), a.figures()["modem"]) == (True, DATA_BYTES_MAX, "Meshtastic !00000064")
    frames = [bytes([number]) * DATA_BYTES_MAX for number in range(3)]
    for frame in frames:
        assert a.send(BROADCAST, frame)
    world.run(30)
    assert world.heard["b"] == frames
    assert b.figures()["snr_db"] == 12.0
    assert on_air_bytes(DATA_BYTES_MAX) == 255


def test_what_is_counted_is_at_least_what_was_on_the_air_and_settled_after_a_minute() -> None:
    world = MeshtasticWorld()
    a = world.device("a")
    world.run(1)
    a.send(BROADCAST, bytes(100))
    world.run(30)
    counted_us = a.book.duty.open_us
    assert 0 <= counted_us - world.channel.counts.airtime_us <= 0.05 * counted_us, "with the bit field it would be all"
    world.run(40)
    assert a.book.duty.open_us == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(region=0), "the device is set to region UNSET, the link to EU868"),
        (Settings(region=1), "the device is set to region US915, the link to EU868"),
        (Settings(preset="SHORT_FAST"), "the device is set to preset SHORT_FAST, the link to LONG_FAST"),
        (Settings(tx_enabled=False), "transmitter is switched off"),
    ],
)
def test_a_device_that_is_set_otherwise_is_left_alone_and_that_is_said(settings: Settings, says: str) -> None:
    world = MeshtasticWorld()
    link = world.device("a", settings)
    world.run(1)
    assert not link.up
    assert says in str(link.figures()["trouble"])
    assert not link.send(BROADCAST, b"x")


def test_without_a_region_it_listens() -> None:
    world = MeshtasticWorld()
    listener, other = world.device("a", Settings(region=0), region=""), world.device("b")
    world.run(1)
    assert not listener.up
    other.send(BROADCAST, b"hello")
    world.run(5)
    assert world.heard["a"] == [b"hello"]
    assert "only listens" in str(listener.figures()["band"])


def test_what_an_earlier_connection_left_is_waited_for() -> None:
    world = MeshtasticWorld()
    a, _ = world.device("a"), world.device("b")
    world.run(1)
    a.send(BROADCAST, b"one")
    world.run(1)
    line = world.lines["a"]
    device = line._device
    assert device is not None
    line.unplug()
    world.run(1)
    line.plug(device)
    world.run(1)
    assert a.up
    a.send(BROADCAST, b"two")
    world.run(20)
    assert world.heard["b"] == [b"one"]
    world.run(60)
    assert world.heard["b"] == [b"one", b"two"]


def test_over_tcp_and_back_after_the_device_was_away() -> None:
    async def run() -> None:
        clock = RealClock(50.0)
        channel = Channel(clock, Random(1))
        devices = [MeshtasticEmulator(name, 7 + n, channel, lambda d: None, Settings()) for n, name in enumerate("ab")]
        ports = [TcpPort(device) for device in devices]
        host, heard = virtual_host(clock, Random(2)), []
        for port in ports:
            await port.plug()
        links = [REGISTRY.open(f"meshtastic:tcp/127.0.0.1:{port.port}?region=EU868", host) for port in ports]
        links[1].on_frame = lambda address, frame: heard.append(frame)
        try:
            await until(lambda: all(link.up for link in links))
            assert links[0].send(BROADCAST, b"over TCP")
            await until(lambda: heard == [b"over TCP"])
            await ports[0].unplug()
            await until(lambda: not links[0].up)
            await ports[0].plug()
            await until(lambda: links[0].up)
        finally:
            for link in links:
                link.close()
            await asyncio.sleep(0.02)
            for port in ports:
                await port.unplug()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("meshtastic:tcp/h:1?preset=LONGFAST", "allowed: LONG_FAST"),
        ("meshtastic:tcp/h:1?hops=8", "from 0 to 7"),
        ("meshtastic:tcp/h:1?sf=7", "unknown parameter 'sf'"),
        ("meshtastic:tcp/h:99999?region=EU868", "allowed: tcp/HOST:PORT"),
        ("meshtastic:tcp/h:1?region=EU868&preset=SHORT_TURBO", "no band of EU868"),
    ],
)
def test_a_description_that_cannot_be_is_refused(text: str, says: str) -> None:
    async def run() -> None:
        with pytest.raises(BadSpec) as error:
            REGISTRY.open(text, virtual_host(RealClock(), Random(1)))
        assert says in str(error.value)

    asyncio.run(run())


@given(st.lists(st.binary(max_size=MESSAGE_BYTES_MAX), max_size=5), st.lists(st.integers(1, 600), max_size=9))
def test_messages_come_back_whole_however_they_are_cut_and_text_between_is_skipped(
    messages: list[bytes], cuts: list[int]
) -> None:
    stream = WAKE + b"".join(b"INFO | log\r\n" + framed(message) for message in messages)
    decoder, heard = StreamDecoder(), []
    for cut in cuts:
        heard += decoder.feed(stream[:cut])
        stream = stream[cut:]
    heard += decoder.feed(stream)
    assert heard == messages


def test_a_length_that_cannot_be_does_not_hide_what_follows() -> None:
    assert StreamDecoder().feed(b"\x94\xc3\xff\xff" + framed(b"next")) == [b"next"]
    assert StreamDecoder().feed(b"\x94\xc3\x02\x01" + framed(b"next")) == [b"next"]


@given(st.lists(st.binary(max_size=700), max_size=8))
def test_garbage_is_bounded_and_does_no_harm(pieces: list[bytes]) -> None:
    decoder = StreamDecoder()
    for piece in pieces:
        for message in decoder.feed(piece):
            try:
                parsed = Message(message)
                parsed.number(1)
            except ValueError:
                continue
        assert sys.getsizeof(decoder._rest) < 4096
    modem = Meshtastic(preset_modulation("LONG_FAST", 869_525_000), "LONG_FAST", 0, 0, Random(1))
    modem.on_connect(0, clean=True)
    for piece in pieces:
        modem.on_bytes(1, framed(piece[:MESSAGE_BYTES_MAX]))


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=300), st.integers(0, (1 << 32) - 1))
def test_protocol_buffers_come_back(value: int, data: bytes, fixed: int) -> None:
    message = protobuf.number(1, value) + protobuf.blob(2, data) + protobuf.fixed32(300, fixed)
    parsed = Message(message + protobuf.floating(4, 1.5))
    assert (parsed.signed(1), parsed.blob(2), parsed.number(300), parsed.floating(4)) == (value, data, fixed, 1.5)
    with pytest.raises(ValueError, match="cut off"):
        Message(protobuf.blob(2, data + b"x")[:-1])
