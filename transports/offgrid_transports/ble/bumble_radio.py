"""A radio by Bumble: a Bluetooth host in pure Python over any controller that speaks HCI; a BleRadio.

The controller is this process's alone. Legacy advertising, scanning and connecting only: every controller has them, and
the two kinds of command may not be mixed. Bumble's own `connect` takes whichever connection comes first, an incoming
one as well, so connecting is done here by its commands. Pairing is off: who a neighbour is, is proved above.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Any

from bumble import hci, smp
from bumble.device import Connection, Device
from bumble.host import Host
from bumble.transport import open_transport
from bumble.transport.common import Transport as HciTransport

from offgrid_transports.ble.adverts import GATT_ONLY, Advert, Sighting, Sightings, advertisement
from offgrid_transports.ble.bumble_channels import BumbleChannel, settled
from offgrid_transports.ble.bumble_connections import Connections
from offgrid_transports.ble.fair_queue import FairQueue
from offgrid_transports.ble.hci_gate import HciGate
from offgrid_transports.ble.link import BleChannel, BleError
from offgrid_transports.ble.seeking import Duty
from offgrid_transports.log_fields import fields

PSM = 0xA7
OPEN_S = 5.0  # a controller, a channel
CONNECT_S = 2.0
COMMAND_S = 3.0
STOP_S = 0.5
MEASURE_S = 5.0
ADDRESSES_MAX = 256
INTERVAL_MS = (15.0, 30.0)
SUPERVISION_MS = 1000  # silence after which a controller calls a connection lost
OCTETS, OCTETS_US = 251, 2120

logger = logging.getLogger(__name__)


class _OneLine(logging.Handler):
    """What Bumble says of neighbours' bytes, without its tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.debug("Bumble has something to say", extra=fields("ble_library", said=record.getMessage()))


_BUMBLE_LOG = logging.getLogger("bumble")
_BUMBLE_LOG.handlers[:] = [_OneLine()]
_BUMBLE_LOG.propagate = False


