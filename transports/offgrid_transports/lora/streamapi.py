"""Meshtastic's StreamAPI: protobuf messages on a serial line or TCP, and the few messages that a link needs. Pure.

94 C3, the length in two bytes, and the message, of 512 bytes at most; text of the device's log may stand between. The
field numbers are those of meshtastic/protobufs: mesh.proto, config.proto, portnums.proto.
"""

from __future__ import annotations

from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.protobuf import Message, blob, fixed32, number, varint

START = b"\x94\xc3"
MESSAGE_BYTES_MAX = 512
WAKE = b"\xc3" * 32
EVERYBODY = 0xFFFFFFFF
PRIVATE_APP = 256
PREAMBLE_SYMBOLS = 16
HEADER_BYTES = 16  # of Meshtastic's own, on the air
DATA_BYTES_MAX = 231  # 239 in a LoRa frame, less the port, the length and the bit field that the firmware adds

TO_PACKET, TO_WANT_CONFIG, TO_HEARTBEAT = 1, 3, 7
FROM_PACKET, FROM_MY_INFO, FROM_NODE, FROM_CONFIG, FROM_COMPLETE, FROM_REBOOTED = 2, 3, 4, 5, 7, 8
FROM_CHANNEL, FROM_QUEUE, FROM_METADATA = 10, 11, 13
MY_NODE_NUM = 1
CONFIG_LORA = 6
USE_PRESET, PRESET, BANDWIDTH, SF, CR, REGION, HOPS, TX_ENABLED = 1, 2, 3, 4, 5, 7, 8, 9
P_FROM, P_TO, P_CHANNEL, P_DECODED, P_ID, P_TIME, P_SNR, P_HOPS, P_WANT_ACK, P_RSSI = 1, 2, 3, 4, 6, 7, 8, 9, 10, 12
D_PORT, D_PAYLOAD, D_REQUEST_ID = 1, 2, 6
Q_RESULT, Q_FREE, Q_MOST, Q_PACKET_ID = 1, 2, 3, 4

REGIONS = {"US915": 1, "EU433": 2, "EU868": 3}
"""Our regions and the device's codes for them."""
PRESETS: dict[str, tuple[int, int, int, int]] = {
    "LONG_FAST": (0, 250_000, 11, 5),
    "LONG_SLOW": (1, 125_000, 12, 8),
    "MEDIUM_SLOW": (3, 250_000, 10, 5),
    "MEDIUM_FAST": (4, 250_000, 9, 5),
    "SHORT_SLOW": (5, 250_000, 8, 5),
    "SHORT_FAST": (6, 250_000, 7, 5),
    "LONG_MODERATE": (7, 125_000, 11, 8),
    "SHORT_TURBO": (8, 500_000, 7, 5),
    "LONG_TURBO": (9, 500_000, 11, 8),
}
"""The device's code, bandwidth, spreading factor and coding rate of each."""


def preset_modulation(preset: str, freq_hz: int) -> Modulation:
    """The power is the device's business: 0 here."""
    _, bw_hz, sf, cr = PRESETS[preset]
    return Modulation(freq_hz, bw_hz, sf, cr, 0, PREAMBLE_SYMBOLS)


def on_air_bytes(length: int) -> int:
    """What becomes of `length` bytes of payload in a LoRa frame."""
    return HEADER_BYTES + len(data_message(b"")) - 1 + len(varint(length)) + length + 2


def data_message(payload: bytes, port: int = PRIVATE_APP) -> bytes:
    """`Data`."""
    return number(D_PORT, port) + blob(D_PAYLOAD, payload)


def packet_message(packet_id: int, payload: bytes, hops: int) -> bytes:
    """`ToRadio` with a packet to everybody."""
    packet = fixed32(P_TO, EVERYBODY) + blob(P_DECODED, data_message(payload)) + fixed32(P_ID, packet_id)
    return blob(TO_PACKET, packet + number(P_HOPS, hops))


def framed(message: bytes) -> bytes:
    """Raises ValueError for a message that is too long."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message has at most {MESSAGE_BYTES_MAX} bytes, not {len(message)}")
    return START + len(message).to_bytes(2, "big") + message


class StreamDecoder:
    """Bytes in, messages out; keeps at most one unfinished message."""

    def __init__(self) -> None:
        self.dropped_bytes = 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        self._rest += data
        messages: list[bytes] = []
        while True:
            start = self._rest.find(START)
            if start < 0:
                keep = 1 if self._rest[-1:] == START[:1] else 0
                self._drop(len(self._rest) - keep)
                return messages
            self._drop(start)
            if len(self._rest) < 4:
                return messages
            length = int.from_bytes(self._rest[2:4], "big")
            if length > MESSAGE_BYTES_MAX:
                self._drop(2)
            elif len(self._rest) < 4 + length:
                return messages
            else:
                messages.append(bytes(self._rest[4 : 4 + length]))
                del self._rest[: 4 + length]

    def _drop(self, count: int) -> None:
        self.dropped_bytes += count
        del self._rest[:count]


def lora_mismatch(lora: Message, region: int, preset: str) -> str:
    """What the device's LoRa settings have against being used with `region` (0: any) and `preset`; else nothing."""
    code, bw_hz, sf, cr = PRESETS[preset]
    names = {value: name for name, value in REGIONS.items()}
    if region and lora.number(REGION) != region:
        said = lora.number(REGION)
        return f"the device is set to region {names.get(said, said) if said else 'UNSET'}, the link to {names[region]}"
    if lora.number(USE_PRESET):
        if lora.number(PRESET) != code:
            said_preset = {other[0]: name for name, other in PRESETS.items()}.get(lora.number(PRESET), "another one")
            return f"the device is set to preset {said_preset}, the link to {preset}"
    elif (lora.number(BANDWIDTH), lora.number(SF), lora.number(CR)) != (bw_hz // 1000, sf, cr):
        return f"the device has settings of its own, which are not those of {preset}"
    if region and not lora.number(TX_ENABLED):
        return "the device's transmitter is switched off (lora.tx_enabled)"
    return ""
