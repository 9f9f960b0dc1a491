"""What an RNode does with bytes from its host and frames from the air, as its firmware 1.86 does (RNode_Firmware.ino).

Medium access (`tx_queue_handler`): a free channel for two slots (DIFS), then a random number of slots, 0 to 14 at
little load, counted while the channel is free; then all that is queued is sent in one go (`flush_queue`), or one packet
where the modulation is fast. The clock of the random wait is not set anew after that: the next one begins with the time
since the last burst began, so that it is mostly over when its DIFS is, unless the channel was found busy meanwhile.

While it sends it does nothing else: what its host says waits in the line's buffer, and no statistics are told. The
queue holds 6,144 bytes or 200 packets. READY is said only when asked. Packets of more than 254 bytes go as two LoRa
frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from offgrid_tools.emulators.channel import Channel
from offgrid_transports.lora.kiss import KissDecoder, encode
from offgrid_transports.lora.modulation import BANDWIDTHS_HZ, Modulation
from offgrid_transports.lora.rnode import (
    BANDWIDTH,
    CHANNEL,
    CR,
    DATA,
    DETECT,
    DETECT_ANSWER,
    DETECT_REQUEST,
    ERROR,
    FREQUENCY,
    LONG_LOCK,
    MCU,
    PLATFORM,
    POWER,
    RADIO,
    READY,
    RESET,
    RESET_REQUEST,
    RSSI,
    RSSI_OFFSET,
    SF,
    SHORT_LOCK,
    SNR,
    VERSION,
)
from offgrid_transports.lora.rnode_firmware import (
    DIFS_SLOTS,
    GUARD_BPS,
    QUEUE_BYTES_MAX,
    STATISTICS_UNITS,
    contention_window,
    preamble_symbols,
    slot_ms,
    told_ms,
)

QUEUE_PACKETS_MAX = 200
LINE_BYTES_MAX = 6144  # what the line's buffer holds while it sends
READ_BYTES, READ_US = 250, 5_000  # it then reads ten bytes in each pass of its loop, of a fifth of a millisecond or so
PACKET_BYTES_MAX = 508
FRAME_BYTES_MAX = 255
SPLIT = 0x01
BIN_US, BINS = 7_500_000, 480
POWER_DBM_MAX = 22
TX_FAILED = 2
BOOT_US = 300_000
STATISTICS_US = 1_000_000


class Firmware(msgspec.Struct, frozen=True):
    """What kind of RNode it is."""

    version: tuple[int, int] = (1, 86)
    platform: int = 0x80
    mcu: int = 0x81
    statistics_us: int = STATISTICS_US  # how often it tells without cause; 0: never


FIRMWARE = Firmware()


class RNodeEmulator:
    """One RNode; a `Station`. `write` takes what it says to its host."""

    def __init__(
        self, name: str, channel: Channel, write: Callable[[bytes], object], firmware: Firmware = FIRMWARE
    ) -> None:
        self.name = name
        self.write = write
        self._channel = channel
        self._clock = channel.clock
        self._firmware = firmware
        self._power_cycles = 0
        self.asked: dict[int, int] = {}  # how often each command came
        self._start()
        channel.join(self)
        if firmware.statistics_us:
            self._clock.after(firmware.statistics_us, self._tell_regularly)

    def _start(self) -> None:
        self._decoder = KissDecoder(2 * PACKET_BYTES_MAX + 2)
        self._freq_hz = self._bw_hz = self._sf = 0
        self._cr, self._power = 5, 0xFF
        self.on = False
        self._booting = False
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._line = bytearray()
        self._flushing = False
        self._window: int | None = None
        self._waited_us = 0
        self._wait = 0  # numbers the waits, so that an old timer is known
        self._free_since_us: int | None = None
        self._counted_us: int | None = None  # up to when the random wait was counted
        self._part: tuple[int, bytes] | None = None
        self._busy: deque[tuple[int, int]] = deque(maxlen=1000)
        self._busy_since_us: int | None = None
        self._bins: deque[tuple[int, int]] = deque(maxlen=BINS)
        self._slots = contention_window(0)
        self._modulation: Modulation | None = None

    @property
    def tuned(self) -> Modulation | None:
        return self._modulation if self.on else None

    def reboot(self, *, says: bool = True) -> None:
        """Loses power for a moment; afterwards it says so, as an ESP32 does."""
        self._power_cycles += 1
        self._start()
        self._booting = True
        self._after(BOOT_US, lambda: self._booted(says))

    def _booted(self, says: bool) -> None:
        self._booting = False
        if says:
            self._say(RESET, RESET_REQUEST)

    def on_bytes(self, data: bytes) -> None:
        """The host wrote this."""
        if self._booting:
            return
        if self._flushing or self._line:
            self._line += data[: LINE_BYTES_MAX - len(self._line)]
        else:
            self._read(data)

    def _read_on(self) -> None:
        """What has come while it was sending."""
        if self._line and not self._flushing:
            data = bytes(self._line[:READ_BYTES])
            del self._line[:READ_BYTES]
            self._read(data)
            if self._line:
                self._after(READ_US, self._read_on)

    def _after(self, delay_us: int, fn: Callable[[], None]) -> None:
        """Unless it has lost its power by then."""
        cycle = self._power_cycles
        self._clock.after(delay_us, lambda: fn() if cycle == self._power_cycles else None)

    def _read(self, data: bytes) -> None:
        for command, payload in self._decoder.feed(data):
            self.asked[command] = self.asked.get(command, 0) + 1
            if command == DATA:
                self._take(payload)
            elif payload:
                self._on_command(command, payload)
            if self._booting:
                return

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        header, body = frame[0], frame[1:]
        if header & SPLIT:
            if self._part is None or self._part[0] != header >> 4:
                self._part = (header >> 4, body)
                return
            body = self._part[1] + body
        self._part = None
        self._say(RSSI, bytes([max(0, min(255, round(rssi_dbm) + RSSI_OFFSET))]))
        self._say(SNR, round(snr_db * 4).to_bytes(1, "big", signed=True))
        self._say(DATA, body)

    def on_medium(self) -> None:
        busy = self._channel.busy(self)
        if busy and self._busy_since_us is None:
            self._busy_since_us = self._clock.now_us
        elif not busy and self._busy_since_us is not None:
            self._busy.append((self._busy_since_us, self._clock.now_us))
            self._busy_since_us = None
        if self._flushing or self._window is None:
            return
        if busy:
            if self._free_since_us is not None:
                self._waited_us += self._counted(self._clock.now_us)
                self._free_since_us = self._counted_us = None
                self._wait += 1
        elif self._free_since_us is None:
            self._wait_free()

    def _say(self, command: int, payload: bytes) -> None:
        if not self._booting:
            self.write(encode(command, payload))

    def _on_command(self, command: int, payload: bytes) -> None:
        first = payload[0]
        if command == DETECT and payload[:1] == DETECT_REQUEST:
            self._say(DETECT, DETECT_ANSWER)
        elif command == VERSION:
            self._say(VERSION, bytes(self._firmware.version))
        elif command == PLATFORM:
            self._say(PLATFORM, bytes([self._firmware.platform]))
        elif command == MCU:
            self._say(MCU, bytes([self._firmware.mcu]))
        elif command == FREQUENCY and len(payload) >= 4:
            self._freq_hz = int.from_bytes(payload[:4], "big") or self._freq_hz
            self._say(FREQUENCY, self._freq_hz.to_bytes(4, "big"))
        elif command == BANDWIDTH and len(payload) >= 4:
            self._bw_hz = int.from_bytes(payload[:4], "big") or self._bw_hz
            self._say(BANDWIDTH, self._bw_hz.to_bytes(4, "big"))
        elif command == POWER:
            self._power = self._power if first == 0xFF else min(first, POWER_DBM_MAX)
            self._say(POWER, bytes([self._power]))
        elif command == SF:
            self._sf = self._sf if first == 0xFF else max(5, min(first, 12))
            self._say(SF, bytes([self._sf]))
        elif command == CR:
            self._cr = self._cr if first == 0xFF else max(5, min(first, 8))
            self._say(CR, bytes([self._cr]))
        elif command == RADIO:
            if first != 0xFF:
                self._switch(first == 1)
            self._say(RADIO, bytes([self.on]))
        elif command in (SHORT_LOCK, LONG_LOCK) and len(payload) >= 2:
            self._say(command, payload[:2])
        elif command == READY:
            self._say(READY, bytes([not self._full]))
        elif command == RESET and payload[:1] == RESET_REQUEST:
            self.reboot()
        self._retune()

    def _switch(self, on: bool) -> None:
        settable = self._freq_hz and self._bw_hz in BANDWIDTHS_HZ and self._power != 0xFF and self._sf
        if on and settable and not self.on:
            self._bins.clear()
        self.on = bool(on and settable)
        self._retune()
        self.on_medium()
        if self.on:
            self._access()

    def _retune(self) -> None:
        if self.on:
            bare = Modulation(self._freq_hz, self._bw_hz, self._sf, self._cr, self._power)
            self._modulation = bare.with_preamble(preamble_symbols(bare))

    @property
    def _full(self) -> bool:
        return len(self._queue) >= QUEUE_PACKETS_MAX or self._queued_bytes >= QUEUE_BYTES_MAX

    def _take(self, packet: bytes) -> None:
        packet = packet[: QUEUE_BYTES_MAX - self._queued_bytes]  # what is too much is cut off, in silence
        if packet and len(packet) <= PACKET_BYTES_MAX and not self._full:
            self._queue.append(packet)
            self._queued_bytes += len(packet)
            self._access()

    @property
    def _slot_us(self) -> int:
        assert self._modulation is not None
        return slot_ms(self._modulation) * 1000

    def _access(self) -> None:
        """Begins to wait for a free channel, unless it does already."""
        if not self.on or not self._queue or self._flushing or self._window is not None:
            return
        self._window = self._channel.rng.randint(*self._slots)
        self._waited_us = 0
        self._free_since_us = None
        if not self._channel.busy(self):
            self._wait_free()

    def _wait_free(self) -> None:
        assert self._window is not None
        if not self.on:
            self._window = None
            return
        self._wait += 1
        wait, self._free_since_us = self._wait, self._clock.now_us
        difs_us = DIFS_SLOTS * self._slot_us
        counted_us = self._waited_us + self._counted(self._clock.now_us + difs_us)
        left_us = max(0, self._window * self._slot_us - counted_us)
        self._clock.after(difs_us + left_us, lambda: self._flush(wait))

    def _counted(self, at_us: int) -> int:
        """How much of the random wait passes until then, if the channel stays free."""
        assert self._free_since_us is not None
        difs_over_us = self._free_since_us + DIFS_SLOTS * self._slot_us
        since_us = difs_over_us if self._counted_us is None else self._counted_us
        return at_us - since_us if at_us >= difs_over_us else 0

    def _flush(self, wait: int) -> None:
        if wait == self._wait and self._window is not None and self.on:
            self._window, self._flushing = None, True
            self._counted_us = self._clock.now_us
            assert self._modulation is not None
            self._send_next(all_of_it=self._modulation.bitrate_bps <= GUARD_BPS)

    def _rest(self) -> None:
        """What was queued has left."""
        self._flushing = False
        if not self._queue:
            self._queued_bytes = 0
        self._tell()
        self._access()
        self._after(READ_US, self._read_on)

    def _send_next(self, *, all_of_it: bool = True) -> None:
        if not self._queue:
            self._rest()
            return
        packet = self._queue.popleft()
        if not all_of_it:
            self._queued_bytes -= len(packet)
        header = self._channel.rng.randrange(16) << 4
        room = FRAME_BYTES_MAX - 1
        parts = [packet] if len(packet) <= room else [packet[:room], packet[room:]]
        header |= SPLIT if len(parts) > 1 else 0
        then = self._send_next if all_of_it else self._rest
        self._send_parts([bytes([header]) + part for part in parts], then)

    def _send_parts(self, frames: list[bytes], then: Callable[[], None]) -> None:
        cycle, modulation = self._power_cycles, self._modulation
        if not self.on or modulation is None:
            self._say(ERROR, bytes([TX_FAILED]))
            then()
            return
        frame, *rest = frames

        def sent() -> None:
            if cycle != self._power_cycles:
                return
            self._count(told_ms(modulation, len(frame)))
            if rest:
                self._send_parts(rest, then)
            else:
                then()

        self._channel.send(self, modulation, frame, sent)

    def _count(self, ms: int) -> None:
        number = self._clock.now_us // BIN_US
        if self._bins and self._bins[-1][0] == number:
            ms += self._bins.pop()[1]
        self._bins.append((number, ms))

    def _shares(self) -> tuple[float, float]:
        number = self._clock.now_us // BIN_US
        short_ms = sum(ms for at, ms in self._bins if at >= number - 1)
        long_ms = sum(ms for at, ms in self._bins if at > number - BINS)
        return short_ms * 1000 / (2 * BIN_US), long_ms * 1000 / (BINS * BIN_US)

    def _others(self) -> float:
        """How much of the last seconds somebody else was heard sending."""
        now_us = self._clock.now_us
        start_us = now_us - 2 * BIN_US
        while self._busy and self._busy[0][1] <= start_us:
            self._busy.popleft()
        busy_us = sum(end_us - max(begin_us, start_us) for begin_us, end_us in self._busy)
        if self._busy_since_us is not None:
            busy_us += now_us - max(self._busy_since_us, start_us)
        return busy_us / (2 * BIN_US)

    def _tell(self) -> None:
        short, long = self._shares()
        self._slots = contention_window(int(short * STATISTICS_UNITS))
        load = min(1.0, short + self._others())
        shares = b"".join(
            min(65_535, int(share * STATISTICS_UNITS)).to_bytes(2, "big") for share in (short, long, load, long)
        )
        self._say(CHANNEL, shares + bytes([RSSI_OFFSET - 100, RSSI_OFFSET - 110, 0xFF]))

    def _tell_regularly(self) -> None:
        if self.on and not self._flushing:
            self._tell()
        self._clock.after(self._firmware.statistics_us, self._tell_regularly)
