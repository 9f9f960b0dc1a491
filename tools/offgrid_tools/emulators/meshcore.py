"""What a MeshCore modem does, as its KISS firmware does (MeshCore: examples/kiss_modem/KissModem.cpp).

One frame is pending at most; another is dropped in silence. It waits until it receives nothing, then sends with the
probability of its persistence, else waits a slot and looks again; then it waits for its TXDELAY, without looking.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid_tools.emulators.channel import Channel
from offgrid_transports.lora.kiss import KissDecoder, encode
from offgrid_transports.lora.meshcore import (
    ANSWER,
    DATA,
    ERROR,
    FRAME_BYTES_MAX,
    FULL_DUPLEX,
    GET_POWER,
    GET_RADIO,
    GET_SIGNAL_REPORT,
    GET_VERSION,
    HARDWARE,
    OK,
    PERSISTENCE,
    PING,
    REBOOT,
    RX_META,
    SET_POWER,
    SET_RADIO,
    SET_SIGNAL_REPORT,
    SLOT_TIME,
    TX_DELAY,
    TX_DONE,
    preamble_symbols,
)
from offgrid_transports.lora.modulation import BANDWIDTHS_HZ, Modulation

GET_RANDOM, IS_BUSY, GET_AIRTIME, GET_NOISE, GET_BATTERY, GET_NAME = 0x02, 0x0E, 0x0F, 0x10, 0x13, 0x16
WRONG_LENGTH, UNKNOWN_COMMAND = 1, 5
UNIT_US = 10_000
LOOK_US = 1_000
BOOT_US = 500_000


class MeshCoreEmulator:
    """One modem; a `Station`. `write` takes what it says to its host."""

    def __init__(self, name: str, channel: Channel, write: Callable[[bytes], object]) -> None:
        self.name = name
        self.write = write
        self.asked: dict[int, int] = {}
        self._channel = channel
        self._clock = channel.clock
        self._cycles = 0
        self._start()
        channel.join(self)

    def _start(self) -> None:
        self._decoder = KissDecoder(512)
        self._config = bytes(10)
        self._power = 0
        self._set = {TX_DELAY: 50, PERSISTENCE: 63, SLOT_TIME: 10, FULL_DUPLEX: 0}
        self._signal = True
        self._pending: bytes | None = None
        self._booting = self._waiting = False
        self.tuned: Modulation | None = None

    def reboot(self) -> None:
        """Loses power for a moment, and with it all settings."""
        self._cycles += 1
        self._start()
        self._booting = True
        cycle = self._cycles

        def booted() -> None:
            if cycle == self._cycles:
                self._booting = False

        self._clock.after(BOOT_US, booted)

    def on_bytes(self, data: bytes) -> None:
        """The host wrote this."""
        for kind, payload in self._decoder.feed(data):
            if self._booting:
                return
            if kind == DATA:
                if 0 < len(payload) <= FRAME_BYTES_MAX and self._pending is None:
                    self._pending = payload
                    self._look(self._cycles)
            elif kind in self._set and payload:
                self._set[kind] = payload[0]
            elif kind == HARDWARE and payload:
                self.asked[payload[0]] = self.asked.get(payload[0], 0) + 1
                self._on_hardware(payload[0], payload[1:])

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        self._say(DATA, frame)
        if self._signal:
            meta = round(snr_db * 4).to_bytes(1, "big", signed=True)
            self._hardware(RX_META, meta + max(-128, round(rssi_dbm)).to_bytes(1, "big", signed=True))

    def on_medium(self) -> None:
        if self._waiting and not self._channel.busy(self):
            self._waiting = False
            cycle = self._cycles
            self._clock.after(LOOK_US, lambda: self._look(cycle))

    def _say(self, kind: int, payload: bytes) -> None:
        if not self._booting:
            self.write(encode(kind, payload))

    def _hardware(self, kind: int, body: bytes = b"") -> None:
        self._say(HARDWARE, bytes([kind]) + body)

    def _on_hardware(self, kind: int, body: bytes) -> None:
        if kind == SET_RADIO:
            if len(body) < 10:
                self._hardware(ERROR, bytes([WRONG_LENGTH]))
                return
            self._config = body[:10]
            self._tune()
            self._hardware(OK)
        elif kind == SET_POWER and body:
            self._power = body[0]
            self._tune()
            self._hardware(OK)
        elif kind == REBOOT:
            self._hardware(OK)
            self.reboot()
        elif kind == SET_SIGNAL_REPORT and body:
            self._signal = body[0] != 0
            self._hardware(GET_SIGNAL_REPORT | ANSWER, bytes([self._signal]))
        elif kind == GET_AIRTIME and body:
            air_ms = self.tuned.airtime_us(body[0]) // 1000 if self.tuned else 0
            self._hardware(kind | ANSWER, air_ms.to_bytes(4, "little"))
        else:
            answers = {
                GET_VERSION: b"\x01\x00",
                GET_RADIO: self._config,
                GET_POWER: bytes([self._power]),
                GET_SIGNAL_REPORT: bytes([self._signal]),
                IS_BUSY: bytes([self._channel.busy(self)]),
                GET_NOISE: (-110).to_bytes(2, "little", signed=True),
                GET_BATTERY: (4100).to_bytes(2, "little"),
                GET_NAME: b"emulator",
                PING: b"",
            }
            if kind in answers:
                self._hardware(kind | ANSWER, answers[kind])
            else:
                self._hardware(ERROR, bytes([UNKNOWN_COMMAND]))

    def _tune(self) -> None:
        freq_hz, bw_hz = (int.from_bytes(self._config[at : at + 4], "little") for at in (0, 4))
        sf, cr = self._config[8:]
        if bw_hz in BANDWIDTHS_HZ and 5 <= sf <= 12 and 5 <= cr <= 8:
            bare = Modulation(freq_hz, bw_hz, sf, cr, self._power)
            self.tuned = bare.with_preamble(preamble_symbols(bare))

    def _look(self, cycle: int) -> None:
        if cycle != self._cycles or self._pending is None:
            return
        if self._set[FULL_DUPLEX]:
            self._delay(cycle)
        elif self._channel.busy(self):
            self._waiting = True
        elif self._channel.rng.randrange(256) <= self._set[PERSISTENCE]:
            self._delay(cycle)
        else:
            self._clock.after(self._set[SLOT_TIME] * UNIT_US, lambda: self._look(cycle))

    def _delay(self, cycle: int) -> None:
        self._clock.after(self._set[TX_DELAY] * UNIT_US, lambda: self._send(cycle))

    def _send(self, cycle: int) -> None:
        if cycle != self._cycles or self._pending is None:
            return
        if self.tuned is None:
            self._done(cycle)
        else:
            self._channel.send(self, self.tuned, self._pending, lambda: self._done(cycle))

    def _done(self, cycle: int) -> None:
        if cycle == self._cycles:
            self._pending = None
            self._hardware(TX_DONE, b"\x01")
