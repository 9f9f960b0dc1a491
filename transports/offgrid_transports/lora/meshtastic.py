"""A Meshtastic device as a modem: our frames are its PRIVATE_APP packets to everybody. Pure.

Its radio belongs to its owner: settings are read and compared with what the link was told, and never written. Unless
asked for, its neighbours do not repeat our packets (0 hops): relaying is the business of the protocol above. It waits
for a free channel itself, queues some packets and does not tell when one has left: it is trusted to send within a
minute. What an earlier connection has left in it is waited for as long.
"""

from __future__ import annotations

import math
from collections import deque
from enum import Enum
from random import Random

from offgrid_transports.lora.modem import UNPROVEN_MS, Modem
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.protobuf import Message, blob, number
from offgrid_transports.lora.streamapi import (
    CONFIG_LORA,
    D_PAYLOAD,
    D_PORT,
    DATA_BYTES_MAX,
    FROM_COMPLETE,
    FROM_CONFIG,
    FROM_MY_INFO,
    FROM_PACKET,
    FROM_QUEUE,
    FROM_REBOOTED,
    MY_NODE_NUM,
    P_DECODED,
    P_FROM,
    P_RSSI,
    P_SNR,
    PRIVATE_APP,
    Q_FREE,
    Q_RESULT,
    TO_HEARTBEAT,
    TO_WANT_CONFIG,
    WAKE,
    StreamDecoder,
    framed,
    lora_mismatch,
    on_air_bytes,
    packet_message,
)
from offgrid_transports.transport import Shown

ANSWER_MS = 5_000
RETRY_MS = 10_000
HEALTH_MS = 30_000
FULL_MS = 1_000
AHEAD_MS = 500
SLOTS_BEFORE_SENDING = 8  # as a rule; the firmware waits a random number of them
SLOT_SYMBOLS = 8.5


class State(Enum):
    """Where it stands; NEXT has the legal moves."""

    AWAY = "unplugged"
    ASKED = "being asked for its settings"
    ON = "on"
    FAILED = "failed"


NEXT: dict[State, tuple[State, ...]] = {
    State.AWAY: (State.ASKED,),
    State.ASKED: (State.ON, State.FAILED, State.AWAY),
    State.ON: (State.ASKED, State.AWAY),
    State.FAILED: (State.ASKED, State.AWAY),
}


