"""Channels over Bumble's connections: L2CAP with credits, and values of a GATT characteristic.

What Bumble queues has no bound of its own and forgets where one message ends (its L2CAP channel joins what waits), so a
message is handed over only when the one before has left and the controller has room: a message is one SDU, and nothing
waits behind a connection that does not move. With several connections each may have its share of the controller's
buffers, so one that is out of reach does not stop the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bumble import att, l2cap
from bumble.device import Connection

from offgrid_transports.ble.air import L2CAP_HEADER_BYTES, Phy, Shape, message_ms
from offgrid_transports.ble.fair_queue import FairQueue
from offgrid_transports.ble.greeting import FRAME_BYTES_MAX, FRAME_BYTES_MIN
from offgrid_transports.ble.link import BleError
from offgrid_transports.ble.pieces import HEADER_BYTES, Cutter, Joiner
from offgrid_transports.transport import OnEvent

MPS_BYTES = 247  # with its header one packet of the longest data length
CREDITS = 64
PEER_MPS_MIN = 23  # Core, Vol 3 Part A, 4.22; less, and nothing could be sent
SDU_LENGTH_BYTES = 2
ATT_VALUE_HEADER_BYTES = 3
ATT_VALUE_BYTES_MIN, ATT_VALUE_BYTES_MAX = 20, 512
PHYS = {1: Phy.LE_1M, 2: Phy.LE_2M, 3: Phy.LE_CODED_S8}


class BumbleChannel:
    """What both kinds have in common; a BleChannel. `bring` is for the radio: a message that arrived."""

    kind = ""

    def __init__(self, connection: Connection, queue: FairQueue, outgoing: bool) -> None:
        self.on_message: Callable[[bytes], None] = lambda message: None
        self.on_room: OnEvent = lambda: None
        self.on_closed: Callable[[str], None] = lambda why: None
        self.address = str(connection.peer_address)
        self.outgoing = outgoing
        self.message_bytes_max = FRAME_BYTES_MAX
        self.phy = Phy.LE_1M
        self.rssi_dbm: int | None = None
        self.connection = connection
        self.on_close: OnEvent = lambda: None
        """The radio drops the connection."""
        self.closed = False
        self._queue = queue
        self._blocked = False

    def write(self, message: bytes) -> bool:
        if self.closed:
            return False
        if not (self._has_left() and self._hand_over(message)):
            self._blocked = True
            return False
        return True

    def airtime_ms(self, length: int) -> float:
        return message_ms(length, self._shape(), self.phy, self.connection.data_length.max_tx_octets)

    def describe(self) -> str:
        role = "out" if self.outgoing else "in"
        signal = "" if self.rssi_dbm is None else f" {self.rssi_dbm} dBm"
        return f"{self.kind} {role} {self.phy.label} {self.connection.data_length.max_tx_octets} B{signal}"

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.on_close()

    def lost(self, why: str) -> None:
        """The connection is gone."""
        if not self.closed:
            self.closed = True
            self.on_closed(why)

    def room(self) -> None:
        """Something has left; whoever waits looks again."""
        if self._blocked and not self.closed and self._has_left():
            self._blocked = False
            self.on_room()

    def bring(self, message: bytes) -> None:
        if not self.closed:
            self.on_message(message)

    def _has_left(self) -> bool:
        """All that was handed over is with the controller."""
        return not self._queue.waits(self.connection.handle)

    def _hand_over(self, message: bytes) -> bool:
        raise NotImplementedError

    def _shape(self) -> Shape:
        raise NotImplementedError


class CocChannel(BumbleChannel):
    """An L2CAP channel with credits: a message is an SDU."""

    kind = "coc"

    def __init__(
        self, coc: l2cap.LeCreditBasedChannel, connection: Connection, queue: FairQueue, outgoing: bool
    ) -> None:
        """Raises BleError when the other side takes too little at once to send it anything."""
        super().__init__(connection, queue, outgoing)
        if coc.peer_mps < PEER_MPS_MIN or coc.peer_mtu < FRAME_BYTES_MIN:
            raise BleError(f"its channel takes {coc.peer_mtu} B in pieces of {coc.peer_mps}: too little")
        self.message_bytes_max = min(FRAME_BYTES_MAX, coc.peer_mtu)
        self._coc = coc
        coc.sink = self.bring
        coc.on("close", self._coc_closed)

    @classmethod
    def spec(cls, psm: int) -> l2cap.LeCreditBasedChannelSpec:
        """What we offer, and ask for."""
        return l2cap.LeCreditBasedChannelSpec(psm=psm, mtu=FRAME_BYTES_MAX, mps=MPS_BYTES, max_credits=CREDITS)

    def _coc_closed(self) -> None:
        self.lost("channel closed")
        self.on_close()

    def _hand_over(self, message: bytes) -> bool:
        coc = self._coc
        if coc.state != coc.State.CONNECTED or coc.out_queue or coc.out_sdu is not None:
            return False
        coc.write(message)
        return True

    def _shape(self) -> Shape:
        return Shape(min(MPS_BYTES, self._coc.peer_mps), L2CAP_HEADER_BYTES, SDU_LENGTH_BYTES)


class GattChannel(BumbleChannel):
    """Values of a characteristic: written without response one way, notified the other."""

    kind = "gatt"

    def __init__(self, connection: Connection, queue: FairQueue, outgoing: bool, handle: int) -> None:
        """`handle` is of the characteristic that we write or notify."""
        super().__init__(connection, queue, outgoing)
        opcode = att.Opcode.ATT_WRITE_COMMAND if outgoing else att.Opcode.ATT_HANDLE_VALUE_NOTIFICATION
        self.joiner = Joiner(FRAME_BYTES_MAX)
        self._head = bytes([opcode]) + handle.to_bytes(2, "little")
        self._cutter = Cutter()

    def take_value(self, value: Any) -> None:
        """A value that the other side wrote or notified."""
        message = self.joiner.join(bytes(value))
        if message is not None:
            self.bring(message)

    def _hand_over(self, message: bytes) -> bool:
        for value in self._cutter.cut(message, self._value_bytes()):
            self.connection.send_l2cap_pdu(att.ATT_CID, self._head + value)
        return True

    def _value_bytes(self) -> int:
        at_once: int = self.connection.att_mtu - ATT_VALUE_HEADER_BYTES
        return max(ATT_VALUE_BYTES_MIN, min(ATT_VALUE_BYTES_MAX, at_once))

    def _shape(self) -> Shape:
        return Shape(self._value_bytes() - HEADER_BYTES, L2CAP_HEADER_BYTES + ATT_VALUE_HEADER_BYTES + HEADER_BYTES)


async def settled(task: asyncio.Task[Any], seconds: float) -> Any:
    """What `task` comes to, its own cancellation included: Bumble cancels what waits on a connection that is lost.
    Raises BleError in place of whatever went wrong."""
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
    if not task.done():
        raise BleError("no answer")
    if task.cancelled():
        raise BleError("lost meanwhile")
    error = task.exception()
    if error is not None:
        raise BleError(str(error) or type(error).__name__) from error
    return task.result()