class BumbleRadio:
    """One controller, from being switched on to being left alone."""

    def __init__(self, controller: str, rng: Random, *, coc: bool = True) -> None:
        """`controller` as Bumble names it: "usb:0", "tcp-client:127.0.0.1:6402". Without `coc` it has GATT only."""
        self.on_sighting: Callable[[Sighting], None] = lambda sighting: None
        self.on_channel: Callable[[BleChannel], None] = lambda channel: None
        self.on_lost: Callable[[str], None] = lambda why: None
        self.psm = PSM if coc else GATT_ONLY
        self._name = controller
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._sightings = Sightings()
        self._seeking: tuple[Duty, Advert] | None = None
        self._advertised: tuple[Duty, Advert] | None = None
        self._scanned: Duty | None = None
        self._connected: asyncio.Future[Connection] | None = None
        self._addresses: dict[str, hci.Address] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._says = ""
        self._refused = 0
        self._stopped = False
        self._hci: HciTransport | None = None
        self._gate: HciGate | None = None
        self._device: Device | None = None
        self._connections: Connections | None = None

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(str(peer.connection.peer_address) for peer in self._the_connections.peers)

    async def start(self) -> None:
        try:
            async with asyncio.timeout(OPEN_S):
                self._hci = await open_transport(self._name)
        except Exception as error:  # whatever a driver, a socket or a library says
            raise BleError(f"{self._name} cannot be opened: {str(error) or type(error).__name__}") from error
        host = Host()
        self._gate = HciGate(host, self._hci.sink, self._lose)
        host.set_packet_source(self._hci.source)
        self._hci.source.set_packet_sink(self._gate)
        host.set_packet_sink(self._gate.towards_controller)
        address = hci.Address(bytes([*self._rng.randbytes(5), 0xC0 | self._rng.randrange(64)]))
        self._device = device = self._make_device(host, address)
        try:
            await settled(self._loop.create_task(self._device.power_on()), OPEN_S)
        except BleError as error:
            raise BleError(f"{self._name} does not answer as a Bluetooth controller: {error}") from error
        # without extended advertising, whose commands exclude those that we use
        host.local_le_features &= ~hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
        line = host.le_acl_packet_queue
        if line is None:
            raise BleError(f"{self._name} has no Bluetooth LE")
        host.le_acl_packet_queue = fair = FairQueue(line.max_packet_size, line.max_in_flight, host.send_hci_packet)
        self._connections = Connections(device, fair, self.psm, self._later)
        self._connections.on_channel = self.on_channel
        self._connections.on_change = lambda: self._later(self._apply())
        version = host.local_version
        self._says = f"HCI {version.hci_version} of company {version.company_identifier:#06x}" if version else "?"
        self._keep(self._measure())

    def _make_device(self, host: Host, address: hci.Address) -> Device:
        device = Device(name="offgrid", address=address, host=host)
        device.command_timeout = COMMAND_S
        device.connect_own_address_type = hci.OwnAddressType.RANDOM
        device.l2cap_channel_manager.deregister_fixed_channel(smp.SMP_CID)
        # both ends of an advertisement are joined here, for a bounded number of addresses
        host.remove_listener("advertising_report", device.on_advertising_report)
        host.on("advertising_report", self._on_report)
        device.on("connection", self._on_connection)
        device.on("connection_failure", self._on_connection_failure)
        return device

    async def seek(self, duty: Duty, advert: Advert) -> None:
        self._seeking = (duty, advert)
        await self._apply()

    async def connect(self, sighting: Sighting) -> BleChannel:
        address = self._addresses.get(sighting.address)
        if address is None:
            raise BleError("it has not been seen for long")
        connection = await self._open_connection(address)
        connections = self._the_connections
        peer = connections.of(connection)
        if peer is None:
            raise BleError("lost at once")
        try:
            await self._tune(connection)
            opening = self._loop.create_task(connections.open_channel(peer, sighting.advert.psm))
            channel: BleChannel = await settled(opening, OPEN_S)
        except BleError:
            connections.drop(peer)
            raise
        return channel

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        try:
            if self._device is not None and self._device.powered_on and not self._the_gate.closed:
                with contextlib.suppress(BleError):  # it is left in any case
                    await settled(self._loop.create_task(self._leave(self._device)), STOP_S)
        finally:
            for task in self._tasks:
                task.cancel()
            if self._connections is not None:
                for peer in self._connections.peers:
                    self._connections.gone(peer, "switched off")
            if self._gate is not None:
                self._gate.close()
            if self._hci is not None:
                await self._hci.close()

    def figures(self) -> Mapping[str, str | int]:
        gate, connections = self._gate, self._connections
        if gate is None or connections is None:
            return {"controller": self._name}
        return {
            "controller": f"{self._name}: {self._says}",
            "connections": connections.sharers,
            "other_adverts": gate.other_adverts,
            "bad_adverts": self._sightings.garbage,
            "bad_packets": gate.bad_packets,
            "sent_away": connections.sent_away,
            "silent_connections": connections.silent,
            "stray_writes": connections.stray,
            "refused_by_controller": self._refused,
        }

    # looking and showing

    async def _apply(self) -> None:
        """Brings the controller to what is wanted; what it refuses is left, counted, until something else is wanted."""
        async with self._lock:
            if self._seeking is None or self._stopped or self._device is None:
                return
            duty, advert = self._seeking
            scan = duty if duty.scan_window_ms and self._connected is None else None
            show = (duty, advert) if duty.advert_interval_ms and not self._the_connections.full else None
            if show != self._advertised:
                await self._command(self._device.stop_advertising())
                self._advertised = show
                if show is not None:
                    await self._command(self._advertise(self._device, duty, advert))
            if scan is not self._scanned:
                if self._scanned is not None:
                    await self._command(self._device.stop_scanning())
                self._scanned = scan
                if scan is not None:
                    await self._command(self._scan(self._device, scan))

    async def _advertise(self, device: Device, duty: Duty, advert: Advert) -> None:
        data, response = advertisement(advert)
        await device.start_advertising(
            advertising_data=data,
            scan_response_data=response,
            advertising_interval_min=duty.advert_interval_ms,
            advertising_interval_max=duty.advert_interval_ms,
        )

    async def _scan(self, device: Device, duty: Duty) -> None:
        await device.start_scanning(scan_interval=duty.scan_interval_ms, scan_window=duty.scan_window_ms)

    async def _command(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except hci.HCI_Error as error:
            self._refused += 1
            logger.debug("Bluetooth refuses a command", extra=fields("ble_refused", radio=self._name, why=error))
        except Exception as error:  # unplugged in the middle: whichever of Bumble's errors that is
            self._lose(f"{type(error).__name__}: {error}")
            raise BleError(f"{self._name}: {error}") from error

    def _on_report(self, report: Any) -> None:
        response = report.event_type == hci.HCI_LE_Advertising_Report_Event.EventType.SCAN_RSP
        address = str(report.address)
        sighting = self._sightings.hear(address, response, report.data, report.rssi)
        if sighting is not None:
            if len(self._addresses) >= ADDRESSES_MAX:
                self._addresses.clear()
            self._addresses[address] = report.address
            self.on_sighting(sighting)

    # connections

    async def _open_connection(self, address: hci.Address) -> Connection:
        assert self._device is not None
        self._connected = self._loop.create_future()
        try:
            await self._apply()  # some controllers cannot scan and connect at once
            command = hci.HCI_LE_Create_Connection_Command(
                le_scan_interval=96,
                le_scan_window=96,
                initiator_filter_policy=0,
                peer_address_type=address.address_type,
                peer_address=address,
                own_address_type=hci.OwnAddressType.RANDOM,
                connection_interval_min=int(INTERVAL_MS[0] / 1.25),
                connection_interval_max=int(INTERVAL_MS[1] / 1.25),
                max_latency=0,
                supervision_timeout=SUPERVISION_MS // 10,
                min_ce_length=0,
                max_ce_length=0,
            )
            try:
                await self._device.send_async_command(command)
            except hci.HCI_Error as error:
                raise BleError(f"the controller does not connect: {error}") from error
            return await self._awaited(self._connected)
        finally:
            self._connected = None
            self._later(self._apply())

    async def _awaited(self, connected: asyncio.Future[Connection]) -> Connection:
        assert self._device is not None
        await asyncio.wait({connected}, timeout=CONNECT_S)
        if not connected.done():
            await self._command(self._device.send_sync_command(hci.HCI_LE_Create_Connection_Cancel_Command()))
            await asyncio.wait({connected}, timeout=COMMAND_S)
        if not connected.done() or connected.cancelled():
            connected.cancel()
            raise BleError("it is not to be reached")
        if error := connected.exception():
            raise BleError(f"not connected: {error}") from error
        return connected.result()

    def _on_connection(self, connection: Connection) -> None:
        if connection.role != hci.Role.CENTRAL:
            self._advertised = None  # a connection ends the advertising that it came by
        peer = self._the_connections.add(connection)
        if not peer.outgoing:
            return
        if self._connected is not None and not self._connected.done():
            self._connected.set_result(connection)
        else:
            self._the_connections.drop(peer)  # it came after all, when nobody waits any more

    def _on_connection_failure(self, error: Exception) -> None:
        if self._connected is not None and not self._connected.done():
            self._connected.set_exception(BleError(str(error)))

    async def _tune(self, connection: Connection) -> None:
        """Longer packets and the faster PHY, where both have them; it goes without as well."""
        assert self._device is not None
        await self._try(connection.set_data_length(OCTETS, OCTETS_US))
        if self._device.host.supports_le_features(hci.LeFeatureMask.LE_2M_PHY):
            await self._try(connection.set_phy([hci.Phy.LE_2M], [hci.Phy.LE_2M]))

    async def _try(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whichever of Bumble's errors: a command that it does not have
            self._refused += 1
            logger.debug("Bluetooth refuses a command", extra=fields("ble_refused", radio=self._name, why=error))

    @property
    def _the_gate(self) -> HciGate:
        assert self._gate is not None
        return self._gate

    @property
    def _the_connections(self) -> Connections:
        assert self._connections is not None
        return self._connections

    # in the background

    async def _measure(self) -> None:
        """Signal strengths; and whether the controller still answers."""
        while True:
            await asyncio.sleep(MEASURE_S)
            assert self._device is not None
            await self._command(self._device.send_sync_command(hci.HCI_Read_BD_ADDR_Command()))
            for peer in self._the_connections.peers:
                if peer.channel is not None:
                    await self._command(self._read_signal(peer.connection, peer.channel))

    async def _read_signal(self, connection: Connection, channel: BumbleChannel) -> None:
        channel.rssi_dbm = await connection.get_rssi()

    async def _leave(self, device: Device) -> None:
        await device.stop_advertising()
        if self._scanned is not None:
            await device.stop_scanning()
        for peer in self._the_connections.peers:
            await peer.connection.disconnect()

    def _lose(self, why: str) -> None:
        if not self._stopped and self._gate is not None:
            self._gate.close()
            self.on_lost(why)
            self.on_lost = lambda why: None

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        if self._stopped:
            work.close()
        else:
            self._keep(work)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("work with a neighbour failed", extra=fields("ble_work_failed", radio=self._name, why=error))
