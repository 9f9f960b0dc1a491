"""The connections of one controller by Bumble, either way round, and the channel that each has once it is open.

Bumble 0.0.236 forgets a peer's channels only when their connection ends, so a channel that closes ends its connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from bumble import core, gatt, hci, l2cap
from bumble.device import Connection, Device

from offgrid_transports.ble.adverts import SERVICE
from offgrid_transports.ble.air import Phy
from offgrid_transports.ble.bumble_channels import PHYS, BumbleChannel, CocChannel, GattChannel
from offgrid_transports.ble.fair_queue import FairQueue
from offgrid_transports.ble.link import BleChannel, BleError
from offgrid_transports.log_fields import fields
from offgrid_transports.transport import OnEvent

SERVICE_UUID = core.UUID(str(SERVICE))
WRITTEN_UUID = core.UUID(str(SERVICE).replace("1f60", "1f61", 1))
NOTIFIED_UUID = core.UUID(str(SERVICE).replace("1f60", "1f62", 1))
ATT_MTU_BYTES = 515  # the longest value and its header
CONNECTIONS_MAX = 10  # who connects beyond is sent away
OPEN_S = 5.0  # for whoever connected to open a channel
DROP_S = 3.0

Later = Callable[[Coroutine[Any, Any, None]], None]
logger = logging.getLogger(__name__)


class Peer(msgspec.Struct, eq=False):
    """A connection, and its channel once it has one."""

    connection: Connection
    outgoing: bool
    silent: asyncio.TimerHandle | None = None
    channel: BumbleChannel | None = None
    phy: Phy = Phy.LE_1M


class Connections:
    """All of one controller."""

    def __init__(self, device: Device, queue: FairQueue, psm: int, later: Later) -> None:
        """Serves the PSM, unless it is 0, and the GATT service. `later` runs a coroutine in the background."""
        self.on_channel: Callable[[BleChannel], None] = lambda channel: None
        self.on_change: OnEvent = lambda: None
        """One has come or gone."""
        self.sent_away = self.silent = self.stray = 0
        self._peers: dict[int, Peer] = {}
        self._queue = queue
        self._psm = psm
        self._later = later
        self._loop = asyncio.get_running_loop()
        queue.connections = lambda: len(self._peers)
        queue.on_room = self._room
        if psm:
            device.create_l2cap_server(CocChannel.spec(psm), self._on_coc)
        properties = gatt.Characteristic.Properties
        self._notified = gatt.Characteristic(NOTIFIED_UUID, properties.NOTIFY, gatt.Characteristic.READABLE, b"")
        self._notified.on("subscription", self._on_subscription)
        written = gatt.Characteristic(
            WRITTEN_UUID,
            properties.WRITE_WITHOUT_RESPONSE,
            gatt.Characteristic.WRITEABLE,
            gatt.CharacteristicValue(write=self._on_written),
        )
        device.add_service(gatt.Service(SERVICE_UUID, [written, self._notified]))

    @property
    def sharers(self) -> int:
        return len(self._peers)

    @property
    def full(self) -> bool:
        return len(self._peers) >= CONNECTIONS_MAX

    @property
    def peers(self) -> list[Peer]:
        return list(self._peers.values())

    def of(self, connection: Connection) -> Peer | None:
        return self._peers.get(connection.handle)

    def add(self, connection: Connection) -> Peer:
        """A new connection; one that came in has to open a channel soon."""
        outgoing = connection.role == hci.Role.CENTRAL
        peer = Peer(connection, outgoing)
        old = self._peers.get(connection.handle)
        if old is not None:
            self.gone(old, "lost")
        crowded = self.full
        self._peers[connection.handle] = peer
        connection.on("disconnection", lambda reason: self.gone(peer, hci.HCI_Constant.error_name(reason)))
        connection.on("connection_phy_update", lambda phy: self._set_phy(peer, phy))
        if crowded:
            self.sent_away += 1
            self.drop(peer)
        elif not outgoing:
            peer.silent = self._loop.call_later(OPEN_S, self._too_silent, peer)
        self.on_change()
        return peer

    def drop(self, peer: Peer) -> None:
        """Ends a connection; its channel says no more."""
        if peer.channel is not None:
            peer.channel.closed = True
        self._later(self._disconnect(peer))

    def gone(self, peer: Peer, why: str) -> None:
        """It has ended."""
        if peer.silent is not None:
            peer.silent.cancel()
        if self._peers.get(peer.connection.handle) is peer:
            del self._peers[peer.connection.handle]
        if peer.channel is not None:
            peer.channel.lost(why)
        self.on_change()

    async def open_channel(self, peer: Peer, psm: int) -> BumbleChannel:
        """Over a connection that we made: L2CAP where both have it, else GATT. Raises BleError, and whatever Bumble
        raises."""
        if psm and self._psm:
            # Bumble keeps what was asked for on a connection that is lost, and refuses the next request of that number
            peer.connection.device.l2cap_channel_manager.le_coc_requests.clear()
            try:
                coc = await peer.connection.create_l2cap_channel(CocChannel.spec(psm))
            except core.ProtocolError as error:
                said = fields("ble_no_l2cap", address=peer.connection.peer_address, why=error)
                logger.debug("no L2CAP channel to a neighbour, so GATT", extra=said)
            else:
                return self._give(peer, CocChannel(coc, peer.connection, self._queue, True))
        client = peer.connection.gatt_client
        await client.request_mtu(ATT_MTU_BYTES)
        for service in await client.discover_service(SERVICE_UUID):
            await service.discover_characteristics()
            written = service.get_characteristics_by_uuid(WRITTEN_UUID)
            notified = service.get_characteristics_by_uuid(NOTIFIED_UUID)
            if written and notified:
                channel = GattChannel(peer.connection, self._queue, True, written[0].handle)
                await notified[0].subscribe(channel.take_value)
                return self._give(peer, channel)
        raise BleError("it has neither our channel nor our service")

    def _on_coc(self, coc: l2cap.LeCreditBasedChannel) -> None:
        peer = self.of(coc.connection)
        if peer is None or peer.channel is not None:
            self.stray += 1
            return
        try:
            channel = CocChannel(coc, coc.connection, self._queue, False)
        except BleError as error:
            said = fields("ble_channel_failed", address=coc.connection.peer_address, why=error)
            logger.debug("a channel of a neighbour's came to nothing", extra=said)
            self.stray += 1
            self.drop(peer)
            return
        self.on_channel(self._give(peer, channel))

    def _on_subscription(self, connection: Any, notify: bool, indicate: bool) -> None:
        peer = self.of(connection)
        if peer is None or peer.channel is not None or not notify:
            self.stray += 1
            return
        channel = GattChannel(connection, self._queue, False, self._notified.handle)
        self.on_channel(self._give(peer, channel))

    def _on_written(self, connection: Connection, value: bytes) -> None:
        peer = self.of(connection)
        if peer is not None and isinstance(peer.channel, GattChannel):
            peer.channel.take_value(value)
        else:
            self.stray += 1

    def _give(self, peer: Peer, channel: BumbleChannel) -> BumbleChannel:
        peer.channel = channel
        channel.phy = peer.phy
        channel.on_close = lambda: self.drop(peer)
        if peer.silent is not None:
            peer.silent.cancel()
        return channel

    def _set_phy(self, peer: Peer, phy: Any) -> None:
        peer.phy = PHYS.get(int(phy.tx_phy), peer.phy)
        if peer.channel is not None:
            peer.channel.phy = peer.phy

    def _too_silent(self, peer: Peer) -> None:
        if peer.channel is None:
            self.silent += 1
            self.drop(peer)

    async def _disconnect(self, peer: Peer) -> None:
        if self._peers.get(peer.connection.handle) is peer:
            async with asyncio.timeout(DROP_S):
                await peer.connection.disconnect()

    def _room(self) -> None:
        for peer in self.peers:
            if peer.channel is not None:
                peer.channel.room()
