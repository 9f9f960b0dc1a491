"""Virtual Bluetooth LE controllers on one piece of air: Bumble's, with what theirs lack.

Bumble's virtual controllers carry everything at once and lose nothing. Here a radio sends one packet at a time, for as
long as the PHY and the data length of the connection take, again while it is lost; a host is told that a packet has
left when it has; connections break, stall, or are out of reach of each other; a scanner hears what falls into its
window; an advertisement has a scan response; a connection attempt can be given up; a reset forgets all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Any

import msgspec
from bumble import hci, ll
from bumble.controller import Connection, Controller, LegacyAdvertiser
from bumble.link import LocalLink

from offgrid_transports.ble.air import OCTETS_MIN, Phy

CONNECTION_TIMEOUT = 0x08
ALREADY_CONNECTED = 0x0B
NOT_ESTABLISHED = 0x3E
GIVEN_UP = 0x02  # unknown connection identifier, as the specification has it for a cancelled attempt
ESTABLISH_S = 0.05
RSSI_DBM = -50
JITTER_S = 0.01  # of advertising, as the specification asks for
OCTETS_US = 2120
PHYS = {Phy.LE_1M: 1, Phy.LE_2M: 2}


class AirSettings(msgspec.Struct, frozen=True):
    """`loss` is of each packet on air; `buffers` is how many packets a controller takes from its host at once."""

    paced: bool = True
    loss: float = 0.0
    phy: Phy = Phy.LE_2M
    octets: int = 251
    buffers: int = 8
    seed: int = 1


class Pairing(msgspec.Struct):
    """How two controllers' connection stands."""

    phy: Phy = Phy.LE_1M
    octets: int = OCTETS_MIN


