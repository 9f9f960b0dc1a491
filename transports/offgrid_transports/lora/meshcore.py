"""A MeshCore modem: a LoRa modem with MeshCore's KISS firmware (MeshCore: examples/kiss_modem). Pure.

It carries raw LoRa frames of up to 255 bytes, one at a time, waits for a free channel itself and says when a frame has
left. Settings are SetHardware commands, which it forgets when it loses power; so they are made and read back at every
connection. Its TXDELAY of half a second is set to nothing. A second frame while one is pending is dropped in silence,
and one that an earlier connection has left pending would go out under our settings: then it is rebooted first.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum

from offgrid_transports.lora.kiss import encode
from offgrid_transports.lora.modem import KissModem
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.transport import Shown

DATA, TX_DELAY, PERSISTENCE, SLOT_TIME, TX_TAIL, FULL_DUPLEX, HARDWARE = range(7)
SET_RADIO, SET_POWER, GET_RADIO, GET_POWER = 0x09, 0x0A, 0x0B, 0x0C
GET_VERSION, PING, REBOOT, SET_SIGNAL_REPORT, GET_SIGNAL_REPORT = 0x11, 0x17, 0x18, 0x19, 0x1A
ANSWER = 0x80  # what answers a command has this bit set
OK, ERROR, TX_DONE, RX_META = 0xF0, 0xF1, 0xF8, 0xF9
ERRORS = {1: "wrong length", 2: "wrong value", 3: "not supported", 5: "unknown command", 7: "busy"}

FRAME_BYTES_MAX = 255
POWER_DBM_MAX = 22
SLOT_10MS = 2
PERSISTENCE_OF_256 = 63  # sends in a free slot with this probability
ANSWER_MS = 1_000
PING_MS = 250  # until the next one: it may be starting, and hears nothing then
TRIES = 3
REBOOT_MS = 1_000
REBOOT_FRESH_MS = 15_000  # one whose port vanishes when it is rebooted has been, if it is back within this
RETRY_MS = 10_000
HEALTH_MS = 10_000
DONE_MS = 60_000  # beyond its own air; a busy channel delays a frame, but not for ever


def preamble_symbols(modulation: Modulation) -> int:
    """The preamble that the firmware chooses."""
    return 32 if modulation.sf <= 8 else 16


def radio_settings(modulation: Modulation) -> bytes:
    """What SetRadio is sent and GetRadio answers."""
    numbers = modulation.freq_hz.to_bytes(4, "little") + modulation.bw_hz.to_bytes(4, "little")
    return numbers + bytes([modulation.sf, modulation.cr])


class State(Enum):
    """Where it stands; NEXT has the legal moves."""

    AWAY = "unplugged"
    PINGED = "being looked for"
    REBOOTING = "being rebooted"
    SETTING = "being set up"
    ON = "on"
    FAILED = "failed"


NEXT: dict[State, tuple[State, ...]] = {
    State.AWAY: (State.PINGED,),
    State.PINGED: (State.REBOOTING, State.SETTING, State.AWAY),
    State.REBOOTING: (State.PINGED, State.AWAY),
    State.SETTING: (State.ON, State.PINGED, State.FAILED, State.AWAY),
    State.ON: (State.PINGED, State.AWAY),
    State.FAILED: (State.PINGED, State.AWAY),
}


class MeshCore(KissModem):
    """One MeshCore modem, to be set to `modulation`."""

    frame_bytes_max = FRAME_BYTES_MAX

    def __init__(self, modulation: Modulation) -> None:
        super().__init__()
        self.modulation = modulation.with_preamble(preamble_symbols(modulation))
        self.state = State.AWAY
        self.version = ""
        self._clean = False
        self._reboot_ms: int | None = None
        self._tries = 0
        self._steps: deque[tuple[bytes, int, bytes]] = deque()  # (command, its answer, what the answer has to hold)
        self._done_by_ms: float | None = None
        self._health_ms = self._said_ms = 0
        self._last_error = ""

    @property
    def access_ms(self) -> float:
        return SLOT_10MS * 10 * (256 / (PERSISTENCE_OF_256 + 1) - 1)

    def air_us(self, length: int) -> int:
        return self.modulation.airtime_us(length)

    def on_connect(self, now_ms: int, clean: bool) -> None:
        self._begin_line()
        fresh = self._reboot_ms is not None and now_ms - self._reboot_ms <= REBOOT_FRESH_MS
        self._clean = clean or fresh
        self._ping(now_ms)

    def on_lost(self, now_ms: int) -> None:
        if self.state is not State.AWAY:
            self._move(State.AWAY)
        self._done_by_ms = self.deadline_ms = None

    def on_timer(self, now_ms: int) -> None:
        self.deadline_ms = None
        if self.state in (State.PINGED, State.REBOOTING, State.FAILED):
            self._ping(now_ms)
        elif self.state is State.SETTING:
            self._tries += 1
            if self._tries < TRIES:
                self._set_next(now_ms)
            else:
                self.trouble = f"no answer to {self._steps[0][0].hex()}"
                self._ping(now_ms)
        elif self.state is State.ON:
            if self._done_by_ms is not None and now_ms >= self._done_by_ms:
                self.trouble = "it took a frame and does not send it"
                self._clean = False
                self._ping(now_ms)
            elif now_ms - self._said_ms >= 2 * HEALTH_MS:
                self.trouble = "it has fallen silent"
                self._clean = False
                self._ping(now_ms)
            else:
                if now_ms >= self._health_ms:
                    self._health_ms = now_ms + HEALTH_MS
                    self._ask(bytes([GET_RADIO]))
                self._tick_at()

    def has_room(self, now_ms: int) -> bool:
        return self.ready and self._done_by_ms is None

    def busy_ms(self, now_ms: int) -> float:
        return 0.0 if self._done_by_ms is None else max(0.0, self._done_by_ms - DONE_MS - now_ms)

    def transmit(self, now_ms: int, frame: bytes) -> None:
        self.sent_frames += 1
        self._done_by_ms = now_ms + self.access_ms + self.air_us(len(frame)) / 1000 + DONE_MS
        self._out += encode(DATA, frame)
        self._tick_at()

    def leave(self, now_ms: int) -> None:
        if self._done_by_ms is not None and self.state is State.ON:
            self._ask(bytes([REBOOT]))

    def figures(self) -> Shown:
        shown: dict[str, str | int | float] = {
            "modem": f"MeshCore {self.version}".strip(),
            "state": self.state.value,
            "errors": self.errors,
            "dropped_bytes": self.dropped_bytes,
        }
        if self._last_error:
            shown["last_error"] = self._last_error
        return shown

    def on_command(self, now_ms: int, command: int, payload: bytes) -> None:
        self._said_ms = now_ms
        if command == DATA:
            if self.state is State.ON and payload:
                self._hear(payload)
            return
        if command != HARDWARE or not payload:
            return
        kind, body = payload[0], payload[1:]
        if kind == ERROR and body:
            self.errors += 1
            self._last_error = ERRORS.get(body[0], f"{body[0]:#04x}")
        if self.state is State.PINGED:
            if kind == PING | ANSWER:
                self._found(now_ms)
        elif self.state is State.SETTING:
            self._on_answer(now_ms, kind, body)
        elif self.state is State.ON:
            self._on_working(now_ms, kind, body)

    def _found(self, now_ms: int) -> None:
        if not self._clean:
            self._move(State.REBOOTING)
            self._reboot_ms = now_ms
            self._clean = True
            self._ask(bytes([REBOOT]))
            self.deadline_ms = now_ms + REBOOT_MS
            return
        self._move(State.SETTING)
        self._emptied = True
        self._done_by_ms = None
        settings, power = radio_settings(self.modulation), bytes([self.modulation.power_dbm])
        self._steps = deque(
            [
                (bytes([GET_VERSION]), GET_VERSION | ANSWER, b""),
                (bytes([SET_RADIO]) + settings, OK, b""),
                (bytes([GET_RADIO]), GET_RADIO | ANSWER, settings),
                (bytes([SET_POWER]) + power, OK, b""),
                (bytes([GET_POWER]), GET_POWER | ANSWER, power),
                (bytes([SET_SIGNAL_REPORT, 1]), GET_SIGNAL_REPORT | ANSWER, b"\x01"),
            ]
        )
        for setting, value in (
            (TX_DELAY, 0),
            (PERSISTENCE, PERSISTENCE_OF_256),
            (SLOT_TIME, SLOT_10MS),
            (FULL_DUPLEX, 0),
        ):
            self._out += encode(setting, bytes([value]))  # these are not answered
        self._tries = 0
        self._set_next(now_ms)

    def _on_answer(self, now_ms: int, kind: int, body: bytes) -> None:
        sent, answer, holds = self._steps[0]
        if kind == ERROR:
            self._fail(now_ms, f"it refuses {sent.hex()}: {self._last_error}")
        elif kind == answer and holds and body != holds:
            self._fail(now_ms, f"it was set to {holds.hex()} and says {body.hex()}")
        elif kind == answer:
            if kind == GET_VERSION | ANSWER and body:
                self.version = str(body[0])
            self._steps.popleft()
            self._tries = 0
            if self._steps:
                self._set_next(now_ms)
            else:
                self._move(State.ON)
                self.trouble = ""
                self._health_ms = now_ms + HEALTH_MS
                self._tick_at()

    def _on_working(self, now_ms: int, kind: int, body: bytes) -> None:
        if kind == TX_DONE:
            if self._done_by_ms is not None:
                self._done_by_ms = None
                self._settled += 1
                if body != b"\x01":
                    self.errors += 1
                    self._last_error = "not sent"
        elif kind == RX_META and len(body) == 2:  # of the frame before
            self.snr_db = int.from_bytes(body[:1], "big", signed=True) / 4
            self.rssi_dbm = int.from_bytes(body[1:], "big", signed=True)
        elif kind == GET_RADIO | ANSWER and body != radio_settings(self.modulation):  # it has started anew
            self._clean = False
            self._ping(now_ms)
        self._tick_at()

    def _ping(self, now_ms: int) -> None:
        if self.state is not State.PINGED:
            self._move(State.PINGED)
        self._ask(bytes([PING]))
        self.deadline_ms = now_ms + PING_MS

    def _ask(self, command: bytes) -> None:
        self._out += encode(HARDWARE, command)

    def _set_next(self, now_ms: int) -> None:
        self._ask(self._steps[0][0])
        self.deadline_ms = now_ms + ANSWER_MS

    def _tick_at(self) -> None:
        if self.state is State.ON:
            due_ms = self._done_by_ms if self._done_by_ms is not None else math.inf
            self.deadline_ms = math.ceil(min(due_ms, self._health_ms))

    def _fail(self, now_ms: int, why: str) -> None:
        self._move(State.FAILED)
        self.errors += 1
        self.trouble = why
        self.deadline_ms = now_ms + RETRY_MS

    def _move(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state} to {state}"
        self.state = state
        self.ready = state is State.ON
