"""links: the node's packet links, and the roads to other members."""

from __future__ import annotations

from offgrid.client.calls import Calls
from offgrid.v1 import links_pb2

PING_TIMEOUT_S = 10.0


class Links:
    """LinkService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def list(self) -> links_pb2.ListLinksResponse:
        """Each packet link, and who has used how much of its time in the last hour."""
        return self._calls.unary("LinkService/ListLinks", links_pb2.ListLinksRequest(), links_pb2.ListLinksResponse)

    def roads(self, node: str = "") -> links_pb2.ListRoadsResponse:
        """Which roads lead to a member (id, the beginning of one, or name), or to each."""
        request = links_pb2.ListRoadsRequest(node=node)
        return self._calls.unary("LinkService/ListRoads", request, links_pb2.ListRoadsResponse)

    def check_peers(self, *, timeout_s: float = 1.0) -> links_pb2.CheckPeersResponse:
        """How this node and each other member see each other, asked of all of them now."""
        request = links_pb2.CheckPeersRequest(timeout_ms=max(1, round(1000 * timeout_s)))
        return self._calls.unary(
            "LinkService/CheckPeers", request, links_pb2.CheckPeersResponse, timeout_s=timeout_s + 2.0
        )

    def ping(self, node: str, *, via: str = "", timeout_s: float = PING_TIMEOUT_S) -> links_pb2.PingPeerResponse:
        """How long a member takes to answer over the road in use, or over one whose `via` begins so. Not repeated: who
        asks how long something takes wants to know of one try."""
        request = links_pb2.PingPeerRequest(node=node, via=via, timeout_ms=max(1, round(1000 * timeout_s)))
        return self._calls.unary(
            "LinkService/PingPeer", request, links_pb2.PingPeerResponse, repeatable=False, timeout_s=timeout_s + 5.0
        )