class Air(LocalLink):  # type: ignore[misc]  # Bumble's types are not needed to check ours
    """Carries packets between controllers."""

    def __init__(self, settings: AirSettings) -> None:
        super().__init__()
        self.settings = settings
        self.rng = Random(settings.seed)  # noqa: S311 - faults that come again by their seed
        self._apart: dict[frozenset[Any], float] = {}
        self._stalled: dict[frozenset[Any], float] = {}
        self._pairings: dict[frozenset[Any], Pairing] = {}

    def pairing(self, one: Any, other: Any) -> Pairing:
        return self._pairings.setdefault(frozenset((one, other)), Pairing())

    def fresh_pairing(self, one: Any, other: Any) -> None:
        self._pairings.pop(frozenset((one, other)), None)

    def silent_until(self, one: Any, other: Any) -> float:
        """The loop's time from which packets get through again."""
        pair = frozenset((one, other))
        return max(self._apart.get(pair, 0.0), self._stalled.get(pair, 0.0))

    def in_reach(self, one: Any, other: Any) -> bool:
        return self._apart.get(frozenset((one, other)), 0.0) <= asyncio.get_running_loop().time()

    def stall(self, one: VirtualController, other: VirtualController, seconds: float) -> None:
        """Nothing gets through for a while, and the connection holds."""
        self._stalled[frozenset((one, other))] = asyncio.get_running_loop().time() + seconds

    def cut(self, one: VirtualController, other: VirtualController, seconds: float) -> None:
        """Out of reach: a connection breaks once it has been silent for its supervision timeout."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self._apart[frozenset((one, other))] = until
        silence = one.supervision_s(other)
        if silence is not None and silence <= seconds:
            loop.call_later(silence, self.drop, one, other)

    def drop(self, one: VirtualController, other: VirtualController, reason: int = CONNECTION_TIMEOUT) -> None:
        """The connection breaks, at both ends at once."""
        one.lose(other, reason)
        other.lose(one, reason)

    def tries(self) -> int:
        """How often a packet is sent until it and its answer have arrived."""
        count = 1
        while self.settings.loss and self.rng.random() < self.settings.loss:
            count += 1
        return count

    def send_advertising_pdu(self, sender_controller: Any, packet: Any) -> None:
        loop = asyncio.get_running_loop()
        for controller in list(self.controllers):
            if controller is sender_controller or not self.in_reach(sender_controller, controller):
                continue
            if isinstance(packet, ll.AdvInd):
                if self.rng.random() >= self.settings.loss:
                    loop.call_soon(controller.hear, sender_controller, packet)
            else:
                loop.call_soon(controller.on_ll_advertising_pdu, packet)

    def send_ll_control_pdu(self, sender_address: Any, receiver_address: Any, packet: Any) -> None:
        receiver = self.find_le_controller(receiver_address)
        if receiver is not None:
            asyncio.get_running_loop().call_soon(receiver.on_ll_control_pdu, sender_address, packet)


class VirtualAdvertiser(LegacyAdvertiser):  # type: ignore[misc]
    """Advertises at the interval that it was told."""

    def _on_timer_fired(self) -> None:
        self.send_advertising_data()
        seconds = self.advertising_interval_min * 0.000625 + self.controller.link.rng.uniform(0, JITTER_S)
        self.timer_handle = asyncio.get_running_loop().call_later(seconds, self._on_timer_fired)


class VirtualController(Controller):  # type: ignore[misc]
    """One radio. `sink.on_packet` takes what goes to its host."""

    def __init__(self, name: str, air: Air, sink: Any, public_address: str) -> None:
        super().__init__(name, host_sink=sink, link=air, public_address=public_address)
        self.le_legacy_advertiser = VirtualAdvertiser(self)
        self.pending_le_connection: Any = None
        self.total_num_le_acl_data_packets = air.settings.buffers
        self.le_acl_data_packet_length = air.settings.octets
        self._air = air
        self._waiting: dict[int, deque[Any]] = {}
        self._free_at = 0.0
        self._sending: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._turn = 0

    # what is on air

    def on_hci_acl_data_packet(self, packet: Any) -> None:
        connection = self.find_le_connection_by_handle(packet.connection_handle)
        if connection is None:
            return
        if not self._air.settings.paced:
            connection.on_hci_acl_data_packet(packet)
            return
        self._waiting.setdefault(connection.handle, deque()).append((asyncio.get_running_loop().time(), packet))
        self._send_on()

    def _send_on(self) -> None:
        """Sends what is due; times follow each other as on air, however late this runs."""
        loop = asyncio.get_running_loop()
        if self._sending is not None:
            return
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        for connection, peer, start in self._turns():
            arrived, packet = self._waiting[connection.handle][0]
            start = max(start, arrived)
            end = start + self._air_s(peer, len(packet.data))
            self._free_at = peer._free_at = end
            self._sending = loop.call_at(end, self._sent, connection, packet)
            return
        silent = [self._air.silent_until(self, peer) for peer in map(self._peer, self._busy()) if peer is not None]
        if silent:
            self._silence = loop.call_at(min(silent), self._send_on)

    def _turns(self) -> Iterator[tuple[Any, VirtualController, float]]:
        """Connections with something to send that get through, in turn."""
        busy = self._busy()
        self._turn += 1
        for number in range(len(busy)):
            connection = busy[(self._turn + number) % len(busy)]
            peer = self._peer(connection)
            now = asyncio.get_running_loop().time()
            if peer is not None and self._air.silent_until(self, peer) <= now:
                yield connection, peer, max(self._free_at, peer._free_at)

    def _busy(self) -> list[Any]:
        return [c for c in self.le_connections.values() if self._waiting.get(c.handle)]

    def _air_s(self, peer: VirtualController, length: int) -> float:
        pairing = self._air.pairing(self, peer)
        whole, rest = divmod(length, pairing.octets)
        sizes = [pairing.octets] * whole + ([rest] if rest else [])
        return sum(pairing.phy.exchange_us(size) * self._air.tries() for size in sizes) / 1e6

    def _sent(self, connection: Any, packet: Any) -> None:
        self._sending = None
        queue = self._waiting.get(connection.handle)
        if queue and queue[0][1] is packet and self.le_connections.get(connection.peer_address) is connection:
            queue.popleft()
            connection.on_hci_acl_data_packet(packet)
        self._send_on()

    def _peer(self, connection: Any) -> VirtualController | None:
        found = self._air.find_le_controller(connection.peer_address)
        return found if isinstance(found, VirtualController) else None

    # connections

    def connection_to(self, other: VirtualController) -> Connection | None:
        return next((c for c in self.le_connections.values() if self._peer(c) is other), None)

    def supervision_s(self, other: VirtualController) -> float | None:
        """How long that connection outlives silence; None without one."""
        for end, peer in ((self, other), (other, self)):
            connection = end.connection_to(peer)
            if connection is not None and hasattr(connection, "supervision_s"):
                return float(connection.supervision_s)
        return None

    def lose(self, other: VirtualController, reason: int) -> None:
        connection = self.connection_to(other)
        if connection is not None:
            self.on_le_disconnected(connection, reason)

    def on_le_disconnected(self, connection: Any, reason: int) -> None:
        self._waiting.pop(connection.handle, None)
        super().on_le_disconnected(connection, reason)

    def hear(self, sender: VirtualController, packet: Any) -> None:
        """An advertisement is on air."""
        if self.le_scan_enable and self._air.rng.random() * self.le_scan_interval < self.le_scan_window:
            types = hci.HCI_LE_Advertising_Report_Event.EventType
            self._report(types.ADV_IND, packet.advertiser_address, packet.data)
            response = sender.le_legacy_advertiser.scan_response_data
            if self.le_scan_type and response:
                self._report(types.SCAN_RSP, packet.advertiser_address, response)
        pending = self.pending_le_connection
        if pending is not None and pending.peer_address == packet.advertiser_address:
            self.create_le_connection(packet.advertiser_address)

    def _report(self, event_type: Any, address: Any, data: bytes) -> None:
        report = hci.HCI_LE_Advertising_Report_Event.Report(
            event_type=event_type, address_type=address.address_type, address=address, data=data, rssi=RSSI_DBM
        )
        self.send_hci_packet(hci.HCI_LE_Advertising_Report_Event([report]))

    def create_le_connection(self, peer_address: Any) -> None:
        if self.le_connections.get(peer_address):
            self._attempt_over(ALREADY_CONNECTED)
            return
        timeout = self.pending_le_connection.supervision_timeout
        super().create_le_connection(peer_address)
        connection = self.le_connections[peer_address]
        connection.supervision_s = timeout / 100
        peer = self._peer(connection)
        if peer is not None:
            self._air.fresh_pairing(self, peer)
        asyncio.get_running_loop().call_later(ESTABLISH_S, self._check_established, connection)

    def _check_established(self, connection: Any) -> None:
        if self.le_connections.get(connection.peer_address) is connection:
            peer = self._peer(connection)
            if peer is None or peer.connection_to(self) is None:
                self.on_le_disconnected(connection, NOT_ESTABLISHED)

    def on_le_connect_ind(self, packet: Any) -> None:
        if packet.initiator_address not in self.le_connections:
            super().on_le_connect_ind(packet)

    def _attempt_over(self, status: int) -> None:
        pending, self.pending_le_connection = self.pending_le_connection, None
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=status,
                connection_handle=0,
                role=hci.Role.CENTRAL,
                peer_address_type=pending.peer_address.address_type,
                peer_address=pending.peer_address,
                connection_interval=0,
                peripheral_latency=0,
                supervision_timeout=0,
                central_clock_accuracy=0,
            )
        )

    # commands that Bumble's controllers lack

    def on_hci_le_create_connection_cancel_command(self, command: Any) -> Any:
        if self.pending_le_connection is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        asyncio.get_running_loop().call_soon(self._attempt_over, GIVEN_UP)
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_hci_read_rssi_command(self, command: Any) -> Any:
        return hci.HCI_Read_RSSI_ReturnParameters(hci.HCI_ErrorCode.SUCCESS, command.handle, RSSI_DBM)

    def on_hci_le_set_data_length_command(self, command: Any) -> Any:
        connection = self.find_le_connection_by_handle(command.connection_handle)
        peer = self._peer(connection) if connection else None
        if peer is not None:
            octets = min(command.tx_octets, self._air.settings.octets)
            self._air.pairing(self, peer).octets = octets
            for end, other in ((self, peer), (peer, self)):
                end._tell_length(other, octets)
        return hci.HCI_StatusAndConnectionHandleReturnParameters(hci.HCI_ErrorCode.SUCCESS, command.connection_handle)

    def _tell_length(self, other: VirtualController, octets: int) -> None:
        connection = self.connection_to(other)
        if connection is not None:
            self.send_hci_packet(
                hci.HCI_LE_Data_Length_Change_Event(connection.handle, octets, OCTETS_US, octets, OCTETS_US)
            )

    def on_hci_le_set_phy_command(self, command: Any) -> None:
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        connection = self.find_le_connection_by_handle(command.connection_handle)
        peer = self._peer(connection) if connection else None
        if peer is not None:
            phy = self._air.settings.phy
            self._air.pairing(self, peer).phy = phy
            for end, other in ((self, peer), (peer, self)):
                end._tell_phy(other, phy)

    def _tell_phy(self, other: VirtualController, phy: Phy) -> None:
        connection = self.connection_to(other)
        if connection is not None:
            code = PHYS[phy]
            self.send_hci_packet(
                hci.HCI_LE_PHY_Update_Complete_Event(hci.HCI_ErrorCode.SUCCESS, connection.handle, code, code)
            )

    def on_hci_reset_command(self, command: Any) -> Any:
        self.go_silent()
        return super().on_hci_reset_command(command)

    def go_silent(self) -> None:
        """Forgets all that goes on; neighbours notice by the silence."""
        self.le_legacy_advertiser.stop()
        self.le_scan_enable = False
        self.pending_le_connection = None
        loop = asyncio.get_running_loop()
        for connection in list(self.le_connections.values()):
            peer = self._peer(connection)
            if peer is not None:
                loop.call_later(self.supervision_s(peer) or 1.0, peer.lose_address, connection.self_address)
        self.le_connections.clear()
        self._waiting.clear()

    def lose_address(self, address: Any) -> None:
        connection = self.le_connections.get(address)
        if connection is not None:
            self.on_le_disconnected(connection, CONNECTION_TIMEOUT)