class Meshtastic(Modem):
    """One device, expected to be set to `preset` and, unless it is 0, to `region`."""

    frame_bytes_max = DATA_BYTES_MAX

    def __init__(self, modulation: Modulation, preset: str, region: int, hops: int, rng: Random) -> None:
        super().__init__()
        self.modulation = modulation
        self.state = State.AWAY
        self.node_num = 0
        self._preset, self._region, self._hops, self._rng = preset, region, hops, rng
        self._decoder = StreamDecoder()
        self._nonce = 0
        self._lora: Message | None = None
        self._free_ms = 0.0
        self._full = False
        self._open: deque[int] = deque()  # when each was handed over
        self._health_ms = self._said_ms = self._full_ms = self._answer_ms = 0
        self._foreign = 0
        self._empty_ms: int | None = None  # when nothing of earlier can be in it any more

    @property
    def access_ms(self) -> float:
        return SLOTS_BEFORE_SENDING * SLOT_SYMBOLS * self.modulation.symbol_us / 1000

    def air_us(self, length: int) -> int:
        return self.modulation.airtime_us(on_air_bytes(length))

    def on_connect(self, now_ms: int, clean: bool) -> None:
        dropped, self._decoder = self._decoder.dropped_bytes, StreamDecoder()
        self._decoder.dropped_bytes = dropped
        self._out.clear()
        self._out += WAKE
        if not clean and self._empty_ms is None:
            self._empty_ms = now_ms + UNPROVEN_MS
        self._ask(now_ms)

    def on_lost(self, now_ms: int) -> None:
        if self.state is not State.AWAY:
            self._move(State.AWAY)
        if self._open:
            self._empty_ms = self._open[-1] + UNPROVEN_MS
        self._open.clear()
        self.deadline_ms = self._empty_ms

    def on_bytes(self, now_ms: int, data: bytes) -> None:
        for raw in self._decoder.feed(data):
            try:
                self._on_message(now_ms, Message(raw))
            except ValueError:
                self.errors += 1
        self._tick_at(now_ms)

    def on_timer(self, now_ms: int) -> None:
        due, self.deadline_ms = now_ms >= self._answer_ms, None
        self._settle(now_ms)
        if self.state in (State.ASKED, State.FAILED) and due:
            if self.state is State.ASKED:
                self.trouble = "it does not tell its settings: no Meshtastic device"
            self._ask(now_ms)
        elif self.state is State.ON and now_ms >= self._health_ms:
            if now_ms - self._said_ms >= 2 * HEALTH_MS:
                self.trouble = "it has fallen silent"
                self._ask(now_ms)
            else:
                self._health_ms = now_ms + HEALTH_MS
                self._out += framed(blob(TO_HEARTBEAT, b""))
        if self._full and now_ms >= self._full_ms:
            self._full = False
        self._tick_at(now_ms)

    def has_room(self, now_ms: int) -> bool:
        free = self._empty_ms is None and not self._full
        return self.ready and free and self._free_ms - now_ms <= AHEAD_MS

    def busy_ms(self, now_ms: int) -> float:
        return max(0.0, self._free_ms - now_ms)

    def transmit(self, now_ms: int, frame: bytes) -> None:
        self.sent_frames += 1
        begin_ms = max(self._free_ms, float(now_ms)) + self.access_ms
        self._free_ms = begin_ms + self.air_us(len(frame)) / 1000
        self._open.append(now_ms)
        self._out += framed(packet_message(self._rng.randrange(1, 1 << 32), frame, self._hops))
        self._tick_at(now_ms)

    def leave(self, now_ms: int) -> None:
        """Its queue is its own."""

    def figures(self) -> Shown:
        return {
            "modem": f"Meshtastic !{self.node_num:08x}",
            "state": self.state.value,
            "errors": self.errors,
            "dropped_bytes": self._decoder.dropped_bytes,
            "other_packets": self._foreign,
        }

    def _on_message(self, now_ms: int, message: Message) -> None:
        self._said_ms = now_ms
        if FROM_PACKET in message:
            self._on_packet(message.message(FROM_PACKET))
        elif FROM_MY_INFO in message:
            self.node_num = message.message(FROM_MY_INFO).number(MY_NODE_NUM) & 0xFFFFFFFF
        elif FROM_CONFIG in message:
            config = message.message(FROM_CONFIG)
            if CONFIG_LORA in config:
                self._lora = config.message(CONFIG_LORA)
        elif FROM_COMPLETE in message:
            if self.state is State.ASKED and message.number(FROM_COMPLETE) == self._nonce:
                self._compare(now_ms)
        elif FROM_QUEUE in message:
            queue = message.message(FROM_QUEUE)
            self.errors += queue.number(Q_RESULT) != 0
            self._full = queue.number(Q_FREE) == 0
            self._full_ms = now_ms + FULL_MS
        elif message.number(FROM_REBOOTED) and self.state is State.ON:
            self._ask(now_ms)

    def _on_packet(self, packet: Message) -> None:
        data = packet.message(P_DECODED)
        if self.state is not State.ON or packet.number(P_FROM) == self.node_num:
            return
        if data.number(D_PORT) != PRIVATE_APP or not data.blob(D_PAYLOAD):
            self._foreign += 1
            return
        self.rssi_dbm, self.snr_db = packet.signed(P_RSSI), round(packet.floating(P_SNR), 2)
        self._hear(data.blob(D_PAYLOAD))

    def _compare(self, now_ms: int) -> None:
        why = "it does not tell its LoRa settings"
        if self._lora is not None:
            why = lora_mismatch(self._lora, self._region, self._preset)
        if why:
            self._move(State.FAILED)
            self.errors += 1
            self.trouble = why
            self._answer_ms = now_ms + RETRY_MS
            return
        self._move(State.ON)
        self.trouble = ""
        self._full = False
        self._health_ms = now_ms + HEALTH_MS

    def _ask(self, now_ms: int) -> None:
        if self.state is not State.ASKED:
            self._move(State.ASKED)
        self._lora = None
        self._nonce = self._rng.randrange(1, 1 << 31)
        self._out += framed(number(TO_WANT_CONFIG, self._nonce))
        self._answer_ms = now_ms + ANSWER_MS
        self._tick_at(now_ms)

    def _settle(self, now_ms: int) -> None:
        if self._empty_ms is not None and now_ms >= self._empty_ms:
            self._empty_ms = None
            self._emptied = True
        while self._open and self._open[0] + UNPROVEN_MS <= now_ms:
            self._open.popleft()
            self._settled += 1

    def _tick_at(self, now_ms: int) -> None:
        due_ms = [self._answer_ms] if self.state in (State.ASKED, State.FAILED) else []
        if self.state is State.ON:
            due_ms.append(self._health_ms)
            if self._full:
                due_ms.append(self._full_ms)
            if self._free_ms - AHEAD_MS > now_ms:
                due_ms.append(math.ceil(self._free_ms - AHEAD_MS))
        if self._open:
            due_ms.append(self._open[0] + UNPROVEN_MS)
        if self._empty_ms is not None:
            due_ms.append(self._empty_ms)
        self.deadline_ms = min(due_ms, default=None)

    def _move(self, state: State) -> None:
        assert state in NEXT[self.state], f"{self.state} to {state}"
        self.state = state
        self.ready = state is State.ON
