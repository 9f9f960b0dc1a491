"""Targets of what a serial line brings: KISS, Meshtastic's stream and its protocol buffers, what modems answer, and a
whole LoRa link whose modem talks nonsense, is pulled out and starts anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_tools.emulators.meshcore import MeshCoreEmulator
from offgrid_tools.emulators.meshtastic import MeshtasticEmulator, Settings
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_tools.emulators.virtual import Device, VirtualLine, virtual_host
from offgrid_tools.fuzz.script import Script
from offgrid_tools.soak.chance import chance
from offgrid_transports.lora import kiss, protobuf, rnode, streamapi
from offgrid_transports.lora.meshcore import MeshCore
from offgrid_transports.lora.meshtastic import Meshtastic
from offgrid_transports.lora.modem import Modem
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.transport import BROADCAST, Priority

FAST = Modulation(869_525_000, 125_000, 7)
PRESET = streamapi.preset_modulation("LONG_FAST", 869_525_000)
FREE = Band(0, 10**10, 99, ())
STEPS_MAX = 64
HELD_BYTES_MAX = 100_000
SETTLE_US = 90_000_000  # a modem that is sane again is on by then
MODEMS: dict[str, Callable[[Random], Modem]] = {
    "rnode": lambda rng: rnode.RNode(FAST),
    "meshcore": lambda rng: MeshCore(FAST),
    "meshtastic": lambda rng: Meshtastic(PRESET, "LONG_FAST", 3, 0, rng),
}


def kiss_frames(data: bytes) -> None:
    """However the line's bytes are cut, the same frames come out, and those would be written so that they come again;
    no more is kept than one frame may have."""
    pieces = Script(data).pieces()
    whole, cut = kiss.KissDecoder(64), kiss.KissDecoder(64)
    frames = [frame for piece in pieces for frame in cut.feed(piece)]
    assert frames == whole.feed(b"".join(pieces)), "how a line is cut tells"
    assert all(len(payload) < 64 for _, payload in frames)
    assert cut.dropped_bytes <= len(data)
    again = kiss.KissDecoder().feed(b"".join(kiss.encode(*frame) for frame in frames))
    assert again == frames, "what is written is not what is read"


def stream_messages(data: bytes) -> None:
    """However a device's bytes are cut, the same messages come out, and those would be written so that they come
    again."""
    pieces = Script(data).pieces()
    whole, cut = streamapi.StreamDecoder(), streamapi.StreamDecoder()
    messages = [message for piece in pieces for message in cut.feed(piece)]
    assert messages == whole.feed(b"".join(pieces)), "how a line is cut tells"
    assert all(len(message) <= streamapi.MESSAGE_BYTES_MAX for message in messages)
    assert streamapi.StreamDecoder().feed(b"".join(map(streamapi.framed, messages))) == messages


def protobufs(data: bytes) -> None:
    """A message's fields are read, or it is refused; what they hold would be written so that it is read again."""
    try:
        found = dict(protobuf.fields(data))
        message = protobuf.Message(data)
    except ValueError:
        return
    written = b""
    for field, value in found.items():
        if isinstance(value, int):
            assert message.number(field) == value < 1 << 64
            message.signed(field)
            message.floating(field)
            written += protobuf.varint(field << 3 | protobuf.VARINT) + protobuf.varint(value)
        else:
            assert message.blob(field) == value
            written += protobuf.blob(field, value)
    assert dict(protobuf.fields(written)) == found
    for preset in ("LONG_FAST", "SHORT_TURBO"):
        with suppress(ValueError):  # a field of another type
            assert isinstance(streamapi.lora_mismatch(message, 3, preset), str)


def modem_answers(data: bytes) -> None:
    """Each kind of modem is told whatever it may be told, and time passes: it asks, it fails, it is found anew, and
    what it says of itself can be shown."""
    script = Script(data)
    rng = chance(f"{script.byte()}/modem")
    modem = MODEMS[script.pick(sorted(MODEMS))](rng)
    now_ms, there = 0, False
    for _ in range(STEPS_MAX):
        if script.ended:
            break
        now_ms += script.pick((0, 1, 50, 1_000, 20_000))
        step = script.below(8)
        if not there:
            modem.on_connect(now_ms, clean=bool(step & 1))
            there = True
        elif step == 0:
            modem.on_lost(now_ms)
            there = False
        elif step == 1 and modem.has_room(now_ms):
            modem.transmit(now_ms, script.take()[: modem.frame_bytes_max] or b"x")
        elif step == 2 and modem.deadline_ms is not None:
            now_ms = max(now_ms, modem.deadline_ms)
            modem.on_timer(now_ms)
        elif step == 3:
            modem.on_bytes(now_ms, script.take())
        elif step == 4:
            modem.on_bytes(now_ms, _expected(modem, modem.take_bytes(), script))
        else:
            modem.on_bytes(now_ms, kiss.encode(script.byte(), script.take()))
        _judge(modem, now_ms)


