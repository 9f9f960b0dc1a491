"""The URLs of other nodes' gateways, as answers to clients of the prototype name hosts.

A member says its own in GetStatus. Who says none, or one that only its own machine can reach, is named by its mesh
address: that is an URL too, though grpcurl and not a browser talks to it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.config.addresses import BadAddress, check_url
from offgrid_node.config.http_ports import is_loopback
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mesh.directory import Directory

ASK_MS = 500  # who is slower than that is known by the next answer
KNOWN_MAX = 1_024
AGE_MS_MAX = 60_000
GET_STATUS = "offgrid.v1.MeshService/GetStatus"

Request = Callable[[str, str, Message, int, Callable[[Message | Fault], None]], None]
"""Node, method, request, timeout in milliseconds, and what is told the end."""


class GatewayUrls:
    """Belongs to the loop's thread."""

    def __init__(
        self,
        self_id: str,
        own: Callable[[], str],
        directory: Callable[[], Directory],
        request: Request,
        asks_quickly: Callable[[str], bool],
    ) -> None:
        """`own` says the URL of this node's gateway; `asks_quickly` says of which member a question costs next to
        nothing: no radio is kept busy by this."""
        self._self_id, self._own, self._asks_quickly = self_id, own, asks_quickly
        self._directory, self._request = directory, request
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()  # what it said, and until when that counts

    async def learn(self, nodes: Iterable[str]) -> None:
        """Asks those of them that are members and have not said it lately."""
        loop, members = asyncio.get_running_loop(), self._directory()
        new = {each for each in nodes if each and each != self._self_id and members.is_member(each)}
        new -= {each for each in new if each in self._known and self._known[each][1] > loop.time()}
        await asyncio.gather(*map(self._ask, sorted(filter(self._asks_quickly, new))[:KNOWN_MAX]))

    def url_of(self, node_id: str) -> str:
        """Empty for a node that this one knows no address of."""
        if node_id == self._self_id:
            return self._own()
        said, _ = self._known.get(node_id, ("", 0.0))
        if said and (not is_loopback(urlsplit(said).hostname or "") or self._is_here(node_id)):
            return said
        return next((f"https://{address}" for address in self._directory().addresses(node_id)), "")

    async def _ask(self, node_id: str) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message | Fault] = loop.create_future()

        def done(end: Message | Fault) -> None:
            if not future.done():
                future.set_result(end)

        self._request(node_id, GET_STATUS, mesh_pb2.GetStatusRequest(), ASK_MS, done)
        end = await future
        said = end.gateway if isinstance(end, mesh_pb2.GetStatusResponse) else ""
        self._known[node_id] = said if _is_url(said) else "", loop.time() + AGE_MS_MAX / 1_000
        self._known.move_to_end(node_id)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _is_here(self, node_id: str) -> bool:
        """Whether it is on this machine, by its addresses."""
        here, there = (
            {address.rpartition(":")[0] for address in self._directory().addresses(each)}
            for each in (self._self_id, node_id)
        )
        return bool(here & there)


def _is_url(text: str) -> bool:
    """Another node said it, and people will see it."""
    try:
        check_url(text)
    except BadAddress:
        return False
    return True
