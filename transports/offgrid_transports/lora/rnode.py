"""An RNode: a LoRa modem with the RNode firmware, 1.52 or newer (RNode_Firmware: Framing.h, RNode_Firmware.ino). Pure.

Found by DETECT, set up command by command, each of which it echoes and each of which is verified. Its queue outlives
both a closed port and a radio that is switched off, so a modem that may still hold frames is reset first.

It says READY only when asked, and only means that its queue is not full. When a frame has left it does not say. But
while it sends it does nothing else, it sends all that it has, and then it tells how much of the last seconds it was
sending. So what it had said READY about before that figure rose has left (rnode_queue.py). Where it sends one frame at
a time the figure itself is taken: it has a formula of its own, without rounding up, and what it has risen by is what
has left, the oldest frames first. The figure forgets in steps, which may hide a rise; what is open then counts until
the next one, until it says that neither it nor anybody else has sent for a while (then its queue is empty), or until
too many are open and it is reset. A modem without statistics (the first ones, on AVR) is trusted to send within a
minute.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from offgrid_transports.lora.kiss import encode
from offgrid_transports.lora.modem import UNPROVEN_MS, KissModem
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.rnode_firmware import (
    BANDS,
    DIFS_SLOTS,
    GUARD_BPS,
    STATISTICS_MS,
    STATISTICS_UNITS,
    WINDOW_SLOTS,
    contention_window,
    preamble_symbols,
    slot_ms,
    told_ms,
)
from offgrid_transports.lora.rnode_queue import LATENCY_MS, RNodeQueue
from offgrid_transports.transport import Shown

DATA, FREQUENCY, BANDWIDTH, POWER, SF, CR, RADIO = range(7)
DETECT, LEAVE, SHORT_LOCK, LONG_LOCK, READY = 0x08, 0x0A, 0x0B, 0x0C, 0x0F
RSSI, SNR, CHANNEL, PHY, BATTERY = 0x23, 0x24, 0x25, 0x26, 0x27
PLATFORM, MCU, VERSION, RESET, ERROR = 0x48, 0x49, 0x50, 0x55, 0x90
DETECT_REQUEST, DETECT_ANSWER, RESET_REQUEST, QUERY = b"\x73", b"\x46", b"\xf8", b"\xff"

FRAME_BYTES_MAX = 254  # a longer one is sent as two LoRa frames, of which the loss of either loses both
HEADER_BYTES = 1
VERSION_MIN = (1, 52)
PLATFORMS = {0x70: "nRF52", 0x80: "ESP32", 0x90: "AVR"}
ERRORS = {1: "radio not started", 2: "not sent", 3: "EEPROM locked", 4: "queue full", 5: "memory low", 6: "timeout"}
POWER_DBM_MAX = 22

RSSI_OFFSET = 157

ANSWER_MS = 1_000
TRIES = 3
RESET_MS = 1_500
RESET_FRESH_MS = 15_000  # one whose port vanishes when it is reset has been, if it is back within this
HEALTH_MS = 10_000
RETRY_MS = 10_000
READY_MS = 200
OPEN_FRAMES_MAX = 128
CROWDED_UNITS = 500  # of others' air, from which on it may have to begin its wait anew
ON_LINE_MS = 2_000  # a frame that was handed over so long ago has been read, or lost
SETTLE_MS = 5_000  # after the time in which all should have left


class State(Enum):
    """Where it stands; NEXT has the legal moves."""

    AWAY = "unplugged"
    DETECTING = "being looked for"
    ASKED = "being asked what it is"
    RESETTING = "being reset"
    SETTING = "being set up"
    ON = "on"
    FAILED = "failed"


NEXT: dict[State, tuple[State, ...]] = {
    State.AWAY: (State.DETECTING,),
    State.DETECTING: (State.ASKED, State.AWAY),
    State.ASKED: (State.RESETTING, State.SETTING, State.DETECTING, State.FAILED, State.AWAY),
    State.RESETTING: (State.DETECTING, State.AWAY),
    State.SETTING: (State.ON, State.DETECTING, State.FAILED, State.AWAY),
    State.ON: (State.DETECTING, State.RESETTING, State.AWAY),
    State.FAILED: (State.DETECTING, State.AWAY),
}


class RNode(KissModem):
    """One RNode, to be set to `modulation`."""

    frame_bytes_max = FRAME_BYTES_MAX

    def __init__(self, modulation: Modulation) -> None:
        super().__init__()
        self.modulation = modulation.with_preamble(preamble_symbols(modulation))
        self.state = State.AWAY
        self.version: tuple[int, int] | None = None
        self._platform = 0
        self._clean = self._was_reset = False
        self._reset_ms: int | None = None
        self._tries = 0
        self._settings: deque[tuple[int, bytes]] = deque()
        self._full = False
        self._queue = RNodeQueue()
        self._crowded = self._has_sent = False
        self._open: deque[tuple[int, int]] = deque()  # (what the firmware will tell of it in ms, when handed over)
        self._told: int | None = None  # none yet: there is nothing to compare with
        self._quiet_ms: int | None = None  # since when it, and all it hears, have been still
        self._reported_ms = self._health_ms = self._said_ms = 0
        self._shown: dict[str, str | int | float] = {}

    @property
    def access_ms(self) -> float:
        least, most = contention_window((self._told or 0) if self._crowded else 0)
        return (DIFS_SLOTS + (least + most) / 2) * slot_ms(self.modulation)

    @property
    def _again_ms(self) -> float:
        """`access_ms` of one that has sent before: its random wait is over by then."""
        return DIFS_SLOTS * slot_ms(self.modulation) if self._has_sent and not self._crowded else self.access_ms

    def air_us(self, length: int) -> int:
        return self.modulation.airtime_us(length + HEADER_BYTES)

    def on_connect(self, now_ms: int, clean: bool) -> None:
        self._begin_line()
        fresh = self._reset_ms is not None and now_ms - self._reset_ms <= RESET_FRESH_MS
        self._clean, self._was_reset = clean or fresh, fresh
        self._detect(now_ms)

    def on_lost(self, now_ms: int) -> None:
        if self.state is not State.AWAY:
            self._move(State.AWAY)
        self.deadline_ms = None

    def on_timer(self, now_ms: int) -> None:
        self.deadline_ms = None
        if self.state in (State.DETECTING, State.ASKED, State.RESETTING, State.FAILED):
            if self.state is State.ASKED:
                self.trouble = "it does not say what it is: no RNode, or its firmware is too old"
            self._detect(now_ms)
        elif self.state is State.SETTING:
            self._tries += 1
            if self._tries < TRIES:
                self._set_next(now_ms)
            else:
                self.trouble = f"no answer to command {self._settings[0][0]:#04x}"
                self._detect(now_ms)
        elif self.state is State.ON:
            self._tick(now_ms)

    def has_room(self, now_ms: int) -> bool:
        return self.ready and not self._full and len(self._open) < OPEN_FRAMES_MAX and now_ms >= self._room_ms

    @property
    def _room_ms(self) -> float:
        return self._queue.room_ms(FRAME_BYTES_MAX)

    def busy_ms(self, now_ms: int) -> float:
        return max(0.0, self._queue.free_ms - now_ms)

    def transmit(self, now_ms: int, frame: bytes) -> None:
        self.sent_frames += 1
        self._queue.on_handed(now_ms, len(frame), self.air_us(len(frame)) / 1000, self._again_ms)
        self._open.append((told_ms(self.modulation, len(frame) + HEADER_BYTES), now_ms))
        self._out += encode(DATA, frame)
        self._ask_ready()
        self._tick_at(now_ms)

    def leave(self, now_ms: int) -> None:
        if self.state in (State.ON, State.SETTING):
            self._out += encode(RESET, RESET_REQUEST) if self._open else encode(RADIO, b"\x00") + encode(LEAVE, QUERY)

    def figures(self) -> Shown:
        return {
            "modem": "RNode" + (f" {self.version[0]}.{self.version[1]}" if self.version else ""),
            "platform": PLATFORMS.get(self._platform, f"{self._platform:#04x}"),
            "state": self.state.value,
            "errors": self.errors,
            "dropped_bytes": self.dropped_bytes,
            **self._shown,
        }

    def on_command(self, now_ms: int, command: int, payload: bytes) -> None:
        self._said_ms = now_ms
        if (
            command == RESET and payload == RESET_REQUEST
        ):  # it has started anew: empty, but for what was just sent to it
            on_line = self._open and now_ms - self._open[-1][1] <= ON_LINE_MS
            self._clean = self.state is State.RESETTING or not on_line
            if self.state in (State.RESETTING, State.ON, State.SETTING, State.ASKED):
                self._detect(now_ms)
        elif command == ERROR and payload:
            self.errors += 1
            self._shown["last_error"] = ERRORS.get(payload[0], f"{payload[0]:#04x}")
        elif self.state is State.DETECTING:
            if command == DETECT and payload == DETECT_ANSWER:
                self._move(State.ASKED)
                self.version = None
                self.deadline_ms = now_ms + ANSWER_MS
        elif self.state is State.ASKED:
            self._on_identity(now_ms, command, payload)
        elif self.state is State.SETTING:
            self._on_echo(now_ms, command, payload)
        elif self.state is State.ON:
            self._on_working(now_ms, command, payload)

    def _on_identity(self, now_ms: int, command: int, payload: bytes) -> None:
        if command == VERSION and len(payload) == 2:
            self.version = (payload[0], payload[1])
        elif command == PLATFORM and len(payload) == 1:
            self._platform = payload[0]
        elif command == RADIO and len(payload) == 1 and self.version is not None:  # asked last
            if self.version < VERSION_MIN:
                said, least = (".".join(map(str, version)) for version in (self.version, VERSION_MIN))
                self._fail(now_ms, f"its firmware is {said}; at least {least} is needed")
            elif not self._clean or (payload != b"\x00" and not self._was_reset):
                self._reset(now_ms)
            else:
                self._move(State.SETTING)
                self._emptied = True
                self._open.clear()
                self._settings = deque(self._wanted())
                self._tries = 0
                self._set_next(now_ms)

    def _wanted(self) -> list[tuple[int, bytes]]:
        wanted = self.modulation
        return [
            (FREQUENCY, wanted.freq_hz.to_bytes(4, "big")),
            (BANDWIDTH, wanted.bw_hz.to_bytes(4, "big")),
            (POWER, bytes([wanted.power_dbm])),
            (SF, bytes([wanted.sf])),
            (CR, bytes([wanted.cr])),
            (SHORT_LOCK, b"\x00\x00"),  # airtime is limited here, exactly
            (LONG_LOCK, b"\x00\x00"),
            (RADIO, b"\x01"),
        ]

    def _on_echo(self, now_ms: int, command: int, payload: bytes) -> None:
        wanted, value = self._settings[0]
        if command != wanted:
            return
        if payload != value:
            self._fail(now_ms, f"command {command:#04x} was sent {value.hex()} and answered with {payload.hex()}")
            return
        self._settings.popleft()
        self._tries = 0
        if self._settings:
            self._set_next(now_ms)
            return
        self._move(State.ON)
        self.trouble = ""
        self.ready = True
        self._full = False
        self._queue.clear()
        self._crowded = self._has_sent = False
        self._told = self._quiet_ms = None
        self._health_ms = now_ms + HEALTH_MS
        self._tick_at(now_ms)

    def _on_working(self, now_ms: int, command: int, payload: bytes) -> None:
        if command == DATA and payload:
            self._hear(payload)
        elif command == RSSI and len(payload) == 1:
            self.rssi_dbm = payload[0] - RSSI_OFFSET
        elif command == SNR and len(payload) == 1:
            self.snr_db = int.from_bytes(payload, "big", signed=True) / 4
        elif command == READY and len(payload) == 1:
            self._full = payload != b"\x01"
            self._queue.on_ready()
        elif command == CHANNEL and len(payload) >= 8:
            load = int.from_bytes(payload[4:6], "big")
            self._on_airtime(now_ms, int.from_bytes(payload[:2], "big"), load)
            self._shown["channel_load_percent"] = load / 100
            if len(payload) >= 10:
                self._shown["noise_dbm"] = payload[9] - RSSI_OFFSET
        elif command == BATTERY and len(payload) == 2:
            self._shown["battery_percent"] = payload[1]
        elif command == RADIO and payload != b"\x01":  # it has started anew without saying so
            self._clean = False
            self._detect(now_ms)
        self._tick_at(now_ms)

    def _on_airtime(self, now_ms: int, units: int, load: int) -> None:
        """It, and anybody, was sending for so much of the last seconds."""
        before, self._told = self._told, units
        self._crowded = load - units > CROWDED_UNITS
        if before is not None and units > before:
            risen_ms = (units - before + 1) * STATISTICS_MS / STATISTICS_UNITS
            while self._open and self._open[0][0] <= risen_ms + 1:
                risen_ms -= self._open.popleft()[0] - 1
                self._settled += 1
            self._has_sent = True
            if self.modulation.bitrate_bps <= GUARD_BPS:
                self._queue.on_sent(now_ms, self._again_ms)
                while len(self._open) > self._queue.unread:
                    self._open.popleft()
                    self._settled += 1
        unheard, self._reported_ms = now_ms - self._reported_ms > STATISTICS_MS // 2, now_ms
        if units or load:
            self._quiet_ms = None
        elif self._quiet_ms is None or unheard:
            self._quiet_ms = now_ms
        elif now_ms - self._quiet_ms >= self._turn_ms:  # whatever it had then would have left, and been told of
            while self._open and self._open[0][1] <= self._quiet_ms:
                self._open.popleft()
                self._settled += 1

    @property
    def _turn_ms(self) -> float:
        """The longest that it takes to send a frame on a channel that is free: it tells of a frame when it has left."""
        slots = DIFS_SLOTS + BANDS * WINDOW_SLOTS
        return slots * slot_ms(self.modulation) + self.air_us(FRAME_BYTES_MAX) / 1000 + LATENCY_MS

    def _tick(self, now_ms: int) -> None:
        if self._told is None:
            while self._open and self._open[0][1] + UNPROVEN_MS <= now_ms:
                self._open.popleft()
                self._settled += 1
        if len(self._open) >= OPEN_FRAMES_MAX and now_ms >= self._queue.free_ms + SETTLE_MS:
            self._reset(now_ms)
            return
        if now_ms >= self._health_ms:
            if now_ms - self._said_ms >= 2 * HEALTH_MS:
                self.trouble = "it has fallen silent"
                self._clean = False
                self._detect(now_ms)
                return
            self._health_ms = now_ms + HEALTH_MS
            self._out += encode(RADIO, QUERY)
        if self._full:
            self._ask_ready()
        self._tick_at(now_ms)

    def _ask_ready(self) -> None:
        if self._queue.ask():
            self._out += encode(READY, b"\x00")

    def _tick_at(self, now_ms: int) -> None:
        """When there may be room, or something is to be asked."""
        if self.state is not State.ON:
            return
        due_ms = self._health_ms
        if self._full:
            due_ms = min(due_ms, now_ms + READY_MS)
        elif self._room_ms > now_ms:
            due_ms = min(due_ms, math.ceil(self._room_ms))
        if len(self._open) >= OPEN_FRAMES_MAX:
            due_ms = min(due_ms, max(now_ms + READY_MS, math.ceil(self._queue.free_ms + SETTLE_MS)))
        elif self._open and self._told is None:
            due_ms = min(due_ms, max(now_ms + READY_MS, self._open[0][1] + UNPROVEN_MS))
        self.deadline_ms = due_ms

    def _detect(self, now_ms: int) -> None:
        if self.state is not State.DETECTING:
            self._move(State.DETECTING)
        self._out += encode(DETECT, DETECT_REQUEST)
        self._out += encode(VERSION, b"\x00") + encode(PLATFORM, b"\x00") + encode(MCU, b"\x00") + encode(RADIO, QUERY)
        self.deadline_ms = now_ms + ANSWER_MS

    def _reset(self, now_ms: int) -> None:
        self._move(State.RESETTING)
        self._reset_ms = now_ms
        self._clean = self._was_reset = True  # one that is on after that starts by itself, and is empty
        self._out += encode(RESET, RESET_REQUEST)
        self.deadline_ms = now_ms + RESET_MS

    def _set_next(self, now_ms: int) -> None:
        self._out += encode(*self._settings[0])
        self.deadline_ms = now_ms + ANSWER_MS

    def _fail(self, now_ms: int, why: str) -> None:
        self._move(State.FAILED)
        self.errors += 1
        self.trouble = why
        self._out += encode(RADIO, b"\x00")
        self.deadline_ms = now_ms + RETRY_MS

    def _move(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state} to {state}"
        self.state = state
        self.ready = state is State.ON