def _expected(modem: Modem, said: bytes, script: Script) -> bytes:
    """What a sane modem would answer, perhaps with something wrong: the real ones' twins are asked."""
    answers: list[bytes] = []
    clock = VirtualClock()
    twin = _device(modem, Channel(clock, chance("twin")))
    twin.write = answers.append
    twin.on_bytes(said)
    clock.run(2_000_000)
    answer = b"".join(answers)
    return script.damaged(answer) if script.below(4) == 0 else answer


def _judge(modem: Modem, now_ms: int) -> None:
    assert len(modem.take_bytes()) <= HELD_BYTES_MAX
    assert modem.take_settled() >= 0
    assert all(modem.take_heard()), "an empty frame was heard"
    assert modem.take_emptied() in (True, False)
    assert min(modem.access_ms, modem.busy_ms(now_ms)) >= 0
    json.dumps(dict(modem.figures()), allow_nan=False)
    json.dumps([modem.trouble, modem.rssi_dbm, modem.snr_db], allow_nan=False)


def _device(modem: Modem, channel: Channel, name: str = "one") -> RNodeEmulator | MeshCoreEmulator | MeshtasticEmulator:
    if isinstance(modem, rnode.RNode):
        return RNodeEmulator(name, channel, lambda data: None)
    if isinstance(modem, MeshCore):
        return MeshCoreEmulator(name, channel, lambda data: None)
    return MeshtasticEmulator(name, 7, channel, lambda data: None, Settings())


class _Noisy:
    """An emulated modem on a line that alters some of what it says, by the script."""

    def __init__(self, device: Device, script: Script) -> None:
        self.write: Callable[[bytes], object] = lambda data: None
        self._device, self._script = device, script
        device.write = self._say

    def on_bytes(self, data: bytes) -> None:
        self._device.on_bytes(data)

    def _say(self, data: bytes) -> None:
        script = self._script
        self.write(script.damaged(data) if not script.ended and script.below(4) == 0 else data)


def radio_links(data: bytes) -> None:
    """A link whose line brings garbage and alters bytes, and whose modem is pulled out and starts anew in the middle of
    a frame: whatever happened, once that ends the link is up again, and a frame that is sent then is heard."""
    script = Script(data)
    clock, rng = VirtualClock(), chance("radio")
    channel = Channel(clock, rng)
    kind = script.pick((rnode.RNode, MeshCore))
    modem, other = kind(FAST), kind(FAST)
    device = _device(modem, channel)
    line, noisy = VirtualLine(clock), _Noisy(device, script)
    line.plug(noisy)
    link = RadioLink("fuzzed", line, modem, FREE, virtual_host(clock, rng))
    still = VirtualLine(clock)
    still.plug(_device(other, channel, "other"))
    heard: list[bytes] = []
    hearing = RadioLink("other", still, other, FREE, virtual_host(clock, rng))
    hearing.on_frame = lambda address, frame: heard.append(frame)
    for _ in range(STEPS_MAX):
        if script.ended:
            break
        match script.below(6):
            case 0:
                line.hear(script.take())
            case 1:
                line.unplug()
                clock.run(clock.now_us + 1_000 * script.byte())
                line.plug(noisy)
            case 2:
                device.reboot()
            case 3:
                link.send(BROADCAST, b"\x01" * (1 + script.byte() % 254), script.pick((*Priority,)))
            case 4:
                hearing.send(BROADCAST, b"\x02" * (1 + script.byte() % 254))
            case _:
                clock.run(clock.now_us + script.pick((1_000, 20_000, 300_000, 3_000_000)))
        json.dumps(dict(link.figures()), allow_nan=False)
        assert link.wait_ms(10, Priority.JOB) >= 0
    script.rest()
    clock.run(clock.now_us + SETTLE_US)
    assert link.up, (
        f"{clock.now_us // 1_000_000} s, and it is {link.figures().get('trouble', modem.figures()['state'])}"
    )
    assert link.send(BROADCAST, b"\x03the end")
    clock.run(clock.now_us + SETTLE_US)
    assert b"\x03the end" in heard
