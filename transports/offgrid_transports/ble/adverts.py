"""What a node shows to all who are near, pure: legacy advertisements, which every controller since 4.0 sends and hears.

An advertisement carries 31 bytes, so the service data is cut in two: its first ADVERT_PART_BYTES stand in the
advertisement, what is left in the scan response. Joined: one byte with the PSM of the channel (0: over GATT only), then
`LinkHost.hello`. Structures: Core Supplement Part A, 1.4 and 1.11.
"""

from __future__ import annotations

from collections import OrderedDict
from uuid import UUID

import msgspec

from offgrid_transports.transport import HELLO_BYTES_MAX

SERVICE = UUID("c7a41f60-5c1e-4a0b-9d43-6f666672646e")
SERVICE_BYTES = SERVICE.bytes[::-1]  # as it is sent
AD_BYTES_MAX = 31
FLAGS = bytes((2, 0x01, 0x06))  # general discoverable, no classic Bluetooth
SERVICE_DATA_TYPE = 0x21  # of a UUID of 128 bits
STRUCTURE_HEADER_BYTES = 2
ADVERT_PART_BYTES = AD_BYTES_MAX - len(FLAGS) - STRUCTURE_HEADER_BYTES - len(SERVICE_BYTES)
RESPONSE_PART_BYTES = AD_BYTES_MAX - STRUCTURE_HEADER_BYTES - len(SERVICE_BYTES)
PSM_MIN, PSM_MAX = 0x80, 0xFF  # those that a host may take for itself
GATT_ONLY = 0
SEEN_MAX = 64  # whoever was seen longest ago is forgotten

assert 1 + HELLO_BYTES_MAX <= ADVERT_PART_BYTES + RESPONSE_PART_BYTES


class Advert(msgspec.Struct, frozen=True):
    """What a node shows."""

    psm: int
    hello: bytes


class Sighting(msgspec.Struct, frozen=True):
    """An advertisement that was heard; `address` is what the radio connects to."""

    address: str
    advert: Advert
    rssi_dbm: int


def advertisement(advert: Advert) -> tuple[bytes, bytes]:
    """The advertising data and the scan response; the second may be empty."""
    shown = bytes([advert.psm]) + advert.hello
    first, rest = shown[:ADVERT_PART_BYTES], shown[ADVERT_PART_BYTES:]
    return FLAGS + _service_data(first), _service_data(rest) if rest else b""


def service_data(data: bytes) -> bytes | None:
    """Our service's data in advertising data, however broken that is."""
    at = 0
    while at + STRUCTURE_HEADER_BYTES <= len(data):
        end = at + 1 + data[at]
        body = at + STRUCTURE_HEADER_BYTES
        if end > len(data) or end < body:
            return None
        if data[at + 1] == SERVICE_DATA_TYPE and data[body:end].startswith(SERVICE_BYTES):
            return data[body + len(SERVICE_BYTES) : end]
        at = end
    return None


class Sightings:
    """Joins advertisements with their scan responses, for a bounded number of addresses."""

    def __init__(self) -> None:
        self.garbage = 0
        """Reports under our UUID that say nothing that we know."""
        self._first: OrderedDict[str, bytes] = OrderedDict()

    def hear(self, address: str, response: bool, data: bytes, rssi_dbm: int) -> Sighting | None:
        """A report; gives what is known of that address by now, if it is one of ours."""
        part = service_data(data)
        if part is None:
            self.garbage += 1
            return None
        if response:
            first = self._first.get(address)
            if first is None:
                return None  # its advertisement was missed; it comes again
        else:
            first, part = part, b""
            self._first[address] = first
            self._first.move_to_end(address)
            if len(self._first) > SEEN_MAX:
                self._first.popitem(last=False)
        shown = first + part
        if not 1 <= len(shown) <= 1 + HELLO_BYTES_MAX or not (shown[0] == GATT_ONLY or PSM_MIN <= shown[0] <= PSM_MAX):
            self.garbage += 1
            return None
        return Sighting(address, Advert(shown[0], shown[1:]), rssi_dbm)


def _service_data(part: bytes) -> bytes:
    return bytes((1 + len(SERVICE_BYTES) + len(part), SERVICE_DATA_TYPE)) + SERVICE_BYTES + part
