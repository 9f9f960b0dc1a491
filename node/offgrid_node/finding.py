"""Makes this node findable and finds others: addresses to advertise, mDNS, static peers, the hosts file.

What is found is a hint: who really lives at an address is proved by the TLS handshake of each call, against the
identity that membership knows. Finding nobody is no error; the node says so and goes on looking.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from offgrid_node import __version__
from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import advertised, ip_addresses, join_address
from offgrid_node.discovery.gateways import About, Gateways
from offgrid_node.discovery.hints import Hint
from offgrid_node.discovery.hosts_file import HostsFile
from offgrid_node.keys import NodeTls, fingerprint_in_leaf, is_twin
from offgrid_node.logs import fields
from offgrid_node.node import Node
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, Unavailable
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.commands import BrokerPreferred
from offgrid_node.protocol.mesh.commands import AddressesChanged, AddressSeen
from offgrid_node.protocol.objects.commands import HostsChosen

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.discovery.mdns import Mdns

LOOK_EVERY_S = 5.0
VAIN_LOOKS_MAX = 12  # where mDNS says that this very node is; a real copy may not answer for a while
PEEK_TIMEOUT_S = 2.0
PEEKS_MAX = 64  # addresses of static peers and the hosts file that are tried each time

_log = logging.getLogger(__name__)


async def listen_again(
    listen: Callable[[str], Awaitable[int]], address: str, before: Sequence[str], advertise: Sequence[str] = ()
) -> int:
    """Has `listen` listen on "host:port" and returns the port.

    Where that is 0, for any, the port by which this node was reached in its last life is tried, `before`: nodes that
    were all down at once know no other of each other. What the config advertises is left out, for it may be the port of
    a router in front. If somebody has the port by now, any other will do.
    """
    host, port = split_address(address, port_min=0)
    last = next((split_address(known)[1] for known in before if known not in advertise), 0)
    if not port and last:
        try:
            return await listen(join_address(host, last))
        except FailedPrecondition as fault:
            _log.info("another port is taken than the last time", extra=fields("port_changed", why=fault.message))
    return await listen(address)


def make_mdns(announcement: Callable[[], Hint], on_found: Callable[[Hint], None]) -> Mdns:
    from offgrid_node.discovery.mdns import Mdns  # with zeroconf, 5 MiB for those who want it

    return Mdns(announcement, on_found)


class Finding:
    """Runs beside the node. Belongs to the loop's thread."""

    def __init__(self, config: Config, node: Node, tls: NodeTls, closed_to_us: Callable[[], int]) -> None:
        """`closed_to_us` says how many members hung up on this node when it last tried them."""
        self._config, self._node, self._tls = config, node, tls
        self._closed_to_us = closed_to_us
        self._twins: Sequence[str] = ()
        self._mesh_port = 0
        self._door_port: int | None = None
        self._hosts_file = HostsFile(config.mesh.hosts_file)
        self._gateways = Gateways("storage.hosts", config.storage.hosts) if config.storage.hosts else None
        self._broker = Gateways("jobs.broker_url", [config.jobs.broker_url]) if config.jobs.broker_url else None
        self._listed_gateways: Gateways | None = None
        self._listed_urls: list[str] = []
        self._mesh_tag = node.directory.genesis.mesh_tag
        self._addresses: tuple[str, ...] = ()
        self._fault = ""
        self._mdns = make_mdns(self._announcement, self._on_found) if config.mesh.mdns else None
        self._task: asyncio.Task[None] | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What an operator should know: a copy of this node, a bad hosts file, or that nobody was found yet."""
        others = [n for n in self._node.directory.live() if n != self._node.node_id]
        alone = not any(self._node.mesh.liveness(node_id) == 1 for node_id in others)
        looking = ("no other member is in reach; still looking",) if alone and not self._node.mesh.removed else ()
        removed = ("no member accepts this node: was it removed?",) if alone and self._closed_to_us() else ()
        asked = [each for each in (self._gateways, self._broker, self._listed_gateways) if each is not None]
        silent = dict.fromkeys(notice for each in asked for notice in each.notices)
        return (
            *map(_of_twin, self._twins),
            *((self._fault,) if self._fault else ()),
            *silent,
            *self._no_broker(),
            *looking,
            *removed,
        )

    def _no_broker(self) -> Sequence[str]:
        """Of whom jobs.broker_url names, where that is none of this mesh."""
        known = self._broker.known if self._broker is not None else ()
        members = self._node.directory
        wrong = [each for each in known if BROKER not in members.roles_in_force(each.node_id)]
        url = self._config.jobs.broker_url
        return [f"jobs.broker_url: {url} is node {each.node_id}, no broker of this mesh" for each in wrong]

    @property
    def heard(self) -> frozenset[str] | None:
        """Members that mDNS tells of now; None where nobody listens."""
        return None if self._mdns is None else frozenset(hint.node_id for hint in self._mdns.hints)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node says that the mesh reaches it."""
        return self._addresses

    async def start(self, mesh_port: int, door_port: int | None) -> None:
        """Returns at once. The ports are those on which this node listens."""
        self._mesh_port, self._door_port = mesh_port, door_port
        self._advertise()
        if self._mdns is not None:
            await self._mdns.start()
        self._task = asyncio.create_task(self._look(), name="finding")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._mdns is not None:
            await self._mdns.close()

    # ---- being found

    def _advertise(self) -> None:
        """Tells the mesh where this node is now; machines change networks while their daemon runs.

        Said each time, since a commit that failed may have taken it away again; the same words change nothing.
        """
        mesh = self._config.mesh
        addresses = advertised(_with_port(mesh.listen, self._mesh_port), mesh.advertise)
        doors = advertised(_with_port(mesh.door, self._door_port)) if self._door_port else ()
        self._node.runtime.deliver("mesh", AddressesChanged(addresses, doors))
        changed, self._addresses = addresses != self._addresses, addresses
        if changed and self._mdns is not None:
            self._mdns.refresh()

    def _announcement(self) -> Hint:
        return Hint(
            node_id=self._node.node_id,
            mesh_tag=self._mesh_tag,
            addresses=ip_addresses(self._addresses),
            mesh_port=self._mesh_port,
            door_port=self._door_port,
            name=self._config.node.name,
            version=__version__,
        )

    # ---- finding

    def _on_found(self, hint: Hint) -> None:
        for address in hint.mesh_addresses:
            self._node.runtime.deliver("mesh", AddressSeen(hint.node_id, address))

    async def _look(self) -> None:
        before, vain = tuple[str, ...](), 0
        while True:
            self._advertise()
            as_us = self._mdns.as_us if self._mdns is not None else ()
            addresses = [a for a in dict.fromkeys([*as_us, *self._listed()]) if a not in self._addresses][:PEEKS_MAX]
            twins, _ = await asyncio.gather(asyncio.gather(*map(self._peek, addresses)), self._ask_gateways())
            found = [address for address, is_one in zip(addresses, twins, strict=True) if is_one]
            self._note_twins(found)
            vain = 0 if set(as_us) & set(found) else vain + 1 if as_us == before else 1
            before = as_us
            if self._mdns is not None and vain >= VAIN_LOOKS_MAX:
                self._mdns.forget(as_us)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _ask_gateways(self) -> None:
        """Nodes that are named by the URL of their gateway are where that says: the only hosts for this node's objects,
        the broker that is asked first, and those of the hosts file."""
        if self._gateways is not None:
            known = await self._ask(self._gateways)
            self._node.runtime.deliver("objects", HostsChosen(frozenset(about.node_id for about in known)))
        if self._broker is not None:
            for about in await self._ask(self._broker):
                self._node.runtime.deliver("jobs", BrokerPreferred(about.node_id))
        if self._listed_gateways is not None:
            await self._ask(self._listed_gateways)

    async def _ask(self, gateways: Gateways) -> Sequence[About]:
        known = await asyncio.to_thread(gateways.ask)
        for about in known:
            for address in about.addresses:
                self._node.runtime.deliver("mesh", AddressSeen(about.node_id, address))
        return known

    def _listed(self) -> Sequence[str]:
        try:
            hosts, urls = self._hosts_file.hosts(), self._hosts_file.urls()
            self._fault = ""
        except InvalidRequest as fault:
            if fault.message != self._fault:
                _log.warning("the hosts file cannot be read", extra=fields("hosts_file_failing", why=fault.message))
            self._fault, hosts, urls = fault.message, [], []
        if urls != self._listed_urls:
            self._listed_urls, self._listed_gateways = urls, Gateways("mesh.hosts_file", urls) if urls else None
        return [*self._config.mesh.peers, *hosts]

    def _note_twins(self, twins: Sequence[str]) -> None:
        for address in twins:
            if address not in self._twins:
                _log.error("another process is this very node", extra=fields("twin_found", address=address))
        self._twins = twins

    async def _peek(self, address: str) -> bool:
        """Asks the TLS port at the address whose leaf it shows; that name is a hint like any other. True where it is
        ours, and another process shows it."""
        host, port = split_address(address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            async with asyncio.timeout(PEEK_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, port, ssl=context)
                leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                writer.close()
        except (OSError, TimeoutError):
            return False
        fingerprint = fingerprint_in_leaf(ssl.DER_cert_to_PEM_cert(leaf).encode()) if leaf else None
        try:
            node_id = self._node.directory.node_of_fingerprint(fingerprint) if fingerprint else None
        except Unavailable:  # it loads its machines anew; there is a next look
            return False
        if node_id == self._node.node_id:
            return leaf is not None and is_twin(leaf, self._tls)
        if node_id is not None:
            self._node.runtime.deliver("mesh", AddressSeen(node_id, address))
        return False


def _of_twin(address: str) -> str:
    return (
        f"another process is this very node, at {address}: was its folder copied? Stop one of them before both "
        "end, and give that machine a node of its own: offgrid-node join TOKEN --dir ANOTHER-FOLDER"
    )


def _with_port(address: str, port: int | None) -> str:
    """The address with the port that is really in use."""
    host, given = split_address(address, port_min=0)
    return join_address(host, port or given)
