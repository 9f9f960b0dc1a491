"""Joining over packet links: a machine without IP knocks there until the inviter tells how to say hello, and asks it.
What gets no answer begins with a knock again.

The links are those that the node will have (`links.open`). Nothing of them outlives the asking but the airtime that was
used, which is noted where the node will look for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import Protocol, runtime_checkable

from google.protobuf.message import Message
from msgspec.structs import replace

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey, open_sealed
from offgrid_node.node_links import link_host, wall_ms
from offgrid_node.protocol.errors import FailedPrecondition, Fault, PeerFault
from offgrid_node.protocol.mesh.joining import is_worth_asking_again
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.services.knocking import open_door
from offgrid_node.services.packet_links import mark_of, secret_of, static_of
from offgrid_node.services.packet_road import PacketRoad
from offgrid_transports.beacons import tag_of
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.knocks import read_door, write_knock
from offgrid_transports.path import Path
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.stamps import Stamps
from offgrid_transports.transport import BROADCAST, Transport, TransportError

INVITER = "inviter"
JOIN = "offgrid.v1.JoinService/Join"
KNOCK_MS, KNOCK_SHARE = 2_000, 40  # apart, and of a link's time one part is for knocks at most
CALL_MS = 10_000  # and what the link needs
LOOK_S = 0.1
GIVE_BACK_S = 0.2  # a serial port is closed, and unlocked, some turns of the loop later
LAST_WORD_S = 3.0  # to say that the answer has come; a modem is left in order once that has gone out


@runtime_checkable
class TakesTime(Protocol):
    """A link whose device is given back in some time after `close`."""

    async def wait_closed(self) -> None: ...


class LinkJoiner:
    """Use it in an `async with` block. Raises FailedPrecondition (BadLink) for a link that is none."""

    def __init__(self, token: InviteToken, key: NodeKey, links: Sequence[str], folder: FilePath) -> None:
        """`folder` is the node's data_dir."""
        self._token, self._key, self._links, self._folder = token, key, links, folder
        self._transports: list[Transport] = []
        self._endpoint: Endpoint | None = None
        self._road: PacketRoad | None = None
        self._found: asyncio.Future[tuple[Path, str, bytes]] = asyncio.get_running_loop().create_future()
        self.last: Fault | None = None
        """How the last try ended."""

    async def __aenter__(self) -> LinkJoiner:
        static = static_of(self._key.exchange_secret())
        public = static.public_key().public_bytes_raw()
        self._static, hello = static, mark_of(self._token.mesh_tag) + tag_of(public)
        self._host = replace(link_host(self._folder), hello=hello)
        registry = TransportRegistry.installed()
        try:
            for text in self._links:
                transport = registry.open(text, self._host)
                self._transports.append(transport)
                transport.on_frame = self._listener(transport)
        except TransportError as error:
            await self._close()
            raise FailedPrecondition(f"links.open: {error}", reason="BadLink") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def links(self) -> str:
        """Their descriptions, and what is the matter with those that have some trouble."""
        troubles = [transport.figures().get("trouble", "") for transport in self._transports]
        pairs = zip(self._links, troubles, strict=True)
        return ", ".join(f"{text} ({trouble})" if trouble else text for text, trouble in pairs)

    async def ask(self, request: mesh_pb2.JoinRequest) -> mesh_pb2.JoinResponse:
        """Knocks until somebody opens, and asks, again and again until the door has said yes or no; for ever if there
        is none. Raises what the door says."""
        while True:
            outcome = await self._ask_once(*await self._find(), request)
            if not isinstance(outcome, Fault):
                await asyncio.sleep(LAST_WORD_S)
                assert isinstance(outcome, mesh_pb2.JoinResponse)
                return outcome
            if not is_worth_asking_again(outcome):
                await asyncio.sleep(LAST_WORD_S)
                raise outcome
            self.last = outcome

    async def _find(self) -> tuple[Path, str, bytes]:
        """Where somebody opens, which mesh it is, and the key there."""
        self._found = asyncio.get_running_loop().create_future()
        knocking = [asyncio.create_task(self._knock(transport)) for transport in self._transports]
        try:
            return await self._found
        finally:
            for task in knocking:
                task.cancel()
            await asyncio.gather(*knocking, return_exceptions=True)

    async def _ask_once(
        self, path: Path, mesh_id: str, public: bytes, request: mesh_pb2.JoinRequest
    ) -> Message | Fault:
        if self._endpoint is None or self._road is None:
            self._endpoint = self._opened(mesh_id)
            self._road = PacketRoad(self._endpoint)
        self._endpoint.introduce(INVITER, public, path)
        answered: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()

        def ended(end: Message | Fault) -> None:
            if not answered.done():  # nobody waits any more when the time is over
                answered.set_result(end)

        self._road.call(INVITER, JOIN, request, CALL_MS, ended)
        return await answered

    def _opened(self, mesh_id: str) -> Endpoint:
        """With all the links, behind whose frames doors are still looked for."""
        host, own = self._host, Own(self._static, secret_of(mesh_id))
        stamps = Stamps(wall_ms, host.keep)
        endpoint = Endpoint(own, lambda public: None, host.now_ms, host.schedule, host.rng, stamps)
        for transport in self._transports:
            endpoint.attach(transport)
            transport.on_frame = self._listener(transport, transport.on_frame)
        return endpoint

    def _listener(
        self, transport: Transport, others: Callable[[str, bytes], None] = lambda address, frame: None
    ) -> Callable[[str, bytes], None]:
        """`others` gets what no door has said."""

        def hear(address: str, frame: bytes) -> None:
            sealed = read_door(self._token.invite_id, frame)
            if sealed is None:
                others(address, frame)
                return
            if self._found.done():
                return
            try:
                mesh_id, public = open_door(self._token.secret, self._token.invite_id, sealed, open_sealed)
            except PeerFault:
                return  # noise; the inviter's own answer may come yet
            self._found.set_result((Path(transport, address), mesh_id, public))

        return hear

    async def _knock(self, transport: Transport) -> None:
        frame = write_knock(self._token.invite_id, self._token.secret)
        while True:
            while not transport.up:  # noqa: ASYNC110 - the endpoint is told of changes, once there is one
                await asyncio.sleep(LOOK_S)
            transport.send(BROADCAST, frame)
            await asyncio.sleep(max(KNOCK_MS, KNOCK_SHARE * transport.airtime_ms(len(frame))) / 1_000)

    async def _close(self) -> None:
        """The node opens the same devices next."""
        if self._endpoint is not None:
            self._endpoint.close()
        for transport in self._transports:
            transport.close()
        for transport in self._transports:
            if isinstance(transport, TakesTime):
                await transport.wait_closed()
        await asyncio.sleep(GIVE_BACK_S)
