"""`GET /v1/about`: which node this is and where the mesh reaches it, for those who know only its URL."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node import __version__
from offgrid_node.discovery.gateways import About


class AboutPage:
    """Made anew for each reader: a machine changes networks."""

    def __init__(self, name: str, node_id: str, addresses: Callable[[], tuple[str, ...]]) -> None:
        self._name, self._node_id, self._addresses = name, node_id, addresses

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body; nothing is chosen by the Accept header."""
        return "application/json", About(self._node_id, self._addresses(), self._name, __version__).text()
