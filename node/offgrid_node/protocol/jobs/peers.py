"""Who is alive, as the mesh domain tells it: the brokers, hosts and cores that the parts may count on."""

from __future__ import annotations

from offgrid_node.protocol.events import PeerDown, PeerUp


class Peers:
    """Live members and their roles in force."""

    def __init__(self) -> None:
        self._roles: dict[str, frozenset[int]] = {}

    def on_up(self, event: PeerUp) -> None:
        self._roles[event.node_id] = event.roles

    def on_down(self, event: PeerDown) -> None:
        self._roles.pop(event.node_id, None)

    def is_alive(self, node_id: str) -> bool:
        return node_id in self._roles

    def with_role(self, role: int) -> list[str]:
        """Node ids in a fixed order, so that a replay chooses alike."""
        return sorted(node for node, roles in self._roles.items() if role in roles)
