"""What the adapter needs of a radio. A back end gives it that, by HCI, a kernel's sockets or a phone's stack.

All belongs to the running asyncio loop's thread; callbacks come from the loop, never from within a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from offgrid_transports.ble.adverts import Advert, Sighting
from offgrid_transports.ble.seeking import Duty
from offgrid_transports.transport import OnEvent, TransportError


class BleError(TransportError):
    """The radio cannot do what it was asked to; says why."""


class BleChannel(Protocol):
    """One open way to a neighbour. Messages arrive whole and in order; a few may be lost over GATT.

    Who connected writes first; until then the other side keeps quiet.
    """

    on_message: Callable[[bytes], None]
    on_room: OnEvent
    """`write` has said False, and may take something now."""
    on_closed: Callable[[str], None]
    """It is gone; says why, in a word or two. Called once, and not after `close`."""
    address: str
    """The neighbour's Bluetooth address, for as long as it has it."""
    outgoing: bool
    message_bytes_max: int

    def write(self, message: bytes) -> bool:
        """Hands a message over; False when there is no room for it now."""
        ...

    def airtime_ms(self, length: int) -> float:
        """How long a message occupies the air on this connection as it is now."""
        ...

    def describe(self) -> str:
        """Kind, PHY, data length and signal, for people."""
        ...

    def close(self) -> None:
        """Drops the connection."""
        ...


class BleRadio(Protocol):
    """A controller that is switched on."""

    on_sighting: Callable[[Sighting], None]
    on_channel: Callable[[BleChannel], None]
    """Somebody connected and opened a channel."""
    on_lost: Callable[[str], None]
    """The controller is gone; says why. Called once, and not after `stop`."""
    psm: int
    """What to advertise: where its channels are opened, or GATT_ONLY."""

    @property
    def connected(self) -> frozenset[str]:
        """Addresses of all who are connected, with a channel or not yet."""
        ...

    async def start(self) -> None:
        """Switches it on; raises BleError."""
        ...

    async def seek(self, duty: Duty, advert: Advert) -> None:
        """Looks for others and shows itself like this from now on; raises BleError."""
        ...

    async def connect(self, sighting: Sighting) -> BleChannel:
        """Connects and opens a channel, one at a time; raises BleError when that fails."""
        ...

    async def stop(self) -> None:
        """Drops all connections and leaves the controller alone. May be called twice and at any time."""
        ...

    def figures(self) -> Mapping[str, str | int]:
        """What the controller says of itself, and counters."""
        ...
