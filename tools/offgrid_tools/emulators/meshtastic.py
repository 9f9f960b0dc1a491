"""What a Meshtastic device does with its host's StreamAPI, as far as a client needs it.

It tells its settings when asked, sends packets to everybody and to single nodes, answers with the state of its queue,
acknowledges what wants it, and hands over what it hears. It does not repeat, encrypt or keep anything.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import msgspec

from offgrid_tools.emulators.channel import Channel
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.protobuf import Message, blob, fixed32, floating, number
from offgrid_transports.lora.streamapi import (
    CONFIG_LORA,
    D_PAYLOAD,
    D_PORT,
    D_REQUEST_ID,
    EVERYBODY,
    FROM_CHANNEL,
    FROM_COMPLETE,
    FROM_CONFIG,
    FROM_METADATA,
    FROM_MY_INFO,
    FROM_NODE,
    FROM_PACKET,
    FROM_QUEUE,
    FROM_REBOOTED,
    HOPS,
    MY_NODE_NUM,
    P_DECODED,
    P_FROM,
    P_HOPS,
    P_ID,
    P_RSSI,
    P_SNR,
    P_TIME,
    P_TO,
    P_WANT_ACK,
    PRESET,
    PRESETS,
    Q_FREE,
    Q_MOST,
    Q_PACKET_ID,
    Q_RESULT,
    REGION,
    TO_HEARTBEAT,
    TO_PACKET,
    TO_WANT_CONFIG,
    TX_ENABLED,
    USE_PRESET,
    StreamDecoder,
    framed,
    preset_modulation,
)

QUEUE_PACKETS_MAX = 16
FRAME_BYTES_MAX = 255
HEADER = struct.Struct("<IIIBBBB")
ROUTING_APP = 5
ERROR_TOO_LARGE = 7
CONFIG_KINDS, MODULE_KINDS = range(1, 9), range(1, 14)
FROM_MODULE = 9
LOOK_US = 2_000
SLOT_SYMBOLS = 8.5
WINDOW_SLOTS = 16
START_TIME = 1_700_000_000


class Settings(msgspec.Struct, frozen=True):
    """What its owner has set."""

    region: int = 3
    preset: str = "LONG_FAST"
    freq_hz: int = 869_525_000
    tx_enabled: bool = True


class MeshtasticEmulator:
    """One device; a `Station`. `write` takes what it says to its host."""

    def __init__(
        self, name: str, node_num: int, channel: Channel, write: Callable[[bytes], object], settings: Settings
    ) -> None:
        self.name = name
        self.node_num = node_num
        self.write = write
        self.settings = settings
        self.tuned: Modulation | None = preset_modulation(settings.preset, settings.freq_hz)
        self._channel = channel
        self._clock = channel.clock
        self._decoder = StreamDecoder()
        self._queue: deque[tuple[bytes, bool]] = deque()
        self._sending = self._waiting = False
        channel.join(self)

    def reboot(self) -> None:
        """Starts anew, and says so to whoever listens."""
        self._decoder = StreamDecoder()
        self._queue.clear()
        self._say(number(FROM_REBOOTED, 1))

    def on_bytes(self, data: bytes) -> None:
        """The host wrote this."""
        for raw in self._decoder.feed(data):
            try:
                self._on_message(Message(raw))
            except ValueError:
                continue

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        if len(frame) <= HEADER.size:
            return
        to, sender, packet_id, flags, *_ = HEADER.unpack_from(frame)
        if to not in (EVERYBODY, self.node_num):
            return
        packet = fixed32(P_FROM, sender) + fixed32(P_TO, to) + blob(P_DECODED, frame[HEADER.size :])
        packet += fixed32(P_ID, packet_id) + fixed32(P_TIME, START_TIME + self._clock.now_us // 1_000_000 % 10**9)
        packet += floating(P_SNR, snr_db) + number(P_HOPS, flags & 7) + number(P_RSSI, round(rssi_dbm))
        self._say(blob(FROM_PACKET, packet))

    def on_medium(self) -> None:
        if self._waiting and not self._channel.busy(self):
            self._waiting = False
            self._clock.after(LOOK_US, self._look)

    def _say(self, message: bytes) -> None:
        self.write(framed(message))

    def _on_message(self, message: Message) -> None:
        if TO_PACKET in message:
            self._take(message.message(TO_PACKET))
        elif TO_WANT_CONFIG in message:
            self._tell(message.number(TO_WANT_CONFIG))
        elif TO_HEARTBEAT in message:
            self._tell_queue(0, 0)

    def _tell(self, nonce: int) -> None:
        name = self.name.encode()
        user = blob(1, f"!{self.node_num:08x}".encode()) + blob(2, name) + blob(3, name[-4:])
        lora = number(USE_PRESET, 1) + number(PRESET, PRESETS[self.settings.preset][0])
        lora += number(REGION, self.settings.region) + number(HOPS, 3) + number(TX_ENABLED, self.settings.tx_enabled)
        self._say(blob(FROM_MY_INFO, number(MY_NODE_NUM, self.node_num)))
        self._say(blob(FROM_METADATA, blob(1, b"2.7.0.emulated")))
        self._say(blob(FROM_NODE, number(1, self.node_num) + blob(2, user)))
        self._say(blob(FROM_CHANNEL, blob(2, blob(2, b"\x01")) + number(3, 1)))
        for kind in CONFIG_KINDS:
            self._say(blob(FROM_CONFIG, blob(kind, lora if kind == CONFIG_LORA else b"")))
        for kind in MODULE_KINDS:
            self._say(blob(FROM_MODULE, blob(kind, b"")))
        self._say(number(FROM_COMPLETE, nonce))

    def _tell_queue(self, result: int, packet_id: int) -> None:
        queue = number(Q_RESULT, result) + number(Q_FREE, QUEUE_PACKETS_MAX - len(self._queue))
        self._say(blob(FROM_QUEUE, queue + number(Q_MOST, QUEUE_PACKETS_MAX) + number(Q_PACKET_ID, packet_id)))

    def _take(self, packet: Message) -> None:
        data, packet_id = packet.blob(P_DECODED), packet.number(P_ID)
        header = HEADER.pack(packet.number(P_TO), self.node_num, packet_id, packet.number(P_HOPS) & 7, 0, 0, 0)
        if packet.number(P_TO) == self.node_num:  # to itself: what asks for its settings is not emulated
            self._tell_queue(0, packet_id)
        elif len(header) + len(data) > FRAME_BYTES_MAX:
            self._tell_queue(ERROR_TOO_LARGE, packet_id)
        elif len(self._queue) < QUEUE_PACKETS_MAX:
            self._queue.append((header + data, bool(packet.number(P_WANT_ACK))))
            self._tell_queue(0, packet_id)
            self._send_next()
        else:
            self._tell_queue(1, packet_id)

    def _send_next(self) -> None:
        if self._sending or not self._queue or self.tuned is None:
            return
        self._sending = True
        slots = self._channel.rng.randrange(WINDOW_SLOTS)
        self._clock.after(round(slots * SLOT_SYMBOLS * self.tuned.symbol_us), self._look)

    def _look(self) -> None:
        if not self._queue or self.tuned is None or not self.settings.tx_enabled:
            self._sending = False
            return
        if self._channel.busy(self):
            self._waiting = True
            return
        frame, wants_ack = self._queue.popleft()
        self._channel.send(self, self.tuned, frame, lambda: self._sent(frame, wants_ack))

    def _sent(self, frame: bytes, wants_ack: bool) -> None:
        self._sending = False
        if wants_ack:
            _, _, packet_id, *_ = HEADER.unpack_from(frame)
            routing = number(D_PORT, ROUTING_APP) + blob(D_PAYLOAD, b"\x18\x00") + fixed32(D_REQUEST_ID, packet_id)
            packet = fixed32(P_FROM, self.node_num) + fixed32(P_TO, self.node_num) + blob(P_DECODED, routing)
            self._say(blob(FROM_PACKET, packet + fixed32(P_ID, packet_id ^ 1)))
        self._send_next()
